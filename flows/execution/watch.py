"""Who listens to a run: the log, the live display of the terminal, and MLflow."""

import logging
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from flows.execution.engine import Listener, Record
from flows.execution.graph import Node, Request
from flows.machine import hardware
from reports import page
from reports.cache import DirectoryCache, TextCache
from reports.chapter import QUESTIONS
from reports.plain import to_json
from reports.text import encodable
from reports.types import Result
from reports.write import drawings, tables
from tasks.answers import result_of, tracking_key
from tasks.cache.keys import Step, digest
from tasks.cache.progress import running
from tasks.cache.store import Artifact, Store
from tasks.place import Place
from tasks.recipes.catalogue import tunings
from tasks.sources.references import LABELS
from tasks.tracking.tracker import Tracker

logger = logging.getLogger("chapter")


def not_done_ahead(node: Node, error: str) -> str:
    """A line for the log."""
    return f"{node.title}: not done, so it is done with the rest: {error.splitlines()[0] if error else ''}"


class Listeners:
    """Passes everything on to several listeners."""

    def __init__(self, listeners: Sequence[Listener]) -> None:
        self._listeners = listeners

    def cached(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""
        for listener in self._listeners:
            listener.cached(node, step, record)

    def started(self, node: Node, step: Step, why: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        for listener in self._listeners:
            listener.started(node, step, why)

    def prepared(self, node: Node, seconds: float) -> None:
        """See ``flows.execution.engine.Listener``."""
        for listener in self._listeners:
            listener.prepared(node, seconds)

    def unprepared(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        for listener in self._listeners:
            listener.unprepared(node, error)

    def finished(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""
        for listener in self._listeners:
            listener.finished(node, step, record)

    def failed(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        for listener in self._listeners:
            listener.failed(node, error)


class LogListener:
    """Plain lines, for workers, files and terminals that cannot redraw."""

    def __init__(self, say: Callable[[str], None] = logger.info) -> None:
        self._say = say

    def cached(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""

    def started(self, node: Node, step: Step, why: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._say(f"{node.title}: begins ({why})")

    def prepared(self, node: Node, seconds: float) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._say(f"{node.title}: done in {seconds:.1f} s")

    def unprepared(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._say(not_done_ahead(node, error))

    def finished(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._say(f"{node.title}: done in {record['data']['seconds']:.1f} s")

    def failed(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._say(f"{node.title}: failed: {error.splitlines()[0] if error else ''}")


class Display:
    """One live line per running step under a line for the whole run. A context manager around the run."""

    def __init__(self, graph: Mapping[str, Node], place: Place, console: Console) -> None:
        self._graph, self._place = graph, place
        self._running: dict[str, tuple[Node, Step]] = {}
        self._done = self._cached = self._failed = 0
        self._ahead: set[str] = set()  # titles of parts that were done ahead
        self._left = sum(node.seconds + node.ahead for node in graph.values())
        self._started = time.monotonic()
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)
        self._console = console

    def __enter__(self) -> "Display":
        self._live.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.__exit__(None, None, None)

    def cached(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._running.pop(node.name, None)
        self._cached += 1
        self._left -= self._seconds(node)

    def started(self, node: Node, step: Step, why: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._running[node.name] = (node, step)

    def prepared(self, node: Node, seconds: float) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._running.pop(node.name, None)
        self._left -= node.ahead
        self._ahead.add(node.title)
        self._console.print(f"[green]✓[/] {node.title} [dim]{seconds:.1f} s[/]")

    def unprepared(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._running.pop(node.name, None)
        self._console.print(Text.assemble(("! ", "yellow"), not_done_ahead(node, error)))

    def finished(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._running.pop(node.name, None)
        self._done += 1
        self._left -= self._seconds(node)
        self._console.print(f"[green]✓[/] {node.title} [dim]{record['data']['seconds']:.1f} s[/]")

    def failed(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._running.pop(node.name, None)
        self._failed += 1
        self._console.print(Text.assemble(("✗ ", "red"), node.title, ": ", error.splitlines()[0] if error else ""))

    def _seconds(self, node: Node) -> float:
        """Of a step's expected duration, what is still counted as left."""
        return node.seconds + (0.0 if node.part_ahead.title in self._ahead else node.ahead)

    def _render(self) -> Group:
        table = Table.grid(padding=(0, 1))
        for node, step in list(self._running.values()):
            now = running(self._place.progress, step.key)
            bar = ProgressBar(total=1.0, completed=now.fraction if now else 0.0, width=20)
            note = f"{now.note}" if now else "waiting for its process or for another run"
            took = f"{now.seconds:.0f} s" if now else ""
            table.add_row("  " + node.title, bar, took, Text(note, style="dim"))
        ended = self._done + self._cached + self._failed
        minutes = max(0.0, self._left) / max(1, len(self._running)) / 60
        elapsed = time.monotonic() - self._started
        line = (
            f"{ended}/{len(self._graph)} steps, {self._cached} cached, {elapsed / 60:.1f} min, about {minutes:.0f} left"
        )
        return Group(table, Text(line, style="bold"))


class TrackingListener:
    """Logs every trained model and every exercise to MLflow, from a thread of its own: logging holds nobody up.

    Args:
        tracker: what talks to MLflow.
        chapter_run: the chapter that all is logged under, as ``Tracker.chapter`` names it.
        store: where artifacts are.
        request: what is run.
        flow_run: the id of the Prefect flow run that runs it.
        here: whether models run on this machine; if not, a worker says which machine it is.
        sections: the report's cache; what is drawn for MLflow is drawn for the page at the same time, while others
            still train, and not when all wait for it.
        answers: where answers are kept from run to run.
    """

    def __init__(
        self,
        tracker: Tracker,
        chapter_run: str | None,
        store: Store,
        request: Request,
        flow_run: str | None = None,
        *,
        here: bool = True,
        sections: TextCache | None = None,
        answers: DirectoryCache | None = None,
    ) -> None:
        self._tracker, self._parent, self._store, self._request = tracker, chapter_run, store, request
        self._flow_run, self._here, self._sections, self._answers = flow_run, here, sections, answers
        self._queue: queue.Queue[Callable[[], Any] | None] = queue.Queue()
        self._thread = threading.Thread(target=self._work, name="mlflow", daemon=True)
        self._thread.start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None:
            try:
                job()
            except Exception as error:  # tracking must never cost a run
                logger.warning("MLflow: %s: %s", type(error).__name__, error)

    def close(self) -> None:
        """Wait until everything is logged."""
        self._queue.put(None)
        self._thread.join()

    def cached(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""
        if node.makes_model or node.kind == "exercise":
            self._queue.put(lambda: self._log(node, step, record))

    def started(self, node: Node, step: Step, why: str) -> None:
        """See ``flows.execution.engine.Listener``."""

    def prepared(self, node: Node, seconds: float) -> None:
        """See ``flows.execution.engine.Listener``."""

    def unprepared(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""

    def finished(self, node: Node, step: Step, record: Record) -> None:
        """See ``flows.execution.engine.Listener``."""
        if node.makes_model or node.kind == "exercise":
            self._queue.put(lambda: self._log(node, step, record, self._circumstances(node)))

    def failed(self, node: Node, error: str) -> None:
        """See ``flows.execution.engine.Listener``."""
        self._tracker.fail(node.title, error)

    def _circumstances(self, node: Node) -> dict[str, str]:
        """The flow run and the machine that did the work, where that is known: this one."""
        if node.models and not self._here:
            return {}
        facts = hardware(self._request.device if node.models else "cpu")
        found = {f"hardware.{name}": str(value) for name, value in facts.items()}
        return found | ({"prefect_flow_run": self._flow_run} if self._flow_run else {})

    def _log(self, node: Node, step: Step, record: Record, circumstances: Mapping[str, str] | None = None) -> None:
        result = None if node.makes_model else result_of(node.subject, record, self._store, self._answers)
        key = tracking_key(record["key"], result) if result else step.key
        if self._tracker.run_of(key) is not None:
            self._tracker.link(self._parent, key, node.title)
            return
        tags = {
            "profile": self._request.profile.name,
            "fingerprint": record["key"],
            "device": self._request.device,
            "code_version": digest(step.code)[:12],
            **(circumstances or {}),
        }
        if result is None:
            recipe = {**record["data"]["recipe"], "name": node.subject}
            tags |= {"recipe": node.subject, "seed": str(node.seed)}
            artifacts = {name: record["artifacts"].get(name) for name in ("model", "tokenizer")}
            files = {name: self._store.fetch(Artifact(**found)) for name, found in artifacts.items() if found}
            self._tracker.log_training(
                self._parent, step.key, recipe, record["data"], files, tags, self._text_of(node, step)
            )
        else:
            tags |= {"exercise": node.subject}
            models = [
                str(made["key"]) for role, made in step.upstream.items() if role.startswith(("train/", "finetune/"))
            ]
            self._tracker.log_exercise(self._parent, key, to_json(result), tags, _files(result), models)
            if self._sections:
                page.section(QUESTIONS[result.id], result, sections_cache=self._sections)

    def _text_of(self, node: Node, step: Step) -> dict[str, str]:
        """What a model was trained on: the corpus, and the digest of its tokens or, of a fine-tuning, of its text."""
        recipe = step.inputs["recipe"]
        corpus = recipe["corpus"] if node.kind == "train" else tunings()[node.subject].corpus
        made = step.upstream["tokens" if node.kind == "train" else "text"]["artifacts"]
        source = self._request.sources.summary()[LABELS[corpus]]
        tokens = f", {recipe['tokenizer']} tokens" if node.kind == "train" else ""
        return {
            "name": f"{source.partition(':')[0]}{tokens}",
            "digest": str(next(iter(made.values()))["sha256"]),
            "source": source,
        }


def _files(result: Result) -> dict[str, str]:
    """The charts and tables of an exercise, by their names in the outputs."""
    charts = {f"figures/{name}.svg": svg for name, svg in drawings(result).items()}
    frames = tables(result).items()
    return charts | {f"tables/{name}.csv": encodable(frame.to_csv(index=False)) for name, frame in frames}
