"""What happens to a flow run whose process dies: it is found crashed, and taken up again, or found cancelled.

A worker reports the death of a flow's process, but if both die together nobody does, and Prefect shows the run
as ``Running`` for ever. So flow runs send heartbeats (every 30 s, the least that Prefect takes), and an automation
marks a run as crashed when it falls silent: https://docs.prefect.io/v3/advanced/detect-zombie-flows

    worker killed, run with it → 75 s of silence → Crashed → 15 s → AwaitingRetry → any worker of the pool takes it

A worker that is to cancel a run kills its process and says so. If it has died, or if it is just starting that process
(Prefect then forgets the request, and the process is refused its start), nobody says so, and Prefect shows the run as
``Cancelling`` for ever. So another automation ends it:

    run Cancelling, nobody ends it → 60 s → Cancelled

Automations apply to what happens after they were made, so they have to be there before the first run:
``python -m flows.pools``, ``prefect deploy`` (a step in prefect.yaml) and ``prefect_server`` see to it.
"""

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

Labels = dict[str, str | list[str]]

FLOWS = ("full-chapter", "train-model", "exercise")
RESTARTS = 2

SIGNS_OF_LIFE = {f"prefect.flow-run.{event}" for event in ("Pending", "Running", "heartbeat")}
ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")}

# One heartbeat may come late or get lost (30 + 30 + 15). The server looks every 5 s: found after 80 s at the latest.
SILENCE = timedelta(seconds=75)

# Not at once: a worker that is offered a run again before it has put its death on file ends itself with an error
# ("this borrower is already holding one of this CapacityLimiter's tokens"; a kin of Prefect's issue 10632).
PAUSE = timedelta(seconds=15)

# A worker gives a process 30 s to end before it kills it.
CANCELLING = timedelta(seconds=60)

# Runs that another run waits for stand in this queue of their pool; their parent starts new ones (flows/pools.py),
# so nobody else does. Prefect makes the queue when it is first named, and workers take runs from all queues.
CHILD_QUEUE = "children"


def automations() -> list[AutomationCore]:
    """The automations of this project."""
    return [_mark_silent_runs(), _start_crashed_runs_again(), _end_uncancelled_runs()]


def _mark_silent_runs() -> AutomationCore:
    return _unless_heard(
        "chapter: mark silent runs as crashed",
        "A run that shows no sign of life after one, and no end, has died together with its worker.",
        # From Pending on: a worker may die between accepting a run and the run's first heartbeat. What is in
        # both sets starts the wait anew; any other expected event ends it, so a pattern would be too much.
        after=SIGNS_OF_LIFE,
        expect=SIGNS_OF_LIFE | ENDS,
        within=SILENCE,
        then=ChangeFlowRunState(
            state=StateType.CRASHED,
            name="Crashed",
            force=False,
            message=f"No heartbeat for {SILENCE.total_seconds():.0f} s: the process or its machine has died.",
        ),
    )


def _start_crashed_runs_again() -> AutomationCore:
    return _unless_heard(
        "chapter: start crashed runs again",
        f"At most {RESTARTS} times; finished steps are cached and trainings go on from their checkpoint.",
        after={"prefect.flow-run.Crashed"},
        expect=SIGNS_OF_LIFE | {"prefect.flow-run.Scheduled", "prefect.flow-run.AwaitingRetry"},
        within=PAUSE,
        # What the button "Retry" does: the same run, with the same parameters, is scheduled for now.
        then=ChangeFlowRunState(
            state=StateType.SCHEDULED, name="AwaitingRetry", message="Started again after a crash.", force=False
        ),
        run={"prefect.run-count": [str(count) for count in range(RESTARTS + 1)]},
        # Runs outside deployments have no queue.
        related=[{"prefect.resource.role": "work-queue", "prefect.resource.name": "default"}],
    )


def _end_uncancelled_runs() -> AutomationCore:
    return _unless_heard(
        "chapter: end runs that nobody cancels",
        "A run that is to be cancelled, and whose worker has died or was just starting it.",
        after={"prefect.flow-run.Cancelling"},
        expect=ENDS,
        within=CANCELLING,
        then=ChangeFlowRunState(
            state=StateType.CANCELLED,
            name="Cancelled",
            force=False,
            message=f"Cancelling for {CANCELLING.total_seconds():.0f} s: no worker was there to end it.",
        ),
    )


def _unless_heard(
    name: str,
    description: str,
    *,
    after: set[str],
    expect: set[str],
    within: timedelta,
    then: ChangeFlowRunState,
    run: Labels | None = None,
    related: Sequence[Labels] = (),
) -> AutomationCore:
    """Change the state of a run of ours if ``within`` some time ``after`` an event none of those ``expect``-ed comes.

    ``run`` are further labels of the run, ``related`` of what is related to it: one resource must match each of them.
    """
    ours: Labels = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
    trigger = EventTrigger(
        match={"prefect.resource.id": "prefect.flow-run.*", **(run or {})},
        match_related=[ours, *related] if related else ours,
        for_each={"prefect.resource.id"},
        after=after,
        expect=expect,
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )
    return AutomationCore(name=name, description=description, trigger=trigger, actions=[then])


def ensure_crash_detection(client: SyncPrefectClient | None = None) -> None:
    """Create the automations on the server, or bring them up to date. Doing so again changes nothing."""
    with nullcontext(client) if client else get_client(sync_client=True) as api:
        for wanted in automations():
            found = api.read_automations_by_name(wanted.name)
            if not found:
                api.create_automation(wanted)
            elif AutomationCore(**found[0].model_dump()) != wanted:  # an update would forget whom it waits for
                api.update_automation(found[0].id, wanted)


def ensure_crash_detection_once(database: Path) -> None:
    """The same for the server of a database on this machine, which is asked only the first time.

    The automations are in the database. Who has removed them there does not get them back before this file changes.
    """
    mark = database.with_suffix(".automations")
    state = f"{database.stat().st_ino} {hashlib.sha256(Path(__file__).read_bytes()).hexdigest()} {version('prefect')}"
    if not mark.exists() or mark.read_text() != state:
        ensure_crash_detection()
        mark.write_text(state)
