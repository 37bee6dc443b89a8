"""The same models without workers, servers and faults: every step here, one after the other."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flows.execution.engine import Finished, execute
from flows.execution.graph import Node, Request
from flows.execution.graph import build as build_graph
from flows.options import Options
from flows.requests import request_of
from tasks.cache.keys import Step
from tasks.cache.store import Store
from tasks.place import Place
from tasks.steps import run_step
from tests.benchmarks.growth import Nobody
from tests.tasks.cache.whole import kept

SOURCES, PROFILE, PRECISION = "embedded", "smoke", "fp32"  # as the soak's chapters have them


def request(only: Sequence[str], budget: float) -> Request:
    """What a chapter of the soak is asked for."""
    options = Options(only=tuple(only), profile=PROFILE, sources=SOURCES, precision=PRECISION, budget=budget)
    return request_of(options.validated())


class Here:
    """A runner that does each step in this process."""

    def __init__(self, place: Place) -> None:
        self.place, self.done = place, list[Finished]()

    def capacity(self) -> int:
        """One at a time."""
        return 0 if self.done else 1

    def submit(self, node: Node, step: Step) -> None:
        """Do it, and keep its record as Prefect does."""
        record = run_step.fn(step, dict(node.local), self.place)
        kept(self.place.open_store(), record)
        self.done.append(Finished(node, record))

    def wait(self) -> list[Finished]:
        """What has ended."""
        done, self.done = self.done, []
        return done


def models(only: Sequence[str], budget: float, folder: Path) -> dict[str, dict[str, Any]]:
    """The records of all models that a chapter trains, by key, made in ``folder``."""
    whole = request(only, budget)
    wanted = tuple(
        (recipe, seed) for one in whole.exercises for recipe in one.recipes for seed in whole.profile.seeds(recipe)
    )
    graph = build_graph(replace(whole, exercises=(), recipes=wanted))
    place = Place(str(folder / "store"), str(folder))
    outcome = execute(graph, Store(place.store), Here(place), Nobody())
    return {str(outcome.records[name]["key"]): outcome.records[name] for name in graph if graph[name].makes_model}
