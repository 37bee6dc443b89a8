"""The three flows: the whole chapter, one model, one exercise.

full-chapter   plan → corpora and models, each once, in dependency order → exercises → report
train-model    one recipe to one tracked model; the unit that a GPU worker takes
exercise       one exercise with all it needs; the unit a person reruns
"""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

from prefect import Flow, flow, task
from prefect.runtime import deployment, flow_run
from prefect.utilities.annotations import quote
from rich.console import Console

from flows.deployments import ABOUT, deployment_name
from flows.execution.artifacts import left_by
from flows.execution.conclusion import Summary, conclude, summary_of
from flows.execution.engine import Listener, Outcome, Runner, execute
from flows.execution.graph import Node, Request, build
from flows.execution.on_prefect import PrefectListener
from flows.execution.outages import outlive_the_console
from flows.execution.publish import Published, answers_of, sections_of
from flows.execution.publish import publish as publish_report
from flows.execution.runners import CHILDREN, Call, Deployed, Inline, LocalPool
from flows.execution.sweep import swept_meanwhile
from flows.execution.watch import Display, Listeners, LogListener, TrackingListener
from flows.names import (
    Device,
    Precision,
    ProfileName,
    SourceBundle,
    Where,
    chapter_run_name,
    tags_of,
    training_run_name,
)
from flows.options import Options, UsageError, nearest
from flows.requests import place_here, processes, request_of
from reports.words import plural
from tasks.cache.compared import comparisons_kept_in
from tasks.cache.keys import syntax_kept_in
from tasks.folders import named_source
from tasks.place import Place
from tasks.recipes.catalogue import recipes, tunings
from tasks.sources.resolve import Sources
from tasks.steps import drop_leftovers
from tasks.tracking.tracker import Tracker


def place_of(run: str) -> Place:
    """The store and the outputs of this machine."""
    return replace(place_here(run), shared=is_worker())


def is_worker() -> bool:
    """Whether this flow run is one of a deployment, which whoever reaches the server has asked for."""
    return deployment.get_id() is not None


def run_request(
    request: Request,
    place: Place,
    runner: AbstractContextManager[Runner],
    listener: Listener | None = None,
    *,
    publishing: bool = True,
    command: str = "",
    chapter: str | None = None,
) -> Summary:
    """Run a request to its end, track it and publish the report.

    ``chapter`` names the chapter on MLflow that this run is a part of; without one it is a chapter of its own.
    """
    started = time.time()
    outlive_the_console()
    graph = build(request)
    store = place.open_store()
    tracker = Tracker(Path(place.outputs))
    run_id = flow_run.get_id()
    tags = {"profile": request.profile.name, "device": request.device, "prefect_flow_run": run_id or ""}
    opened: AbstractContextManager[str] = (
        nullcontext(chapter)
        if chapter
        else tracker.chapter(profile=request.profile.name, tags=tags, name=chapter_of(place.run))
    )
    shown = PrefectListener(place, getattr(runner, "task_runs", None), to_console=listener is None)
    with (
        opened as chapter_run,
        syntax_kept_in(place.syntax),
        comparisons_kept_in(place.compared),
        closing(shown),
    ):
        shown.tag(tags_of(request))
        asked, steps = plural(len(request.exercises), "exercise"), plural(len(graph), "step")
        shown.say(f"begins: {asked}, {steps}, profile {request.profile.name}")
        here = not isinstance(runner, Deployed)
        kept = {"sections": sections_of(Path(place.outputs)), "answers": answers_of(Path(place.outputs))}
        tracking = TrackingListener(tracker, chapter_run, store, request, run_id, here=here, **kept)
        listeners = Listeners([tracking, shown, *([listener] if listener else [])])
        try:
            with runner as chosen:
                outcome = execute(graph, store, chosen, listeners)
        finally:
            tracking.close()
        drop_leftovers(place, {str(record["key"]) for record in outcome.records.values()})
        trained = sum(graph[name].makes_model for name in outcome.ran)
        # Quoted, so that Prefect does not look for other tasks' futures in every number of every learning curve.
        told: Sequence[Any] = (quote(request), place, quote(outcome), started, command, trained)
        published = publish_task(*told) if publishing else None
        if published:
            conclude(tracker, request, published, command, time.time() - started)
        summary = summary_of(request, graph, outcome, published, time.time() - started)
        title = flow_run.get_name() or request.profile.name
        ended = title, request, graph, outcome, published, place, tracker, chapter_run, summary.done
        shown.leave(lambda: left_by(*ended).artifacts())
        shown.say(f"ends: {summary.done}")
    return summary


def chapter_of(run: str) -> str:
    """The name on MLflow of the chapter that a flow run is.

    The same whenever that run is taken up again, and known to it and its children before MLflow is asked.
    """
    return f"chapter-{run}"


@task(name="report", task_run_name="report", persist_result=False)
def publish_task(
    request: Request, place: Place, outcome: Outcome, started: float, command: str, trained: int
) -> Published:
    """The page, the result files and the link ``latest``."""
    tracker = Tracker(Path(place.outputs))
    return publish_report(request, place, outcome.errors, started, tracker, command, trained, verified=outcome.records)


# --- The flows -------------------------------------------------------------------------------------------------


class ChapterFailed(RuntimeError):
    """Some exercises or models failed; the others are done and in the report."""


def _check(summary: Summary) -> Summary:
    if summary.failed and summary.report:
        raise ChapterFailed(f"{len(summary.failed)} failed: {', '.join(summary.failed)}; report: {summary.report}")
    if summary.failed:  # all that the run which waits for this one hears
        raise ChapterFailed("; ".join(summary.reasons))
    return summary


@flow(name="full-chapter", flow_run_name=chapter_run_name, description=ABOUT["full-chapter"], persist_result=False)
def full_chapter(
    profile: ProfileName = "laptop",
    only: list[str] | None = None,
    sources: SourceBundle = "auto",
    corpus: str | None = None,
    pretrained: str | None = None,
    where: Where = "pool",
    device: Device = "auto",
    precision: Precision = "auto",
    budget: float = 1.0,
    jobs: int | None = None,
) -> None:
    """Run the chapter: every model once, every exercise, and the report.

    Args:
        profile: How far and how large: smoke in minutes, laptop, overnight for two hours, gpu.
        only: Exercises, such as 21.27; all where nothing is named.
        sources: Where texts and the pretrained model come from: auto, embedded in packages, hub.
        corpus: Your own text in place of the chapter's: a UTF-8 file, hf:NAME or a URL, as workers reach it.
        pretrained: Any causal LM in Transformers format: a name on the Hub or a folder.
        where: pool hands models and exercises to the deployments train-model and exercise; local runs them in processes
            of the machine that takes this run.
        device: auto takes a GPU where the profile is made for one, or, with local, where one is found.
        precision: auto takes bf16 where it pays; fp32 gives equal bits on all machines.
        budget: A factor for the steps of every training.
        jobs: Processes at a time, with local; where nothing is said one per core, on a GPU those that find memory.
    """
    _check(run_options(Options.of(locals())))


@dataclass
class Terminal:
    """What ``chapter run`` has that a worker has not: sources it has looked at, a screen, a command line.

    It reaches the flow through a context variable: a flow's parameters are stored on the server, and its closure
    would be pickled into every process of the pool.
    """

    sources: Sources
    console: Console
    command: str
    summary: Summary | None = None


TERMINAL: ContextVar[Terminal | None] = ContextVar("terminal", default=None)


def run_options(options: Options) -> Summary:
    """Run what validated options say; inside a flow."""
    terminal = TERMINAL.get()
    request = request_of(options, terminal.sources if terminal else None, worker=is_worker())
    place = place_of(flow_run.get_id() or f"run-{time.time_ns()}")
    runner: AbstractContextManager[Runner]
    if options.where == "pool":
        runner = Deployed(place, _caller(options, request, chapter_of(place.run)), options.jobs or CHILDREN)
    else:
        runner = LocalPool(place, processes(options, request.device))
    if terminal is None:
        # ``chapter run`` sweeps where it knows its server; else whoever waits for runs must see those that fell silent.
        with swept_meanwhile() if options.where == "pool" else nullcontext():
            return run_request(request, place, runner)
    if terminal.console.is_terminal:
        with Display(build(request), place, terminal.console) as display:
            terminal.summary = run_request(request, place, runner, display, command=terminal.command)
    else:
        lines = LogListener(lambda line: terminal.console.print(line, highlight=False, markup=False))
        terminal.summary = run_request(request, place, runner, lines, command=terminal.command)
    return terminal.summary


def _caller(options: Options, request: Request, chapter: str) -> Call:
    from flows.pools import run_on_pool

    resolved = replace(
        options,
        sources=request.sources.bundle,
        corpus=named_source(options.corpus),
        pretrained=named_source(options.pretrained),
        device=request.device,
        precision=request.profile.precision or "auto",
    )

    def call(nodes: Sequence[Node], stop: threading.Event) -> Future[Any]:
        node, *others = nodes
        if node.makes_model:
            parameters = resolved.told(parameters_of(train_model))
            parameters |= {"recipe": node.subject, "seed": node.seed, "chapter": chapter}
            if others:
                parameters["also"] = [f"{other.subject}/{other.seed}" for other in others]
            return run_on_pool("train-model/train-model", parameters, stop=stop)
        parameters = resolved.told(parameters_of(exercise))
        parameters |= {"id": node.subject, "publish": False, "chapter": chapter}
        return run_on_pool(f"exercise/{deployment_name(node.subject)}", parameters, stop=stop)

    return call


def parameters_of(flow: Flow[..., Any]) -> set[str]:
    """The names of a flow's parameters."""
    return set(signature(flow.fn).parameters)


@flow(
    name="train-model",
    flow_run_name=training_run_name,
    description=ABOUT["train-model"],
    persist_result=False,
)
def train_model(
    recipe: str,
    seed: int = 0,
    profile: ProfileName = "laptop",
    sources: SourceBundle = "auto",
    corpus: str | None = None,
    pretrained: str | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    budget: float = 1.0,
    also: list[str] | None = None,
    chapter: str | None = None,
) -> None:
    """Train one recipe of the catalogue, or do one of its fine-tunings, with all that it needs, in this process.

    Args:
        recipe: A recipe's name; `chapter models` lists them.
        seed: Of the initial weights and the batches.
        profile: How far and how large: smoke in minutes, laptop, overnight for two hours, gpu.
        sources: Where texts and the pretrained model come from: auto, embedded in packages, hub.
        corpus: Your own text in place of the chapter's: a UTF-8 file, hf:NAME or a URL, as the worker reaches it.
        pretrained: Any causal LM in Transformers format: a name on the Hub or a folder.
        device: auto takes a GPU where one is found.
        precision: auto takes bf16 where it pays; fp32 gives equal bits on all machines.
        budget: A factor for the steps of every training.
        also: More models for the same process, each as RECIPE/SEED: it takes longer to start than a short training.
        chapter: What full-chapter gives: its name on MLflow, under which the model is logged.
    """
    request = replace(request_of(Options.of(locals()), worker=is_worker()), exercises=())
    for name, of in [(recipe, seed), *map(_recipe_and_seed, also or ())]:
        if name in tunings():
            request = replace(request, tunings=(*request.tunings, tunings()[name]))
        elif name in recipes():
            request = replace(request, recipes=(*request.recipes, (recipes()[name], of)))
        else:
            known = (*recipes(), *tunings())
            raise UsageError(
                f"recipe {name}: the catalogue has none{nearest(name, known)} (`chapter models` names all)"
            )
    _check(_inline(request, publishing=False, chapter=chapter))


def _recipe_and_seed(text: str) -> tuple[str, int]:
    """Both from "small/2"; the seed is 0 where there is none."""
    recipe, _, seed = text.partition("/")
    if seed and not seed.isdecimal():
        raise UsageError(f"also {text}: give RECIPE/SEED, such as small/2")
    return recipe, int(seed or 0)


@flow(
    name="exercise",
    flow_run_name="exercise {id}, {profile}",
    description=ABOUT["exercise"],
    persist_result=False,
)
def exercise(
    id: str,
    profile: ProfileName = "laptop",
    sources: SourceBundle = "auto",
    corpus: str | None = None,
    pretrained: str | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
    budget: float = 1.0,
    publish: bool = True,
    chapter: str | None = None,
) -> None:
    """Run one exercise with all that it needs, in this process.

    Args:
        id: The exercise, such as 21.22.
        profile: How far and how large: smoke in minutes, laptop, overnight for two hours, gpu.
        sources: Where texts and the pretrained model come from: auto, embedded in packages, hub.
        corpus: Your own text in place of the chapter's: a UTF-8 file, hf:NAME or a URL, as the worker reaches it.
        pretrained: Any causal LM in Transformers format: a name on the Hub or a folder.
        device: auto takes a GPU where one is found.
        precision: auto takes bf16 where it pays; fp32 gives equal bits on all machines.
        budget: A factor for the steps of every training.
        publish: Write the report anew with this exercise's answer.
        chapter: What full-chapter gives: its name on MLflow, under which the exercise is logged.
    """
    options = Options.of(locals() | {"only": (id,)})
    _check(_inline(request_of(options, worker=is_worker()), publishing=publish, chapter=chapter))


def _inline(request: Request, *, publishing: bool, chapter: str | None) -> Summary:
    place = place_of(flow_run.get_id() or f"run-{time.time_ns()}")
    return run_request(request, place, _inline_runner(place), publishing=publishing, chapter=chapter)


@contextmanager
def _inline_runner(place: Place) -> Any:
    yield Inline(place)
