"""Which way to write comes nearest to people, and which others cannot be told from it in that."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

from minigpt.evaluation.statistics import compare_paired, holm, mean_std
from reports.words import listed

Name = TypeVar("Name", bound=Hashable)


def as_low(least: Sequence[float], others: Mapping[Name, Sequence[float]]) -> list[Name]:
    """Those whose mean cannot be told from the least, beyond noise: values in pairs, corrected after Holm."""
    found = holm([compare_paired(least, values) for values in others.values()])
    return [name for name, comparison in zip(others, found, strict=True) if comparison.verdict != "higher"]


def as_near(people: Sequence[float], ways: Mapping[Name, Sequence[float]], nearest: Name) -> list[Name]:
    """The ways whose mean is not farther from people's than that of the nearest one, beyond noise.

    Values are paired: the k-th of all belong to one prompt. The distance of a way is the size of its mean difference
    from people, so that two ways are compared by their differences, each counted in the direction in which its mean
    lies. Corrected after Holm for the number of ways.
    """

    def distances(values: Sequence[float]) -> list[float]:
        apart = [value - own for value, own in zip(values, people, strict=True)]
        sign = -1 if mean_std(apart)[0] < 0 else 1
        return [sign * difference for difference in apart]

    return as_low(distances(ways[nearest]), {name: distances(ways[name]) for name in ways if name != nearest})


def few(names: Sequence[object]) -> str:
    """Their names, or how many of the others they are where a list would be long; nothing of none."""
    if not names:
        return ""
    return listed(names) if len(names) <= 3 else f"{len(names)} of the others"
