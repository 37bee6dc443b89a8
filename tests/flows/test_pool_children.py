"""How the parent waits for a child: its end, a crash, a server that is away, Ctrl-C; without a server."""

import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect import State
from prefect.client.schemas.objects import FlowRun
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed, Crashed, Failed, Running

from flows import pools
from flows.execution import runners
from flows.execution.graph import Node
from flows.execution.outages import outlasting
from flows.execution.runners import Deployed
from tasks.cache.keys import Step
from tasks.failures import Failure
from tasks.place import Place
from tests.flows.conftest import wait_until

MODEL = Node("train/small", "train", "train small", {}, {}, (), 1.0, models=True, subject="small", seed=2)
EXERCISE = Node("exercise/21.7", "exercise", "exercise 21.7", {}, {}, (), 1.0, models=True, subject="21.7")


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


@pytest.mark.parametrize("seconds", [0.0, 3_600.0])
def test_one_odd_answer_fails_nobody(many: ManyRuns, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """A 403 or 404 of a proxy that has its minute: the children go on, so they are asked for again, for minutes."""
    monkeypatch.setattr(pools, "REFUSED_SECONDS", seconds)
    asked, odd = many.read_flow_runs, [2]

    def refused(*args: Any, **options: Any) -> list[FlowRun]:
        if odd[0]:
            odd[0] -= 1
            request = httpx.Request("POST", "http://server/api/flow_runs/filter")
            raise httpx.HTTPStatusError("403", request=request, response=httpx.Response(403, request=request))
        return asked(*args, **options)

    monkeypatch.setattr(many, "read_flow_runs", refused)
    [run, *_] = many.runs.values()
    end = pools.Children().end_of(run)
    if seconds:
        wait_until(lambda: not odd[0], 60, "it answers again")
        many.end([run.id])
        assert end.result(60).id == run.id
    else:
        assert isinstance(end.exception(60), httpx.HTTPStatusError)


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
    monkeypatch.setattr(pools, "LOOK_SECONDS", 3600)  # at once, not at the next look
    monkeypatch.setattr(pools, "WAITED_FOR", pools.Children())
    server, stop = Server(Running(), fails), threading.Event()
    threading.Timer(0.2, stop.set).start()
    with pytest.raises(pools.ChildStopped):
        waiting(server, stop, monkeypatch)
    assert server.cancelled == [server.run.id]


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
