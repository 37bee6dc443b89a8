"""Comparing several groups of few values each: how far values of one group scatter is estimated from all of them."""

import math
from collections.abc import Mapping, Sequence

from minigpt.evaluation.statistics import Comparison, mean_std, student_t_quantile, two_sided_p


def compare_pooled(
    groups: Mapping[str, Sequence[float]], baseline: str, other: str, *, confidence: float = 0.95
) -> Comparison:
    """Student's interval for a difference of two group means, with the standard deviation of all groups together.

    Two or three values say little about their own scatter; where all groups can be taken to scatter alike, as seeds of
    trainings that differ in size alone, each adds its n - 1 degrees of freedom (Fisher's least significant difference;
    Welch's interval does without the assumption and with far fewer degrees). A group of one value carries no claim.

    Raises:
        ValueError: no values, or values that are not finite.
    """
    if not all(math.isfinite(value) for values in groups.values() for value in values):
        raise ValueError(f"cannot compare values that are not finite: {dict(groups)}")
    a, b = groups[baseline], groups[other]
    (mean_a, _), (mean_b, _) = mean_std(a), mean_std(b)
    freedom = sum(len(values) - 1 for values in groups.values())
    difference = mean_b - mean_a
    error, interval, p_value = math.inf, (-math.inf, math.inf), 1.0
    verdict = "one seed"
    if min(len(a), len(b)) > 1:
        squares = sum((len(values) - 1) * mean_std(values)[1] ** 2 for values in groups.values())
        error = math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))
        half = student_t_quantile(0.5 + confidence / 2, freedom) * error
        interval = (difference - half, difference + half)
        verdict = "lower" if interval[1] < 0 else "higher" if interval[0] > 0 else "noise"
        p_value = two_sided_p(difference / error, freedom) if error else float(difference == 0.0)
    return Comparison(
        difference=difference,
        std_error=error,
        interval=interval,
        verdict=verdict,  # type: ignore[arg-type]
        baseline=mean_std(a),
        other=mean_std(b),
        seeds=(len(a), len(b)),
        confidence=confidence,
        p_value=p_value,
    )
