"""What is said to Prefect while a run goes on, to a client that notes it: how much, how often, and what if it fails."""

import logging
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import pytest

from flows.execution import on_prefect
from flows.execution.graph import Node
from flows.execution.on_prefect import PrefectListener
from tasks.cache.keys import Step
from tasks.cache.progress import ProgressFile
from tasks.place import Place
from tests.flows.conftest import wait_until

MODEL = Node("train/small", "train", "train small, seed 0", {}, {}, (), 1.0, models=True, subject="small")
EXERCISE = Node("exercise/21.7", "exercise", "exercise 21.7", {}, {}, (), 1.0, subject="21.7")
STEP = Step("train", "train small, seed 0", {}, {}, {}, 1)
RECORD: dict[str, Any] = {"data": {"seconds": 1.0}}


class Server:
    """A client that notes artifacts, or fails."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, float]] = []
        self.artifacts: dict[UUID, dict[str, Any]] = {}
        self.tags: list[str] = []

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None: ...

    def _call(self, name: str) -> None:
        self.calls.append((name, time.monotonic()))
        if self.error:
            raise self.error

    def create_artifact(self, artifact: Any) -> Any:
        self._call("create")
        id = uuid4()
        self.artifacts[id] = artifact.model_dump()
        return SimpleNamespace(id=id)

    def update_artifact(self, id: UUID, artifact: Any) -> None:
        self._call("update")
        self.artifacts[id] |= artifact.model_dump(exclude_unset=True)

    def update_flow_run(self, id: UUID, tags: list[str]) -> None:
        self._call("tags")
        self.tags = tags


@pytest.fixture
def in_flow(monkeypatch: pytest.MonkeyPatch) -> UUID:
    """The id of a flow run that seems to be going on."""
    id = uuid4()
    run = SimpleNamespace(get_id=lambda: str(id), get_tags=lambda: ["mine"])
    monkeypatch.setattr(on_prefect, "flow_run", run)
    return id


def listener(server: Server, folder: Path, every: float = 0.02, **options: Any) -> PrefectListener:
    return PrefectListener(Place(str(folder), str(folder)), every=every, client=lambda: server, **options)


def bar(server: Server) -> dict[str, Any]:
    [artifact] = list(server.artifacts.values())
    return artifact


def test_a_training_at_work_has_a_bar_that_moves_and_ends(in_flow: UUID, tmp_path: Path) -> None:
    server, task_run = Server(), uuid4()
    task_runs: dict[str, UUID] = {}
    shown = listener(server, tmp_path, task_runs=task_runs)
    shown.started(MODEL, STEP, "never run")
    task_runs[MODEL.name] = task_run  # known once the step has been handed to a process
    progress = ProgressFile(tmp_path / "progress" / "run", STEP.key, STEP.name)
    for fraction in (0.25, 0.5):
        progress._write(fraction, f"loss {fraction}")
        wait_until(
            lambda done=100 * fraction: server.artifacts and bar(server)["data"] == done,
            10,
            "the bar shows how far it is",
        )
        assert bar(server)["description"] == f"train small, seed 0: loss {fraction}"
    assert (bar(server)["type"], bar(server)["key"]) == ("progress", "training")
    assert (bar(server)["flow_run_id"], bar(server)["task_run_id"]) == (in_flow, task_run)
    progress.close()
    shown.finished(MODEL, STEP, RECORD)
    shown.close()
    assert bar(server)["data"] == 100
    assert bar(server)["description"] == "train small, seed 0: done in 1.0 s"


def test_a_failed_training_leaves_its_bar_where_it_was(in_flow: UUID, tmp_path: Path) -> None:
    server = Server()
    shown = listener(server, tmp_path)
    shown.started(MODEL, STEP, "never run")
    ProgressFile(tmp_path / "progress" / "run", STEP.key, STEP.name)._write(0.4, "")
    wait_until(lambda: server.artifacts, 10, "a bar")
    shown.failed(MODEL, "ValueError: no\nmore")
    shown.close()
    assert bar(server)["data"] == 40
    assert bar(server)["description"] == "train small, seed 0: failed: ValueError: no"


def test_a_thousand_short_steps_leave_nothing(in_flow: UUID, tmp_path: Path) -> None:
    server = Server()
    shown = listener(server, tmp_path, every=60)
    for node in (MODEL, EXERCISE) * 500:
        shown.started(node, STEP, "")
        progress = ProgressFile(tmp_path / "progress" / "run", STEP.key, STEP.name)
        progress.close()
        shown.finished(node, STEP, RECORD)
    shown.close()
    assert not server.calls


def test_a_bar_is_moved_at_a_bounded_rate(in_flow: UUID, tmp_path: Path) -> None:
    server = Server()
    shown = listener(server, tmp_path, every=0.1)
    begun = time.monotonic()
    shown.started(MODEL, STEP, "")
    progress = ProgressFile(tmp_path / "progress" / "run", STEP.key, STEP.name)
    for step in range(200):
        progress._write(step / 200, "")
        time.sleep(0.002)
    seconds = time.monotonic() - begun
    assert 1 <= len(server.calls) <= seconds / 0.1 + 1
    shown.close()


def test_exercises_have_no_bars(in_flow: UUID, tmp_path: Path) -> None:
    server, other = Server(), Step("exercise", "exercise 21.7", {}, {}, {}, 1)
    shown = listener(server, tmp_path)
    shown.started(EXERCISE, other, "")
    shown.started(MODEL, STEP, "")
    for step in (other, STEP):
        ProgressFile(tmp_path / "progress" / "run", step.key, step.name)._write(0.4, "")
    wait_until(lambda: len(server.calls) > 2, 10, "several looks at both")
    shown.close()
    assert bar(server)["description"].startswith("train small")


def test_a_server_that_fails_is_said_once_and_costs_nothing(
    in_flow: UUID, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(ConnectionError("gone"))
    shown = listener(server, tmp_path)
    shown.tag(["profile:smoke"])
    shown.started(MODEL, STEP, "")
    shown.finished(MODEL, STEP, RECORD)
    shown.leave(lambda: [SimpleNamespace(model_copy=lambda update: 1 / 0)])  # type: ignore[list-item]
    shown.close()
    assert len(server.calls) == 1, "after a failure it rests"
    assert [r.getMessage() for r in caplog.records if "page" in r.getMessage()] == [
        "Prefect's page does not show all of this run: ConnectionError: gone"
    ]


def test_a_mistake_in_an_artifact_costs_no_run(in_flow: UUID, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Any:
        raise KeyError("seconds")

    shown = listener(Server(), tmp_path)
    shown.leave(broken)
    shown.close()
    assert "KeyError" in caplog.text


def test_a_server_that_hangs_holds_nobody_up(in_flow: UUID, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_prefect, "CLOSE_SECONDS", 0.2)
    server, answer = Server(), threading.Event()
    monkeypatch.setattr(server, "update_flow_run", lambda *_, **__: answer.wait(60))
    shown = listener(server, tmp_path)
    shown.tag(["profile:smoke"])
    begun = time.monotonic()
    shown.close()
    assert time.monotonic() - begun < 5
    answer.set()


def test_tags_are_added_to_those_that_the_run_has(in_flow: UUID, tmp_path: Path) -> None:
    server = Server()
    shown = listener(server, tmp_path)
    shown.tag(["profile:smoke", "mine"])
    shown.close()
    assert server.tags == ["mine", "profile:smoke"]


def test_outside_of_a_flow_nothing_is_said(tmp_path: Path) -> None:
    server = Server()
    shown = listener(server, tmp_path)
    shown.tag(["profile:smoke"])
    shown.leave(lambda: [])
    shown.started(MODEL, STEP, "")
    shown.close()
    assert not server.calls


def test_a_level_that_was_lowered_is_put_back(tmp_path: Path) -> None:
    of_runs = logging.getLogger("prefect.flow_runs")
    before = of_runs.level, of_runs.propagate
    shown = listener(Server(), tmp_path, to_console=False)
    assert (of_runs.level, of_runs.propagate) == (logging.INFO, False)
    shown.close()
    assert (of_runs.level, of_runs.propagate) == before
