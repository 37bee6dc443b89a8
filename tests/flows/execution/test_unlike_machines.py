"""Exercises that measure time, done by workers with other hardware than their parent's, so under other keys."""

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.execution import runners
from flows.execution.graph import Node
from flows.execution.plan import plan, stored
from flows.execution.runners import Deployed
from tasks.failures import Failure
from tasks.place import Place
from tests.tasks.cache.whole import persist_step

TIMED = Node("exercise/21.16", "exercise", "exercise 21.16", {}, {}, (), 60.0, alone=True, models=True, subject="21.16")
HERE, THERE = {"cpu": "parent's", "cores": 2, "gpu": "none"}, {"cpu": "worker's", "cores": 16, "gpu": "H100"}


def timed(profile: str, hardware: dict[str, Any]) -> Node:
    return replace(TIMED, inputs={"profile": profile, "hardware": hardware, "environment": {"device": "cuda"}})


def chapter(place: Place, profile: str) -> Any:
    """What a parent hears of a timed exercise that a worker with other hardware does, or finds in the store."""
    mine, theirs = timed(profile, HERE).step({}), timed(profile, THERE).step({})

    def call(nodes: Sequence[Node], stop: threading.Event) -> Future[str]:
        store = place.open_store()
        if store.record(theirs.key, kind="exercise") is None:  # as tasks.steps.run_step does, which a hit does not run
            persist_step(store, theirs, profile.encode())
            note = {"key": theirs.key, "ingredients": theirs.ingredients(), "seconds": 1.0}
            store.remember(theirs.name, note)
            store.remember(theirs.name_elsewhere, note)
        future: Future[str] = Future()
        future.set_result("completed")
        return future

    with Deployed(place, call) as runner:
        runner.submit(timed(profile, HERE), mine)
        [finished] = runner.wait()
    return finished.result


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    return Place(str(tmp_path / "store"), str(tmp_path))


def test_a_profile_is_run_again_after_another_one(place: Place) -> None:
    """The worker finds its record, and the parent looks into a note that another profile's run has written over."""
    assert not isinstance(chapter(place, "smoke"), Failure)
    assert not isinstance(chapter(place, "smoke"), Failure)
    assert not isinstance(chapter(place, "laptop"), Failure)
    assert not isinstance(again := chapter(place, "smoke"), Failure), again.text


def test_what_another_machine_has_measured_is_in_the_report(place: Place) -> None:
    """``publish`` takes what the run has verified only if it is under the key that this machine would give it."""
    record = chapter(place, "smoke")
    assert not isinstance(record, Failure)
    graph = {TIMED.name: timed("smoke", HERE)}
    assert stored(graph, place.open_store(), {TIMED.name: record}) == {TIMED.name: record}


def test_a_page_has_what_was_measured_elsewhere_and_a_run_measures_here(place: Place) -> None:
    record = chapter(place, "smoke")
    assert not isinstance(record, Failure)
    graph = {TIMED.name: timed("smoke", HERE)}
    assert stored(graph, place.open_store()) == {TIMED.name: record}
    assert stored({TIMED.name: timed("laptop", HERE)}, place.open_store()) == {}
    assert [step.state for step in plan(graph, place.open_store())[0]] == ["miss"]
