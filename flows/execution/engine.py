"""Runs a graph: cached steps first, then what is ready, the longest way to the end first.

The engine decides, runners do. It resolves cache hits itself, hands a step over only when all its inputs are
there (a waiting step would hold a place in the pool), keeps steps that measure time apart from all
others, and goes on with whatever a failed step does not concern.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from flows.execution.graph import Node
from tasks.cache.keys import Step, explain
from tasks.cache.store import Store
from tasks.failures import Failure, NoRoom

Record = dict[str, Any]
CRASH_ATTEMPTS = 3


@dataclass(frozen=True)
class Finished:
    """What became of one step: its record, or a failure.

    ``shared``: another run did the work while this one waited for it.
    """

    node: Node
    result: Record | Failure
    shared: bool = False


class Runner(Protocol):
    """Something that can run steps."""

    def capacity(self) -> int:
        """How many steps it takes now."""

    def submit(self, node: Node, step: Step) -> None:
        """Begin a step."""

    def wait(self) -> list[Finished]:
        """Wait until at least one step has ended."""


class Listener(Protocol):
    """Hears what happens; progress displays and tracking hang on it."""

    def cached(self, node: Node, step: Step, record: Record) -> None:
        """A step's result was in the store."""

    def started(self, node: Node, step: Step, why: str) -> None:
        """A step was handed to a runner."""

    def finished(self, node: Node, step: Step, record: Record) -> None:
        """A step was run."""

    def failed(self, node: Node, error: str) -> None:
        """A step failed, or one before it did."""


@dataclass
class Outcome:
    """The records of all nodes that have one, how each came about, and the errors of the others."""

    records: dict[str, Record] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    errors: dict[str, str] = field(default_factory=dict)


def execute(graph: Mapping[str, Node], store: Store, runner: Runner, listener: Listener) -> Outcome:
    """Run a graph to its end. Nothing that is computed is lost when this is interrupted.

    Raises:
        NoRoom: a disk is full.
    """
    return _Execution(graph, store, runner, listener).run()


class _Execution:
    def __init__(self, graph: Mapping[str, Node], store: Store, runner: Runner, listener: Listener) -> None:
        self.graph, self.store, self.runner, self.listener = graph, store, runner, listener
        self.outcome = Outcome()
        self.rank = critical_path(graph)
        self.open = set(graph)  # neither resolved, nor failed, nor running
        self.ready: dict[str, Step] = {}  # misses whose inputs are there
        self.running: dict[str, Step] = {}
        self.attempts: dict[str, int] = {}

    def run(self) -> Outcome:
        while self.open or self.ready or self.running:
            self._resolve()
            self._dispatch()
            if self.running:
                for finished in self.runner.wait():
                    self._settle(finished)
        return self.outcome

    def _resolve(self) -> None:
        """Find hits, misses and lost causes until nothing changes."""
        changed = True
        while changed:
            changed = False
            for name in sorted(self.open):
                needs = self.graph[name].needs.values()
                broken = [need for need in needs if need in self.outcome.errors]
                if broken:
                    self._fail(name, f"{self.graph[broken[0]].title} failed, which this needs")
                elif all(need in self.outcome.records for need in needs):
                    self._look_up(name)
                else:
                    continue
                self.open.discard(name)
                changed = True

    def _look_up(self, name: str) -> None:
        node = self.graph[name]
        step = node.step(self.outcome.records)
        record = self.store.record(step.key, kind=node.kind, verify=True)
        if record is None:
            self.ready[name] = step
        else:
            self.outcome.records[name] = record
            self.listener.cached(node, step, record)

    def _dispatch(self) -> None:
        order = sorted(self.ready, key=lambda name: (self.graph[name].alone, -self.rank[name], name))
        busy = {step.key for step in self.running.values()}
        for name in order:
            node, step = self.graph[name], self.ready[name]
            if step.key in busy:
                continue  # the same work under another name: it will be a hit
            if self.runner.capacity() < 1 or (node.alone and self.running) or self._measuring():
                continue
            del self.ready[name]
            self.running[name] = step
            busy.add(step.key)
            self.listener.started(node, step, explain(self._last(node), step.ingredients()))
            self.runner.submit(node, step)

    def _measuring(self) -> bool:
        return any(self.graph[name].alone for name in self.running)

    def _last(self, node: Node) -> Mapping[str, Any] | None:
        last = self.store.last(node.title)
        return last["ingredients"] if last else None

    def _settle(self, finished: Finished) -> None:
        node, name = finished.node, finished.node.name
        step = self.running.pop(name)
        if isinstance(finished.result, Failure):
            self._settle_failure(name, step, finished.result)
            return
        record = self.outcome.records[name] = finished.result
        if finished.shared:
            self.listener.cached(node, step, record)
        else:
            self.outcome.ran.append(name)
            self.listener.finished(node, step, record)
        for twin in [other for other, ready in self.ready.items() if ready.key == step.key]:
            del self.ready[twin]
            self.open.add(twin)  # a hit by now

    def _settle_failure(self, name: str, step: Step, failure: Failure) -> None:
        if failure.kind == "no room":
            raise NoRoom(failure.text)
        attempts = self.attempts.setdefault(name, 1)
        if failure.kind == "failed" or attempts == CRASH_ATTEMPTS:
            self._fail(name, failure.text)
            return
        self.attempts[name] += 1
        if failure.kind == "crashed":
            self.ready[name] = step
        else:
            self._reopen(name)

    def _reopen(self, name: str) -> None:
        """A blob that this step needs was lost after it had been looked up: look up all again that it needs."""
        todo = [name]
        while todo:
            current = todo.pop()
            if current not in self.running:
                self.open.add(current)
                self.outcome.records.pop(current, None)
                todo.extend(self.graph[current].needs.values())

    def _fail(self, name: str, error: str) -> None:
        self.outcome.errors[name] = error
        self.listener.failed(self.graph[name], error)


def critical_path(graph: Mapping[str, Node]) -> dict[str, float]:
    """Seconds from the beginning of each node to the end of the last one that waits for it."""
    users: dict[str, list[str]] = {name: [] for name in graph}
    for node in graph.values():
        for need in node.needs.values():
            users[need].append(node.name)
    rank: dict[str, float] = {}

    def visit(name: str) -> float:
        if name not in rank:
            rank[name] = graph[name].seconds + max((visit(user) for user in users[name]), default=0.0)
        return rank[name]

    for name in graph:
        visit(name)
    return rank
