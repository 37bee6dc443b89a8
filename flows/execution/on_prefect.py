"""What Prefect's page shows while a run goes on: tags, a log line where a step begins and ends, bars of trainings.

None of it may cost a run anything. What goes to the server goes from a thread of its own, in which an error is said
once and then no more. A bar is drawn for a training that lasts, from the progress file that the training writes anyway:
the training itself knows nothing of it, and a chapter of a thousand short steps draws none.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate, ArtifactUpdate
from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger
from prefect.runtime import flow_run

from flows.execution.engine import Record
from flows.execution.graph import Node
from flows.execution.watch import not_done_ahead
from tasks.cache.keys import Step
from tasks.cache.progress import running
from tasks.place import Place

EVERY_SECONDS = 5.0  # between two looks at the trainings that run; one that is over by then has no bar
BARS = "training"  # one key for all, or Prefect's page of artifacts would be full of them; the description says which
COOL_DOWN = 60.0  # seconds without a further try after a failure
CLOSE_SECONDS = 15.0  # for what is still to be said at the end, however slow the server

logger = logging.getLogger("chapter")


class PrefectListener:
    """Tells Prefect how a run goes. Close it at the end.

    Args:
        place: where progress files are.
        task_runs: the ids of task runs by node, of those that are known; a bar stands with its task run, too.
        to_console: whether log lines are shown here as well, where somebody else shows none.
        every: seconds between two looks.
        client: makes the connection to the server.
    """

    def __init__(
        self,
        place: Place,
        task_runs: Mapping[str, UUID] | None = None,
        *,
        to_console: bool = True,
        every: float = EVERY_SECONDS,
        client: Callable[[], SyncPrefectClient] = lambda: get_client(sync_client=True),
    ) -> None:
        self._place, self._every, self._connect = place, every, client
        self._task_runs = {} if task_runs is None else task_runs  # one that is filled as steps begin
        own = flow_run.get_id()
        self._flow_run = UUID(own) if own else None
        self._tags = list(flow_run.get_tags()) if self._flow_run else []
        self._log: Any = logger
        with suppress(MissingContextError):  # outside of a flow there is nobody to tell
            self._log = get_run_logger()
        self._of_runs = logging.getLogger("prefect.flow_runs")
        self._before = self._of_runs.level, self._of_runs.propagate
        if not to_console:  # Prefect's other lines are off then; see flows/commands/local.py
            self._of_runs.setLevel(logging.INFO)
            self._of_runs.propagate = False
        self._watched: dict[str, tuple[Node, Step]] = {}
        self._bars: dict[str, UUID] = {}
        self._jobs: queue.Queue[Callable[[SyncPrefectClient], Any] | None] = queue.Queue()
        self._retry_at, self._warned = 0.0, False
        self._thread = threading.Thread(target=self._work, name="prefect page", daemon=True)
        self._thread.start()

    # --- What is heard of ---

    def cached(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``; also a step that another run has done in the meantime."""
        self._jobs.put(lambda client: self._end(client, node, f"{node.title}: done by another run"))

    def started(self, node: Node, step: Step, why: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self.say(f"{node.title}: begins ({why})")
        if node.makes_model:
            self._jobs.put(lambda client: self._watched.update({node.name: (node, step)}))

    def prepared(self, node: Node, seconds: float) -> None:
        """See ``flows.execution.engine.Listener``."""
        self.say(f"{node.title}: done in {seconds:.1f} s")

    def unprepared(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self.say(not_done_ahead(node, error), logging.WARNING)

    def finished(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""
        said = f"{node.title}: done in {record['data']['seconds']:.1f} s"
        self.say(said)
        self._jobs.put(lambda client: self._end(client, node, said))

    def failed(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        said = f"{node.title}: failed: {error.splitlines()[0] if error else ''}"
        self.say(said, logging.ERROR)
        self._jobs.put(lambda client: self._end(client, node, said, done=False))

    # --- What is said ---

    def say(self, line: str, level: int = logging.INFO) -> None:
        """A line in the log of the flow run."""
        self._log.log(level, "%s", line)

    def tag(self, tags: Sequence[str]) -> None:
        """Further tags of the flow run."""
        wanted = list(dict.fromkeys([*self._tags, *tags]))
        own = self._flow_run
        if own and wanted != self._tags:
            self._jobs.put(lambda client: client.update_flow_run(own, tags=wanted))

    def leave(self, make: Callable[[], Iterable[ArtifactCreate]]) -> None:
        """Artifacts of the flow run; they are made in the thread, so that a mistake there costs no more than them."""

        def job(client: SyncPrefectClient) -> None:
            for artifact in make():
                client.create_artifact(artifact.model_copy(update={"flow_run_id": self._flow_run}))

        if self._flow_run:
            self._jobs.put(job)

    def close(self) -> None:
        """Wait until all is said, but not for ever."""
        self._jobs.put(None)
        self._thread.join(CLOSE_SECONDS)
        self._of_runs.setLevel(self._before[0])
        self._of_runs.propagate = self._before[1]

    # --- The thread ---

    def _work(self) -> None:
        try:
            with self._connect() as client:
                due = time.monotonic() + self._every
                while True:
                    try:
                        job = self._jobs.get(timeout=max(0.0, due - time.monotonic()))
                    except queue.Empty:
                        job, due = self._look, time.monotonic() + self._every
                    if job is None:
                        return
                    self._try(job, client)
        except Exception as error:
            self._warn(error)

    def _try(self, job: Callable[[SyncPrefectClient], Any], client: SyncPrefectClient) -> None:
        if time.monotonic() < self._retry_at:
            return
        try:
            job(client)
        except Exception as error:  # what is shown of the work is not the work
            self._retry_at = time.monotonic() + COOL_DOWN
            self._warn(error)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            logger.warning("Prefect's page does not show all of this run: %s: %s", type(error).__name__, error)

    def _look(self, client: SyncPrefectClient) -> None:
        """Draw the bars of all trainings that are at work."""
        for name, (node, step) in self._watched.items():
            now = running(self._place.progress, step.key)
            if now is None or self._flow_run is None:
                continue
            data, text = round(100 * now.fraction, 1), f"{node.title}: {now.note}"
            if name in self._bars:
                client.update_artifact(self._bars[name], ArtifactUpdate(data=data, description=text))
                continue
            bar = ArtifactCreate(type="progress", key=BARS, data=data, description=text)
            ids = {"flow_run_id": self._flow_run, "task_run_id": self._task_runs.get(name)}
            self._bars[name] = client.create_artifact(bar.model_copy(update=ids)).id

    def _end(self, client: SyncPrefectClient, node: Node, said: str, *, done: bool = True) -> None:
        """A training is over; its bar, if it has one, says so."""
        self._watched.pop(node.name, None)
        bar = self._bars.pop(node.name, None)
        if bar:
            update = ArtifactUpdate(description=said, data=100.0) if done else ArtifactUpdate(description=said)
            client.update_artifact(bar, update)
