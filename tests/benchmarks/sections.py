"""The sections of the benchmark: each measures some rows, and says so in one shape, ``{row: Measured or why not}``."""

import functools
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks.interleaving import Spread, interleaved, ratios
from tests.benchmarks.machine import why_no_bf16
from tests.benchmarks.processes import MIB, Footprint, chapter, python
from tests.benchmarks.table import Failed, Measured

RACES, DECODINGS = 3, 5  # rounds at most: a race takes about three minutes, and decoding one


@dataclass(frozen=True)
class Setting:
    """What a section is told: the rows that are wanted, how often to repeat, the machine's facts, and a folder.

    ``scratch`` holds what sections share, for as long as the benchmark runs.
    """

    rows: frozenset[str]
    rounds: int
    threads: int
    machine: Mapping[str, Any]
    scratch: Path
    short: bool = False


Found = Mapping[str, Measured | Failed | str]  # a text says why the row was not measured
Section = Callable[[Setting], Found]


def training(setting: Setting) -> Found:
    """Steps against Transformers' GPT-2; bf16 is compared with the faster of its two precisions, and ours with fp32."""
    from tests.benchmarks.bench_gpt2 import SHAPES, Precision, compare

    found: dict[str, Measured | Failed | str] = {}
    no_bf16 = why_no_bf16(dict(setting.machine))
    for shape in SHAPES:
        if not {f"train-{shape}-fp32", f"train-{shape}-bf16", f"bf16-gain-{shape}"} & setting.rows:
            continue
        precisions: tuple[Precision, ...] = ("fp32",) if no_bf16 else ("fp32", "bf16")
        rates = compare(shape, setting.rounds, setting.threads, precisions)
        found[f"train-{shape}-fp32"] = _measured(rates["ours fp32"], rates["theirs fp32"])
        if no_bf16:
            found |= dict.fromkeys((f"train-{shape}-bf16", f"bf16-gain-{shape}"), no_bf16)
            continue
        best = max("theirs fp32", "theirs bf16", key=lambda name: statistics.median(rates[name]))
        found[f"train-{shape}-bf16"] = _measured(rates["ours bf16"], rates[best], f"theirs is fastest in {best[-4:]}")
        found[f"bf16-gain-{shape}"] = _measured(rates["ours bf16"], rates["ours fp32"])
    return found


def race(setting: Setting) -> Found:
    """Against nanoGPT's recipe; each round trains both from the start, with calibration, and takes minutes."""
    from tests.benchmarks.bench_training import MODEL, RECIPE, TINY_SHAKESPEARE, compare
    from tests.exercise_context import bible

    text, rounds = bible()[:TINY_SHAKESPEARE], min(RACES, setting.rounds)
    return race_rows([compare(text, setting.threads, 2_000, MODEL, RECIPE) for _ in range(rounds)])


def race_rows(results: Sequence[Mapping[str, Any]]) -> Found:
    """The rows in what ``bench_training.compare`` returned in each round: loss at equal time, time to equal loss."""
    found: dict[str, Measured | Failed | str] = {}
    trainers = [{"nano" if "nano" in row["trainer"] else "ours": row for row in each["rows"]} for each in results]
    late = sum(each["ours"]["seconds"] > each["nano"]["seconds"] for each in trainers)
    note = f"ours took longer than nanoGPT's in {late} of {len(results)} rounds" if late else ""
    gains = [each["gain_nats"] for each in results]
    if min(gains) > 0:
        found["race-loss"] = _measured(gains, [each["target_nats"] for each in results], note)
    else:
        found["race-loss"] = Failed(f"a round ended {-min(gains):.3f} nats above nanoGPT's loss")
    reached = [each["seconds_to_nanogpt"] for each in results]
    if None in reached:
        found["race-time"] = Failed(f"in {reached.count(None)} of {len(reached)} rounds that loss was not reached")
    else:
        found["race-time"] = _measured(reached, [each["nano"]["seconds"] for each in trainers])
    return found


def decoding(setting: Setting) -> Found:
    """Writing at batch 1 against ``generate()``, against the memory's limit, and with a cache against without."""
    from tests.benchmarks import bench_decoding as bench

    sizes = {row.split("-")[1] for row in setting.rows if row != "decode-cache"}
    shapes = {name: shape for name, shape in bench.SHAPES.items() if size(name) in sizes}
    cached = bench.CACHED if "decode-cache" in setting.rows else None
    return decoding_rows(
        bench.compare(setting.threads, setting.short, shapes, cached=cached, rounds=min(DECODINGS, setting.rounds))
    )


def size(shape: str) -> str:
    """The short name of a shape: "10M" of "10 M (6 × 384, V = 65)"."""
    return shape.partition("(")[0].replace(" ", "")


def decoding_rows(result: Mapping[str, Any]) -> Found:
    """The rows in what ``bench_decoding.compare`` returns; its spreads are medians and quartiles.

    Raises:
        ArithmeticError: with the model's own weights another text was written than by the other side.
    """
    found: dict[str, Measured | Failed | str] = {}
    for shape in result["shapes"]:
        versions, rounds, name = {row["version"]: row for row in shape["rows"]}, shape["rounds"], size(shape["shape"])
        theirs = 1000 / versions["Transformers generate(), fp32"]["ms per token"][0]
        for weights, short in (("float32", "fp32"), ("bfloat16", "bf16"), ("int8", "int8")):
            row = versions[f"this project, packed {weights}"]
            if weights == "float32" and row["same tokens"] < 1:
                raise ArithmeticError(f"{name}: in fp32 only {row['same tokens']:.0%} of the tokens are generate()'s")
            ours = 1000 / row["ms per token"][0]
            note = f"{row['same tokens']:.0%} of the tokens are those of generate()"
            if row["same tokens"] < 1:
                note += ", and with random weights one other token changes all that follow"
            found[f"decode-{name}-{short}"] = Measured(ours, theirs, Spread(*row["times generate()"], rounds), note)
            limit, fastest = 1000 / row["read plainly (ms)"], row["of fastest"][0]
            note = f"{fastest:.2f} of the fastest read that was found"
            found[f"limit-{name}-{short}"] = Measured(ours, limit, Spread(*row["of plain"], rounds), note)
    if cache := result["cache"]:
        rates = [cache["new tokens"] / cache["seconds"][name] for name in ("with", "without")]
        found["decode-cache"] = Measured(
            *rates, Spread(*cache["times"], cache["rounds"]), f"{cache['new tokens']} tokens"
        )
    return found


def speculation(setting: Setting) -> Found:
    """Speculative against plain decoding."""
    from tests.benchmarks.bench_speculative import compare

    result = compare(setting.rounds, setting.threads)
    note = f"{result['acceptance']:.0%} of the drafts were accepted, γ = {result['gamma']}"
    return {"speculative": _measured(result["ours"], result["plain"], note)}


def commands(setting: Setting) -> Found:
    """What the command line takes to answer, against Python that does nothing."""
    lines = {"ours": ("-m", "flows", "--help"), "theirs": ("-c", "import argparse")}
    runs = {name: lambda line=line: python(*line)[1] for name, line in lines.items()}
    seconds = interleaved(max(5, setting.rounds), runs)
    return {"help-cpu": _measured(seconds["ours"], seconds["theirs"])}


def memory(setting: Setting) -> Found:
    """Peak memory of a training, in processes of their own."""
    from tests.benchmarks.bench_memory import trainings

    peaks = {side: [peak / MIB for peak in values] for side, values in trainings(min(3, setting.rounds)).items()}
    return {"memory-training": _measured(peaks["ours"], peaks["theirs"], "interpreter and libraries included")}


def smoke_chapter(setting: Setting) -> Found:
    """Memory and disk of a whole smoke chapter."""
    _, run = cold_smoke(setting.scratch)
    found = {"memory-chapter": (run.memory / MIB, 4096.0), "disk-chapter": (run.disk / MIB, 100.0)}
    note = f"one run of {run.seconds:.0f} s"
    return {name: Measured(ours, limit, Spread.of([ours / limit]), note) for name, (ours, limit) in found.items()}


@functools.cache  # sections share the run
def cold_smoke(scratch: Path) -> tuple[Path, Footprint]:
    """The outputs of a smoke chapter, which begins with nothing, and what it took."""
    outputs = scratch / "smoke"
    shutil.rmtree(outputs, ignore_errors=True)  # of a run that failed in another section
    return outputs, chapter(outputs, "--profile", "smoke")


def overhead(setting: Setting) -> Found:
    """Wall-clock of the commands against the time that is asked for, and the orchestration of a cold run."""
    from tests.benchmarks.bench_overhead import NEED_RESULTS, SHARE_GOAL, measure, orchestration

    if not NEED_RESULTS & setting.rows:
        with tempfile.TemporaryDirectory(dir=setting.scratch) as empty:
            return overhead_rows(measure(Path(empty), rounds=setting.rounds, commands=setting.rows))
    outputs, run = cold_smoke(setting.scratch)
    cold = orchestration(outputs, run.seconds)  # before others follow: it is told of the newest run
    note = (
        f"of a cold run of {cold['steps']} steps and {cold['wall']:.0f} s, orchestration was {cold['share']:.1%}"
        f" ({SHARE_GOAL:.0%} is asked for at the size of `laptop`, not at this one)"
    )
    return overhead_rows(measure(outputs, rounds=setting.rounds, commands=setting.rows), note)


def overhead_rows(result: Mapping[str, Any], warm_run: str = "") -> Found:
    """The rows in what ``bench_overhead.measure`` returns, with a remark on the warm run."""
    return {
        name: _measured(
            [one["wall"] for one in command["rounds"]],
            [command["goal"]] * len(command["rounds"]),
            warm_run if name == "warm-run" else "",
        )
        for name, command in result["commands"].items()
    }


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
    "overhead": overhead,
}
