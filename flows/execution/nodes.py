"""The nodes of a graph. Light: who only looks at a graph needs none of what it was built from."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tasks.cache.keys import Step, canonical, code_digests

Reference = Mapping[str, Any]  # a record's key and artifacts


@dataclass(frozen=True)
class Node:
    """One piece of work, by name, with the names of what it needs.

    It turns into a ``Step``, with a key, once the records of the nodes before it are known.

    ``seconds`` is the expected duration on one core of a laptop. ``alone`` work measures time and shares the machine
    with nothing; ``ahead`` is how long that takes of it which needs no quiet machine, and may be done before, beside
    others. ``models`` says that it runs models and so belongs on a GPU where there is one.
    """

    name: str
    kind: str
    title: str
    needs: Mapping[str, str]  # role -> name of the node that fills it
    inputs: Mapping[str, Any]
    code: tuple[str, ...]
    seconds: float
    local: Mapping[str, Any] = field(default_factory=dict)
    version: int = 1
    alone: bool = False
    ahead: float = 0.0
    models: bool = False
    subject: str = ""  # the recipe's name or the exercise's id
    seed: int = 0

    @property
    def makes_model(self) -> bool:
        """Whether the result is a model: trained from scratch, or further."""
        return self.kind in ("train", "finetune")

    @property
    def part_ahead(self) -> "Node":
        """As what is shown, while that is done which needs no quiet machine; see ``ahead``."""
        return replace(self, name=f"{self.name}, ahead", title=f"{self.title}, ahead")

    def step(self, records: Mapping[str, Reference]) -> Step:
        """The step, given the records of all nodes that this one needs, by name."""
        upstream = {role: _reference(records[name]) for role, name in self.needs.items()}
        return Step(self.kind, self.title, canonical(self.inputs), upstream, code_digests(self.code), self.version)


def _reference(record: Reference) -> dict[str, Any]:
    return {"key": record["key"], "artifacts": record["artifacts"]}
