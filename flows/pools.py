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
from collections.abc import Mapping
from concurrent.futures import Future
from contextvars import copy_context
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.runtime import flow_run
from prefect.states import Cancelling, Crashed

from flows.execution.outages import outlasting
from flows.recovery import CHILD_QUEUE, ensure_crash_detection
from tasks.failures import memory_hint

POOLS = {
    "cpu": "Runs the chapter itself and exercises that need no model.",
    "gpu": "Trains models and runs the exercises that use them; one worker per GPU.",
}
POLL_SECONDS = 1.0, 10.0  # between two looks at a child: at first, and at last

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
        except BaseException as error:
            ended.set_exception(error)

    # In a copy of this context: Prefect looks there for the parent.
    threading.Thread(target=copy_context().run, args=(wait,), daemon=True, name=deployment).start()
    return ended


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
    begun = time.monotonic()
    with get_client(sync_client=True) as client:
        while not (child.state and child.state.is_final()):
            if stop.wait(pause(time.monotonic() - begun)):
                _cancel(client, child)
                raise ChildStopped(f"{deployment}, run {child.name}: cancelled, for this run stops")
            child = patiently(client.read_flow_run, child.id)
    state = child.state or Crashed(message="it has no state")
    if not state.is_completed():
        error = ChildCrashed if state.is_crashed() else ChildFailed
        message = state.message or ""
        raise error(f"{deployment}, run {child.name}: {state.name}. {message}{memory_hint(message)}")
    return str(child.id)


def pause(waited: float) -> float:
    """Seconds until the next look at a child, by how long it was waited for: a hundred must keep no server busy."""
    first, last = POLL_SECONDS
    return min(max(first, waited / 30), last)


def _cancel(client: SyncPrefectClient, child: FlowRun) -> None:
    """Have a flow run's worker end it; one that no worker has taken ends at once.

    One that is just being started is ended by nobody, and does not begin: see ``flows/recovery.py``.
    """
    try:
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
    created = ensure_pools()
    ensure_crash_detection()
    print(f"pools {' and '.join(POOLS)} and crash detection are set up on {url} (new: {', '.join(created) or 'none'})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
