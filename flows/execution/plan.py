"""What a run would do, why, and how long it would take: the engine's own look-ups, without running anything."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from flows.execution.nodes import Node
from reports.formats import duration
from tasks.cache.keys import Step, canonical, code_digests, digest, explain
from tasks.cache.store import Store

if TYPE_CHECKING:
    from flows.execution.engine import Record

State = Literal["hit", "miss", "unknown"]
Verdict = Literal["cached", "run", "unknown", "same"]


@dataclass(frozen=True)
class Planned:
    """One step: whether it would run, why, and the seconds it would take on one core.

    Its state is "unknown" while something that it needs is not there: then its key is not known. ``surely`` says why it
    would run nonetheless, whatever comes out: it never did, or its own inputs or code have changed. ``twin`` is the
    title of a step before it that does the same work; the engine does it once.
    """

    node: Node
    state: State
    why: str
    seconds: float
    key: str = ""
    surely: str = ""
    twin: str = ""

    @property
    def verdict(self) -> Verdict:
        """What a run would do with it, as far as can be told."""
        if self.state == "hit":
            return "cached"
        return "same" if self.twin else "run" if self.state == "miss" or self.surely else "unknown"

    @property
    def seconds_ahead(self) -> float:
        """Expected duration of what would be done ahead, beside other steps; ``seconds`` are without it."""
        return self.node.ahead if self.verdict in ("run", "unknown") else 0.0

    @property
    def reason(self) -> str:
        """Why, in a few words."""
        return f"the same as {self.twin}" if self.twin else self.surely or self.why


def plan(
    graph: Mapping[str, Node], store: Store, verified: "Mapping[str, Record]" = MappingProxyType({})
) -> "tuple[list[Planned], dict[str, Record]]":
    """Every step in the order of its needs, and the records of those that are hits.

    ``verified`` are records, by node, whose blobs need not be read again.

    A step whose inputs would be made first is "unknown": whether it runs can depend on what they turn out to be.
    """
    records: dict[str, Record] = {}
    planned = []
    works: dict[str, str] = {}  # of the nodes that are no hits: what they would do, whatever they are called
    first: dict[str, Node] = {}  # who would do it
    for node in graph.values():  # a node stands after what it needs
        waiting = sorted({graph[need].title for need in node.needs.values() if need not in records})
        step = None if waiting else node.step(records)
        key = step.key if step else ""
        if step is not None:
            known = verified.get(node.name)
            taken = known and (known["key"] == key or node.alone)  # the key of what measures time holds the machine
            record = known if taken else store.record(key, kind=node.kind, verify=True)
            if record is not None:
                records[node.name] = record
                planned.append(Planned(node, "hit", "", 0.0, key))
                continue
        works[node.name] = _work(node, works)
        twin = first.setdefault(works[node.name], node)
        last = store.last(node.title)
        before, now = (last["ingredients"] if last else None), step.ingredients() if step else _own(node)
        as_before = last and before and before["inputs"] == now["inputs"]
        seconds = float(last["seconds"]) if last and as_before else node.seconds
        surely = ""
        if step is not None:
            why = explain(before, now)
        else:
            why = f"unknown until {waiting[0]}" + (f" and {len(waiting) - 1} more" if len(waiting) > 1 else "")
            why += " is there"
            before = {group: before.get(group) for group in now} if before else None
            surely = "" if before == now else explain(before, now)
        state: State = "miss" if step else "unknown"
        if twin is node:
            planned.append(Planned(node, state, why, seconds, key, surely))
        else:
            planned.append(Planned(node, state, why, 0.0, key, surely, twin.title))
    return planned, records


def _own(node: Node) -> dict[str, Any]:
    """Of the ingredients of a step's key what is known before the steps that it needs have run."""
    return {"version": node.version, "inputs": canonical(node.inputs), "code": code_digests(node.code)}


def _work(node: Node, works: Mapping[str, str]) -> str:
    """What a node would do, without its name: equal for two nodes whose steps will have one key."""
    needs = {role: works.get(name, name) for role, name in node.needs.items()}
    return digest([node.kind, node.version, node.inputs, list(node.code), needs])


def stored(
    graph: Mapping[str, Node], store: Store, verified: "Mapping[str, Record]" = MappingProxyType({})
) -> "dict[str, Record]":
    """The records of all nodes that need not run, and of those that have measured time on another machine.

    ``verified``: see ``plan``.
    """
    records = plan(graph, store, verified)[1]
    for node in graph.values():
        if node.alone and node.name not in records and records.keys() >= set(node.needs.values()):
            record = measured_elsewhere(store, node, node.step(records))
            if record is not None:
                records[node.name] = record
    return records


def measured_elsewhere(store: Store, node: Node, step: Step) -> "Record | None":
    """The record of a step that measures time, made on a machine with other hardware, which its key there holds."""
    last = store.last(step.name_elsewhere) if node.alone else None
    return store.record(last["key"], kind=node.kind, verify=True) if last else None


@dataclass(frozen=True)
class Total:
    """How much would run, and for about how many seconds."""

    cached: int
    to_run: int
    unknown: int
    same: int
    trainings: int
    seconds: float

    @staticmethod
    def of(planned: Sequence[Planned], slots: int) -> "Total":
        """The total of a plan in so many processes."""
        verdicts = Counter(item.verdict for item in planned)
        alone = sum(item.seconds for item in planned if item.node.alone)
        together = sum(item.seconds for item in planned if not item.node.alone)
        together += sum(item.seconds_ahead for item in planned)
        longest = max((item.seconds_ahead if item.node.alone else item.seconds for item in planned), default=0.0)
        return Total(
            verdicts["cached"],
            verdicts["run"],
            verdicts["unknown"],
            verdicts["same"],
            sum(item.verdict in ("run", "unknown") and item.node.makes_model for item in planned),
            alone + max(longest, together / slots),
        )


def summary(planned: Sequence[Planned], slots: int) -> str:
    """One line: how much would run and for about how long in ``slots`` processes."""
    total = Total.of(planned, slots)
    counts = [f"{total.cached} cached", f"{total.to_run} to run", f"{total.unknown} unknown yet"]
    counts += [f"{total.same} the same as another"] if total.same else []
    return (
        f"{len(planned)} steps: {', '.join(counts)}; at most {total.trainings} trainings; "
        f"about {duration(total.seconds)} in {slots} process{'es' if slots > 1 else ''}"
    )


def exercises_of(graph: Mapping[str, Node]) -> dict[str, list[str]]:
    """Per node the ids of the exercises that need it, directly or not, in the graph's order."""
    found: dict[str, list[str]] = {name: [] for name in graph}
    for node in graph.values():
        if node.kind != "exercise":
            continue
        todo, seen = [node.name], set()
        while todo:
            if (name := todo.pop()) not in seen:
                seen.add(name)
                found[name].append(node.subject)
                todo.extend(graph[name].needs.values())
    return found
