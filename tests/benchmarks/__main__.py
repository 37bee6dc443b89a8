"""How fast everything is: one table of ratios against others and against limits, and figures of how times grow.

    python -m tests.benchmarks [--short] [--rows NAME,…] [--rounds N] [--threads N] [--out DIR] [--write-docs]

What is compared takes turns in one process, or in processes started in turns, so that ratios hold on a machine that
does other things, too; times alone do not. Exit status: 1 if a ratio is off its goal by more than a factor of two,
which noise alone does not do, else 0. A row that misses its goal by less says so in the table.

``--short`` is for CI: a few rows and rounds on one thread, which other processes disturb least; under a minute.
``--write-docs`` renews docs/performance.md: the rows and figures that were measured, and no others.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from flows.machine import cores
from reports.figures import standalone
from reports.types import Figure
from tests.benchmarks.document import Page
from tests.benchmarks.goals import Goal, goals
from tests.benchmarks.machine import facts, sentence, why_no_bf16
from tests.benchmarks.sections import SECTIONS, Section, Setting
from tests.benchmarks.table import Failed, Row, markdown, status, write_json

ROOT = Path(__file__).parent.parent.parent
PAGE = Page()
ROUNDS, SHORT_ROUNDS, GROWTH_ROUNDS = 7, 3, 3
GROWTH = ("training-step", "token", "orchestration", "workers")


def measure(wanted: Sequence[Goal], setting: Setting, sections: Mapping[str, Section]) -> list[Row]:
    """The rows of these goals, in their order. A section that fails costs its own rows and no others."""
    found: dict[str, Any] = {}
    for section in dict.fromkeys(goal.section for goal in wanted):
        started = time.perf_counter()
        rows = frozenset(goal.name for goal in wanted if goal.section == section)
        try:
            told = sections[section](replace(setting, rows=rows))
            found |= {name: value for name, value in told.items() if name in rows}
        except Exception as error:  # what other sections took minutes to measure is not lost with it
            found |= dict.fromkeys(rows, Failed(f"{type(error).__name__}: {error}"))
        print(f"{section}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    return [Row.of(goal, found.get(goal.name, "its section did not measure it")) for goal in wanted]


def growth(setting: Setting) -> dict[str, Figure]:
    """The figures by name."""
    from tests.benchmarks import growth as of

    rounds, threads = min(GROWTH_ROUNDS, setting.rounds), setting.threads
    precisions: Any = ("fp32",) if why_no_bf16(dict(setting.machine)) else ("fp32", "bf16")
    makers: dict[str, Callable[[], Figure]] = {
        "training-step": lambda: of.training_step(rounds, threads, precisions),
        "token": lambda: of.token(rounds, threads),
        "orchestration": lambda: of.orchestration(rounds),
        "workers": lambda: of.workers(rounds),
    }
    return {name: makers[name]() for name in GROWTH if name in setting.rows}


def keep(out: Path, machine: dict[str, Any], measured: Sequence[Row], drawn: Mapping[str, Figure]) -> None:
    """Writes the rows, as JSON and as a table, and the figures into a folder."""
    out.mkdir(parents=True, exist_ok=True)
    write_json(out / "benchmarks.json", machine, measured, {name: asdict(figure) for name, figure in drawn.items()})
    (out / "benchmarks.md").write_text(f"{sentence(machine)}\n\n{markdown(measured)}\n", encoding="utf-8")
    for name, figure in drawn.items():
        (out / f"{name}.svg").write_text(standalone(figure), encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=(__doc__ or "").splitlines()[0])
    made.add_argument("--short", action="store_true", help="a few rows and rounds, for CI")
    made.add_argument("--rows", default="", metavar="NAME,…", help="rows, sections or figures (default: all)")
    made.add_argument("--rounds", type=int, help=f"repeats (default: {ROUNDS}, with --short {SHORT_ROUNDS})")
    made.add_argument("--threads", type=int, help="threads of both sides (default: one per core, with --short 1)")
    made.add_argument("--out", type=Path, default=ROOT / "outputs" / "benchmarks", metavar="DIR")
    made.add_argument("--write-docs", action="store_true", help="renew docs/performance.md")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, write; returns the exit status."""
    parsed = parser().parse_args(arguments)
    names = tuple(name for name in parsed.rows.split(",") if name)
    figures = [name for name in GROWTH if name in names or (not names and not parsed.short)]
    rows = tuple(name for name in names if name not in GROWTH)
    rounds = (SHORT_ROUNDS if parsed.short else ROUNDS) if parsed.rounds is None else parsed.rounds
    threads = (1 if parsed.short else cores()) if parsed.threads is None else parsed.threads
    if parsed.write_docs and parsed.short:
        parser().error("--write-docs with --short: the page shows whole measurements, leave out one of the two")
    if rounds < 1 or threads < 1:
        parser().error(f"--rounds {rounds}, --threads {threads}: both are at least 1")
    try:
        wanted = goals(rows, short=parsed.short and not rows) if rows or not names else ()
    except ValueError as error:
        parser().error(f"{error}; figures are {', '.join(GROWTH)}")
    machine = facts(threads)
    torch.set_num_threads(threads)
    chosen = frozenset([goal.name for goal in wanted] + figures)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        setting = Setting(chosen, rounds, threads, machine, Path(scratch), parsed.short)
        measured = measure(wanted, setting, SECTIONS)
        print(f"{sentence(machine)}\n\n{markdown(measured)}")
        keep(parsed.out, machine, measured, {})  # half an hour's rows are not lost with a figure
        drawn = growth(setting)
    keep(parsed.out, machine, measured, drawn)
    if parsed.write_docs:
        PAGE.renew(machine, measured, drawn)
    return status(measured)


if __name__ == "__main__":
    sys.exit(main())
