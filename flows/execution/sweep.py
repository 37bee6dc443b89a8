"""Runs that the server's automations have missed: looked for again and again while a server or a chapter is there.

Automations (``flows/recovery.py``) act on what happens while the server is up. A run whose process died while it was
away shows as ``Running`` for ever; one whose crash was told, but whose restart fell into the outage, stays ``Crashed``.
And an event is lost to them where it cannot be counted, because the server's SQLite database is locked. So whoever
starts looks for both, again and again.

No clocks are compared, for hosts of a pool have their own, and heartbeats are stamped by theirs: a run is silent of
which the server has heard nothing new between two looks that are far enough apart.

A living run that was marked as crashed, since its heartbeats could not arrive, is no harm: it goes on, holds the leases
of its steps in the store, and ends as ``Completed``; if another process has taken it up meanwhile, that one waits for
the lease and finds the result.
"""

import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventResourceFilter
from prefect.states import Crashed, Scheduled

from flows.recovery import CHILD_QUEUE, FLOWS, PAUSE, RESTARTS, SIGNS_OF_LIFE, SILENCE

logger = logging.getLogger(__name__)

LOOK = timedelta(seconds=30)  # between two looks
SPARE = timedelta(seconds=15)  # heartbeats come late, and the server needs a moment to put them on file
FORGOTTEN = timedelta(days=1)  # nobody wants what crashed earlier than that
ANY_TIME = timedelta(days=30)  # for the server an event has happened when its sender's clock says so
AT_WORK = [StateType.RUNNING, StateType.PENDING]

Sign = tuple[UUID | None, int]  # a run's state, and how many signs of life the server has of it


@contextmanager
def swept_meanwhile(delay: timedelta = LOOK) -> Iterator[None]:
    """Sweep each time that ``delay`` has passed, until the context ends."""
    over = threading.Event()

    def work() -> None:
        sweeper = Sweeper()
        while not over.wait(delay.total_seconds()):
            try:
                with get_client(sync_client=True) as client:
                    sweeper.sweep(client)
            except Exception as error:  # a sweep must never cost a run
                sweeper.forget()
                logger.debug("runs that were left behind were not looked for: %s", error)

    # The settings that name the server are in this thread's context.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


class Sweeper:
    """Looks for runs that were left behind, and remembers since when it has seen nothing new of each."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: dict[UUID, tuple[Sign, float]] = {}

    def forget(self) -> None:
        """Begin anew: while the server was away, living runs could not be heard either."""
        self._seen.clear()

    def sweep(self, client: SyncPrefectClient) -> tuple[list[FlowRun], list[FlowRun]]:
        """Mark what is silent as crashed, schedule again what has crashed unheard; returns the runs of each kind."""
        looked = self._clock()
        at_work, crashed = _ours(client, AT_WORK), _ours(client, [StateType.CRASHED])
        heard = _signs_of_life(client, at_work)
        seen: dict[UUID, tuple[Sign, float]] = {}
        for run in [*at_work, *crashed]:
            sign = (run.state.id if run.state else None, heard.get(run.id, 0))
            before = self._seen.get(run.id)
            seen[run.id] = before if before and before[0] == sign else (sign, looked)
        self._seen = seen

        def unchanged(run: FlowRun) -> timedelta:
            return timedelta(seconds=looked - seen[run.id][1])

        silent, lost = [], []
        for run in at_work:
            if unchanged(run) >= SILENCE + SPARE and _stands(client, run):
                message = f"No heartbeat for {SILENCE.total_seconds():.0f} s: it died, and no automation has noticed."
                client.set_flow_run_state(run.id, Crashed(message=message))
                silent.append(run)
        for run in crashed:
            if unchanged(run) >= PAUSE + SPARE and _is_wanted(run) and _stands(client, run):
                client.set_flow_run_state(
                    run.id, Scheduled(name="AwaitingRetry", message="Started again after a crash.")
                )
                lost.append(run)
        return silent, lost


def _stands(client: SyncPrefectClient, run: FlowRun) -> bool:
    """Whether a run is still in the state in which it was found; others sweep, too."""
    now = client.read_flow_run(run.id).state
    return now is not None and run.state is not None and now.id == run.state.id


def _ours(client: SyncPrefectClient, states: list[StateType]) -> list[FlowRun]:
    return client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=list(FLOWS))),
        flow_run_filter=FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=states))),
        limit=200,
    )


def _signs_of_life(client: SyncPrefectClient, runs: Sequence[FlowRun]) -> dict[UUID, int]:
    """How many signs of life the server has of each run that has given any: one question for all."""
    if not runs:
        return {}
    now, resource = datetime.now(UTC), "prefect.flow-run."
    wanted = EventFilter(
        occurred=EventOccurredFilter.model_validate({"since": now - ANY_TIME, "until": now + ANY_TIME}),
        event=EventNameFilter(name=sorted(SIGNS_OF_LIFE)),
        resource=EventResourceFilter(id=[f"{resource}{run.id}" for run in runs]),
    )
    answer = client.request(
        "POST",
        "/events/count-by/{countable}",
        path_params={"countable": "resource"},
        json={"filter": wanted.model_dump(mode="json")},
    )
    return {UUID(found["value"].removeprefix(resource)): found["count"] for found in answer.json()}


def _is_wanted(run: FlowRun) -> bool:
    """Whether a crashed run is one that the automation would have started again, had it heard of the crash."""
    if run.deployment_id is None or run.work_queue_name == CHILD_QUEUE or run.run_count > RESTARTS or run.state is None:
        return False
    return datetime.now(UTC) - run.state.timestamp < FORGOTTEN
