"""docs/performance.md: the parts of it that the benchmark writes, from the last measurement of each row.

``docs/performance/benchmarks.json`` keeps those measurements, so that a run of some rows renews these and leaves the
others; a row from another run than the newest says so. Goals and verdicts are those of today. Figures lie beside it.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reports.figures import standalone
from reports.types import Figure
from tests.benchmarks.goals import GOALS
from tests.benchmarks.interleaving import Spread
from tests.benchmarks.machine import sentence
from tests.benchmarks.table import Row, markdown

ROOT = Path(__file__).parent.parent.parent
BEGIN, END = "<!-- {}: written by python -m tests.benchmarks --write-docs -->", "<!-- end of {} -->"


@dataclass(frozen=True)
class Page:
    """A document and the folder of what it shows; that is named by its place beside the document."""

    document: Path = ROOT / "docs" / "performance.md"
    folder: Path = ROOT / "docs" / "performance"

    def renew(self, machine: Mapping[str, Any], rows: Sequence[Row], figures: Mapping[str, Figure]) -> None:
        """Write new rows and figures into the document and the folder, and leave all others as they are.

        Raises:
            ValueError: the document lacks a part's marks, or has them twice; nothing is written then.
        """
        text, path = self.document.read_text(encoding="utf-8"), self.folder / "benchmarks.json"
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"rows": {}}
        if rows:
            kept = {"machine": machine, "rows": kept["rows"] | {row.goal.name: _kept(row, machine) for row in rows}}
            text = replaced(text, "machine", sentence(kept["machine"]))
            text = replaced(text, "table", table(kept))
        for name, figure in figures.items():
            shown = f"![{figure.caption}: {figure.y_label} against {figure.x_label}]({self.folder.name}/{name}.svg)"
            text = replaced(text, f"figure {name}", shown)
        self.folder.mkdir(exist_ok=True)
        for name, figure in figures.items():
            (self.folder / f"{name}.svg").write_text(standalone(figure), encoding="utf-8")
        if rows:
            path.write_text(json.dumps(kept, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        self.document.write_text(text, encoding="utf-8")


def table(kept: Mapping[str, Any]) -> str:
    """The table of all rows that were ever measured and have a goal, and the names of those that were not."""
    rows, missing = [], []
    for goal in GOALS:
        if found := kept["rows"].get(goal.name):
            rows.append(_row(Row(goal), found, kept["machine"]))
        else:
            missing.append(f"`{goal.name}`")
    return markdown(rows) + (f"\n\nNot measured yet: {', '.join(missing)}." if missing else "")


def replaced(document: str, part: str, content: str) -> str:
    """A document with what stands between the marks of a part exchanged for ``content``.

    Raises:
        ValueError: a mark is missing, or stands there twice.
    """
    begin, end = BEGIN.format(part), END.format(part)
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"the document needs the lines {begin!r} and {end!r} once each, in this order")
    before, after = document[: document.index(begin) + len(begin)], document[document.index(end) :]
    return f"{before}\n\n{content.strip()}\n\n{after}"


def _kept(row: Row, machine: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, without the goal, and where and when."""
    told = {name: value for name, value in row.to_json().items() if name not in ("goal", "verdict")}
    return told | {"run": {name: machine[name] for name in ("commit", "date", "threads", "cpu")}}


def _row(row: Row, found: Mapping[str, Any], machine: Mapping[str, Any]) -> Row:
    values = {name: value for name, value in found.items() if name != "run"}
    if ratio := values["ratio"]:
        values["ratio"] = Spread(**ratio | {"interval": ratio["interval"] and tuple(ratio["interval"])})
    run = found["run"]
    if run["date"] != machine["date"]:
        where = f"threads: {run['threads']}" + (f", on {run['cpu']}" if run["cpu"] != machine["cpu"] else "")
        other = f"from another run, of commit {run['commit']} on {run['date'][:10]} ({where})"
        values["note"] = f"{values['note']}; {other}" if values["note"] else other
    return replace(row, **values)
