"""Reading the curves of a training: each row of a history is a mean over the steps since the row before."""

from collections.abc import Sequence

from minigpt.checks import whole


def mean_between(steps: Sequence[float], losses: Sequence[float], after: float, until: float) -> float:
    """Mean loss over the steps after ``after``, up to and with ``until``.

    Raises:
        ValueError: no row lies between them.
    """
    befores = [0.0, *steps[:-1]]
    rows = [(now - before, y) for before, now, y in zip(befores, steps, losses, strict=True) if after < now <= until]
    if not rows:
        raise ValueError(f"no row of the history lies between steps {after} and {until}")
    return sum(weight * loss for weight, loss in rows) / sum(weight for weight, _ in rows)


def smoothed(steps: Sequence[float], losses: Sequence[float], points: int) -> tuple[list[float], list[float]]:
    """At most ``points`` of them: the last step of each group of rows, and the mean loss over its steps.

    Raises:
        ValueError: ``points`` is below 1, or there is no row.
    """
    if whole("points", points) < 1 or not steps:
        raise ValueError(f"cannot make {points} points of {len(steps)} rows")
    size = -(-len(steps) // points)
    ends = [steps[min(i + size, len(steps)) - 1] for i in range(0, len(steps), size)]
    return ends, [mean_between(steps, losses, a, b) for a, b in zip([0.0, *ends[:-1]], ends, strict=True)]
