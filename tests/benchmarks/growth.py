"""How times grow: of a training step with parameters, of a token with the context, of a run with exercises and workers.

Each function returns a figure as data (``reports.types.Figure``), with medians over rounds in which all points of the
figure take turns. ``reports.figures`` draws it.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flows.execution.engine import Finished, Record, execute
from flows.execution.graph import Node
from flows.execution.plan import plan
from flows.machine import cores
from minigpt.config import GPTConfig
from minigpt.cost.counting import count_parameters
from minigpt.decoding.readers import cache_for
from minigpt.model import GPT
from minigpt.train import TrainConfig
from reports.types import Figure, Series
from tasks.cache.keys import Step
from tasks.cache.store import Store
from tests.benchmarks.bench_gpt2 import VOCABULARY, Ours, Precision, text
from tests.benchmarks.interleaving import interleaved
from tests.benchmarks.processes import chapter
from tests.tasks.cache.whole import persist_step

WIDTHS = ((2, 64), (4, 128), (4, 256), (6, 384), (8, 512))  # layers, width
CONTEXTS = (32, 64, 128, 256, 512, 1024)
EXERCISES = (9, 18, 35, 70, 140)
WRITTEN = 70  # exercises: a first run writes a record for each step, and more of them tell nothing new
TRAININGS_EACH = 3  # of a synthetic exercise
WORK, BUDGET = "21.28", "40"  # an exercise with four equal trainings, and how much longer than in a smoke run they are


def training_step(rounds: int, threads: int, precisions: tuple[Precision, ...]) -> Figure:
    """Seconds of a training step against parameters, batches of 8 × 64 tokens."""
    torch.set_num_threads(threads)
    tc = TrainConfig(steps=4, batch_size=8, threads=threads, eval_every=10**9)
    shapes = [GPTConfig(n_layer=n, n_head=w // 32, d_model=w, context=64, vocab_size=VOCABULARY) for n, w in WIDTHS]
    runs = {
        (precision, config): Ours(GPT(config), text(), tc, precision) for precision in precisions for config in shapes
    }
    seconds = _medians(rounds, runs, warmup=0)
    x = tuple(float(count_parameters(config)) for config in shapes)
    series = tuple(Series(p, x, tuple(seconds[p, config] / (tc.steps - 1) for config in shapes)) for p in precisions)
    return Figure(
        "line", series, "parameters", "seconds per step", "A training step, 8 × 64 tokens", x_log=True, y_log=True
    )


def token(rounds: int, threads: int) -> Figure:
    """Seconds of one more token against the tokens before it, with a cache and without, 0.8 M parameters."""
    torch.set_num_threads(threads)
    config = GPTConfig(n_layer=4, n_head=4, d_model=128, context=CONTEXTS[-1], vocab_size=VOCABULARY, position="rope")
    model, ids = GPT(config).eval(), text(config.context)[None]

    def cached(length: int) -> Callable[[], float]:
        with torch.inference_mode():
            cache = cache_for(model, 1, length)
            model(ids[:, : length - 1], cache=cache)

        def call() -> float:
            started = time.perf_counter()
            with torch.inference_mode():
                for _ in range(5):
                    cache.rewind(length - 1)
                    model(ids[:, length - 1 : length], cache=cache, last_only=True)
            return (time.perf_counter() - started) / 5

        return call

    def anew(length: int) -> Callable[[], None]:
        def call() -> None:
            with torch.inference_mode():
                model(ids[:, :length], last_only=True)

        return call

    makers: dict[str, Any] = {"with a cache": cached, "without": anew}
    runs = {(name, length): make(length) for name, make in makers.items() for length in CONTEXTS}
    seconds = _medians(rounds, runs)
    x = tuple(map(float, CONTEXTS))
    series = tuple(Series(name, x, tuple(seconds[name, length] for length in CONTEXTS)) for name in makers)
    return Figure(
        "line", series, "context, tokens", "seconds per token", "One more token, 4 × 128", x_log=True, y_log=True
    )


def orchestration(rounds: int) -> Figure:
    """Seconds of the engine without any work, against exercises: planning, a first run, and one that finds all."""
    with tempfile.TemporaryDirectory() as folder:
        runs: dict[tuple[str, int], Callable[[], float]] = {}
        for count in EXERCISES:
            graph, warm = chapter_graph(count), Store(f"{folder}/{count}")
            execute(graph, warm, Nothing(warm), Nobody())
            runs["plan, all there", count] = _timed(lambda g=graph, s=warm: plan(g, s))
            runs["run, all there", count] = _timed(lambda g=graph, s=warm: execute(g, s, Nothing(s), Nobody()))
            if count <= WRITTEN:
                runs["run, nothing there", count] = _cold(graph, Path(folder) / f"cold{count}")
        seconds = _medians(rounds, runs, warmup=0)
    series = []
    for name in dict.fromkeys(name for name, _ in runs):
        counts = [count for other, count in runs if other == name]
        series.append(Series(name, tuple(map(float, counts)), tuple(seconds[name, count] for count in counts)))
    caption = f"The engine alone, {TRAININGS_EACH} trainings for each exercise"
    return Figure("line", tuple(series), "exercises", "seconds", caption, x_log=True, y_log=True)


def workers(rounds: int) -> Figure:
    """Seconds of a fixed set of trainings and what compares them, as ``chapter run`` has them, against processes."""
    counts = tuple(range(1, min(2, cores()) + 1))
    options = ("--profile", "smoke", "--only", WORK, "--budget", BUDGET, "--jobs")

    def run(jobs: int) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return chapter(Path(folder) / "outputs", *options, str(jobs)).seconds

    runs = {count: lambda n=count: run(n) for count in counts}
    seconds = _medians(rounds, runs, warmup=0)
    x = tuple(map(float, counts))
    series = (
        Series("measured", x, tuple(seconds[count] for count in counts)),
        Series("ideal", x, tuple(seconds[1] / count for count in counts)),
    )
    return Figure("line", series, "processes", "seconds", f"Exercise {WORK} and its trainings, start-up included")


def chapter_graph(exercises: int) -> dict[str, Node]:
    """A synthetic chapter: a text, its tokens, and for each exercise trainings of its own and an answer."""

    def node(name: str, kind: str, *needs: str) -> Node:
        return Node(name, kind, name, {need: need for need in needs}, {"of": name}, (), 1.0)

    nodes = [node("text", "text"), node("tokens", "tokens", "text")]
    for n in range(exercises):
        trainings = [f"train {n}.{k}" for k in range(TRAININGS_EACH)]
        nodes += [node(name, "train", "tokens") for name in trainings]
        nodes.append(node(f"exercise {n}", "exercise", *trainings))
    return {each.name: each for each in nodes}


class Nothing:
    """A runner with two places whose steps are done at once: what is left is the engine's own time."""

    def __init__(self, store: Store) -> None:
        self.store, self.running = store, list[tuple[Node, Step]]()

    def capacity(self) -> int:
        return 2 - len(self.running)

    def submit(self, node: Node, step: Step) -> None:
        self.running.append((node, step))

    def wait(self) -> list[Finished]:
        node, step = self.running.pop(0)
        persist_step(self.store, step, node.name.encode())
        record = self.store.record(step.key)
        assert record is not None
        return [Finished(node, record)]


class Nobody:
    """A listener that does nothing."""

    def cached(self, node: Node, step: Step, record: Record) -> None: ...
    def started(self, node: Node, step: Step, why: str) -> None: ...
    def finished(self, node: Node, step: Step, record: Record) -> None: ...
    def failed(self, node: Node, error: str) -> None:
        raise AssertionError(f"{node.name}: {error}")


def _timed(function: Callable[[], object]) -> Callable[[], float]:
    def call() -> float:
        started = time.perf_counter()
        function()
        return time.perf_counter() - started

    return call


def _cold(graph: dict[str, Node], folder: Path) -> Callable[[], float]:
    def call() -> float:
        shutil.rmtree(folder, ignore_errors=True)
        store = Store(str(folder))
        return _timed(lambda: execute(graph, store, Nothing(store), Nobody()))()

    return call


def _medians(rounds: int, runs: dict[Any, Any], warmup: int = 1) -> dict[Any, float]:
    return {key: statistics.median(values) for key, values in interleaved(rounds, runs, warmup=warmup).items()}
