"""What the parent sends to the pools, and how it stops; without a server."""

import subprocess
import sys
import threading
import time
from concurrent.futures import Future
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import State
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Running

from flows import chapter, pools
from flows.execution import runners
from flows.execution.engine import Finished
from flows.execution.graph import Node, Request
from flows.execution.outages import outlasting
from flows.execution.runners import Deployed
from flows.options import Options
from tasks.cache.keys import Step
from tasks.failures import Failure
from tasks.place import Place
from tasks.recipes.profiles import PROFILES
from tasks.sources.resolve import resolve_sources
from tests.flows.conftest import wait_until
from tests.tasks.cache.whole import persist_step

MODEL = Node("train/small", "train", "train small", {}, {}, (), 1.0, models=True, subject="small", seed=2)
EXERCISE = Node("exercise/21.7", "exercise", "exercise 21.7", {}, {}, (), 1.0, models=True, subject="21.7")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(pools, "run_on_pool", lambda name, parameters, **_: calls.append((name, dict(parameters))))
    return calls


def call(options: Options, *nodes: Node) -> None:
    request = Request(PROFILES["smoke"], resolve_sources("embedded"), ())
    caller = chapter._caller(options, request, "chapter-of-parent")
    for node in nodes:
        caller([node], threading.Event())


def test_children_are_told_their_chapter(sent: list[tuple[str, dict[str, Any]]]) -> None:
    call(Options(where="pool"), MODEL, EXERCISE)
    assert [name for name, _ in sent] == ["train-model/train-model", "exercise/21-07"]
    for (_, parameters), flow in zip(sent, (chapter.train_model, chapter.exercise), strict=True):
        assert parameters["chapter"] == "chapter-of-parent"
        flow.validate_parameters(parameters)


def test_models_that_one_process_trains(sent: list[tuple[str, dict[str, Any]]]) -> None:
    request = Request(PROFILES["smoke"], resolve_sources("embedded"), ())
    caller = chapter._caller(Options(where="pool"), request, "chapter-of-parent")
    caller([MODEL, replace(MODEL, subject="large", seed=0), replace(MODEL, subject="study", seed=1)], threading.Event())
    [(name, parameters)] = sent
    assert name == "train-model/train-model"
    assert (parameters["recipe"], parameters["seed"], parameters["also"]) == ("small", 2, ["large/0", "study/1"])
    chapter.train_model.validate_parameters(parameters)


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
        for _ in seconds:
            [finished] = runner.wait()
            found[finished.node.name] = finished.result
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


@pytest.mark.parametrize("flow", [chapter.full_chapter, chapter.train_model, chapter.exercise], ids=lambda f: f.name)
def test_flows_take_the_options_by_name_with_the_same_defaults(flow: Any) -> None:
    shared = signature(flow.fn).parameters.keys() & {option.name for option in fields(Options)}
    assert {"profile", "sources", "corpus", "pretrained", "device", "budget"} <= shared
    defaults = {name: signature(flow.fn).parameters[name].default for name in shared}
    options = Options.of(defaults)
    assert options == replace(Options(), where=options.where)
    assert options.where == ("pool" if flow is chapter.full_chapter else "local"), "deployed, it has pools to use"


def test_what_the_command_line_says_reaches_the_flow() -> None:
    options = Options(only=("21.6",), jobs=3, profile="smoke", corpus="a.txt", device="cpu", budget=0.5)
    told = options.told(chapter.parameters_of(chapter.full_chapter))
    assert Options.of(chapter.full_chapter.validate_parameters(told)) == options


def test_paths_are_sent_as_absolute_ones(
    sent: list[tuple[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("text")
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    call(Options(where="pool", corpus="mine.txt", pretrained="./model"), MODEL)
    assert sent[0][1]["corpus"] == str(tmp_path / "mine.txt")
    assert sent[0][1]["pretrained"] == str(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["hf:imdb:test:text", "https://example.org/a.txt", "openai-community/gpt2", "none", None]
)
def test_names_are_sent_as_they_are(sent: list[tuple[str, dict[str, Any]]], name: str | None) -> None:
    call(Options(where="pool", corpus=name, pretrained=name), MODEL)
    assert sent[0][1]["corpus"] == sent[0][1]["pretrained"] == name


@pytest.mark.parametrize(("jobs", "capacity"), [(None, 256), (3, 3), (1_000, 1_000)])
def test_jobs_say_how_many_runs_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int | None, capacity: int
) -> None:
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    found: list[int] = []

    def run_request(request: Any, place: Place, runner: Deployed, *_: Any, **__: Any) -> None:
        found.append(runner.capacity())

    monkeypatch.setattr(chapter, "run_request", run_request)
    chapter.run_options(Options(where="pool", profile="smoke", sources="embedded", only=("21.1",), jobs=jobs))
    assert found == [capacity]


class ManyRuns:
    """A server with runs that end when they are told to, or are deleted; counts what it is asked."""

    def __init__(self, count: int) -> None:
        self.runs = {run.id: run for run in (FlowRun(flow_id=uuid4(), state=Running()) for _ in range(count))}
        self.asked = self.answered = 0
        self.away = 0  # questions that meet nobody

    def __enter__(self) -> "ManyRuns":
        return self

    def __exit__(self, *_: object) -> None: ...

    def read_flow_runs(self, flow_run_filter: Any, limit: int) -> list[FlowRun]:
        self.asked += 1
        if self.away:
            self.away -= 1
            raise httpx.ConnectError("nobody is there")
        wanted, states = flow_run_filter.id.any_, flow_run_filter.state
        assert len(wanted) <= limit <= 200, "as many as a server answers with"
        found = [self.runs[id] for id in wanted if id in self.runs]
        if states:
            found = [run for run in found if run.state and run.state.type in states.type.any_]
        self.answered += len(found)
        return found

    def end(self, ids: Any) -> None:
        for id in ids:
            self.runs[id] = self.runs[id].model_copy(update={"state": Completed()})


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> ManyRuns:
    server = ManyRuns(500)
    monkeypatch.setattr(pools, "LOOK_SECONDS", 0.02)
    monkeypatch.setattr(pools, "get_client", lambda **_: server)
    return server


def test_all_children_are_looked_at_with_one_question(many: ManyRuns) -> None:
    """A hundred that train for an hour are one question a second and not a hundred; who has ended is told at once."""
    children = pools.Children()
    ends = {id: children.end_of(run) for id, run in many.runs.items()}
    looks = many.asked
    wait_until(lambda: many.asked > looks + 9, 60, "it is asked again and again")
    assert not any(end.done() for end in ends.values())
    assert not many.answered, "of those that go on nothing is sent"
    some, others = list(ends)[:300], list(ends)[300:]
    many.end(some)
    assert {ends[id].result(60).id for id in some} == set(some)
    assert not any(ends[id].done() for id in others)
    many.end(others)
    assert all(ends[id].result(60).state.is_completed() for id in others)
    assert many.answered == 500
    wait_until(lambda: not children._looking, 60, "nobody looks any more")
    [(id, run)] = [(id, run) for id, run in many.runs.items()][:1]
    many.runs[id] = run.model_copy(update={"state": Running()})
    end = children.end_of(many.runs[id])
    many.end([id])
    assert end.result(60).id == id, "and somebody looks again"


def test_a_server_that_is_away_is_asked_again(many: ManyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "outlasting", lambda stop: outlasting(stop, sleep=lambda seconds: None))
    many.away = 5
    [first, *_] = many.runs
    end = pools.Children().end_of(many.runs[first])
    wait_until(lambda: many.away == 0, 60, "it is back")
    many.end([first])
    assert end.result(60).id == first


def test_a_child_that_was_deleted_is_an_error(many: ManyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pools, "LOOKS_AT_ALL", 3)
    children = pools.Children()
    [first, second, *_] = list(many.runs.values())
    ends = [children.end_of(run) for run in (first, second)]
    del many.runs[first.id]
    assert isinstance(ends[0].exception(60), ObjectNotFound)
    many.end([second.id])
    assert ends[1].result(60).id == second.id


@pytest.mark.parametrize("error", [SystemExit(1), KeyboardInterrupt(), ValueError("no")])
def test_whatever_ends_a_thread_ends_the_waiting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """Rich raises SystemExit in whoever logs when the worker, which read that, was killed."""

    def ends(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(pools, "run_deployment", ends)
    future = pools.run_on_pool("train-model/train-model", {})
    assert isinstance(future.exception(60), Exception)
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    broken: Future[str] = Future()
    broken.set_exception(error)
    with Deployed(Place(str(tmp_path), str(tmp_path)), lambda nodes, stop: broken) as runner:
        runner.submit(EXERCISE, Step("exercise", "exercise 21.7", {}, {}, {}, 1))
        [finished] = runner.wait()
    assert isinstance(finished.result, Failure)


LOGS = """
import logging, pathlib, sys
from prefect.logging.handlers import PrefectConsoleHandler
from flows.execution.outages import outlive_the_console
logger = logging.getLogger("of a run")
logger.addHandler(PrefectConsoleHandler(stream=sys.stderr))
if sys.argv[1] == "outlives":
    outlive_the_console()
sys.stdin.read()
for line in ("a line", "another"):
    logger.warning(line)
pathlib.Path(sys.argv[2]).touch()
"""


@pytest.mark.parametrize("how", ["outlives", "ends"])
def test_who_logs_for_nobody_goes_on(tmp_path: Path, how: str) -> None:
    there = tmp_path / "it went on"
    command = [sys.executable, "-c", LOGS, how, str(there)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdin is not None
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    process.stderr.close()
    process.stdin.close()
    process.wait(60)
    assert there.exists() == (how == "outlives"), "so it is with Rich alone"


def test_a_server_that_refuses_ends_all_waiting(many: ManyRuns, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: Any, **__: Any) -> list[FlowRun]:
        raise PermissionError("who are you?")

    monkeypatch.setattr(many, "read_flow_runs", refused)
    children = pools.Children()
    ends = [children.end_of(run) for run in list(many.runs.values())[:3]]
    assert all(isinstance(end.exception(60), PermissionError) for end in ends)


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


class Server:
    """A Prefect server on which a run stays in a state until it is cancelled."""

    def __init__(self, state: State[Any], fails: bool = False) -> None:
        self.run = FlowRun(flow_id=uuid4(), name="child", state=state)
        self.cancelled: list[Any] = []
        self.fails = fails

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None: ...

    def read_flow_runs(self, flow_run_filter: Any, limit: int) -> list[FlowRun]:
        assert flow_run_filter.id.any_ == [self.run.id]
        ended = self.run.state is not None and self.run.state.is_final()
        return [self.run] if ended or not flow_run_filter.state else []

    def set_flow_run_state(self, id: Any, state: State[Any]) -> None:
        assert state.type == "CANCELLING"
        self.cancelled.append(id)
        if self.fails:
            raise ConnectionError("the server is gone")


def waiting(server: Server, stop: threading.Event, patch: pytest.MonkeyPatch) -> str:
    patch.setattr(pools, "run_deployment", lambda *_, **__: server.run)
    patch.setattr(pools, "get_client", lambda **_: server)
    return str(pools.wait_for_child("train-model/train-model", {}, stop))


@pytest.mark.parametrize("fails", [False, True])
def test_who_waits_for_a_child_cancels_it_when_asked_to_stop(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    server, stop = Server(Running(), fails), threading.Event()
    threading.Timer(0.2, stop.set).start()
    begun = time.monotonic()
    with pytest.raises(pools.ChildStopped):
        waiting(server, stop, monkeypatch)
    assert server.cancelled == [server.run.id]
    assert time.monotonic() - begun < 0.9, "at once, not at the next look"


def test_no_child_is_started_once_the_parent_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    server, stop = Server(Running()), threading.Event()
    stop.set()
    with pytest.raises(pools.ChildStopped):
        waiting(server, stop, monkeypatch)
    assert not server.cancelled


@pytest.mark.parametrize(
    ("states", "attempts", "error"),
    [
        ([Completed()], 1, None),
        ([Crashed(message="why"), Completed()], 2, None),
        ([Crashed(message="why")] * 3, 3, pools.ChildCrashed),
        ([Failed(message="why"), Completed()], 1, pools.ChildFailed),
    ],
)
def test_a_child_that_crashes_is_started_again(
    monkeypatch: pytest.MonkeyPatch, states: list[State[Any]], attempts: int, error: type[Exception] | None
) -> None:
    keys: list[str] = []

    def begin(name: str, *, idempotency_key: str, **_: Any) -> FlowRun:
        keys.append(idempotency_key)
        return FlowRun(flow_id=uuid4(), name="child", state=states[len(keys) - 1])

    monkeypatch.setattr(pools, "run_deployment", begin)
    monkeypatch.setattr(pools, "get_client", lambda **_: Server(Running()))
    future = pools.run_on_pool("train-model/train-model", {"recipe": "small"}, retry_delay_seconds=0.0)
    assert type(future.exception(60)) is (error or type(None))
    assert len(set(keys)) == len(keys) == attempts, "each attempt is another run"


@pytest.mark.parametrize(
    ("state", "error"),
    [(Completed(), None), (Failed(message="why"), pools.ChildFailed), (Crashed(message="why"), pools.ChildCrashed)],
)
def test_the_end_of_a_child(monkeypatch: pytest.MonkeyPatch, state: State[Any], error: type[Exception] | None) -> None:
    server = Server(state)
    if error is None:
        assert waiting(server, threading.Event(), monkeypatch) == str(server.run.id)
    else:
        with pytest.raises(error, match="why"):
            waiting(server, threading.Event(), monkeypatch)
