"""Comparing models that were trained with several seeds: what differs, and what is noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from minigpt.checks import number

Verdict = Literal["lower", "higher", "noise", "one seed"]


@dataclass(frozen=True)
class Comparison:
    """``other`` minus ``baseline``, in the unit of the values.

    ``verdict`` says where ``other`` lies: "lower" or "higher" when the interval excludes zero, "noise" when it
    does not, "one seed" when a side has a single value and nothing can be said about noise.
    """

    difference: float
    std_error: float  # of the difference; infinite with one seed
    interval: tuple[float, float]
    verdict: Verdict
    baseline: tuple[float, float]  # mean and standard deviation
    other: tuple[float, float]
    seeds: tuple[int, int]  # how many values: baseline, other
    confidence: float


def mean_std(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); the deviation of a single value is given as 0.

    Raises:
        ValueError: no values.
    """
    if len(values) == 0:
        raise ValueError("the mean of no values is not defined")
    array = np.asarray(values, dtype=np.float64)
    return float(array.mean()), float(array.std(ddof=1)) if len(array) > 1 else 0.0


def compare(baseline: Sequence[float], other: Sequence[float], *, confidence: float = 0.95) -> Comparison:
    """Welch's interval for the difference of two means with unequal variances.

    Source: Welch (1947), "The generalization of Student's problem when several different population variances
    are involved", Biometrika 34. Infinite values and NaN are refused: a diverged run is not a measurement.

    Raises:
        ValueError: no values, values that are not finite, or a confidence outside (0, 1).
    """
    number("confidence", confidence, lambda x: 0 < x < 1, "in (0, 1)")
    if not all(map(math.isfinite, (*baseline, *other))):
        raise ValueError(f"cannot compare values that are not finite: {list(baseline)} and {list(other)}")
    (mean_a, std_a), (mean_b, std_b) = mean_std(baseline), mean_std(other)
    verdict: Verdict
    difference, counts = mean_b - mean_a, (len(baseline), len(other))
    if min(counts) < 2:
        error, interval, verdict = math.inf, (-math.inf, math.inf), "one seed"
    else:
        try:
            error, freedom = _welch(std_a**2 / counts[0], std_b**2 / counts[1], counts)
        except OverflowError as too_far:
            raise ValueError(f"cannot compare values so far apart: {list(baseline)} and {list(other)}") from too_far
        half = student_t_quantile(0.5 + confidence / 2, freedom) * error if error else 0.0
        interval = (difference - half, difference + half)
        verdict = "lower" if interval[1] < 0 else "higher" if interval[0] > 0 else "noise"
    return Comparison(
        difference=difference,
        std_error=error,
        interval=interval,
        verdict=verdict,
        baseline=(mean_a, std_a),
        other=(mean_b, std_b),
        seeds=counts,
        confidence=confidence,
    )


def compare_paired(baseline: Sequence[float], other: Sequence[float], *, confidence: float = 0.95) -> Comparison:
    """Student's interval for the mean difference of values that belong together: the same text, prompt or seed.

    What the pairs have in common cancels, so that less is lost in noise than with ``compare``.

    Raises:
        ValueError: no values, unequal numbers of them, values that are not finite, or a confidence outside (0, 1).
    """
    number("confidence", confidence, lambda x: 0 < x < 1, "in (0, 1)")
    if len(baseline) != len(other) or not all(map(math.isfinite, (*baseline, *other))):
        raise ValueError(f"need pairs of finite values, got {len(baseline)} and {len(other)}")
    difference, spread = mean_std([b - a for a, b in zip(baseline, other, strict=True)])
    n = len(baseline)
    verdict: Verdict
    if n < 2:
        error, interval, verdict = math.inf, (-math.inf, math.inf), "one seed"
    else:
        error = spread / math.sqrt(n)
        half = student_t_quantile(0.5 + confidence / 2, n - 1) * error if error else 0.0
        interval = (difference - half, difference + half)
        verdict = "lower" if interval[1] < 0 else "higher" if interval[0] > 0 else "noise"
    return Comparison(
        difference=difference,
        std_error=error,
        interval=interval,
        verdict=verdict,
        baseline=mean_std(baseline),
        other=mean_std(other),
        seeds=(n, n),
        confidence=confidence,
    )


def _welch(a: float, b: float, counts: tuple[int, int]) -> tuple[float, float]:
    """Standard error and Satterthwaite's degrees of freedom from the squared errors of two means."""
    if a + b == 0.0:
        return 0.0, math.inf
    return math.sqrt(a + b), (a + b) ** 2 / (a**2 / (counts[0] - 1) + b**2 / (counts[1] - 1))


def student_t_quantile(probability: float, freedom: float) -> float:
    """The t with P(T <= t) = ``probability`` for Student's distribution.

    Raises:
        ValueError: ``probability`` outside (0, 1), or ``freedom`` below 1.
    """
    from scipy.stats import t  # here, as minigpt is imported where torch and numpy are all there is

    if not (0.0 < probability < 1.0 and freedom >= 1.0):
        raise ValueError(f"need 0 < probability < 1 and freedom >= 1, got {probability} and {freedom}")
    return float(t.ppf(probability, freedom))
