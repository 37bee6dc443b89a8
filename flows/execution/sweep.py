"""Runs that the server's automations have missed: looked for again and again while a server or a chapter is there.

Automations (``flows/recovery.py``) act on what happens while the server is up. A run whose process died while it was
away shows as ``Running`` for ever; one whose crash was told, but whose restart fell into the outage, stays ``Crashed``.
And an event is lost to them where it cannot be counted, because the server's SQLite database is locked. So whoever
starts waits as long as a living run may be silent, and then looks for both, and again after each such time.

A living run that was marked as crashed, since its heartbeats could not arrive, is no harm: it goes on, holds the leases
of its steps in the store, and ends as ``Completed``; if another process has taken it up meanwhile, that one waits for
the lease and finds the result.
"""

import contextvars
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.events.filters import EventFilter, EventNameFilter, EventOccurredFilter, EventOrder, EventResourceFilter
from prefect.states import Crashed, Scheduled

from flows.recovery import CHILD_QUEUE, FLOWS, PAUSE, RESTARTS, SIGNS_OF_LIFE, SILENCE

logger = logging.getLogger(__name__)

SPARE = timedelta(seconds=15)  # heartbeats come late, and the server needs a moment to put them on file
FORGOTTEN = timedelta(days=1)  # nobody wants what crashed earlier than that
AT_WORK = [StateType.RUNNING, StateType.PENDING]


@contextmanager
def swept_meanwhile(delay: timedelta = SILENCE + SPARE) -> Iterator[None]:
    """Sweep each time that ``delay`` has passed, until the context ends."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(delay.total_seconds()):
            try:
                with get_client(sync_client=True) as client:
                    sweep(client)
            except Exception as error:  # a sweep must never cost a run
                logger.debug("runs that were left behind were not looked for: %s", error)

    # The settings that name the server are in this thread's context.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def sweep(client: SyncPrefectClient, now: datetime | None = None) -> tuple[list[FlowRun], list[FlowRun]]:
    """Mark what is silent as crashed, schedule again what has crashed unheard; returns the runs of each kind.

    To be called when the server has been up for ``SILENCE``: before, living runs are silent, too.
    """
    now = now or datetime.now(UTC)
    silent, lost = [], []
    at_work, crashed = _ours(client, AT_WORK), _ours(client, [StateType.CRASHED])
    for run in at_work:
        if _is_silent(client, run, now) and _stands(client, run):
            message = f"No heartbeat for {SILENCE.total_seconds():.0f} s: it died, and no automation has noticed."
            client.set_flow_run_state(run.id, Crashed(message=message))
            silent.append(run)
    for run in crashed:
        if _is_lost(client, run, now) and _stands(client, run):
            client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry", message="Started again after a crash."))
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


def _is_silent(client: SyncPrefectClient, run: FlowRun, now: datetime) -> bool:
    """Whether a run has given a sign of life once, and none for too long."""
    begun = run.state.timestamp if run.state else run.created
    if begun is None or now - begun < SILENCE + SPARE:
        return False
    found = client.read_events(
        EventFilter(
            occurred=EventOccurredFilter.model_validate({"since": now - SILENCE - SPARE, "until": now + SPARE}),
            event=EventNameFilter(name=sorted(SIGNS_OF_LIFE)),
            resource=EventResourceFilter(id=[f"prefect.flow-run.{run.id}"]),
            order=EventOrder.DESC,
        ),
        limit=1,
    )
    return not found.events


def _is_lost(client: SyncPrefectClient, run: FlowRun, now: datetime) -> bool:
    """Whether a crashed run is one that the automation would have started again, had it heard of the crash."""
    if run.deployment_id is None or run.work_queue_name == CHILD_QUEUE or run.run_count > RESTARTS or run.state is None:
        return False
    return PAUSE + SPARE < now - run.state.timestamp < FORGOTTEN
