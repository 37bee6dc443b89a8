"""The sections of the benchmark: each measures some rows, and says so in one shape, ``{row: Measured or why not}``."""

import importlib.util
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.interleaving import Spread, interleaved, ratios
from tests.benchmarks.machine import why_no_bf16
from tests.benchmarks.table import Measured


@dataclass(frozen=True)
class Setting:
    """What a section is told: the rows that are wanted, how often to repeat, and the machine's facts."""

    rows: frozenset[str]
    rounds: int
    threads: int
    machine: Mapping[str, Any]
    short: bool = False


Found = Mapping[str, Measured | str]  # a text says why the row was not measured
Section = Callable[[Setting], Found]


def training(setting: Setting) -> Found:
    """Steps against Transformers' GPT-2; bf16 is compared with the faster of its two precisions."""
    from tests.benchmarks.bench_gpt2 import SHAPES, Precision, compare

    found: dict[str, Measured | str] = {}
    no_bf16 = why_no_bf16(dict(setting.machine))
    for shape in SHAPES:
        if not {f"train-{shape}-fp32", f"train-{shape}-bf16"} & setting.rows:
            continue
        precisions: tuple[Precision, ...] = ("fp32",) if no_bf16 else ("fp32", "bf16")
        rates = compare(shape, setting.rounds, setting.threads, precisions)
        found[f"train-{shape}-fp32"] = _measured(rates["ours fp32"], rates["theirs fp32"])
        if no_bf16:
            found[f"train-{shape}-bf16"] = no_bf16
            continue
        best = max("theirs fp32", "theirs bf16", key=lambda name: statistics.median(rates[name]))
        found[f"train-{shape}-bf16"] = _measured(rates["ours bf16"], rates[best], f"theirs is fastest in {best[-4:]}")
    return found


def race(setting: Setting) -> Found:
    """Against nanoGPT's recipe, by loss at equal time; each round trains both from the start, with calibration."""
    from tests.benchmarks.bench_training import MODEL, RECIPE, TINY_SHAKESPEARE, compare
    from tests.exercise_context import bible

    ours, theirs, late = [], [], 0
    for _ in range(setting.rounds):
        result = compare(bible()[:TINY_SHAKESPEARE], setting.threads, 2_000, MODEL, RECIPE)
        nano, mine = (
            next(row for row in result["rows"] if ("nano" in row["trainer"]) is is_nano) for is_nano in (1, 0)
        )
        theirs.append(nano["nats at 64"])
        ours.append(theirs[-1] - result["gain_nats"])
        late += mine["seconds"] > nano["seconds"]
    note = f"ours took longer than nanoGPT's in {late} of {setting.rounds} rounds" if late else ""
    return {"race-loss": _measured(ours, theirs, note)}


def decoding(setting: Setting) -> Found:
    """Writing at batch 1 against ``generate()``, against the memory's limit, and with a cache against without."""
    if importlib.util.find_spec("tests.benchmarks.bench_decoding") is None:
        return dict.fromkeys(setting.rows, "tests/benchmarks/bench_decoding.py is not there")
    from tests.benchmarks import bench_decoding as bench

    shapes = {name: shape for name, shape in bench.SHAPES.items() if f"decode-{size(name)}" in setting.rows}
    return decoding_rows(bench.compare(setting.threads, setting.short, shapes or dict([*bench.SHAPES.items()][:1])))


def size(shape: str) -> str:
    """The short name of a shape: "10M" of "10 M (6 × 384, V = 65)"."""
    return shape.partition("(")[0].replace(" ", "")


def decoding_rows(result: Mapping[str, Any]) -> Found:
    """The rows in what ``bench_decoding.compare`` returns; its spreads are medians and quartiles."""
    found: dict[str, Measured | str] = {}
    for shape in result["shapes"]:
        rows, rounds, name = shape["rows"], shape["rounds"], size(shape["shape"])
        theirs = next(row for row in rows if "generate()" in row["version"])
        ours = [row for row in rows if row is not theirs]
        exact = min((row for row in ours if "32" in row["version"]), key=lambda row: row["ms per token"][0])
        fastest = min(ours, key=lambda row: row["ms per token"][0])
        for row, kind in ((exact, ""), (fastest, "-fastest")):
            rates = [1000 / each["ms per token"][0] for each in (row, theirs)]
            note = f"{row['version']}, the same token in {row['same tokens']:.0%} of the places"
            found[f"decode-{name}{kind}"] = Measured(*rates, Spread(*row["times generate()"], rounds), note)
        limit = Measured(
            1000 / exact["ms per token"][0], 1000 / exact["limit (ms)"], Spread(*exact["of the limit"], rounds)
        )
        found[f"decode-{name}-limit"] = limit
    cache = result["cache"]
    rates = [cache["new tokens"] / cache["seconds"][name] for name in ("with", "without")]
    found["decode-cache"] = Measured(*rates, Spread(*cache["times"], cache["rounds"]), f"{cache['new tokens']} tokens")
    return found


def speculation(setting: Setting) -> Found:
    """Speculative against plain decoding."""
    from tests.benchmarks.bench_speculative import compare

    result = compare(setting.rounds, setting.threads)
    note = f"{result['acceptance']:.0%} of the drafts were accepted, γ = {result['gamma']}"
    return {"speculative": _measured(result["ours"], result["plain"], note)}


def commands(setting: Setting) -> Found:
    """What the command line takes to answer, against Python that does nothing."""
    from tests.benchmarks.processes import python

    lines = {"ours": ("-m", "flows", "--help"), "theirs": ("-c", "import argparse")}
    runs = {name: lambda line=line: python(*line)[1] for name, line in lines.items()}
    seconds = interleaved(max(5, setting.rounds), runs)
    return {"help": _measured(seconds["ours"], seconds["theirs"], "seconds on a processor")}


def memory(setting: Setting) -> Found:
    """Peak memory of a training, in processes of their own."""
    from tests.benchmarks.bench_memory import trainings
    from tests.benchmarks.processes import MIB

    peaks = {side: [peak / MIB for peak in values] for side, values in trainings(min(3, setting.rounds)).items()}
    return {"memory-training": _measured(peaks["ours"], peaks["theirs"], "interpreter and libraries included")}


def smoke_chapter(setting: Setting) -> Found:
    """Memory and disk of a whole smoke chapter, which is run once."""
    from tests.benchmarks.processes import MIB, chapter

    run = chapter("--profile", "smoke")
    found = {"memory-chapter": (run.memory / MIB, 4096.0), "disk-chapter": (run.disk / MIB, 100.0)}
    note = f"one run of {run.seconds:.0f} s"
    return {name: Measured(ours, limit, Spread.of([ours / limit]), note) for name, (ours, limit) in found.items()}


def _measured(ours: list[float], theirs: list[float], note: str = "") -> Measured:
    """Medians, and ours over theirs in each round; the goal says which way is better."""
    return Measured(statistics.median(ours), statistics.median(theirs), Spread.of(ratios(ours, theirs)), note)


SECTIONS: Mapping[str, Section] = {
    "training": training,
    "race": race,
    "decoding": decoding,
    "speculation": speculation,
    "commands": commands,
    "memory": memory,
    "chapter": smoke_chapter,
}
