"""The table of the benchmark: rows as data, as Markdown, and as JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.goals import Goal
from tests.benchmarks.interleaving import Spread


@dataclass(frozen=True)
class Measured:
    """What a section found for one row: both sides in the row's unit, and their ratio over the rounds."""

    ours: float
    theirs: float
    ratio: Spread
    note: str = ""


@dataclass(frozen=True)
class Failed:
    """A section that could not measure what it should: its rows count as broken."""

    error: str


@dataclass(frozen=True)
class Row:
    """A goal and what was found. ``skipped`` says why nothing was looked for, ``error`` what went wrong."""

    goal: Goal
    ours: float | None = None
    theirs: float | None = None
    ratio: Spread | None = None
    note: str = ""
    skipped: str = ""
    error: str = ""

    @classmethod
    def of(cls, goal: Goal, found: "Measured | Failed | str") -> "Row":
        """A row from what its section returned: numbers, or why there are none."""
        if isinstance(found, Failed):
            return cls(goal, error=found.error)
        if isinstance(found, str):
            return cls(goal, skipped=found)
        return cls(goal, found.ours, found.theirs, found.ratio, found.note)

    @property
    def verdict(self) -> str:
        """Whether the goal is "met", "missed" or "broken", by the median ratio; or "skipped" or "failed"."""
        if self.ratio:
            return self.goal.verdict(self.ratio.median)
        return "failed" if self.error else "skipped"

    def to_json(self) -> dict[str, Any]:
        """The row as plain data."""
        return asdict(self) | {"verdict": self.verdict}


def status(rows: Sequence[Row]) -> int:
    """The exit status: 1 if a ratio broke its wide margin or could not be measured, else 0."""
    return int(any(row.verdict in ("broken", "failed") for row in rows))


def markdown(rows: Sequence[Row]) -> str:
    """The table; below it what the rows have to remark."""
    lines = [
        "| row | what | ours | theirs, or the limit | ratio (from – to) | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        goal = row.goal
        if row.ratio is None:
            cells = ["", goal.theirs, "", str(goal), f"{row.verdict}: {row.error or row.skipped}"]
        else:
            spread = f"**{row.ratio.median:.2f}** ({row.ratio.low:.2f} – {row.ratio.high:.2f})"
            theirs = f"{number(row.theirs)}: {goal.theirs}"
            cells = [f"{number(row.ours)} {goal.unit}", theirs, spread, str(goal), row.verdict]
        cells = [" ".join(cell.split()).replace("|", "\\|") for cell in (f"`{goal.name}`", goal.what, *cells)]
        lines.append(f"| {' | '.join(cells)} |")
    notes = [f"- `{row.goal.name}`: {row.note}." for row in rows if row.note]
    return "\n".join([*lines, *([""] if notes else []), *notes])


def number(value: float | None) -> str:
    """Three digits, without an exponent."""
    if value is None:
        return ""
    if abs(value) >= 100:
        return f"{float(f'{value:.3g}'):,.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 or value == 0 else f"{value:.6f}"


def write_json(path: Path, machine: Mapping[str, Any], rows: Sequence[Row], growth: Mapping[str, Any]) -> None:
    """All that was measured, at full precision.

    Raises:
        ValueError: a number that is not finite.
    """
    result = {"machine": machine, "rows": [row.to_json() for row in rows], "growth": growth}
    path.write_text(json.dumps(result, indent=2, allow_nan=False) + "\n", encoding="utf-8")
