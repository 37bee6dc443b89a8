"""What the chapter costs beside its work: start of the commands, a run that finds all in the store, orchestration.

    python -m tests.benchmarks.bench_overhead [--outputs DIR] [--json FILE] [--short]

Commands run as a user runs them, in processes of their own, with bytecode. Two clocks for each: the wall's, and the
processor seconds of the command and all its children, which other work on the machine disturbs less. Medians over the
rounds; one round before them fills what is kept (bytecode, syntax digests, the page's sections).

The share of orchestration in a cold run is taken from the run's own records. Each step's record says for how many
seconds it worked, and its file when it ended. While at least one step works, the time is the steps'; the rest of the
command's wall clock is orchestration: servers, imports, processes that begin, look-ups, tracking, the page. ``idle`` is
told beside it: the share of the processes' time that no step filled, hand-overs and imbalance included.

With ``--outputs`` the warm runs use that folder, which is filled first if it has to be; without it a temporary one is
filled by a cold run. ``--short`` takes one round in place of five.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.processes import as_a_user

ROOT = Path(__file__).parents[2]
ROUNDS = 5
GOALS = {"help": 0.5, "show": 1.5, "doctor": 1.5, "plan": 1.5, "warm-run": 10.0}  # seconds on an idle machine
SMOKE = ("--profile", "smoke", "--sources", "embedded")  # without a look at what could be downloaded
COMMANDS: Mapping[str, Sequence[str]] = {
    "help": ("--help",),
    "show": ("show", "21.3"),
    "doctor": ("doctor",),
    "plan": ("plan", *SMOKE),
    "warm-run": ("run", *SMOKE),
}
NEED_RESULTS = frozenset({"show", "plan", "warm-run"})  # what is timed is a store in which all is there
SHARE_GOAL = 0.05  # of a cold run at laptop size


def timed(arguments: Sequence[str], outputs: Path) -> dict[str, float]:
    """Seconds of one command: of the wall's clock, and of the processor, children included.

    Raises:
        RuntimeError: it failed.
    """
    before, started = _children(), time.perf_counter()
    command = [sys.executable, "-m", "flows", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=as_a_user(outputs), capture_output=True, text=True)
    wall, cpu = time.perf_counter() - started, _children() - before
    if done.returncode:
        raise RuntimeError(f"chapter {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return {"wall": wall, "cpu": cpu}


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def is_warm(outputs: Path) -> bool:
    """Whether a smoke run would find every step in the store."""
    command = [sys.executable, "-m", "flows", *COMMANDS["plan"]]
    plan = subprocess.run(command, cwd=ROOT, env=as_a_user(outputs), capture_output=True, text=True, check=True)
    return " 0 to run, 0 unknown yet" in plan.stdout


def orchestration(outputs: Path, wall: float) -> dict[str, Any]:
    """Orchestration's share of the newest run, which took ``wall`` seconds from the command's start to its end.

    Steps of earlier runs do not count: a record belongs to the run if it was written while that lasted.

    Raises:
        ValueError: the newest run has run no step.
    """
    from flows.machine import cores
    from tasks.cache.store import Store

    summary = json.loads((outputs / "latest" / "summary.json").read_text())
    begun = datetime.fromisoformat(summary["run"]["started"]).timestamp() - 1  # told in whole seconds
    store = Store(str(outputs / "store"))
    spans = []
    for entry in store.listing("records"):
        record = store.record(entry["path"].rpartition("/")[2])
        if record and (end := float(entry["modified"] or 0.0)) >= begun:
            spans.append((end - float(record["data"]["seconds"]), end))
    if not spans:
        raise ValueError(f"{outputs}: its newest run has run no step")
    work = covered(spans)
    return {
        "profile": summary["profile"],
        "steps": len(spans),
        "wall": wall,
        "work": work,
        "share": 1 - work / wall,
        "idle": 1 - sum(end - start for start, end in spans) / (cores() * work),
    }


def covered(spans: Sequence[tuple[float, float]]) -> float:
    """The length of the union of intervals."""
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total


def measure(
    outputs: Path | None = None, *, rounds: int = ROUNDS, commands: Collection[str] = tuple(COMMANDS)
) -> dict[str, Any]:
    """These commands, as JSON: {"commands": {name: {wall, cpu, goal, rounds}}, "cold": {share, …} or None}.

    ``wall`` and ``cpu`` are medians, ``rounds`` has the seconds of each round: [{wall, cpu}]. ``cold`` is None where
    ``outputs`` was warm already, or no command needs it to be.
    """
    if outputs is None:
        with tempfile.TemporaryDirectory() as folder:
            return measure(Path(folder), rounds=rounds, commands=commands)
    outputs = outputs.resolve()
    cold = None
    if NEED_RESULTS & set(commands) and not is_warm(outputs):
        cold = orchestration(outputs, timed(COMMANDS["warm-run"], outputs)["wall"])
    found: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS if name in commands}
    for round in range(rounds + 1):
        for name in found:  # in turns: what else the machine does hits all alike
            seconds = timed(COMMANDS[name], outputs)
            if round:
                found[name].append(seconds)
    told = {
        name: {clock: statistics.median(one[clock] for one in times) for clock in ("wall", "cpu")}
        | {"goal": GOALS[name], "rounds": times}
        for name, times in found.items()
    }
    return {"rounds": rounds, "commands": told, "cold": cold}


def show(found: Mapping[str, Any]) -> None:
    """Print the table."""
    table = Table("chapter …", "wall, s", "processor, s", "goal, s", box=None, padding=(0, 2, 0, 0))
    for name, one in found["commands"].items():
        table.add_row(name, f"{one['wall']:.2f}", f"{one['cpu']:.2f}", f"{one['goal']:g}")
    Console().print(table)
    if cold := found["cold"]:
        print(
            f"cold {cold['profile']} run of {cold['steps']} steps: {cold['wall']:.0f} s, in {cold['work']:.0f} s of "
            f"which a step was at work; orchestration {cold['share']:.1%} (goal at laptop size: {SHARE_GOAL:.0%})"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and show; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--outputs", type=Path, help="a folder of outputs to use; filled first if it is not warm")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    parser.add_argument("--short", action="store_true", help="one round in place of five")
    parsed = parser.parse_args(arguments)
    found = measure(parsed.outputs, rounds=1 if parsed.short else ROUNDS)
    show(found)
    if parsed.json:
        parsed.json.write_text(json.dumps(found, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
