"""Comparing several groups of few values each: how far values of one group scatter is estimated from all of them."""

import math
from collections.abc import Mapping, Sequence

from minigpt.evaluation.statistics import Comparison, compared, mean_std


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
    error = math.inf
    if min(len(a), len(b)) > 1:
        squares = sum((len(values) - 1) * mean_std(values)[1] ** 2 for values in groups.values())
        error = math.sqrt(squares / freedom * (1 / len(a) + 1 / len(b)))
    return compared(difference, error, float(freedom), a, b, confidence, paired=False)
