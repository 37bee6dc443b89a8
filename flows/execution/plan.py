"""What a run would do, why, and how long it would take: the engine's own look-ups, without running anything."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

from flows.execution.engine import Record
from flows.execution.graph import Node
from tasks.cache.keys import explain
from tasks.cache.store import Store

State = Literal["hit", "miss", "unknown"]


@dataclass(frozen=True)
class Planned:
    """One step: whether it would run, why, and the seconds it would take on one core."""

    node: Node
    state: State
    why: str
    seconds: float
    key: str = ""


def plan(
    graph: Mapping[str, Node], store: Store, verified: Mapping[str, Record] = MappingProxyType({})
) -> tuple[list[Planned], dict[str, Record]]:
    """Every step in the order of its needs, and the records of those that are hits.

    ``verified`` are records, by node, whose blobs need not be read again.

    A step whose inputs would be made first is "unknown": whether it runs depends on what they turn out to be.
    """
    records: dict[str, Record] = {}
    planned = []
    for node in graph.values():  # a node stands after what it needs
        waiting = sorted({graph[need].title for need in node.needs.values() if need not in records})
        last = store.last(node.title)
        if waiting:
            why = f"unknown until {waiting[0]}" + (f" and {len(waiting) - 1} more" if len(waiting) > 1 else "")
            planned.append(Planned(node, "unknown", f"{why} is there", _expected(node, last, None)))
            continue
        step = node.step(records)
        known = verified.get(node.name)
        record = known if known and known["key"] == step.key else store.record(step.key, verify=True)
        if record is not None:
            records[node.name] = record
            planned.append(Planned(node, "hit", "", 0.0, step.key))
        else:
            why = explain(last["ingredients"] if last else None, step.ingredients())
            planned.append(Planned(node, "miss", why, _expected(node, last, step.ingredients()), step.key))
    return planned, records


def _expected(node: Node, last: Mapping[str, Any] | None, ingredients: Mapping[str, Any] | None) -> float:
    """Seconds of the last run of this step with the same inputs, or else what the node declares."""
    if last and (ingredients is None or last["ingredients"]["inputs"] == ingredients["inputs"]):
        return float(last["seconds"])
    return node.seconds


def stored(
    graph: Mapping[str, Node], store: Store, verified: Mapping[str, Record] = MappingProxyType({})
) -> dict[str, Record]:
    """The records of all nodes that need not run; ``verified``: see ``plan``."""
    return plan(graph, store, verified)[1]


def summary(planned: list[Planned], slots: int) -> str:
    """One line: how much would run and for about how long in ``slots`` processes."""
    counts = {state: sum(item.state == state for item in planned) for state in ("hit", "miss", "unknown")}
    trainings = sum(item.state != "hit" and item.node.makes_model for item in planned)
    alone = sum(item.seconds for item in planned if item.node.alone)
    together = sum(item.seconds for item in planned if not item.node.alone)
    longest = max((item.seconds for item in planned), default=0.0)
    minutes = (alone + max(longest, together / slots)) / 60
    return (
        f"{len(planned)} steps: {counts['hit']} cached, {counts['miss']} to run, {counts['unknown']} unknown yet; "
        f"at most {trainings} trainings; about {minutes:.1f} minutes in {slots} process{'es' if slots > 1 else ''}"
    )
