"""The engine, with a runner that runs nothing: order, hits, failures, crashes and lost blobs."""

import json
import pickle
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect.states import Failed

from flows.execution import runners
from flows.execution.engine import CRASH_ATTEMPTS, Finished, Outcome, Record, critical_path, execute
from flows.execution.graph import Node
from flows.execution.plan import plan, stored
from flows.execution.runners import _failure
from tasks.cache.keys import Step
from tasks.cache.store import Artifact, MissingArtifact, Store
from tasks.failures import Failure, NoRoom, StepFailed, kind_of
from tasks.place import Place
from tasks.steps import WORK, Job, run_step
from tests.benchmarks.growth import chapter_graph
from tests.tasks.cache.test_schema import NOTES
from tests.tasks.cache.whole import kept, persist_step


def node(name: str, *needs: str, seconds: float = 1.0, alone: bool = False, inputs: object = None) -> Node:
    return Node(
        name, "train", f"train {name}", {need: need for need in needs}, {"of": inputs or name}, (), seconds, alone=alone
    )


def graph_of(*nodes: Node) -> dict[str, Node]:
    return {node.name: node for node in nodes}


class FakeRunner:
    """Takes ``slots`` steps and ends the oldest when asked to wait; ``act`` decides how."""

    def __init__(self, store: Store, slots: int = 2, act: Callable[[str], Failure | None] = lambda _: None) -> None:
        self.store, self.slots, self.act = store, slots, act
        self.running: list[tuple[Node, Step]] = []
        self.order: list[str] = []
        self.together: list[set[str]] = []

    def capacity(self) -> int:
        return self.slots - len(self.running)

    def submit(self, node: Node, step: Step) -> None:
        self.running.append((node, step))
        self.order.append(self.called(node))
        self.together.append({self.called(other) for other, _ in self.running})

    def called(self, node: Node) -> str:
        return node.name

    def wait(self) -> list[Finished]:
        node, step = self.running.pop(0)
        special = self.act(node.name)
        if special is not None:
            return [Finished(node, special)]
        persist_step(self.store, step, node.name.encode())
        record = self.store.record(step.key)
        assert record is not None
        return [Finished(node, record)]


class Preparing(FakeRunner):
    """One that can do the untimed part of a step ahead; ``act`` knows that as ``NAME, ahead``."""

    def __init__(self, store: Store, slots: int = 2, act: Callable[[str], Failure | None] = lambda _: None) -> None:
        super().__init__(store, slots, act)
        self.ahead: set[str] = set()

    def prepare(self, node: Node, step: Step) -> None:
        self.ahead.add(node.name)
        self.submit(node, step)

    def called(self, node: Node) -> str:
        return f"{node.name}, ahead" if node.name in self.ahead else node.name

    def wait(self) -> list[Finished]:
        node, _ = self.running[0]
        if node.name not in self.ahead:
            return super().wait()
        self.running.pop(0)
        self.ahead.discard(node.name)
        return [Finished(node, self.act(f"{node.name}, ahead") or {"seconds": 2.0})]


class Silent:
    def __init__(self) -> None:
        self.whys: dict[str, str] = {}

    def cached(self, node: Node, step: Step, record: Record) -> None: ...
    def finished(self, node: Node, step: Step, record: Record) -> None: ...
    def failed(self, node: Node, error: str) -> None: ...
    def prepared(self, node: Node, seconds: float) -> None: ...
    def unprepared(self, node: Node, error: str) -> None:
        self.whys[node.name] = error

    def started(self, node: Node, step: Step, why: str) -> None:
        self.whys[node.name] = why


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def run(graph: Mapping[str, Node], store: Store, runner: FakeRunner) -> Outcome:
    return execute(graph, store, runner, Silent())


def lose(store: Store, content: bytes) -> None:
    """Delete the blob with this content."""
    for blob in (Path(store.url) / "blobs").rglob("*/*"):
        if blob.read_bytes() == content:
            blob.unlink()


DIAMOND = graph_of(node("text"), node("left", "text"), node("right", "text", seconds=9.0), node("end", "left", "right"))


def test_nothing_runs_before_what_it_needs_and_everything_once(store: Store) -> None:
    runner = FakeRunner(store)
    outcome = run(DIAMOND, store, runner)
    assert runner.order == ["text", "right", "left", "end"]  # the longest way first
    assert set(outcome.records) == set(DIAMOND)
    assert not outcome.errors


def test_a_second_run_does_nothing(store: Store) -> None:
    run(DIAMOND, store, FakeRunner(store))
    runner = FakeRunner(store)
    outcome = run(DIAMOND, store, runner)
    assert runner.order == []
    assert outcome.ran == []
    assert set(outcome.records) == set(DIAMOND)


def test_a_second_run_starts_no_process(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(DIAMOND, store, FakeRunner(store))
    monkeypatch.setattr(runners, "save_storage", lambda place: None)  # asks Prefect's server
    monkeypatch.setattr(runners, "ProcessPoolTaskRunner", lambda **_: pytest.fail("a process was started"))
    with runners.LocalPool(Place(store.url, str(tmp_path)), 2) as pool:
        outcome = execute(DIAMOND, store, pool, Silent())
    assert set(outcome.records) == set(DIAMOND)


def test_what_a_run_has_verified_is_not_read_again_for_the_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = run(DIAMOND, store, FakeRunner(store))
    read: list[str] = []
    fetch = store.fetch
    monkeypatch.setattr(store, "fetch", lambda artifact: read.append(artifact.sha256) or fetch(artifact))
    assert stored(DIAMOND, store, outcome.records) == stored(DIAMOND, store)
    assert len(read) == 2 * len(DIAMOND), "two files each, by the second look only, which was given no records"


def test_a_deleted_blob_is_made_again_and_nothing_else(store: Store) -> None:
    run(DIAMOND, store, FakeRunner(store))
    lose(store, b"left")
    runner = FakeRunner(store)
    run(DIAMOND, store, runner)
    assert runner.order == ["left"]


def test_a_record_that_says_too_little_is_made_again_and_nothing_else(store: Store) -> None:
    run(DIAMOND, store, FakeRunner(store))
    for key in store.record_keys():
        record = store.record(key)
        assert record is not None
        if store.fetch_bytes(Artifact(**record["artifacts"]["model"])) == b"left":
            del record["data"]["evaluations"]
            kept(store, record)
    assert [item.node.name for item in plan(DIAMOND, store)[0] if item.state == "miss"] == ["left"]
    runner = FakeRunner(store)
    outcome = run(DIAMOND, store, runner)
    assert runner.order == ["left"]
    assert "evaluations" in outcome.records["left"]["data"]


def test_a_failure_costs_only_what_needs_it(store: Store) -> None:
    runner = FakeRunner(store, act=lambda name: Failure("boom") if name == "left" else None)
    outcome = run(DIAMOND, store, runner)
    assert outcome.errors["left"] == "boom"
    assert "train left failed" in outcome.errors["end"]
    assert set(outcome.records) == {"text", "right"}


def test_a_crashed_step_is_taken_up_again(store: Store) -> None:
    crashes = iter([True, True])
    runner = FakeRunner(
        store,
        act=lambda name: Failure("killed", "crashed") if name == "left" and next(crashes, False) else None,
    )
    outcome = run(DIAMOND, store, runner)
    assert not outcome.errors
    assert runner.order.count("left") == 3
    assert {name: runner.order.count(name) for name in ("text", "right", "end")} == {"text": 1, "right": 1, "end": 1}


def test_a_step_that_always_crashes_is_given_up(store: Store) -> None:
    runner = FakeRunner(store, act=lambda name: Failure("killed", "crashed"))
    outcome = run(DIAMOND, store, runner)
    assert runner.order == ["text"] * CRASH_ATTEMPTS
    assert set(outcome.errors) == set(DIAMOND)


def test_measuring_steps_run_alone(store: Store) -> None:
    graph = graph_of(node("a"), node("b"), node("timed", alone=True, seconds=99.0), node("timed2", alone=True))
    runner = FakeRunner(store, slots=4)
    run(graph, store, runner)
    assert all(len(names) == 1 for names in runner.together if names & {"timed", "timed2"})
    assert {"a", "b"} in runner.together


def ahead_of_time() -> dict[str, Node]:
    """A step that measures time, most of which can be done beside two others."""
    timed = replace(node("timed", "a", alone=True), ahead=99.0)
    return graph_of(node("a"), node("b", seconds=50.0), node("c", seconds=40.0), timed)


def test_what_needs_no_quiet_machine_is_done_ahead_beside_others(store: Store) -> None:
    runner = Preparing(store)
    outcome = run(ahead_of_time(), store, runner)
    assert set(outcome.records) == {"a", "b", "c", "timed"}
    assert runner.order == ["a", "b", "timed, ahead", "c", "timed"], "the longest way first, what is timed last"
    assert {"b", "timed, ahead"} in runner.together
    assert all(names == {"timed"} for names in runner.together if "timed" in names)
    assert outcome.ran.count("timed") == 1
    again = Preparing(store)
    run(ahead_of_time(), store, again)
    assert again.order == []


def test_alone_with_itself_a_timed_step_is_done_in_one(store: Store) -> None:
    runner = Preparing(store)
    run(graph_of(node("a"), replace(node("timed", "a", alone=True), ahead=99.0)), store, runner)
    assert runner.order == ["a", "timed"]


def test_a_runner_that_cannot_do_it_ahead_does_it_with_the_rest(store: Store) -> None:
    runner = FakeRunner(store)
    outcome = run(ahead_of_time(), store, runner)
    assert runner.order == ["a", "b", "c", "timed"]
    assert set(outcome.records) == {"a", "b", "c", "timed"}


@pytest.mark.parametrize("kind", ["failed", "crashed"])
def test_what_fails_ahead_is_told_of_and_done_with_the_rest(store: Store, kind: Any) -> None:
    runner = Preparing(store, act=lambda name: Failure("killed", kind) if name == "timed, ahead" else None)
    listener = Silent()
    outcome = execute(ahead_of_time(), store, runner, listener)
    assert set(outcome.records) == {"a", "b", "c", "timed"}
    assert not outcome.errors
    assert runner.order.count("timed, ahead") == runner.order.count("timed") == 1
    assert listener.whys["timed, ahead"] == "killed"


def test_a_blob_whose_loss_is_found_ahead_is_made_again_at_once(store: Store) -> None:
    run(graph_of(node("a")), store, FakeRunner(store))
    lost = iter([True])

    def act(name: str) -> Failure | None:
        if name == "timed, ahead" and next(lost, False):
            lose(store, b"a")
            return Failure("gone", "lost artifact")
        return None

    runner = Preparing(store, act=act)
    outcome = run(ahead_of_time(), store, runner)
    assert set(outcome.records) == {"a", "b", "c", "timed"}
    assert runner.order.index("a") < runner.order.index("c"), "beside others, and not when they are done"
    assert runner.order.count("timed, ahead") == 2
    assert runner.order[-1] == "timed"


def test_what_another_run_has_measured_meanwhile_is_a_hit(store: Store) -> None:
    def act(name: str) -> Failure | None:
        if name == "timed, ahead":
            run(ahead_of_time(), store, FakeRunner(store))
        return None

    runner = Preparing(store, act=act)
    outcome = run(ahead_of_time(), store, runner)
    assert set(outcome.records) == {"a", "b", "c", "timed"}
    assert "timed" not in runner.order


def test_in_one_process_nothing_is_done_ahead(store: Store) -> None:
    runner = Preparing(store, slots=1)
    run(ahead_of_time(), store, runner)
    assert runner.order == ["a", "b", "c", "timed"]


def test_a_full_disk_ends_the_run_ahead_too(store: Store) -> None:
    runner = Preparing(store, act=lambda name: Failure("full", "no room") if name == "timed, ahead" else None)
    with pytest.raises(NoRoom, match="full"):
        run(ahead_of_time(), store, runner)


def test_the_same_timed_work_under_two_names_is_done_ahead_once(store: Store) -> None:
    first, second = (replace(node(name, alone=True, inputs="same"), ahead=9.0) for name in ("x", "y"))
    runner = Preparing(store)
    outcome = run(graph_of(first, second), store, runner)
    assert [name.endswith(", ahead") for name in runner.order] == [True, False]
    assert set(outcome.records) == {"x", "y"}


def test_the_same_work_under_two_names_is_done_once(store: Store) -> None:
    graph = graph_of(node("a", inputs="same"), node("b", inputs="same"))
    runner = FakeRunner(store)
    outcome = run(graph, store, runner)
    assert len(runner.order) == 1
    assert set(outcome.records) == {"a", "b"}


def test_a_blob_lost_after_it_was_looked_up_is_made_again(store: Store) -> None:
    run(graph_of(DIAMOND["text"]), store, FakeRunner(store))
    lost = iter([True])

    def act(name: str) -> Failure | None:
        if name == "left" and next(lost, False):
            lose(store, b"text")
            return Failure("a blob is not in the store", "lost artifact")
        return None

    runner = FakeRunner(store, slots=1, act=act)
    outcome = run(DIAMOND, store, runner)
    assert not outcome.errors
    assert runner.order.count("text") == 1
    assert runner.order.count("left") == 2


def test_what_a_message_says_changes_nothing(store: Store) -> None:
    runner = FakeRunner(store, act=lambda name: Failure("no MissingArtifact, nor crashed") if name == "left" else None)
    outcome = run(DIAMOND, store, runner)
    assert runner.order.count("left") == 1
    assert set(outcome.errors) == {"left", "end"}


def test_a_blob_that_is_lost_again_and_again_is_given_up(store: Store) -> None:
    runner = FakeRunner(store, act=lambda name: Failure("gone", "lost artifact") if name == "left" else None)
    outcome = run(DIAMOND, store, runner)
    assert runner.order.count("left") == CRASH_ATTEMPTS
    assert outcome.errors["left"] == "gone"


@pytest.mark.parametrize("error", [MissingArtifact("blob 1a2b is not in the store"), ValueError("MissingArtifact")])
def test_the_kind_of_a_failure_travels_between_processes(error: Exception) -> None:
    sent = StepFailed(f"{type(error).__name__}: {error}", kind_of(error))
    state = Failed(data=pickle.loads(pickle.dumps(sent)))
    kind = "lost artifact" if isinstance(error, MissingArtifact) else "failed"
    assert _failure(state) == Failure(str(sent), kind)


def test_a_step_says_what_kind_of_failure_it_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(job: Job) -> Record:
        raise MissingArtifact("blob 1a2b is not in the store")

    monkeypatch.setitem(WORK, "train", work)  # type: ignore[arg-type]
    with pytest.raises(StepFailed, match="MissingArtifact") as caught:
        run_step.fn(Step("train", "train small", {}, {}, {}, 1), {}, Place(str(tmp_path), str(tmp_path)))
    assert caught.value.kind == "lost artifact"


@st.composite
def chapters(draw: st.DrawFn) -> tuple[dict[str, Node], dict[str, list[str]]]:
    """A graph in which each node needs some before it, and what becomes of the first attempts at each."""
    names = [f"n{i}" for i in range(draw(st.integers(1, 14)))]
    nodes = []
    for i, name in enumerate(names):
        needs = draw(st.sets(st.sampled_from(names[:i]), max_size=3)) if i else set()
        twin = draw(st.sampled_from([name, name, "same"]))
        each = node(name, *sorted(needs), alone=draw(st.booleans()), inputs=twin)
        nodes.append(replace(each, ahead=draw(st.sampled_from([0.0, 1.0]))) if each.alone else each)
    kinds = st.sampled_from(["", "", "", "failed", "crashed", "lost artifact"])
    return graph_of(*nodes), {name: draw(st.lists(kinds, max_size=4)) for name in names}


@settings(max_examples=60, deadline=None, derandomize=True)
@given(chapters(), st.integers(1, 4), st.sampled_from([FakeRunner, Preparing]))
def test_any_graph_ends_with_a_record_or_a_cause_for_each_node(
    chapter: tuple[dict[str, Node], dict[str, list[str]]], slots: int, kind_of_runner: type[FakeRunner]
) -> None:
    graph, fates = chapter
    begun: dict[str, int] = {}

    def act(name: str) -> Failure | None:
        if name.endswith(", ahead"):  # fares as the first attempt at the rest will
            return Failure("ahead", kind) if (kind := next(iter(fates[name.removesuffix(", ahead")]), "")) else None  # type: ignore[arg-type]
        begun[name] = begun.get(name, 0) + 1
        kind = next(iter(fates[name][begun[name] - 1 :]), "")
        return Failure(f"attempt {begun[name]}", kind) if kind else None  # type: ignore[arg-type]

    with tempfile.TemporaryDirectory() as folder:
        runner = kind_of_runner(Store(folder), slots, act)
        outcome = run(graph, runner.store, runner)
    assert set(outcome.records) | set(outcome.errors) == set(graph)
    assert not set(outcome.records) & set(outcome.errors)
    assert not runner.running
    for name, each in graph.items():
        needs = list(each.needs.values())
        assert name not in outcome.records or all(need in outcome.records for need in needs)
        if name in outcome.errors and not begun.get(name):
            assert any(need in outcome.errors for need in needs)
        assert begun.get(name, 0) <= CRASH_ATTEMPTS
    assert all(len(names) == 1 for names in runner.together if any(graph[n].alone for n in names & graph.keys()))


class Counted(dict[str, Node]):
    """A graph that counts how often a node is looked at."""

    looks = 0

    def __getitem__(self, name: str) -> Node:
        self.looks += 1
        return super().__getitem__(name)


@pytest.mark.parametrize("slots", [2, 50])
def test_a_node_costs_no_more_in_a_large_graph(slots: int, tmp_path: Path) -> None:
    looks = []
    for count in (25, 100):
        graph = Counted(chapter_graph(count))
        execute(graph, (store := Store(str(tmp_path / str(count)))), FakeRunner(store, slots), Silent())
        looks.append(graph.looks / len(graph))
    assert looks[1] < 1.5 * looks[0]


def test_critical_path_is_the_longest_sum() -> None:
    rank = critical_path(DIAMOND)
    assert rank == {"end": 1.0, "left": 2.0, "right": 10.0, "text": 11.0}


def test_a_full_disk_ends_the_run_and_what_is_done_stays(store: Store) -> None:
    def full(name: str) -> Failure | None:
        return Failure("OSError: [Errno 28] No space left on device", "no room") if name == "right" else None

    runner = FakeRunner(store, slots=1, act=full)
    with pytest.raises(NoRoom, match="No space left"):
        run(DIAMOND, store, runner)
    assert runner.order == ["text", "right"], "nothing else is tried"
    again = FakeRunner(store)
    assert set(run(DIAMOND, store, again).records) == set(DIAMOND)
    assert again.order == ["right", "left", "end"]


@pytest.mark.parametrize("entry", NOTES)
def test_a_plan_is_made_without_what_is_no_note(store: Store, entry: object) -> None:
    """Who can write to a shared store must not be able to end a run, or a look at what it would do."""
    graph = graph_of(node("one", seconds=5.0))
    store.write("latest/train-one.json", json.dumps(entry).encode())
    [planned], _ = plan(graph, store)
    assert (planned.state, planned.why, planned.seconds) == ("miss", "never run", 5.0)
    assert run(graph, store, FakeRunner(store)).ran == ["one"]
