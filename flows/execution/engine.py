"""Runs a graph: cached steps first, then what is ready, the longest way to the end first.

The engine decides, runners do. It resolves cache hits itself, hands a step over only when all its inputs are
there (a waiting step would hold a place in the pool), keeps steps that measure time apart from all
others, and goes on with whatever a failed step does not concern. Of the former it has done ahead, beside others, what
needs no quiet machine, if the runner can do that.
"""

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

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


@runtime_checkable
class Preparer(Protocol):
    """A runner that can do ahead what of a timed step needs no quiet machine."""

    def prepare(self, node: Node, step: Step) -> None:
        """Begin that. It ends as steps do, with its seconds in the place of a record."""


class Listener(Protocol):
    """Hears what happens; progress displays and tracking hang on it."""

    def cached(self, node: Node, step: Step, record: Record) -> None:
        """A step's result was in the store."""

    def started(self, node: Node, step: Step, why: str) -> None:
        """A step was handed to a runner."""

    def prepared(self, node: Node, seconds: float) -> None:
        """A ``Node.part_ahead``, which was ``started``, is done."""

    def unprepared(self, node: Node, error: str) -> None:
        """It failed, and is done with the rest instead."""

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
    """What is known of each node. One of 10,000 costs as much as one of 100: nothing here looks through all of them."""

    def __init__(self, graph: Mapping[str, Node], store: Store, runner: Runner, listener: Listener) -> None:
        self.graph, self.store, self.runner, self.listener = graph, store, runner, listener
        self.outcome = Outcome()
        self.rank = critical_path(graph)
        self.users = _users(graph)
        self.open = set(graph)  # neither resolved, nor failed, nor running
        self.todo = sorted(graph)  # a heap: those of the open ones that may have become hits, misses or lost causes
        self.ready: dict[str, Step] = {}  # misses whose inputs are there
        self.order: list[tuple[bool, float, str]] = []  # a heap of them, and of some that are ready no more
        self.twins: dict[str, set[str]] = {}  # key → those that are ready with it
        self.running: dict[str, Step] = {}
        self.busy: set[str] = set()  # their keys
        self.attempts: dict[str, int] = {}
        # In one process nothing would be beside it.
        self.preparer = runner if isinstance(runner, Preparer) and runner.capacity() > 1 else None
        self.preparing: set[str] = set()  # of those that are running
        self.prepared: set[str] = set()  # keys, whatever came of it: what is not done ahead is done with the rest

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
        while self.todo:
            name = heapq.heappop(self.todo)
            if name not in self.open:
                continue
            needs = self.graph[name].needs.values()
            broken = [need for need in needs if need in self.outcome.errors]
            if broken:
                self.open.discard(name)
                self._fail(name, f"{self.graph[broken[0]].title} failed, which this needs")
            elif all(need in self.outcome.records for need in needs):
                self.open.discard(name)
                self._look_up(name)

    def _look_up(self, name: str) -> None:
        node = self.graph[name]
        step = node.step(self.outcome.records)
        record = self.store.record(step.key, kind=node.kind, verify=True)
        if record is None:
            self._make_ready(name, step)
        else:
            self._there(name, record)
            self.listener.cached(node, step, record)

    def _there(self, name: str, record: Record) -> None:
        self.outcome.records[name] = record
        self._look_at(self.users[name])

    def _look_at(self, names: Iterable[str]) -> None:
        for name in names:
            if name in self.open:
                heapq.heappush(self.todo, name)

    def _make_ready(self, name: str, step: Step) -> None:
        self.ready[name] = step
        self.twins.setdefault(step.key, set()).add(name)
        self._line_up(name)

    def _line_up(self, name: str) -> None:
        alone = self.graph[name].alone and not self._has_to_prepare(name)
        heapq.heappush(self.order, (alone, -self.rank[name], name))

    def _has_to_prepare(self, name: str) -> bool:
        return self.preparer is not None and self.graph[name].ahead > 0 and self.ready[name].key not in self.prepared

    def _no_more_ready(self, name: str) -> Step:
        step = self.ready.pop(name)
        self.twins[step.key].discard(name)
        if not self.twins[step.key]:
            del self.twins[step.key]
        return step

    def _dispatch(self) -> None:
        """Begin what can begin. What measures time comes last, and alone."""
        while self.order and not self._measuring() and self.runner.capacity() > 0:
            place = heapq.heappop(self.order)
            name = place[2]
            step = self.ready.get(name)
            if step is None or step.key in self.busy:
                continue  # in line once too often; or the same work under another name, which will be a hit
            beside = len(self.ready) > 1 or bool(self.running)  # else all of it is done at once
            ahead = beside and self._has_to_prepare(name)
            if self.graph[name].alone and self.running and not ahead:
                if not place[0]:  # lined up before it was prepared
                    self._line_up(name)
                    continue
                heapq.heappush(self.order, place)
                return
            self._no_more_ready(name)
            self.running[name] = step
            self.busy.add(step.key)
            node = self.graph[name]
            why = explain(self._last(node), step.ingredients())
            self.listener.started(node.part_ahead if ahead else node, step, why)
            if ahead and self.preparer is not None:
                self.preparing.add(name)
                self.preparer.prepare(node, step)
            else:
                self.runner.submit(node, step)

    def _measuring(self) -> bool:
        if len(self.running) != 1:
            return False
        [name] = self.running
        return self.graph[name].alone and name not in self.preparing

    def _last(self, node: Node) -> Mapping[str, Any] | None:
        last = self.store.last(node.title)
        return last["ingredients"] if last else None

    def _settle(self, finished: Finished) -> None:
        node, name = finished.node, finished.node.name
        step = self.running.pop(name)
        self.busy.discard(step.key)
        if name in self.preparing:
            self._settle_prepared(name, step, finished.result)
            return
        if isinstance(finished.result, Failure):
            twins = sorted(self.twins.get(step.key, ()))
            self._settle_failure(name, step, finished.result)
            for twin in twins:
                self._line_up(twin)  # its turn may have come while this one ran
            return
        record = finished.result
        self._there(name, record)
        if finished.shared:
            self.listener.cached(node, step, record)
        else:
            self.outcome.ran.append(name)
            self.listener.finished(node, step, record)
        self._open_twins(step)  # hits by now

    def _settle_prepared(self, name: str, step: Step, result: Record | Failure) -> None:
        """Look the step up again: another run may have done it meanwhile, and what it needs may be lost."""
        if isinstance(result, Failure) and result.kind == "no room":
            raise NoRoom(result.text)
        self.preparing.discard(name)
        part = self.graph[name].part_ahead
        if isinstance(result, Failure):
            self.listener.unprepared(part, result.text)
        else:
            self.listener.prepared(part, result["seconds"])
        attempts = self.attempts.get(name, 1)
        if isinstance(result, Failure) and result.kind == "lost artifact" and attempts < CRASH_ATTEMPTS:
            self.attempts[name] = attempts + 1
            self._reopen(name)
        else:
            self.prepared.add(step.key)
            self._open(name)
        self._open_twins(step)

    def _settle_failure(self, name: str, step: Step, failure: Failure) -> None:
        if failure.kind == "no room":
            raise NoRoom(failure.text)
        attempts = self.attempts.setdefault(name, 1)
        if failure.kind == "failed" or attempts == CRASH_ATTEMPTS:
            self._fail(name, failure.text)
            return
        self.attempts[name] += 1
        if failure.kind == "crashed":
            self._make_ready(name, step)
        else:
            self._reopen(name)

    def _open_twins(self, step: Step) -> None:
        for twin in sorted(self.twins.get(step.key, ())):
            self._no_more_ready(twin)
            self._open(twin)

    def _open(self, name: str) -> None:
        self.open.add(name)
        heapq.heappush(self.todo, name)

    def _reopen(self, name: str) -> None:
        """A blob that this step needs was lost after it had been looked up: look up all again that it needs."""
        todo = [name]
        while todo:
            current = todo.pop()
            if current not in self.running and current not in self.open:
                self._open(current)
                self.outcome.records.pop(current, None)
                todo.extend(self.graph[current].needs.values())

    def _fail(self, name: str, error: str) -> None:
        self.outcome.errors[name] = error
        self.listener.failed(self.graph[name], error)
        self._look_at(self.users[name])


def _users(graph: Mapping[str, Node]) -> dict[str, list[str]]:
    """Those that need each node."""
    users: dict[str, list[str]] = {name: [] for name in graph}
    for node in graph.values():
        for need in node.needs.values():
            users[need].append(node.name)
    return users


def critical_path(graph: Mapping[str, Node]) -> dict[str, float]:
    """Seconds from the beginning of each node to the end of the last one that waits for it."""
    users = _users(graph)
    rank: dict[str, float] = {}

    def visit(name: str) -> float:
        if name not in rank:
            rank[name] = (
                graph[name].seconds + graph[name].ahead + max((visit(user) for user in users[name]), default=0.0)
            )
        return rank[name]

    for name in graph:
        visit(name)
    return rank
