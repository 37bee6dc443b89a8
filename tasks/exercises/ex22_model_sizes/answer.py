"""Tables, figures and checks of 21.22; the text is in answer.md."""

import math

from minigpt.evaluation.curves import smoothed
from minigpt.evaluation.statistics import mean_std
from reports.answers import Draft
from reports.types import Cell, Check, Figure, Sample, Series, Table
from reports.words import plural
from tasks.exercises.ex22_model_sizes.findings import EQUAL_TIME, SIZES, Count, Findings, Run

CLAIMED = {"small": 2e6, "medium": 10e6, "large": 30e6}  # the chapter's figures


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    per_step = f.runs["small"].tokens_per_step
    seen = "characters seen"
    return Draft(
        blocks={
            "parameters": parameters(f),
            "training by characters": Figure(
                "line",
                tuple(training_curve(f.runs[name], per_step) for name in SIZES),
                seen,
                "training loss, nats per character",
                "Equal steps: training loss (means of groups of steps, first seed).",
            ),
            "validation by characters": Figure(
                "line",
                tuple(validation_curve(f.runs[name], per_step) for name in SIZES),
                seen,
                "validation loss, nats per character",
                "Equal steps: validation loss.",
            ),
            "validation by seconds": Figure(
                "line",
                tuple(validation_curve(f.runs[name], f.runs[name].step_seconds) for name in EQUAL_TIME),
                "seconds of training (steps × step time)",
                "validation loss, nats per character",
                "Equal time: the smaller models train longer.",
            ),
            "validation": validation(f),
            "texts": tuple(sample(f, run) for run in f.runs.values()),
            "samples": counted(f),
            "time": time(f),
            "epochs": Figure(
                "bar",
                (Series("seconds", SIZES, tuple(f.epoch / f.runs[name].rate for name in SIZES)),),
                "model",
                "seconds per epoch",
                "Training time per epoch.",
                y_log=True,
            ),
        },
        checks=checks(f),
        values={
            "agreeing": [
                f"{c.size} with {c.vocabulary}" for c in f.counts if abs(c.closed_form / claimed(c) - 1) < 0.1
            ],
            "fitting": [f"{fitting(c):,} for {c.size}" for c in own_counts(f)],
            "training_losses": [f"{run.training_loss:.3f} for {run.name}" for run in by_training_loss(f)],
            "sizes": [f.runs[name] for name in SIZES],
            "equal_time": EQUAL_TIME,
        },
    )


def by_training_loss(f: Findings) -> list[Run]:
    """The three sizes at equal steps, the lowest training loss first."""
    return sorted((f.runs[name] for name in SIZES), key=lambda run: run.training_loss)


def claimed(count: Count) -> float:
    """The book's figure for a size."""
    return CLAIMED[count.size]


def own_counts(f: Findings) -> list[Count]:
    """The counts with the vocabulary that was trained."""
    return [count for count in f.counts if count.vocab_size == f.runs["small"].vocab_size]


def fitting(count: Count) -> int:
    """The vocabulary that would give the book's figure: each of its tokens adds C parameters."""
    return round((claimed(count) - count.closed_form) / count.d_model + count.vocab_size)


def parameters(f: Findings) -> Table:
    """True parameter counts beside the book's."""
    rows: list[tuple[Cell, ...]] = []
    for own in own_counts(f):
        counts = [count.closed_form for count in f.counts if count.size == own.size]
        rows.append((own.size, claimed(own), *counts, fitting(own), f.runs[own.size].parameters))
    columns = (
        "size",
        "the book's figure",
        *(f"V = {count.vocabulary}" for count in f.counts if count.size == "small"),
        "V that would give the book's figure",
        "trained here",
    )
    return Table(columns, tuple(rows), "Parameters, shared ones once, context 256.", "parameters")


def training_curve(run: Run, unit: float) -> Series:
    """Training loss of the first seed against steps times ``unit``, in means of groups of steps."""
    steps, losses = smoothed(run.seeds[0].trained_steps, run.seeds[0].trained_losses, points=50)
    return Series(run.name, tuple(step * unit for step in steps), tuple(losses))


def validation_curve(run: Run, unit: float) -> Series:
    """Validation loss of the first seed against steps times ``unit``."""
    steps = tuple(step * unit for step in run.seeds[0].evaluated_steps)
    return Series(run.name, steps, run.seeds[0].evaluated_losses)


def validation(f: Findings) -> Table:
    """The losses in all units."""
    rows = tuple(
        (
            name,
            run.steps,
            run.characters / f.epoch,
            run.characters / run.parameters,
            run.seconds,
            run.loss,
            mean_std(run.losses)[1] if len(run.losses) > 1 else None,
            run.perplexity,
            run.loss / math.log(2),
            run.bits_per_byte,
        )
        for name, run in f.runs.items()
    )
    columns = (
        "model",
        "steps",
        "epochs",
        "characters per parameter",
        "training, s",
        "validation loss, nats",
        "± over seeds",
        "perplexity per character",
        "bits per character",
        "bits per byte",
    )
    seeds = plural(len(f.runs["large"].seeds), "seed")
    return Table(columns, rows, f"Over the whole validation split, {f.targets:,} characters; {seeds}.", "validation")


def sample(f: Findings, run: Run) -> Sample:
    """One text of a run."""
    note = f"Temperature {f.temperature:g}; validation {run.loss:.3f} nats per character."
    return Sample(f"{run.name} ({run.steps:,} steps)", f.prompt, run.texts[0], note)


def counted(f: Findings) -> Table:
    """Numbers to hold against one's impression of the texts."""
    rows = tuple((name, run.loss, run.real_words, run.copied) for name, run in f.runs.items())
    columns = ("model", "validation loss, nats", "share of real words", "longest copied run, characters")
    caption = (
        f"{f.samples} samples of {f.characters} characters each. Real words occur in the training text; a copied run "
        "is the longest piece of a sample that the training text has too (mean over samples)."
    )
    return Table(columns, rows, caption, "samples")


def time(f: Findings) -> Table:
    """Time per epoch beside arithmetic."""
    small = f.runs["small"]
    rows = tuple(
        (
            run.name,
            run.parameters,
            run.step_seconds * 1e3,
            run.rate,
            f.epoch / run.rate,
            run.step_seconds / small.step_seconds,
            run.flops_per_token / small.flops_per_token,
            run.flops_per_token * run.rate / 1e9,
        )
        for run in (f.runs[name] for name in SIZES)
    )
    columns = (
        "model",
        "parameters",
        "ms per step",
        "characters/s",
        "seconds per epoch",
        "time, small = 1",
        "FLOPs, small = 1",
        "GFLOP/s reached",
    )
    return Table(
        columns, rows, f"One epoch is {f.epoch:,} characters. Medians over the training, on {f.device}.", "time"
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    runs = f.runs
    seeds = [(run, seed) for run in runs.values() for seed in run.seeds]
    recorded = [abs(seed.nats - seed.evaluated_losses[-1]) for _, seed in seeds]
    starts = [abs(seed.evaluated_losses[0] - math.log(run.vocab_size)) for run, seed in seeds]
    large, longer = runs["large"], runs["small, longer"]
    return (
        Check.equal(
            f"of {len(f.counts)} parameter counts in closed form, those that a built model confirms",
            sum(count.closed_form == count.built for count in f.counts),
            len(f.counts),
        ),
        Check.equal(
            "different numbers of characters seen by the three at equal steps",
            len({runs[name].characters for name in SIZES}),
            1,
        ),
        Check.equal(
            "every model is scored on the whole validation split",
            {seed.targets for _, seed in seeds} == {f.targets},
            True,
        ),
        Check.at_most("scored again, no loss differs from the recorded one by more than", max(recorded), 2e-3),
        Check.at_most("no training starts further from ln V, in nats, than", max(starts), 0.3),
        Check.at_most("equal steps: large is at or below small, nats", large.loss, runs["small"].loss, "empirical"),
        Check.at_least("equal time: large is at or above small, nats", large.loss, longer.loss, "empirical"),
        *(
            Check.close(f"training time of {name} over large's", f.time_ratio(name), 1.0, 0.25, "empirical")
            for name in EQUAL_TIME[:-1]
        ),
    )
