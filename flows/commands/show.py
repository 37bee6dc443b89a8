"""``chapter list``, ``chapter show``: answers in the terminal. Light, so that an edit is seen in a second."""

import json
import math
import sys
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from reports.chapter import CHAPTER
from reports.plain import from_json, to_json
from reports.types import Result


def print_exercises(outputs: Path, *, as_json: bool = False) -> int:
    """The exercises with their titles and, of the latest report, what became of each; returns the exit status."""
    summary = summary_of(outputs / "latest")
    found = {exercise["id"]: exercise for exercise in summary["exercises"]} if summary else {}
    rows = [
        {
            "id": question.number,
            "title": question.title,
            "group": question.group,
            "status": found.get(id, {}).get("status", "not run"),
            "exact_checks": found.get(id, {}).get("exact_checks"),
            "empirical_checks": found.get(id, {}).get("empirical_checks"),
        }
        for id, question in CHAPTER.questions.items()
    ]
    if as_json:
        print_json({"profile": summary["profile"] if summary else None, "exercises": rows})
        return 0
    console, group = console_of_whole_lines(), None
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for row in rows:
        if row["group"] != group:
            group = row["group"]
            table.add_row("", Text(group, style="bold"), "", "")
        style = {"ok": "green", "failed": "bold red"}.get(row["status"], "dim")
        table.add_row(row["id"], Text(row["title"]), Text(row["status"], style=style), checks_in_words(row))
    console.print(table)
    if summary:
        print(f"profile {summary['profile']}: {summary['verdict']}")
    else:
        print("no report yet: `chapter run` writes one")
    return 0


def checks_in_words(exercise: dict[str, Any]) -> str:
    """How many checks hold: "exact 11/11, empirical 2/3"; a kind of which there are none is left out."""
    exact, empirical = exercise["exact_checks"] or {}, exercise["empirical_checks"] or {}
    said = [f"exact {exact['held']}/{exact['total']}"] if exact.get("total") else []
    said += [f"empirical {empirical['confirmed']}/{empirical['total']}"] if empirical.get("total") else []
    return ", ".join(said)


def show(
    outputs: Path,
    id: str,
    *,
    profile: str | None = None,
    checks: bool = False,
    again: bool = False,
    as_json: bool = False,
) -> int:
    """One answer of the latest report, or of the newest run of a ``profile``; returns the exit status.

    ``checks``: those alone. ``again`` makes the answer anew from what was measured, as ``answer.md`` is now.
    ``as_json`` has the fields that the result's file has.
    """
    run, remedy = f"chapter run --only {id}", f"in {outputs / 'latest'}"
    folder: Path | None = outputs / "latest"
    if profile is not None:
        run, remedy = f"chapter run --profile {profile} --only {id}", f"of profile {profile} in {outputs / 'runs'}"
        folder = next(runs_of(outputs, profile), None)
    number = int(id.partition(".")[2])
    file = folder / "results" / f"21.{number:02d}.json" if folder else None
    if folder is None or file is None or not file.exists():
        print(f"chapter: {id} has no result {remedy}; run `{run}`", file=sys.stderr)
        return 1
    try:
        result: Result = from_json(Result, json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError, KeyError, AttributeError):
        print(f"chapter: {file}: the result of another version of this project; run `{run}`", file=sys.stderr)
        return 1
    if again:
        from pydantic import ValidationError

        from reports.answers import AnswerError
        from tasks.answers import answer_of, load

        found = folder / "findings" / file.name
        if not found.exists():
            print(f"chapter: {id} has no findings {remedy}; run `{run}`", file=sys.stderr)
            return 1
        try:
            answer = answer_of(id, load(id, found.read_text()))
        except AnswerError as error:
            print(f"chapter: the answer of {id}: {error}", file=sys.stderr)
            return 1
        except ValidationError:
            print(f"chapter: findings.py of {id} has changed; run `{run}`", file=sys.stderr)
            return 1
        made = {field.name: getattr(answer, field.name) for field in fields(answer)}
        result = replace(result, status="ok", error="", **made)
    if as_json:
        data = {**to_json(result), "id": file.stem}
        print_json(data["checks"] if checks else data)
    else:
        from reports import terminal

        (terminal.show_checks if checks else terminal.show)(result, Console())
    return 0 if result.status == "ok" else 1


def summary_of(folder: Path) -> dict[str, Any] | None:
    """The summary of a run's folder, or None where there is none that can be read."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return summary if isinstance(summary, dict) and {"profile", "verdict", "exercises"} <= set(summary) else None


def runs_of(outputs: Path, profile: str) -> Iterator[Path]:
    """The folders of the kept runs of a profile, the newest first: their names begin with the time."""
    for folder in sorted((outputs / "runs").glob("*"), reverse=True):
        if (summary := summary_of(folder)) and summary.get("profile") == profile:
            yield folder


def console_of_whole_lines() -> Console:
    """A terminal as wide as it is; elsewhere lines are as long as they need to be, so that nothing is cut off."""
    console = Console(soft_wrap=False)
    return console if console.is_terminal else Console(width=10_000)


def print_json(data: object) -> None:
    """JSON for programs, and nothing else, on standard output."""
    print(json.dumps(_finite(data), indent=1, ensure_ascii=False, allow_nan=False))


def _finite(data: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them, as in JavaScript."""
    if isinstance(data, dict):
        return {name: _finite(value) for name, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
