"""What an answer makes of trained variants: the same table, curves and sentences wherever an exercise compares some.

Apart from ``tasks.variants``, so that no measurement depends on how its numbers are worded.
"""

from collections.abc import Sequence

from minigpt.evaluation.statistics import compare, mean_std
from reports.types import Figure, Series, Table
from reports.words import describe
from tasks.variants import Variant, at_equal_time, comparisons


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
