"""Trained variants side by side, as plain data: the same numbers in every comparison.

``tasks.study`` measures them, in an exercise's experiment; ``tasks.comparison`` makes tables and sentences of them.

A comparison is made twice: after equal steps (every model has read the same tokens in the same order) and at equal
time, which is steps × step time and never the clock of a training that ran beside others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from minigpt.evaluation.statistics import Comparison, compare, mean_std
from minigpt.evaluation.timing import Timing


@dataclass(frozen=True)
class LearningCurve:
    """Validation loss of one training."""

    steps: tuple[float, ...]  # at which it was evaluated; 0 is before the first
    losses: tuple[float, ...]  # over the whole validation split, nats per token


@dataclass(frozen=True)
class Variant:
    """One recipe with all its seeds."""

    label: str  # as readers see it
    recipe: str  # its name in the catalogue
    steps: int  # of the training
    parameters: int  # shared ones counted once
    curves: tuple[LearningCurve, ...]  # one per seed
    step: Timing

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


def comparisons(rows: Sequence[Variant]) -> list[Comparison]:
    """Each variant after the first against the first, at equal steps."""
    return [compare(rows[0].losses, row.losses) for row in rows[1:]]


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
