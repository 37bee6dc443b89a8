"""How a chapter hands its steps to the pools, and what it makes of their ends; without a server."""

import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows import pools
from flows.execution import runners
from flows.execution.engine import Finished
from flows.execution.graph import Node
from flows.execution.runners import Deployed, LocalPool
from tasks.cache.keys import Step
from tasks.failures import Failure
from tasks.place import Place
from tests.tasks.cache.whole import persist_step

MODEL = Node("train/small", "train", "train small", {}, {}, (), 1.0, models=True, subject="small", seed=2)
EXERCISE = Node("exercise/21.7", "exercise", "exercise 21.7", {}, {}, (), 1.0, models=True, subject="21.7")


@pytest.mark.parametrize(
    ("seconds", "groups"),
    [
        ([], []),
        ([1.0], [1]),
        ([19.0, 1.0, 1.0], [2, 1]),
        ([5.0] * 9, [4, 4, 1]),
        ([0.0] * 3, [3]),
        ([19.9] * 4, [2, 2]),
    ],
)
def test_short_trainings_go_together(seconds: list[float], groups: list[int]) -> None:
    steps: list[Any] = [(replace(MODEL, name=str(i), seconds=long), None) for i, long in enumerate(seconds)]
    found = list(runners.together(steps))
    assert [len(group) for group in found] == groups
    assert [step for group in found for step in group] == steps


class Pool:
    """Stands for the pools: says what it was given, and makes some of it."""

    def __init__(self, place: Place, error: Exception | None = None, makes: int = 1_000) -> None:
        self.store, self.error, self.makes = place.open_store(), error, makes
        self.given: list[list[str]] = []
        self.steps: dict[str, Step] = {}

    def call(self, nodes: Any, stop: threading.Event) -> Any:
        self.given.append([node.name for node in nodes])
        for node in nodes[: self.makes]:
            persist_step(self.store, self.steps[node.name], node.name.encode())
        future: Future[str] = Future()
        future.set_exception(self.error) if self.error else future.set_result("run")
        return future


def ended(place: Place, pool: Pool, seconds: list[float]) -> dict[str, Any]:
    """What becomes of trainings that take so long."""
    found = {}
    with Deployed(place, pool.call) as runner:
        for index, long in enumerate(seconds):
            node = replace(MODEL, name=f"train/small/{index}", seed=index, seconds=long)
            pool.steps[node.name] = Step("train", node.name, {"seed": index}, {}, {}, 1)
            runner.submit(node, pool.steps[node.name])
        while len(found) < len(seconds):
            found |= {finished.node.name: finished.result for finished in runner.wait()}
        assert runner.capacity() == runners.CHILDREN
    return found


def test_each_of_several_is_told_its_own_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of five trainings that a process was to do it did two, and said what failed."""
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    place = Place(str(tmp_path / "store"), str(tmp_path))
    pool = Pool(place, pools.ChildFailed("train small, seed 2: a loss of NaN"), makes=2)
    found = ended(place, pool, [1.0] * 5)
    assert pool.given == [[f"train/small/{index}" for index in range(5)]]
    records = [name for name, result in found.items() if not isinstance(result, Failure)]
    assert sorted(records) == ["train/small/0", "train/small/1"]
    assert all("a loss of NaN" in found[f"train/small/{index}"].text for index in (2, 3, 4))


def test_short_trainings_go_together_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a run end at once, so that as many begin again: not one by one, as places would become free."""
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    place = Place(str(tmp_path / "store"), str(tmp_path))
    pool = Pool(place)
    waiting = [replace(MODEL, name=f"train/small/{index}", seed=index) for index in range(40)]
    pool.steps = {node.name: Step("train", node.name, {"seed": node.seed}, {}, {}, 1) for node in waiting}
    done = 0
    with Deployed(place, pool.call, limit=8) as runner:
        while done < 40:
            while waiting and runner.capacity() > 0:
                node = waiting.pop(0)
                runner.submit(node, pool.steps[node.name])
            done += len(runner.wait())
    assert [len(group) for group in pool.given] == [8] * 5


def test_a_long_training_has_a_process_for_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    place = Place(str(tmp_path / "store"), str(tmp_path))
    pool = Pool(place)
    found = ended(place, pool, [1.0, 600.0, 1.0])
    assert sorted(pool.given) == [["train/small/0", "train/small/2"], ["train/small/1"]]
    assert not any(isinstance(result, Failure) for result in found.values())


def test_what_the_parent_does_itself_holds_up_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools are given their steps while it does it; what others need comes before an exercise."""
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    order: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    class Here:
        def __init__(self, *_: Any) -> None: ...

        def submit(self, node: Node, step: Step) -> None:
            order.append(node.name)
            begun.set()
            go_on.wait(60)
            self.node = node

        def wait(self) -> list[Finished]:
            return [Finished(self.node, {})]

    monkeypatch.setattr(runners, "Inline", Here)
    place = Place(str(tmp_path / "store"), str(tmp_path))
    pool = Pool(place)
    step = Step("exercise", "a step", {}, {}, {}, 1)
    with Deployed(place, pool.call) as runner:
        runner.submit(replace(EXERCISE, name="first", models=False), step)
        begun.wait(60)
        runner.submit(replace(EXERCISE, name="exercise", models=False), step)
        runner.submit(replace(EXERCISE, name="tokens", kind="tokens", models=False), step)
        pool.steps[EXERCISE.name] = step
        runner.submit(EXERCISE, step)
        assert pool.given == [[EXERCISE.name]]
        assert order == ["first"]
        go_on.set()
        found = {finished.node.name for _ in range(4) for finished in runner.wait()}
    assert order == ["first", "tokens", "exercise"]
    assert found == {"first", "tokens", "exercise", EXERCISE.name}


def test_an_interrupted_parent_asks_its_children_to_stop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    asked: list[threading.Event] = []
    ends: list[float] = []

    def begin(nodes: Any, stop: threading.Event) -> Any:
        asked.append(stop)
        child: Future[str] = Future()

        def cancelled() -> None:
            stop.wait()
            time.sleep(0.5)
            ends.append(time.monotonic())
            child.set_exception(pools.ChildStopped("cancelled"))

        threading.Thread(target=cancelled).start()
        return child

    def interrupted() -> None:
        with Deployed(Place(str(tmp_path), str(tmp_path)), begin) as runner:
            runner.submit(EXERCISE, Step("exercise", "exercise 21.7", {}, {}, {}, 1))
            assert not asked[0].is_set()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert asked[0].is_set()
    assert ends, "whoever ends with this process has been told"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    return Place(str(tmp_path / "store"), str(tmp_path))


def hears(wait: Any) -> list[Any]:
    """What a runner says, if anything."""
    heard: queue.Queue[Any] = queue.Queue()
    threading.Thread(target=lambda: heard.put(wait()), daemon=True).start()
    try:
        return list(heard.get(timeout=60))
    except queue.Empty:
        pytest.fail("whoever waits for this step waits for ever")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_step_of_the_parent_that_ends_its_thread(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich ends whoever logs to a pipe that nobody reads by SystemExit; a panic in Rust is no Exception either."""

    class Here:
        def __init__(self, *_: Any) -> None: ...

        def submit(self, node: Node, step: Step) -> None:
            raise SystemExit(1)

    monkeypatch.setattr(runners, "Inline", Here)
    node = Node("tokens", "tokens", "tokens main, bpe-2k", {}, {}, (), 1.0)
    with Deployed(place, lambda *_: Future()) as runner:
        runner.submit(node, node.step({}))
        [finished] = hears(runner.wait)
    assert isinstance(finished.result, Failure)


def test_a_process_of_the_pool_that_ends_by_itself(place: Place) -> None:
    """``concurrent.futures`` hands a SystemExit of the step over, and the thread that waits ends without a word."""
    node = Node("tokens", "tokens", "tokens main, bpe-2k", {}, {}, (), 1.0)
    ended: Future[Any] = Future()
    ended.set_exception(SystemExit(1))
    pool = LocalPool(place, 1)
    pool._free.clear()
    future: Any = SimpleNamespace(wait=ended.result)
    ended = (0, node, future, lambda state: Finished(node, {}))
    threading.Thread(target=pool._watch, args=ended, daemon=True).start()
    [finished] = hears(pool.wait)
    assert isinstance(finished.result, Failure)
