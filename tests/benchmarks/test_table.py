"""The umbrella over the benchmarks, with sections that are made up: its rows, its verdicts, what it writes."""

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from markdown_it import MarkdownIt

from tests.benchmarks import __main__ as umbrella
from tests.benchmarks.goals import GOALS, WIDE, Goal, goals
from tests.benchmarks.interleaving import Spread, interleaved, ratios
from tests.benchmarks.machine import why_no_bf16
from tests.benchmarks.processes import MIB, disk_of, python
from tests.benchmarks.sections import SECTIONS, Found, Setting
from tests.benchmarks.table import Failed, Measured, Row, markdown, number, status, write_json

FAST = Goal("fast", "made-up", "a thing | that is done", "things/s", "others", at_least=2.0)
SMALL = Goal("small", "made-up", "a thing that is kept", "MiB", "a limit", at_most=1.0)
MACHINE = {"fast_bf16": True}
SETTING = Setting(frozenset(), 3, 1, MACHINE, Path("nowhere"))


def measured(ratio: float, rounds: int = 3) -> Measured:
    return Measured(10.0 * ratio, 10.0, Spread.of([ratio] * rounds))


def test_rows_have_names_of_their_own_and_a_section_that_measures_them() -> None:
    names = [goal.name for goal in GOALS]
    assert len(set(names)) == len(names)
    assert {goal.section for goal in GOALS} == set(SECTIONS)
    assert not set(names) & (set(SECTIONS) | set(umbrella.GROWTH)), "a name would mean two things to --rows"


def test_names_choose_rows_and_sections() -> None:
    assert [goal.name for goal in goals(("training",))] == [g.name for g in GOALS if g.section == "training"]
    assert [goal.name for goal in goals(("speculative", "race"))] == ["race-loss", "race-time", "speculative"]
    assert all(goal.short for goal in goals(short=True))
    with pytest.raises(ValueError, match=r"trainning.*choose from.*training"):
        goals(("trainning",))


@pytest.mark.parametrize(
    ("goal", "ratio", "verdict"),
    [
        (FAST, 2.0, "met"),
        (FAST, 1.9, "missed"),
        (FAST, 2.0 / WIDE, "missed"),
        (FAST, 1.9 / WIDE, "broken"),
        (SMALL, 1.0, "met"),
        (SMALL, 1.1, "missed"),
        (SMALL, 1.1 * WIDE, "broken"),
    ],
)
def test_verdicts(goal: Goal, ratio: float, verdict: str) -> None:
    assert goal.verdict(ratio) == verdict
    assert Row.of(goal, measured(ratio)).verdict == verdict


@pytest.mark.parametrize("bounds", [{}, {"at_least": 1.0, "at_most": 1.0}, {"at_least": 0.0}])
def test_a_goal_is_one_bound(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="one of at_least and at_most"):
        Goal("a", "b", "c", "d", "e", **bounds)


def test_a_side_that_is_really_slow_fails_the_run_and_a_fast_one_does_not() -> None:
    """Four times the work of the other side, measured, not told."""
    a = torch.randn(160, 160)

    def section(setting: Setting) -> Found:
        work = {"ours": lambda: multiply(32), "theirs": lambda: multiply(8)}
        seconds = interleaved(5, work)
        rates = {name: [1 / each for each in values] for name, values in seconds.items()}
        slow, fast = ratios(rates["ours"], rates["theirs"]), ratios(rates["theirs"], rates["ours"])
        return {"slow": Measured(1, 1, Spread.of(slow)), "fast": Measured(1, 1, Spread.of(fast))}

    def multiply(times: int) -> None:
        for _ in range(times):
            a @ a

    even = replace(FAST, at_least=1.0)
    rows = umbrella.measure([replace(even, name="slow"), even], SETTING, {"made-up": section})
    assert [row.verdict for row in rows] == ["broken", "met"]
    assert status(rows) == 1
    assert status(rows[1:]) == 0


def test_what_is_skipped_passes_and_what_fails_does_not() -> None:
    assert status([Row.of(FAST, "no bf16 here"), Row.of(SMALL, measured(1.5))]) == 0
    assert status([Row.of(FAST, Failed("the two do not do the same work"))]) == 1


def test_a_section_that_fails_costs_its_own_rows_and_tells_nothing_of_others() -> None:
    def fails(_: Setting) -> Found:
        raise ArithmeticError("texts differ")

    def works(setting: Setting) -> Found:
        assert setting.rows == {"small"}
        return {"small": measured(0.5), "fast": measured(9.0)}

    wanted = [replace(FAST, section="fails"), SMALL]
    rows = umbrella.measure(wanted, SETTING, {"fails": fails, "made-up": works})
    assert [row.verdict for row in rows] == ["failed", "met"]
    assert "texts differ" in markdown(rows)


def test_the_table_is_a_table_in_markdown() -> None:
    rows = [Row.of(FAST, replace(measured(1234.5), note="a remark")), Row.of(SMALL, "not here")]
    page = MarkdownIt("commonmark").enable("table").render(markdown(rows))
    found = [re.sub("<[^>]+>", "", cell) for cell in re.findall(r"<td>(.*?)</td>", page, re.DOTALL)]
    assert len(found) == 2 * len(re.findall("<th>", page)) == 14
    assert found[1:5] == ["a thing | that is done", "12,300 things/s", "10: others", "1234.50 (1234.50 – 1234.50)"]
    assert found[-1] == "skipped: not here"
    assert "<li><code>fast</code>: a remark.</li>" in page


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, ""), (0.0, "0"), (0.00012, "0.000120"), (1.2345, "1.23"), (99.96, "100"), (12345.6, "12,300")],
)
def test_numbers_have_three_digits_and_no_exponent(value: float | None, text: str) -> None:
    assert number(value) == text


def test_json_is_finite_and_complete(tmp_path: Path) -> None:
    path = tmp_path / "benchmarks.json"
    write_json(path, MACHINE, [Row.of(FAST, measured(2.0)), Row.of(SMALL, "not here")], {})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    read = json.loads(path.read_text(), parse_constant=refuse)
    assert [row["verdict"] for row in read["rows"]] == ["met", "skipped"]
    assert read["rows"][0]["ratio"]["median"] == 2.0
    with pytest.raises(ValueError):
        write_json(path, {"load": float("nan")}, [], {})


def test_the_command_line_writes_all_three_forms(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    goal = GOALS[0]
    monkeypatch.setattr(umbrella, "SECTIONS", {goal.section: lambda _: {goal.name: measured(0.1)}})
    arguments = ["--rows", f"{goal.name},token", "--rounds", "1", "--threads", "1", "--out", str(tmp_path)]
    assert umbrella.main(arguments) == 1
    assert f"`{goal.name}`" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"benchmarks.json", "benchmarks.md", "token.svg"}
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    assert written["machine"]["gflops"]["fp32"] > 0
    cached, anew = written["growth"]["token"]["series"]
    assert cached["x"] == anew["x"]
    assert (tmp_path / "token.svg").read_text().startswith("<svg")


def test_a_figure_that_fails_costs_no_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    goal = GOALS[0]

    def growth(setting: Setting) -> None:
        raise InterruptedError

    monkeypatch.setattr(umbrella, "SECTIONS", {goal.section: lambda _: {goal.name: measured(0.1)}})
    monkeypatch.setattr(umbrella, "growth", growth)
    with pytest.raises(InterruptedError):
        umbrella.main(["--rows", f"{goal.name},token", "--rounds", "1", "--threads", "1", "--out", str(tmp_path)])
    assert [row["goal"]["name"] for row in json.loads((tmp_path / "benchmarks.json").read_text())["rows"]] == [
        goal.name
    ]


@pytest.mark.parametrize(
    "wrong", [["--rows", "nothing"], ["--rounds", "0"], ["--threads", "0"], ["--write-docs", "--short"]]
)
def test_what_cannot_be_is_refused_before_anything_is_measured(
    wrong: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(umbrella, "facts", lambda threads: pytest.fail("measured"))
    with pytest.raises(SystemExit) as ended:
        umbrella.main(wrong)
    assert ended.value.code == 2
    assert wrong[0] in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "threads"), [(["--short"], 1), (["--short", "--threads", "3"], 3), ([], 5)])
def test_a_short_run_takes_one_thread_unless_told(
    arguments: list[str], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def facts(told: int) -> None:
        raise InterruptedError(told)

    monkeypatch.setattr(umbrella, "cores", lambda: 5)
    monkeypatch.setattr(umbrella, "facts", facts)
    with pytest.raises(InterruptedError, match=str(threads)):
        umbrella.main(arguments)


def test_slow_bf16_is_a_reason() -> None:
    machine = {"fast_bf16": False, "gflops": {"fp32": 100.0, "bf16": 30.0}}
    assert why_no_bf16(machine) == "bf16 is slow here: 30 GFLOP/s against 100 in fp32"
    assert why_no_bf16(MACHINE) is None


def test_what_a_process_takes_is_its_own() -> None:
    """Also where the process that starts it is a large one."""
    held = os.urandom(300 * MIB)
    tell = "from tests.benchmarks.processes import own_peak; print(own_peak())"
    told, idle = python("-c", f"import time; time.sleep(0.5); {tell}")
    small = int(told)
    told, busy = python("-c", f"held = b'x' * {200 * MIB}; i = 0\nwhile i < 10_000_000: i += 1\n{tell}")
    assert small < len(held)
    assert 190 * MIB < int(told) - small < 230 * MIB
    assert busy > idle + 0.1
    with pytest.raises(RuntimeError, match="ended with 3"):
        python("-c", "raise SystemExit(3)")


def test_a_hard_link_takes_no_disk(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(os.urandom(300_000))
    alone = disk_of(tmp_path)
    assert 300_000 <= alone < 320_000
    os.link(tmp_path / "a", tmp_path / "b")
    assert disk_of(tmp_path) == alone
    (tmp_path / "c").write_bytes(os.urandom(300_000))
    assert disk_of(tmp_path) == 2 * alone


def test_the_two_trainings_of_the_comparison_are_the_same_and_one_that_differs_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from minigpt.config import GPTConfig
    from tests.benchmarks import bench_gpt2

    tiny = GPTConfig(n_layer=2, n_head=2, d_model=32, context=16, vocab_size=bench_gpt2.VOCABULARY)
    monkeypatch.setitem(bench_gpt2.SHAPES, "tiny", (tiny, 4, 6))
    rates = bench_gpt2.compare("tiny", 2, 1, ("fp32",))
    assert set(rates) == {"ours fp32", "theirs fp32"}
    assert all(rate > 0 for values in rates.values() for rate in values)
    to_gpt2 = bench_gpt2.to_gpt2
    monkeypatch.setattr(bench_gpt2, "to_gpt2", lambda model: to_gpt2(bench_gpt2.GPT(model.config)))
    with pytest.raises(ArithmeticError, match="apart"):
        bench_gpt2.compare("tiny", 1, 1, ("fp32",))


def test_the_draft_is_the_target_without_its_later_blocks() -> None:
    from minigpt.config import GPTConfig
    from tests.benchmarks.bench_speculative import pair

    config = GPTConfig(n_layer=3, n_head=2, d_model=32, context=32, vocab_size=11, position="rope", tie_weights=False)
    tokens = torch.arange(8)[None] % 11
    target, draft = pair(config, later=0.0)
    torch.testing.assert_close(target(tokens), draft(tokens))
    target, draft = pair(config, later=1.0)
    assert not torch.allclose(target(tokens), draft(tokens), atol=1e-3)


def test_speculation_and_plain_decoding_write_one_text_or_are_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    from minigpt.config import GPTConfig
    from tests.benchmarks import bench_speculative

    config = GPTConfig(n_layer=3, n_head=2, d_model=32, context=64, vocab_size=11, position="rope", tie_weights=False)
    result = bench_speculative.compare(2, 1, 20, config)
    assert len(result["ours"]) == len(result["plain"]) == 2
    assert 0 <= result["acceptance"] <= 1
    monkeypatch.setattr(bench_speculative, "generate", lambda model, prompt, n_new, sampling: prompt)
    with pytest.raises(ArithmeticError, match="another text"):
        bench_speculative.compare(1, 1, 20, config)
