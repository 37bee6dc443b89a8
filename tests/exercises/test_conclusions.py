"""What a page claims and what a difference is put down to follows from intervals, not from means."""

import ast
from pathlib import Path
from types import SimpleNamespace as Any

import pytest

from minigpt.evaluation.statistics import compare_paired
from reports.answers import _environment

EXERCISES = Path(__file__).parent.parent.parent / "tasks" / "exercises"
LOW, HIGH = [3.0, 3.1, 3.2], [4.0, 4.1, 4.3]


def said(folder: str, first: str, last: str, /, **names) -> str:
    """A piece of an ``answer.md``, from one line to another, filled with stand-ins for its findings."""
    text = (EXERCISES / folder / "answer.md").read_text(encoding="utf-8")
    start = text.index(first)
    piece = text[start : text.index(last, start) + len(last)]
    return " ".join(_environment().from_string(piece).render(picture=lambda name: "", **names).split())


@pytest.mark.parametrize(("before", "after", "claimed"), [(HIGH, LOW, True), (LOW, HIGH, False), (LOW, LOW, False)])
def test_sinks_hold_a_stream_together_where_they_lower_its_loss(before, after, claimed):
    text = said(
        "ex29_attention_sinks",
        "{% if min(ratios) > several",
        "{% endif %}",
        ratios=[20.0, 9.0],
        several=5,
        effect=compare_paired(before, after),
        shares=[0.3, 0.4],
        k=4,
        after=Any(by_sinks={0: before, 4: after}),
        mean=lambda values: sum(values) / len(values),
    )
    assert ("hold a stream together" in text) == claimed


@pytest.mark.parametrize(("low", "claimed"), [(0.95, False), (1.01, True)])
def test_a_speed_up_is_claimed_where_its_interval_excludes_none(low, claimed):
    text = said(
        "ex27_speculative_decoding",
        "{% if speed.",
        "{% endif %}",
        speed=Any(measured=1.05, low=low),
        o=Any(greedy=(8, 8)),
        fastest=Any(label="2 layers"),
    )
    assert ("1.05 times as fast" in text) == claimed


@pytest.mark.parametrize(("people", "claimed"), [(40.0, False), (400.0, True)])
def test_likely_text_that_is_not_good_is_likelier_than_that_of_people(people, claimed):
    text = said(
        "ex18_beam_search",
        "{% if f.beside_people(lowest)",
        "{% endif %}",
        f=Any(beside_people=lambda w: compare_paired(LOW, HIGH), human=Any(perplexity=people, repeats=0.1)),
        lowest=Any(name="beam search", perplexity=150.0, repeats=0.4),
        judge="GPT-2",
        run=8,
    )
    assert ("Likely text is not good text" in text) == claimed


@pytest.mark.parametrize(("wide", "claimed"), [((4.0, 4.15, 4.25), False), ((3.0, 3.05, 3.25), True)])
def test_sharing_cost_its_size_where_parameters_gave_something_back(wide, claimed):
    """Wider heads that cannot be told from MHA are no reason if they cannot be told from narrow ones either."""
    text = said(
        "ex28_grouped_query_attention",
        '{% if cost.verdict == "higher" and wider.verdict == "higher" %}',
        "{% endif %}",
        cost=compare_paired(LOW, HIGH),
        wider=Any(verdict="noise"),
        f=Any(widened=compare_paired(HIGH, wide)),
    )
    assert ("what it paid for was its size" in text) == claimed


def test_no_prediction_is_confirmed_by_a_bare_difference():
    """``Check.beyond_noise`` takes the comparison itself, so that what lies inside the noise confirms nothing."""
    bare = [
        f"{path.parent.name}: line {call.lineno}"
        for path in EXERCISES.glob("*/answer.py")
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in ("Check.at_least", "Check.at_most")
        if any(ast.unparse(argument) == "'empirical'" for argument in call.args)
        if ast.unparse(call.args[1]).endswith(".difference")
    ]
    assert not bare
