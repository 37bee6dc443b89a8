"""Comparing times on a machine that does other things too: functions take turns, and ratios are taken round by round.

A slow second of the machine hits one round, not one side. What a ratio is over all rounds is told with its spread, and
with an interval that says whether it differs from 1 by more than the rounds do among each other.
"""

import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from minigpt.evaluation.statistics import compare_paired


def interleaved(
    rounds: int, functions: Mapping[str, Callable[[], float | None]], *, warmup: int = 1
) -> dict[str, list[float]]:
    """Seconds of each function in each round: {name: [seconds]}, the lists of equal length.

    The function that begins a round is another one each time, so that none always runs in the wake of the same
    other. ``warmup`` calls of each come first and do not count. A function that returns a number has timed itself,
    leaving out what is not to be compared; of one that returns None the whole call counts.

    Raises:
        ValueError: fewer than one round, or a time that is not positive.
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1, got {rounds}")
    names = list(functions)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        for _ in range(warmup):
            functions[name]()
    for turn in range(rounds):
        first = turn % len(names) if names else 0
        for name in names[first:] + names[:first]:
            started = time.perf_counter()
            told = functions[name]()
            took = time.perf_counter() - started if told is None else told
            if not 0 < took < math.inf:
                raise ValueError(f"{name} took {took} seconds in round {turn}")
            seconds[name].append(took)
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    """``above`` / ``below``, round by round.

    Raises:
        ValueError: lists of unequal length.
    """
    return [a / b for a, b in zip(above, below, strict=True)]


@dataclass(frozen=True)
class Spread:
    """What several rounds say about one number.

    ``interval`` is Student's of 95 % for the geometric mean, taken over logarithms; None from a single round.
    """

    median: float
    low: float  # the smallest
    high: float  # the largest
    rounds: int
    interval: tuple[float, float] | None = None

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """The spread of positive numbers.

        Raises:
            ValueError: no values, or one that is not positive and finite.
        """
        if not values or not all(0 < value < math.inf for value in values):
            raise ValueError(f"a spread needs positive finite values, got {list(values)}")
        interval = None
        if len(values) > 1:
            low, high = compare_paired([0.0] * len(values), [math.log(value) for value in values]).interval
            interval = (_exp(low), _exp(high))
        return cls(statistics.median(values), min(values), max(values), len(values), interval)


def _exp(x: float) -> float:
    """exp, kept finite: two rounds that differ widely have an interval beyond all numbers."""
    return math.exp(max(-700.0, min(700.0, x)))
