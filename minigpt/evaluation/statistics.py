"""Comparing models that were trained with several seeds: what differs, and what is noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from minigpt.checks import number

Verdict = Literal["lower", "higher", "noise", "one of many", "one seed", "untrained", "no time"]


@dataclass(frozen=True)
class Comparison:
    """``other`` minus ``baseline``, in the unit of the values.

    ``verdict`` says where ``other`` lies: "lower" or "higher" when the interval excludes zero, "noise" when it
    does not, "one seed" when a side has a single value and nothing can be said about noise. "one of many" excludes zero
    alone, but not after ``holm``'s correction for the comparisons beside it. The last two are for those who compare
    trainings: "untrained" when a side has not learned enough to have an opinion, "no time" when there is no finished
    training of the time that is asked for.
    """

    difference: float
    std_error: float  # of the difference; infinite with one seed
    interval: tuple[float, float]
    verdict: Verdict
    baseline: tuple[float, float]  # mean and standard deviation
    other: tuple[float, float]
    seeds: tuple[int, int]  # how many values: baseline, other
    confidence: float
    p_value: float = 1.0  # two-sided, of no difference; corrected if there are several comparisons
    paired: bool = False  # values that share a seed, a text or a prompt are compared one by one
    among: int = 1  # comparisons that were corrected for together
    freedom: float = math.inf  # degrees of freedom of the standard error


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
    counts = (len(baseline), len(other))
    error, freedom = math.inf, 1.0
    if min(counts) >= 2:
        try:
            error, freedom = _welch(std_a**2 / counts[0], std_b**2 / counts[1], counts)
        except OverflowError as too_far:
            raise ValueError(f"cannot compare values so far apart: {list(baseline)} and {list(other)}") from too_far
    return compared(mean_b - mean_a, error, freedom, baseline, other, confidence, paired=False)


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
    error = spread / math.sqrt(n) if n > 1 else math.inf
    return compared(difference, error, max(1.0, n - 1), baseline, other, confidence, paired=True)


def compare_blocks(groups: Sequence[Sequence[float]], *, confidence: float = 0.95) -> list[Comparison]:
    """Each group after the first against the first, of values that belong together: the k-th of all share a seed.

    Student's intervals of a design in randomised blocks: what a seed does to all groups cancels, and how far values
    scatter beyond that is estimated from all groups together, with (groups - 1)(seeds - 1) degrees of freedom. Three
    seeds of four variants give 6 where a pair alone has 2. Of two groups this is ``compare_paired``.

    Groups that scatter alike are taken for granted, and a group near a plateau scatters three times as far: its false
    alarms would be 13% instead of 5%. So the pair's own interval must exclude zero, too, and where it does not, the
    result is ``compare_paired``'s. That is conservative: where all do scatter alike, some differences are missed.

    Source: Fisher (1935), "The Design of Experiments", chapter 4.

    Raises:
        ValueError: groups of different numbers of values, or values that are not finite.
    """
    table = np.asarray(groups, dtype=np.float64) if len({len(group) for group in groups}) == 1 else None
    if table is None or table.size == 0 or not np.isfinite(table).all():
        raise ValueError(f"need groups of equally many finite values, got {[len(group) for group in groups]}")
    count, seeds = table.shape
    residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
    freedom = (count - 1) * (seeds - 1)
    error = math.sqrt(2 * float((residuals**2).sum()) / freedom / seeds) if freedom else math.inf
    if error < 1e-12 * float(np.abs(table).max()):  # what rounding leaves of equal differences
        error = 0.0
    found = []
    for other in groups[1:]:
        difference = mean_std(other)[0] - mean_std(groups[0])[0]
        block = compared(difference, error, max(1.0, freedom), groups[0], other, confidence, paired=True)
        found.append(unanimous(block, compare_paired(groups[0], other, confidence=confidence)))
    return found


def unanimous(found: Comparison, alone: Comparison) -> Comparison:
    """``found``, unless it says "lower" or "higher" and its pair ``alone`` does not: then that."""
    return alone if found.verdict in ("lower", "higher") and alone.verdict == "noise" else found


def widened(comparison: Comparison, differences: Sequence[float]) -> Comparison:
    """The comparison where its difference may be any of these: the interval holds all of theirs.

    The p-value is that of the least telling; where they differ in sign, there is nothing to tell.
    """
    if not math.isfinite(comparison.std_error):
        return comparison
    found = [comparison.difference, *differences]
    half = comparison.interval[1] - comparison.difference
    interval = min(found) - half, max(found) + half
    error = comparison.std_error
    if min(found) < 0 < max(found):
        p_value = 1.0
    elif error:
        p_value = max(two_sided_p(difference / error, comparison.freedom) for difference in found)
    else:
        p_value = float(0.0 in found)
    verdict: Verdict = "lower" if interval[1] < 0 else "higher" if interval[0] > 0 else "noise"
    return replace(comparison, interval=interval, p_value=p_value, verdict=verdict)


def holm(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same comparisons with p-values that are corrected for there being several, and verdicts by them.

    The k-th smallest of m is multiplied by m - k + 1, and is no smaller than the one before it: that any of the
    verdicts "lower" and "higher" is a false alarm is then as rare as it is for one alone. Intervals stay those of one.
    What is of one seed counts for nothing, and not as one of the m.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure", Scand. J. Statistics 6.
    """
    tested = sorted((c.p_value, i) for i, c in enumerate(comparisons) if c.verdict in ("lower", "higher", "noise"))
    corrected, smallest = list(comparisons), 0.0
    for rank, (p, i) in enumerate(tested):
        smallest = max(smallest, min(1.0, p * (len(tested) - rank)))
        verdict = comparisons[i].verdict
        if verdict != "noise" and smallest > 1 - comparisons[i].confidence:
            verdict = "one of many"
        corrected[i] = replace(comparisons[i], p_value=smallest, among=len(tested), verdict=verdict)
    return corrected


def compared(
    difference: float,
    error: float,
    freedom: float,
    baseline: Sequence[float],
    other: Sequence[float],
    confidence: float,
    *,
    paired: bool,
) -> Comparison:
    """The comparison of a difference of known standard error, which is infinite where a side has one value."""
    verdict: Verdict = "one seed"
    interval, p_value = (-math.inf, math.inf), 1.0
    if math.isfinite(error):
        half = student_t_quantile(0.5 + confidence / 2, freedom) * error if error else 0.0
        interval = (difference - half, difference + half)
        verdict = "lower" if interval[1] < 0 else "higher" if interval[0] > 0 else "noise"
        p_value = two_sided_p(difference / error, freedom) if error else float(difference == 0.0)
    return Comparison(
        difference=difference,
        std_error=error,
        interval=interval,
        verdict=verdict,
        baseline=mean_std(baseline),
        other=mean_std(other),
        seeds=(len(baseline), len(other)),
        confidence=confidence,
        p_value=p_value,
        paired=paired,
        freedom=freedom,
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
    from scipy.special import stdtrit  # here, as minigpt is imported where torch and numpy are all there is

    if not (0.0 < probability < 1.0 and freedom >= 1.0):
        raise ValueError(f"need 0 < probability < 1 and freedom >= 1, got {probability} and {freedom}")
    return float(stdtrit(freedom, probability))


def two_sided_p(t: float, freedom: float) -> float:
    """P(|T| >= |t|) for Student's distribution."""
    from scipy.special import stdtr  # scipy.stats, whose functions call these, takes a second to import

    return float(2 * stdtr(freedom, -abs(t)))


def binomial_interval(trials: int, chance: float, confidence: float = 0.95) -> tuple[int, int]:
    """The counts between which lies that share of a binomial distribution: its two quantiles, from P(X <= k).

    Raises:
        ValueError: no trials, or ``chance`` or ``confidence`` outside (0, 1).
    """
    from scipy.special import bdtr

    if not (trials >= 1 and 0.0 < chance < 1.0 and 0.0 < confidence < 1.0):
        raise ValueError(
            f"need trials >= 1 and chance and confidence in (0, 1), got {trials}, {chance} and {confidence}"
        )
    below = bdtr(np.arange(trials + 1), trials, chance)
    low, high = np.searchsorted(below, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return int(low), int(high)
