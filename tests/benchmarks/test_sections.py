"""What the sections make of what the modules measure: each number lands in the row that it belongs to."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.cache.store import Store
from tests.benchmarks import bench_decoding, bench_gpt2, sections
from tests.benchmarks.goals import GOALS
from tests.benchmarks.processes import MIB, Footprint, chapter
from tests.benchmarks.sections import Found, Setting, decoding_rows, overhead_rows, race_rows
from tests.benchmarks.table import Failed, Measured
from tests.tasks.cache.test_store import persist

ROWS = {goal.name: goal for goal in GOALS}


def row(found: Found, name: str) -> Measured:
    value = found[name]
    assert isinstance(value, Measured)
    return value


def names(section: str) -> frozenset[str]:
    return frozenset(goal.name for goal in GOALS if goal.section == section)


def setting(section: str, scratch: Path, *, fast_bf16: bool = True) -> Setting:
    machine = {"fast_bf16": fast_bf16, "gflops": {"fp32": 2.0, "bf16": 1.0}}
    return Setting(names(section), 5, 1, machine, scratch)


def decoded() -> dict[str, Any]:
    """As ``bench_decoding.compare`` returns it: 124 M reads at half the memory's speed, whatever the weights."""

    def version(name: str, ms: float, times: float, **more: object) -> dict[str, object]:
        return {"version": name, "ms per token": [ms] * 3, "times generate()": [times] * 3, "same tokens": 1.0, **more}

    def packed(weights: str, ms: float) -> dict[str, object]:
        limits = {"read plainly (ms)": ms / 2, "of plain": [0.5, 0.4, 0.6], "of fastest": [0.3, 0.2, 0.4]}
        return version(f"this project, packed {weights}", ms, 8.0 / ms, **limits)

    versions = [version("Transformers generate(), fp32", 8.0, 1.0), version("this project, unpacked fp32", 5.0, 1.6)]
    versions += [packed("float32", 4.0), packed("bfloat16", 2.0), packed("int8", 1.0)]
    cache = {"new tokens": 500, "rounds": 3, "seconds": {"with": 1.0, "without": 10.0}, "times": [10.0, 9.0, 11.0]}
    return {"shapes": [{"shape": "124 M (12 × 768)", "rounds": 5, "rows": versions}], "cache": cache}


def test_decoding_has_a_row_for_each_form_and_its_limit() -> None:
    found = decoding_rows(decoded())
    for weights, ours in (("fp32", 250.0), ("bf16", 500.0), ("int8", 1000.0)):
        against, limit = row(found, f"decode-124M-{weights}"), row(found, f"limit-124M-{weights}")
        assert (against.ours, against.theirs, against.ratio.median, against.ratio.rounds) == (ours, 125, ours / 125, 5)
        assert (limit.ours, limit.theirs, limit.ratio.low, limit.ratio.high) == (ours, 2 * ours, 0.4, 0.6)
        assert "0.30 of the fastest" in limit.note
    with_cache = row(found, "decode-cache")
    assert (with_cache.ours, with_cache.theirs, with_cache.ratio.low) == (500.0, 50.0, 9.0)


def test_decoding_in_fp32_that_writes_another_text_is_refused_and_in_int8_it_is_told() -> None:
    result = decoded()
    result["shapes"][0]["rows"][4]["same tokens"] = 0.75
    assert "75%" in row(decoding_rows(result), "decode-124M-int8").note
    result["shapes"][0]["rows"][2]["same tokens"] = 0.99
    with pytest.raises(ArithmeticError, match="fp32"):
        decoding_rows(result)


def test_every_row_of_decoding_is_found_in_what_is_really_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two small models in the places of the two shapes."""
    monkeypatch.setattr(bench_decoding, "SHAPES", dict.fromkeys(bench_decoding.SHAPES, bench_decoding.TINY))
    monkeypatch.setattr(bench_decoding, "CACHED", bench_decoding.TINY)
    of = setting("decoding", tmp_path)
    found = sections.decoding(Setting(of.rows, 1, 1, of.machine, of.scratch, short=True))
    assert of.rows <= set(found)
    assert all(isinstance(found[name], Measured) for name in of.rows)
    only = sections.decoding(Setting(frozenset({"decode-10M-int8"}), 1, 1, of.machine, of.scratch, short=True))
    assert {name.split("-")[1] for name in only} == {"10M"}


def test_bf16_is_compared_with_our_fp32_and_with_the_faster_of_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rates = {
        "ours fp32": [10.0, 20.0],
        "theirs fp32": [5.0, 10.0],
        "ours bf16": [30.0, 60.0],
        "theirs bf16": [4.0, 8.0],
    }
    monkeypatch.setattr(bench_gpt2, "compare", lambda shape, rounds, threads, precisions: rates)
    found = sections.training(setting("training", tmp_path))
    assert set(found) == names("training")
    for shape in ("0.8M", "10M"):
        assert row(found, f"bf16-gain-{shape}").ratio.median == 3.0
        assert row(found, f"train-{shape}-bf16").ratio.median == 6.0
        assert row(found, f"train-{shape}-fp32").ratio.median == 2.0
    slow = sections.training(setting("training", tmp_path, fast_bf16=False))
    assert "bf16 is slow here" in str(slow["bf16-gain-10M"])
    assert isinstance(slow["train-10M-fp32"], Measured)


def raced(gain: float, reached: float | None, seconds: float = 100.0) -> dict[str, Any]:
    trainers = [{"trainer": "nanoGPT, published", "seconds": 100.0}, {"trainer": "ours", "seconds": seconds}]
    return {"rows": trainers, "gain_nats": gain, "target_nats": 0.25, "seconds_to_nanogpt": reached}


def test_a_race_is_told_by_its_gain_and_by_its_time() -> None:
    found = race_rows([raced(0.3, 25.0), raced(0.2, 30.0, seconds=101.0), raced(0.25, 40.0)])
    loss, time = row(found, "race-loss"), row(found, "race-time")
    assert (loss.ours, loss.theirs, loss.ratio.median) == (0.25, 0.25, 1.0)
    assert (loss.ratio.low, loss.ratio.high) == pytest.approx((0.8, 1.2))
    assert "1 of 3" in loss.note
    assert (time.ours, time.theirs, time.ratio.median) == (30.0, 100.0, 0.3)
    assert ROWS["race-loss"].verdict(loss.ratio.median) == ROWS["race-time"].verdict(time.ratio.median) == "met"


def test_a_race_that_is_lost_is_a_failure() -> None:
    found = race_rows([raced(0.3, 25.0), raced(-0.1, None)])
    assert found["race-loss"] == Failed("a round ended 0.100 nats above nanoGPT's loss")
    assert found["race-time"] == Failed("in 1 of 2 rounds that loss was not reached")


def test_commands_are_judged_round_by_round_against_the_time_that_is_asked_for() -> None:
    rounds = [{"wall": 1.0, "cpu": 0.1}, {"wall": 3.0, "cpu": 0.1}, {"wall": 1.5, "cpu": 0.1}]
    commands = {name: {"goal": 1.5, "rounds": rounds} for name in ("show", "warm-run")}
    found = overhead_rows({"commands": commands}, "a remark")
    show = row(found, "show")
    assert (show.ours, show.theirs, show.ratio.median, show.ratio.high) == (1.5, 1.5, 1.0, 2.0)
    assert [row(found, name).note for name in commands] == ["", "a remark"]


def test_one_cold_chapter_serves_both_sections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of 10 s in which one step worked for 8; its folder is the warm one of the commands."""
    started, ran, timed = 1_790_000_000.0, [], []

    def run(outputs: Path, *options: str) -> Footprint:
        ran.append(options)
        file = persist(Store(str(outputs / "store")), "a", data={"seconds": 8.0})
        os.utime(file, (started + 9, started + 9))
        (outputs / "latest").mkdir()
        told = {"profile": "smoke", "run": {"started": datetime.fromtimestamp(started, UTC).isoformat()}}
        (outputs / "latest" / "summary.json").write_text(json.dumps(told))
        return Footprint(10.0, 2048 * MIB, 50 * MIB)

    def measure(outputs: Path, *, rounds: int, commands: frozenset[str]) -> dict[str, Any]:
        assert (outputs / "store").exists()
        timed.append((rounds, commands))
        return {"commands": {name: {"goal": 2.0, "rounds": [{"wall": 1.0}] * rounds} for name in commands}}

    monkeypatch.setattr(sections, "chapter", run)
    monkeypatch.setattr("tests.benchmarks.bench_overhead.measure", measure)
    footprint = sections.smoke_chapter(setting("chapter", tmp_path))
    commands = sections.overhead(setting("overhead", tmp_path))
    assert ran == [("--profile", "smoke")]
    assert timed == [(5, names("overhead"))]
    assert set(footprint) == names("chapter")
    assert set(commands) == names("overhead")
    assert row(footprint, "memory-chapter").ratio.median == row(footprint, "disk-chapter").ratio.median == 0.5
    assert "orchestration was 20.0%" in row(commands, "warm-run").note


def test_commands_that_need_no_results_are_timed_without_a_chapter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Really, with ``--help``, in one round."""
    monkeypatch.setattr(sections, "chapter", lambda *_: pytest.fail("a chapter was run"))
    found = sections.overhead(Setting(frozenset({"help"}), 1, 1, {}, tmp_path))
    assert set(found) == {"help"}
    assert 0 < row(found, "help").ours < 60


def test_a_cold_run_needs_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "old").touch()
    with pytest.raises(FileExistsError, match="not empty"):
        chapter(tmp_path, "--profile", "smoke")
