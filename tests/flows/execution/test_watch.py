"""What MLflow's listener tells about steps: failures, the flow run, and the machine that did the work."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.execution.graph import Node, Request
from flows.execution.watch import TrackingListener
from flows.machine import hardware
from tasks.cache.keys import Step
from tasks.cache.store import Store
from tasks.recipes.profiles import PROFILES

TOKENS = {"key": "k-tokens", "artifacts": {"tokens": {"sha256": "ab" * 32}}}
STEP = Step("train", "train small", {"recipe": {"corpus": "main", "tokenizer": "char"}}, {"tokens": TOKENS}, {}, 1)
RECORD: dict[str, Any] = {"key": STEP.key, "data": {"recipe": {}, "seconds": 1.0}, "artifacts": {}}
MODEL = Node("train/small", "train", "train small", {}, {}, (), 1.0, models=True, subject="small")


class Told:
    """A tracker that notes what it is told."""

    def __init__(self) -> None:
        self.tags: list[dict[str, str]] = []
        self.parents: list[str | None] = []
        self.failures: dict[str, str] = {}

    def run_of(self, key: str) -> None: ...

    def log_training(
        self, parent: Any, key: str, recipe: Any, record: Any, files: Any, tags: dict[str, str], data: Any
    ) -> None:
        self.parents.append(parent)
        self.tags.append(tags)
        self.data = data

    def fail(self, title: str, error: str) -> None:
        self.failures[title] = error


@pytest.fixture
def told() -> Told:
    return Told()


def listener(told: Any, folder: Path, *, here: bool = True) -> TrackingListener:
    sources: Any = SimpleNamespace(summary=lambda: {"main corpus": "King James Bible: verses. Licence: none."})
    request = Request(PROFILES["smoke"], sources, ())
    return TrackingListener(told, "chapter-1", Store(str(folder)), request, "flow-run-1", here=here)


def test_what_ran_here_carries_the_flow_run_and_the_machine(told: Told, tmp_path: Path) -> None:
    tracking = listener(told, tmp_path)
    tracking.finished(MODEL, STEP, RECORD)
    tracking.close()
    [tags] = told.tags
    assert told.parents == ["chapter-1"]
    assert tags["prefect_flow_run"] == "flow-run-1"
    assert (told.data["name"], told.data["digest"]) == ("King James Bible, char tokens", "ab" * 32)
    facts = {name.removeprefix("hardware."): value for name, value in tags.items() if name.startswith("hardware.")}
    assert facts == {name: str(value) for name, value in hardware("cpu").items()}


@pytest.mark.parametrize("cached", [True, False])
def test_what_ran_elsewhere_is_not_said_to_have_run_here(told: Told, tmp_path: Path, cached: bool) -> None:
    tracking = listener(told, tmp_path, here=cached)
    (tracking.cached if cached else tracking.finished)(MODEL, STEP, RECORD)
    tracking.close()
    [tags] = told.tags
    assert not [name for name in tags if name.startswith(("hardware.", "prefect_flow_run"))]


def test_a_failure_is_told(told: Told, tmp_path: Path) -> None:
    tracking = listener(told, tmp_path)
    tracking.failed(MODEL, "ValueError: no")
    tracking.close()
    assert told.failures == {"train small": "ValueError: no"}
