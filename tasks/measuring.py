"""What an exercise's step does: it measures the findings; of a timed one, ahead, what needs no quiet machine."""

import importlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from prefect.context import TaskRunContext

from reports.plain import to_json
from reports.types import Provenance
from tasks.cache.keys import Step, digest
from tasks.context import StoreContext
from tasks.job import Job, Record, load_pretrained
from tasks.recipes.profiles import PROFILES

AHEAD = "seconds of what was done ahead"  # the name of a part


def measure(job: Job) -> Record:
    """An exercise's findings; what is said of them is made later, by ``tasks.answers``."""
    from tasks.answers import dump

    step, context = job.step, _context(job)
    exercise = context.exercise
    started = time.perf_counter()
    with _threads(step):
        findings = exercise.measure(context)
    ahead = context.once(AHEAD, lambda: 0.0) if exercise.ahead else 0.0
    provenance = Provenance(
        profile=context.profile,
        sources=dict(job.local["sources"]),
        seeds=tuple(sorted({seed for recipe in exercise.recipes for seed in context.seeds(recipe)})),
        fingerprint=step.key,
        code_version=digest(step.code)[:12],
        device=step.inputs["environment"]["device"],
        precision=_precisions(step),
        seconds=time.perf_counter() - started + ahead,
        prefect_run_id=_task_run_id(),
    )
    return job.done({"findings": dump(findings).encode()}, {"provenance": to_json(provenance)})


def measure_ahead(job: Job) -> None:
    """The parts of a timed exercise that need no quiet machine, for ``measure`` to find; how long they took is one."""
    context = _context(job)
    started = time.perf_counter()
    if context.exercise.ahead:
        with _threads(job.step):
            context.exercise.ahead(context)
    context.once(AHEAD, lambda: time.perf_counter() - started)


def _context(job: Job) -> StoreContext:
    inputs = job.step.inputs
    return StoreContext(
        importlib.import_module(inputs["module"]).EXERCISE,
        PROFILES[inputs["profile"]].scaled(job.local["budget"]).computed_in(job.local["precision"]),
        job.store,
        job.step.upstream,
        job.device,
        load_pretrained=lambda: load_pretrained(job, job.device),
        load_bpe=_bpe,
        progress=job.progress,
        parts=job.checkpoints,
        precision=inputs["environment"].get("precision", "fp32"),
    )


@contextmanager
def _threads(step: Step) -> Iterator[None]:
    """PyTorch's threads as the step has them, for the duration."""
    before = torch.get_num_threads()
    torch.set_num_threads(step.inputs["environment"]["threads"])
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _precisions(step: Step) -> str:
    """What the models of an exercise were trained in, and the pretrained one computes in; nothing without models."""
    found = {recipe["train"]["precision"] for recipe in step.inputs["recipes"].values()}
    found |= {tuning["precision"] for tuning in step.inputs["tunings"].values()}
    found |= {step.inputs["environment"]["precision"]} if "precision" in step.inputs["environment"] else set()
    return " and ".join(sorted(found))


def _task_run_id() -> str | None:
    run = TaskRunContext.get()
    return str(run.task_run.id) if run else None


def _bpe() -> Any:
    from tasks.sources.corpora import gpt2_tokenizer

    return gpt2_tokenizer()
