"""A Prefect server that was away costs nothing but waiting: for children, for living runs, for dead ones."""

import queue
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Crashed, Pending, Running, Scheduled

from flows.execution import runners
from flows.execution import sweep as sweeping
from flows.execution.outages import OUTAGE_SECONDS, outlasting
from flows.execution.sweep import SPARE, Sweeper, swept_meanwhile
from flows.recovery import CHILD_QUEUE, PAUSE, RESTARTS, SILENCE
from tasks.place import Place
from tests.flows.conftest import wait_until

pytestmark = pytest.mark.timeout(600)


class Away:
    """A server that does not answer until it was slept for long enough."""

    def __init__(self, seconds: float, error: Exception) -> None:
        self.seconds, self.error, self.slept = seconds, error, 0.0

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def ask(self, what: str) -> str:
        if self.slept < self.seconds:
            raise self.error
        return what


REQUEST = httpx.Request("GET", "http://127.0.0.1:1/api")


def status(code: int) -> Exception:
    return httpx.HTTPStatusError("status", request=REQUEST, response=httpx.Response(code, request=REQUEST))


@pytest.mark.parametrize(
    "error", [httpx.ConnectError("refused"), httpx.ReadTimeout("late"), *map(status, (408, 429, 500, 503))]
)
@pytest.mark.parametrize("seconds", [30, 90, 600])
def test_a_parent_waits_for_a_server_that_is_away(seconds: float, error: Exception) -> None:
    away = Away(seconds, error)
    assert outlasting(threading.Event(), away.sleep)(away.ask, "here") == "here"
    assert seconds <= away.slept <= seconds + 15


def test_but_not_for_ever_nor_when_it_stops_nor_for_a_no() -> None:
    away = Away(10 * OUTAGE_SECONDS, httpx.ConnectError("refused"))
    with pytest.raises(httpx.ConnectError):
        outlasting(threading.Event(), away.sleep)(away.ask, "here")
    assert OUTAGE_SECONDS <= away.slept <= OUTAGE_SECONDS + 15
    stop = threading.Event()
    stop.set()
    with pytest.raises(httpx.ConnectError):
        outlasting(stop)(Away(60, httpx.ConnectError("refused")).ask, "here")
    refuses = Away(60, status(404))
    with pytest.raises(httpx.HTTPStatusError):
        outlasting(threading.Event(), refuses.sleep)(refuses.ask, "here")
    assert refuses.slept == 0


def test_a_run_of_a_worker_that_begins_when_it_goes_waits_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    away = Away(600, httpx.ConnectError("refused"))
    monkeypatch.setattr(runners, "save_storage", lambda place: away.ask(f"a block for {place.store}"))
    monkeypatch.setattr(runners, "outlasting", lambda stop: outlasting(stop, away.sleep))
    storage: Any = runners.Inline(Place(str(tmp_path), str(tmp_path))).storage
    assert storage == f"a block for {tmp_path}"
    assert away.slept >= 600


# --- With a server -------------------------------------------------------------------------------------------------


@pytest.fixture
def client(api: str) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def deployment(client: SyncPrefectClient) -> uuid.UUID:
    flow = client.create_flow_from_name("train-model")
    return client.create_deployment(
        flow_id=flow, name=f"outages-{uuid.uuid4().hex}", work_pool_name="gpu", paused=False
    )


def begun(client: SyncPrefectClient, deployment: uuid.UUID, queue: str | None = None) -> uuid.UUID:
    """A run that a worker has begun; far enough in the future that no worker takes it."""
    run = client.create_flow_run_from_deployment(deployment, work_queue_name=queue)
    for state in (Pending(), Running()):
        client.set_flow_run_state(run.id, state)
    return run.id


def signs(client: SyncPrefectClient, run: uuid.UUID) -> int:
    return sweeping._signs_of_life(client, [client.read_flow_run(run)]).get(run, 0)


def heartbeat(client: SyncPrefectClient, run: uuid.UUID, when: datetime) -> None:
    """One that the run sends when its host's clock says so."""
    before = signs(client, run)
    event = {
        "occurred": when.isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "id": str(uuid.uuid4()),
    }
    client.request("POST", "/events", json=[event])
    wait_until(lambda: signs(client, run) > before, 60, "it is on file")


def state(client: SyncPrefectClient, run: uuid.UUID) -> StateType:
    found = client.read_flow_run(run).state
    assert found is not None
    return found.type


def kept(runs: list[Any]) -> set[uuid.UUID]:
    return {run.id for run in runs}


class Watch:
    """A sweeper's clock."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now

    def wait(self, time: timedelta) -> None:
        self.now += time.total_seconds()


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.parametrize("ahead", [timedelta(0), timedelta(minutes=5), timedelta(minutes=-5)])
def test_a_dead_run_is_found_and_a_living_one_is_not(
    client: SyncPrefectClient, deployment: uuid.UUID, ahead: timedelta
) -> None:
    """Also on a host with another date."""
    dead, living = begun(client, deployment), begun(client, deployment)
    wait_until(lambda: signs(client, dead) == signs(client, living) == 2, 60, "both are pending, then running")
    watch = Watch()
    sweeper = Sweeper(watch)
    assert kept(sweeper.sweep(client)[0]) & {dead, living} == set(), "they are seen for the first time"
    for _ in range(3):
        heartbeat(client, living, datetime.now(UTC) + ahead)
        watch.wait((SILENCE + SPARE) / 4)
        assert kept(sweeper.sweep(client)[0]) & {dead, living} == set(), "not for long enough"
    heartbeat(client, living, datetime.now(UTC) + ahead)
    watch.wait((SILENCE + SPARE) / 4)
    assert kept(sweeper.sweep(client)[0]) & {dead, living} == {dead}
    assert (state(client, dead), state(client, living)) == (StateType.CRASHED, StateType.RUNNING)
    watch.wait(SILENCE + SPARE)
    assert living in kept(sweeper.sweep(client)[0]), "it has died, too"


@pytest.mark.slow
@pytest.mark.prefect
def test_while_the_server_was_away_nobody_could_be_heard(client: SyncPrefectClient, deployment: uuid.UUID) -> None:
    living = begun(client, deployment)
    wait_until(lambda: signs(client, living) == 2, 60, "it is pending, then running")
    watch = Watch()
    sweeper = Sweeper(watch)
    sweeper.sweep(client)
    watch.wait(10 * SILENCE)
    sweeper.forget()
    assert living not in kept(sweeper.sweep(client)[0])
    client.set_flow_run_state(living, Completed())


@pytest.mark.slow
@pytest.mark.prefect
def test_what_crashed_unheard_is_scheduled_again(
    client: SyncPrefectClient, deployment: uuid.UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = {name: begun(client, deployment, queue) for name, queue in (("lost", None), ("child", CHILD_QUEUE))}
    runs["often"] = begun(client, deployment)
    for _ in range(RESTARTS):
        for again in (Crashed(), Scheduled(), Pending(), Running()):
            client.set_flow_run_state(runs["often"], again)
    for run in runs.values():
        client.set_flow_run_state(run, Crashed(message="told while the automations were away"))
    watch = Watch()
    sweeper = Sweeper(watch)
    assert not kept(sweeper.sweep(client)[1]) & set(runs.values())
    watch.wait(PAUSE)
    assert not kept(sweeper.sweep(client)[1]) & set(runs.values()), "the automation has its time first"
    watch.wait(SPARE)
    with monkeypatch.context() as patch:
        patch.setattr(sweeping, "FORGOTTEN", timedelta(0))
        assert not kept(sweeper.sweep(client)[1]) & set(runs.values()), "nobody wants them any more"
    assert kept(sweeper.sweep(client)[1]) & set(runs.values()) == {runs["lost"]}
    assert state(client, runs["lost"]) == StateType.SCHEDULED
    client.set_flow_run_state(runs["lost"], Completed())


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.parametrize(
    "since", [[Crashed()], [Crashed(), Scheduled(name="AwaitingRetry")]], ids=["marked", "offered"]
)
def test_a_living_run_that_was_marked_as_crashed_ends_well(
    client: SyncPrefectClient, deployment: uuid.UUID, since: list[Any]
) -> None:
    """As its own process does that has trained all the time, and says so at its end."""
    run = begun(client, deployment)
    for each in since:
        client.set_flow_run_state(run, each)
    client.set_flow_run_state(run, Completed())
    assert state(client, run) == StateType.COMPLETED


def test_a_sweep_waits_is_repeated_and_ends_with_its_context(monkeypatch: pytest.MonkeyPatch) -> None:
    swept: queue.Queue[None] = queue.Queue()
    before = set(threading.enumerate())
    monkeypatch.setattr(sweeping, "get_client", lambda **_: pytest.fail("too early"))
    with swept_meanwhile(timedelta(hours=1)):
        pass

    class Client:
        def __enter__(self) -> "Client":
            swept.put(None)
            raise OSError("and a server that is away costs nothing")

        def __exit__(self, *_: object) -> None: ...

    monkeypatch.setattr(sweeping, "get_client", lambda **_: Client())
    with swept_meanwhile(timedelta(seconds=0.01)):
        for _ in range(3):
            swept.get(timeout=30)
    ours = set(threading.enumerate()) - before  # servers of other tests may be swept, too
    for thread in [thread for thread in ours if thread.name == "sweep"]:
        thread.join(30)
        assert not thread.is_alive()


@pytest.mark.slow
@pytest.mark.prefect
def test_a_run_whose_worker_died_before_it_began_is_found(client: SyncPrefectClient, deployment: uuid.UUID) -> None:
    """Prefect's workers say "Submitting", of which no event tells that anybody waits for."""
    run = client.create_flow_run_from_deployment(deployment, work_queue_name=CHILD_QUEUE).id
    client.set_flow_run_state(run, Pending())
    client.set_flow_run_state(run, Pending(name="Submitting"))
    wait_until(lambda: signs(client, run) > 0, 60, "its only sign of life is on file")
    watch = Watch()
    sweeper = Sweeper(watch)
    assert run not in kept(sweeper.sweep(client)[0]), "it has just been taken"
    watch.wait(SILENCE + SPARE)
    assert run in kept(sweeper.sweep(client)[0])
    assert state(client, run) == StateType.CRASHED


def test_of_two_who_sweep_one_acts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that another one has scheduled, and that a worker has taken, must not be scheduled once more."""
    crashed = SimpleNamespace(timestamp=datetime.now(UTC), id=uuid.uuid4())
    run = SimpleNamespace(
        id=uuid.uuid4(), state=crashed, deployment_id=uuid.uuid4(), work_queue_name="default", run_count=1
    )
    meanwhile = SimpleNamespace(id=run.id, state=SimpleNamespace(id=uuid.uuid4()))
    asked: list[uuid.UUID] = []
    client: Any = SimpleNamespace(
        read_flow_run=lambda id: asked.append(id) or meanwhile,
        set_flow_run_state=lambda *_: pytest.fail("it is in another state by now"),
    )
    monkeypatch.setattr(sweeping, "_ours", lambda *_: [run])
    monkeypatch.setattr(sweeping, "_signs_of_life", lambda *_: {})
    watch = Watch()
    sweeper = Sweeper(watch)
    assert sweeper.sweep(client) == ([], [])
    watch.wait(2 * SILENCE)
    assert sweeper.sweep(client) == ([], [])
    assert len(asked) == 2, "once as one at work, once as one that crashed"
