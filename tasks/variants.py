"""Trained variants side by side, as plain data: the same table, curves, sentences and metrics in every comparison.

``tasks.study`` measures them, in an exercise's experiment; here is what its answer makes of them, without PyTorch.

A comparison is made twice: after equal steps (every model has read the same tokens in the same order) and at equal
time, which is steps × step time and never the clock of a training that ran beside others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minigpt.evaluation.statistics import Comparison, compare, mean_std
from reports.types import Figure, Series, Table
from reports.words import describe


@dataclass(frozen=True)
class LearningCurve:
    """Validation loss of one training."""

    steps: tuple[float, ...]  # at which it was evaluated; 0 is before the first
    losses: tuple[float, ...]  # over the whole validation split, nats per token


@dataclass(frozen=True)
class StepTime:
    """Seconds of one training step, measured alone: the median, and the quartiles around it."""

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Variant:
    """One recipe with all its seeds."""

    label: str  # as readers see it
    recipe: str  # its name in the catalogue
    steps: int  # of the training
    parameters: int  # shared ones counted once
    curves: tuple[LearningCurve, ...]  # one per seed
    step: StepTime

    @property
    def key(self) -> str:
        """The recipe's name as part of a metric's name."""
        return self.recipe.replace("-", "_")

    @property
    def losses(self) -> tuple[float, ...]:
        """Loss over the whole validation split after the last step, nats per token, one per seed."""
        return tuple(curve.losses[-1] for curve in self.curves)

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.losses)[0]

    @property
    def step_seconds(self) -> float:
        """Seconds of one training step."""
        return self.step.median

    def losses_after(self, step: float) -> tuple[float, ...]:
        """Validation loss after a number of steps, interpolated between evaluations, one per seed."""
        return tuple(float(np.interp(step, curve.steps, curve.losses)) for curve in self.curves)


def at_equal_time(rows: Sequence[Variant]) -> list[tuple[float, ...]]:
    """Losses of each variant at the moment when the first of them had done all its steps, one tuple per variant."""
    budget = min(row.steps * row.step_seconds for row in rows)
    return [row.losses_after(budget / row.step_seconds) for row in rows]


def table(rows: Sequence[Variant], *, name: str, caption: str = "") -> Table:
    """All variants beside the first, which is the baseline."""
    cells = []
    for row, timed in zip(rows, at_equal_time(rows), strict=True):
        several = len(row.curves) > 1
        (loss, spread), (late, late_spread) = mean_std(row.losses), mean_std(timed)
        against = None if row is rows[0] else compare(rows[0].losses, row.losses)
        cells.append(
            (
                row.label,
                row.parameters,
                loss,
                spread if several else None,
                against.difference if against else None,
                against.verdict if against else "baseline",
                row.step_seconds * 1000,
                late,
                late_spread if several else None,
            )
        )
    columns = (
        "variant",
        "parameters",
        "loss",
        "± std",
        "difference",
        "verdict",
        "step (ms)",
        "at equal time",
        "± std (time)",
    )
    seeds = " and ".join(map(str, sorted({len(row.curves) for row in rows}, reverse=True)))
    note = (
        f"Loss on the whole validation split in nats per token, {seeds} seed{'' if seeds == '1' else 's'}. The verdict "
        "is Welch's 95% interval for the difference from the first row. Steps are timed alone, in turn; equal time is "
        "step time × steps, read off the learning curves, so that the slower ones are caught before the end of their "
        "schedule."
    )
    return Table(columns, tuple(cells), f"{caption} {note}".strip(), name)


def curves(rows: Sequence[Variant], *, caption: str = "") -> Figure:
    """Validation loss over steps, mean ± standard deviation over seeds."""
    series = []
    for row in rows:
        steps = tuple(float(step) for step in row.curves[0].steps[1:])  # all start at ln V
        points = [mean_std(row.losses_after(step)) for step in steps]
        error = tuple(spread for _, spread in points) if len(row.curves) > 1 else ()
        series.append(Series(row.label, steps, tuple(mean for mean, _ in points), error))
    return Figure("line", tuple(series), "training step", "validation loss (nats/token)", caption)


def comparisons(rows: Sequence[Variant]) -> list[Comparison]:
    """Each variant after the first against the first, at equal steps."""
    return [compare(rows[0].losses, row.losses) for row in rows[1:]]


def sentences(rows: Sequence[Variant]) -> str:
    """What the data allow to say of each variant against the first, at equal steps and at equal time.

    Equal time is spoken of where it turns the verdict, and only if the step times differ by more than they vary.
    """
    said = [describe(found, row.label, rows[0].label) for row, found in zip(rows[1:], comparisons(rows), strict=True)]
    base, *timed = at_equal_time(rows)
    for row, losses, before in zip(rows[1:], timed, comparisons(rows), strict=True):
        after = compare(base, losses)
        distinct = row.step.low > rows[0].step.high or row.step.high < rows[0].step.low
        if after.verdict != before.verdict and distinct:
            said.append("At equal time: " + describe(after, row.label, rows[0].label))
    return " ".join(said)


def metrics(rows: Sequence[Variant]) -> dict[str, float | int]:
    """Numbers of the table by name."""
    found: dict[str, float | int] = {}
    for row, timed in zip(rows, at_equal_time(rows), strict=True):
        found[f"parameters_{row.key}"] = row.parameters
        found[f"step_ms_{row.key}"] = row.step_seconds * 1000
        for suffix, losses in (("", row.losses), ("_equal_time", timed)):
            mean, spread = mean_std(losses)
            found[f"validation_loss_nats_{row.key}{suffix}"] = mean
            if len(losses) > 1:
                found[f"validation_loss_nats_{row.key}{suffix}_std"] = spread
    return found
