"""Trained variants side by side, as plain data: the same numbers in every comparison.

``tasks.study`` measures them, in an exercise's experiment; ``tasks.comparison`` makes tables and sentences of them.

A comparison is made twice: after equal steps (every model has read the same tokens in the same order) and at equal
time, which is steps × step time and never the clock of a training that ran beside others. Both compare finished
trainings only, whose learning rate has come down; trainings of one seed are compared with each other, since they saw
the same batches; and whose compared losses are not below the bigram's has learned too little for a verdict.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import (
    Comparison,
    Verdict,
    compare,
    compare_blocks,
    compare_paired,
    holm,
    mean_std,
    unanimous,
    widened,
)
from minigpt.evaluation.timing import Timing


@dataclass(frozen=True)
class LearningCurve:
    """Validation losses of one training, over the whole split, in nats per token.

    ``steps`` are those at which it was evaluated on its way; 0 is before the first. ``finished_steps`` are the lengths
    of the trainings that came to their end: shorter ones branched off, and this one.
    """

    steps: tuple[float, ...]
    losses: tuple[float, ...]
    finished_steps: tuple[float, ...]
    finished_losses: tuple[float, ...]
    seed: int = 0


@dataclass(frozen=True)
class Variant:
    """One recipe with all its seeds."""

    label: str  # as readers see it
    recipe: str  # its name in the catalogue
    steps: int  # of the training
    parameters: int  # shared ones counted once
    curves: tuple[LearningCurve, ...]  # one per seed
    step: Timing
    tokens_per_step: int
    train_tokens: int  # in the text, each seen steps · tokens_per_step / train_tokens times
    baselines: Baselines  # n-grams on the same tokens

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
    def seeds(self) -> tuple[int, ...]:
        """In the order of the losses."""
        return tuple(curve.seed for curve in self.curves)

    @property
    def step_seconds(self) -> float:
        """Seconds of one training step."""
        return self.step.median

    @property
    def epochs(self) -> float:
        """How often the training saw its text."""
        return self.steps * self.tokens_per_step / self.train_tokens

    @property
    def beats_bigram(self) -> bool:
        """Whether every seed does in the end: else it has not learned to use more than the last token."""
        return self.beats_bigram_with(self.losses)

    def beats_bigram_with(self, losses: Sequence[float]) -> bool:
        """Whether all of these losses are below the bigram's: a shorter training may end above it."""
        return max(losses) < self.baselines.bigram

    def losses_after(self, step: float) -> tuple[float, ...]:
        """Validation loss on the way, after so many steps, interpolated between evaluations, one per seed."""
        return tuple(float(np.interp(step, curve.steps, curve.losses)) for curve in self.curves)

    def finished_after(self, steps: float) -> tuple[float, ...] | None:
        """Losses of trainings that ended after so many steps, one per seed; None outside of what was finished.

        Between two finished lengths the loss is taken as straight in the logarithm of the steps.
        """
        found = []
        for curve in self.curves:
            if not curve.finished_steps[0] <= steps <= curve.finished_steps[-1]:
                return None
            found.append(float(np.interp(math.log(steps), np.log(curve.finished_steps), curve.finished_losses)))
        return tuple(found)


def contrast(baseline: Variant, other: Variant) -> Comparison:
    """Two variants after all their steps: pairs where they share their seeds, else Welch's interval."""
    return _against_first([baseline, other], [baseline.losses, other.losses])[0]


def comparisons(rows: Sequence[Variant]) -> list[Comparison]:
    """Each variant after the first against the first, at equal steps, corrected for their number."""
    return holm(_against_first(rows, [row.losses for row in rows]))


def at_equal_time(rows: Sequence[Variant]) -> list[tuple[float, ...] | None]:
    """Losses of trainings that end when the first of the variants has done all its steps, one tuple per variant.

    None for one that has finished no training so short.
    """
    return [row.finished_after(steps) for row, steps in zip(rows, _steps_in_time(rows), strict=True)]


def comparisons_at_equal_time(rows: Sequence[Variant]) -> list[Comparison]:
    """Each variant after the first against the first at equal time, corrected for their number.

    The step times are known to within their quartiles. The interval holds those at both ends of what the ratio of two
    step times can then be, and the verdict is by all of it.
    """
    steps = _steps_in_time(rows)
    losses = at_equal_time(rows)
    found = _against_first(rows, losses)
    for i in range(1, len(rows)):
        if found[i - 1].verdict in ("lower", "higher", "noise"):
            ends = _differences_in_time(rows[0], rows[i], steps[0], steps[i])
            if ends is None:
                found[i - 1] = replace(found[i - 1], verdict="no time")
                continue
            alone = _compared_alone(rows[0], losses[0] or (), rows[i], losses[i] or ())
            found[i - 1] = unanimous(widened(found[i - 1], ends), widened(alone, ends))
    return holm(found)


def _steps_in_time(rows: Sequence[Variant]) -> list[float]:
    """How many steps of each variant take as long as the first that ends."""
    budget = min(row.steps * row.step_seconds for row in rows)
    return [min(budget / row.step_seconds, float(row.steps)) for row in rows]


def _differences_in_time(baseline: Variant, other: Variant, steps: float, its_steps: float) -> list[float] | None:
    """The difference of the mean losses at both ends of what the ratio of the step times can be, or None.

    ``steps`` and ``its_steps`` are those of equal time by the medians. None where no training so short was finished.
    """
    (t, quick, slow), (its_t, its_quick, its_slow) = (
        (row.step.median, row.step.low, row.step.high) for row in (baseline, other)
    )
    found = []
    for ratio in ((quick / its_slow) / (t / its_t), (slow / its_quick) / (t / its_t)):
        over = max(1.0, its_steps * ratio / other.steps)  # neither can be read beyond its end: less time for both then
        losses, its_losses = baseline.finished_after(steps / over), other.finished_after(its_steps * ratio / over)
        if losses is None or its_losses is None:
            return None
        found.append(mean_std(its_losses)[0] - mean_std(losses)[0])
    return found


def _against_first(rows: Sequence[Variant], losses: Sequence[tuple[float, ...] | None]) -> list[Comparison]:
    """Each variant after the first against the first by these losses; None is a training that was not finished.

    How far seeds scatter is estimated from all variants that share the first one's seeds and have learned something,
    which these losses tell, and not those of longer trainings.
    """
    learned = [row.beats_bigram_with(its or row.losses) for row, its in zip(rows, losses, strict=True)]
    base = losses[0] or rows[0].losses
    alike = [
        i
        for i, (row, its) in enumerate(zip(rows, losses, strict=True))
        if its is not None and row.seeds == rows[0].seeds and learned[i]
    ]
    blocks: dict[int, Comparison] = {}
    if alike[:1] == [0] and len(alike) > 1:
        blocks = dict(zip(alike[1:], compare_blocks([losses[i] or () for i in alike]), strict=True))
    found = []
    for i in range(1, len(rows)):
        its = losses[i]
        verdict: Verdict | None = None
        if not (learned[0] and learned[i]):
            verdict = "untrained"
        elif losses[0] is None or its is None:
            verdict = "no time"
        plain = blocks.get(i) or _compared_alone(rows[0], base, rows[i], its or rows[i].losses)
        found.append(replace(plain, verdict=verdict) if verdict else plain)
    return found


def _compared_alone(
    baseline: Variant, losses: Sequence[float], other: Variant, its_losses: Sequence[float]
) -> Comparison:
    return (compare_paired if baseline.seeds == other.seeds else compare)(losses, its_losses)


def metrics(rows: Sequence[Variant]) -> dict[str, float | int]:
    """Numbers of the table by name."""
    found: dict[str, float | int] = baseline_metrics(rows[0].baselines)
    for row, timed in zip(rows, at_equal_time(rows), strict=True):
        found[f"parameters_{row.key}"] = row.parameters
        found[f"step_ms_{row.key}"] = row.step_seconds * 1000
        found[f"epochs_{row.key}"] = row.epochs
        for suffix, losses in (("", row.losses), ("_equal_time", timed)):
            if losses is None:
                continue
            mean, spread = mean_std(losses)
            found[f"validation_loss_nats_{row.key}{suffix}"] = mean
            if len(losses) > 1:
                found[f"validation_loss_nats_{row.key}{suffix}_std"] = spread
    return found


def baseline_metrics(baselines: Baselines) -> dict[str, float | int]:
    """What counting reaches on the same tokens, by name."""
    return {
        "unigram_nats": baselines.unigram,
        "bigram_nats": baselines.bigram,
        "ngram_nats": baselines.ngram,
        "ngram_n": baselines.n,
    }
