"""Work pools: setting them up, and running steps on them from inside another flow.

``python -m flows.pools`` creates the two pools of type ``process`` and the crash detection. Workers share the Prefect
API, the MLflow server and the store, nothing else. One worker per GPU:

    CUDA_VISIBLE_DEVICES=0 prefect worker start --pool gpu --limit 1
"""

import hashlib
import json
import logging
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling, Crashed

from flows.execution.outages import outlasting
from flows.named_server import check_access
from flows.options import UsageError
from flows.recovery import CHILD_QUEUE, ensure_crash_detection
from tasks.failures import memory_hint

POOLS = {
    "cpu": "Runs the chapter itself and exercises that need no model.",
    "gpu": "Trains models and runs the exercises that use them; one worker per GPU.",
}
LOOK_SECONDS = 1.0  # between two looks at the runs that are waited for
REFUSED_SECONDS = 300.0  # that a server may refuse to be asked about them, before they are given up
ASKED_AT_ONCE = 200  # the server answers with no more
LOOKS_AT_ALL = 60  # every so many looks those are missed that were deleted
STOP_SECONDS = 0.5  # until who waits sees that it is to stop, or that the wait is over
ENDED = [StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED, StateType.CRASHED]

logger = logging.getLogger(__name__)


class ChildFailed(RuntimeError):
    """A flow run on a pool ended in another state than Completed."""


class ChildCrashed(ChildFailed):
    """A flow run on a pool died: of a killed process, a lost machine. Trying again may help."""


class ChildStopped(ChildFailed):
    """A flow run on a pool was cancelled because the run that waits for it stops."""


def run_on_pool(
    deployment: str,
    parameters: Mapping[str, Any],
    *,
    stop: threading.Event | None = None,
    retries: int = 2,
    retry_delay_seconds: float = 2,
) -> Future[str]:
    """Run a deployment, such as ``train-model/train-model``, on its pool; call it from a flow.

    The future's ``result()`` is the id of the completed flow run, or raises ``ChildFailed``. A run that crashes is
    started again, up to ``retries`` times: the flow's own ``retries`` would not do, they live in the process
    that died. A run that fails is not: a flow retries what is worth it itself. Once ``stop`` is set, the run is
    cancelled and no longer waited for.

    It is waited for in a thread, not in a task of Prefect's: the flow run is shown below its parent as it is, and a
    task run for the waiting would be as much work for the server again.
    """
    asked_to_stop, ended = stop or threading.Event(), Future[str]()

    def wait() -> None:
        try:
            for attempt in range(1, retries + 2):
                try:
                    return ended.set_result(wait_for_child(deployment, dict(parameters), asked_to_stop, attempt))
                except ChildCrashed as error:
                    if attempt > retries:
                        raise
                    logger.warning("%s; it is started again", error)
                    asked_to_stop.wait(retry_delay_seconds)
        except BaseException as error:  # whatever it is, who waits must not wait for ever
            ended.set_exception(_ordinary(error))

    # In a copy of this context: Prefect looks there for the parent.
    threading.Thread(target=copy_context().run, args=(wait,), daemon=True, name=deployment).start()
    return ended


def _ordinary(error: BaseException) -> Exception:
    """The error, or one that a thread can end with where it is, say, a ``SystemExit``."""
    return error if isinstance(error, Exception) else ChildFailed(f"{type(error).__name__}: {error}")


def step_key(deployment: str, parameters: Mapping[str, Any]) -> str:
    """A short name for a deployment with parameters, the same in every process."""
    return hashlib.sha256(json.dumps([deployment, parameters], sort_keys=True).encode()).hexdigest()[:12]


def wait_for_child(deployment: str, parameters: dict[str, Any], stop: threading.Event, attempt: int = 1) -> str:
    """Create a flow run of a deployment and wait for its end; returns its id.

    Raises:
        ChildFailed: it did not complete.
    """
    if stop.is_set():
        raise ChildStopped(f"{deployment} was not started, for this run stops")
    # The key makes a request that is sent twice (an answer was lost) one run. It differs in every attempt, and in
    # every run of the parent: with the same key Prefect would hand back the run that failed.
    parent = f"{flow_run.get_id()}-{flow_run.get_run_count()}"
    patiently = outlasting(stop)
    child = patiently(
        run_deployment,
        deployment,
        parameters=parameters,
        idempotency_key=f"{parent}-{attempt}-{step_key(deployment, parameters)}",
        work_queue_name=CHILD_QUEUE,
        timeout=0,  # the waiting is done here, where it can be stopped
        as_subflow=True,  # shown below its parent
    )
    assert isinstance(child, FlowRun)  # and not a coroutine: this is not called from an event loop
    end = WAITED_FOR.end_of(child)
    while not end.done():
        if stop.wait(STOP_SECONDS):
            WAITED_FOR.forget(child)
            _cancel(child)
            raise ChildStopped(f"{deployment}, run {child.name}: cancelled, for this run stops")
    child = end.result()
    state = child.state or Crashed(message="it has no state")
    if not state.is_completed():
        error = ChildCrashed if state.is_crashed() else ChildFailed
        message = state.message or ""
        raise error(f"{deployment}, run {child.name}: {state.name}. {message}{memory_hint(message)}")
    return str(child.id)


class Children:
    """The flow runs that this process waits for. One thread looks at all of them, with one question a second.

    The question names those that are waited for and asks which have ended: the answer is short, however many they are.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[UUID, Future[FlowRun]] = {}
        self._looking = False
        self._looks = 0

    def end_of(self, child: FlowRun) -> Future[FlowRun]:
        """The run as it is when it has ended.

        The future raises ``ObjectNotFound`` where the run was deleted, and what the server says where it is away for
        good (``flows.execution.outages``).
        """
        end: Future[FlowRun] = Future()
        if child.state and child.state.is_final():
            end.set_result(child)
            return end
        with self._lock:
            self._waiting[child.id] = end
            begin, self._looking = not self._looking, True
        if begin:  # in this context, in which Prefect finds the server's address
            threading.Thread(target=copy_context().run, args=(self._look,), daemon=True, name="children").start()
        return end

    def forget(self, child: FlowRun) -> None:
        """It is no longer waited for."""
        self._take(child.id)

    def _look(self) -> None:
        patiently = outlasting(threading.Event())
        refused_since: float | None = None
        with get_client(sync_client=True) as client:
            while asked := self._asked():
                try:
                    for some in (asked[n : n + ASKED_AT_ONCE] for n in range(0, len(asked), ASKED_AT_ONCE)):
                        self._ended(patiently(_those, client, some, ENDED))
                        if self._looks % LOOKS_AT_ALL == LOOKS_AT_ALL - 1:
                            self._lost(some, patiently(_those, client, some))
                    refused_since = None
                except httpx.HTTPStatusError as error:  # of the server, or of a proxy that has its minute
                    if refused_since is None:
                        refused_since = time.monotonic()
                        logger.warning("how %d runs stand is asked again, the server refuses: %s", len(asked), error)
                    if time.monotonic() - refused_since >= REFUSED_SECONDS:
                        self._fail(asked, error)
                except BaseException as error:
                    self._fail(asked, _ordinary(error))
                self._looks += 1
                time.sleep(LOOK_SECONDS)

    def _asked(self) -> list[UUID]:
        with self._lock:
            self._looking = bool(self._waiting)
            return list(self._waiting)

    def _ended(self, runs: Sequence[FlowRun]) -> None:
        for run in runs:
            if (end := self._take(run.id)) is not None:
                end.set_result(run)

    def _lost(self, asked: Sequence[UUID], found: Sequence[FlowRun]) -> None:
        for id in set(asked) - {run.id for run in found}:
            self._fail([id], ObjectNotFound(LookupError(id), f"flow run {id} is no longer on the server"))

    def _fail(self, asked: Sequence[UUID], error: Exception) -> None:
        for id in asked:
            if (end := self._take(id)) is not None:
                end.set_exception(error)

    def _take(self, id: UUID) -> Future[FlowRun] | None:
        with self._lock:
            return self._waiting.pop(id, None)


WAITED_FOR = Children()


def _those(client: SyncPrefectClient, ids: Sequence[UUID], states: Sequence[StateType] = ()) -> list[FlowRun]:
    """Those of these flow runs that are there, and in one of these states."""
    state = FlowRunFilterState(type=FlowRunFilterStateType(any_=list(states))) if states else None
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=list(ids)), state=state)
    return client.read_flow_runs(flow_run_filter=wanted, limit=len(ids))


def _cancel(child: FlowRun) -> None:
    """Have a flow run's worker end it; one that no worker has taken ends at once.

    One that is just being started is ended by nobody, and does not begin: see ``flows/recovery.py``.
    """
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(child.id, Cancelling(message="The run that waits for this one stops."))
    except Exception as error:  # whoever stops is not kept waiting by a server that is gone
        logger.warning("run %s could not be cancelled: %s", child.name, error)


def ensure_pools() -> list[str]:
    """Create the pools that do not exist; returns their names. Existing ones are left as they are."""
    from prefect.workers.process import ProcessWorker

    created = []
    with get_client(sync_client=True) as client:
        for name, description in POOLS.items():
            try:
                client.read_work_pool(name)
            except ObjectNotFound:
                template = ProcessWorker.get_default_base_job_template()
                client.create_work_pool(
                    WorkPoolCreate(name=name, type="process", description=description, base_job_template=template)
                )
                created.append(name)
    return created


def main() -> int:
    """Create what workers need on the server that ``PREFECT_API_URL`` names; returns the exit status."""
    from prefect.settings import get_current_settings

    url = get_current_settings().api.url
    if not url:
        print("PREFECT_API_URL is not set: start `chapter ui` and export what it prints", file=sys.stderr)
        return 2
    try:
        check_access(url)
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    created = ensure_pools()
    ensure_crash_detection()
    print(f"pools {' and '.join(POOLS)} and crash detection are set up on {url} (new: {', '.join(created) or 'none'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
