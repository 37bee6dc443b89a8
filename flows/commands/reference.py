"""``chapter report --reference DIR``: a run's metrics and checks as files that later reports show beside their own."""

import json
import subprocess
from pathlib import Path
from typing import Any

from flows.machine import processor
from flows.options import UsageError
from minigpt.atomic import write_atomic
from reports.beside.reference import of
from reports.formats import number
from reports.plain import from_json, to_json
from reports.types import Result
from reports.write import dumps

ROOT = Path(__file__).parent.parent.parent


def write_references(run: Path, to: Path, *, budget: float = 1.0) -> list[Path]:
    """One file per answered exercise of a finished run's folder; those of other exercises stay as they are.

    Raises:
        UsageError: there is no commit to name, nothing is known of when the run was, or ``to`` is no folder.
    """
    if to.exists() and not to.is_dir():
        raise UsageError(f"--reference {to}: this is a file; name a folder, such as reports/reference")
    summary = json.loads((run / "summary.json").read_text(encoding="utf-8"))
    if not summary["run"]["started"]:
        profile = summary["profile"]
        raise UsageError(
            f"--reference {to}: when this was measured is not known, as its run is no longer among the kept ones; "
            f"`chapter run --profile {profile}` first, which finds its results in the store"
        )
    commit = commit_of(ROOT)
    written = []
    for file in sorted((run / "results").glob("*.json")):
        result: Result = from_json(Result, json.loads(file.read_text(encoding="utf-8")))
        if result.status == "ok":
            kept = of(
                result,
                commit=commit,
                date=summary["run"]["started"],
                machine=machine(summary["run"]["machine"]),
                budget=budget,
            )
            written.append(to / f"{kept.id}.json")
            write_atomic(written[-1], dumps(to_json(kept)).encode())
    return written


def machine(facts: dict[str, Any]) -> str:
    """The machine of a run in one line, with the processor of this one."""
    name = processor() if facts["device"] == "CPU" else facts["device"]
    memory, precision = number(facts["memory_gib"], 3), facts["precision"]
    said = [name, f"{facts['cores']} cores", f"{memory} GiB memory", f"PyTorch {facts['torch']}"]
    return ", ".join([*said, f"trainings in {precision}"] if precision else said)


def commit_of(folder: Path) -> str:
    """The commit that the code in a folder is.

    Raises:
        UsageError: git knows none, or the code differs from it.
    """
    commit = _git(folder, "rev-parse", "--short=10", "HEAD")
    changed = _git(folder, "status", "--porcelain", "--", "*.py", "*/answer.md") if commit else ""
    if not commit:
        raise UsageError(f"--reference: git knows no commit of {folder}; a reference names the commit that it is of")
    if changed:
        first = changed.split()[-1]
        raise UsageError(f"--reference: {first} differs from the commit; commit it first, a reference names its commit")
    return commit


def _git(folder: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except OSError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
