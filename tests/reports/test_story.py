"""The opening: chosen by what the answers are, never written; what failed and what to beware of."""

import re
from dataclasses import replace

import pytest

from minigpt.evaluation.statistics import compare
from reports import page, words
from reports.chapter import CHAPTER, GROUPS
from reports.run import RunInfo
from reports.story.opening import MOST, picture_of, rests_on_one_seed, select, sentence_of
from reports.types import Check, Figure, Heatmap, Part, Prose, Provenance, Result, Series, Table
from tests.reports import sample
from tests.reports.test_page import words as plain

CURVE = Figure("line", (Series("loss", (1.0, 2.0), (3.0, 2.0)),), "step", "loss", "A curve")
HOLDS, BROKEN = Check.equal("holds", 1, 1), Check.equal("breaks", 1, 2)
MISSED = Check.at_most("loss with warm-up minus loss without (nats)", 0.744277, 0.0, "empirical")


def result(id: str, *blocks, summary="One thing. Another.", checks=(HOLDS,), **fields) -> Result:
    parts = (Part("", tuple(blocks)),)
    return Result(id, "t", "ok", Provenance("laptop"), parts=parts, checks=checks, summary=summary, **fields)


def by_id(*results: Result) -> dict[str, Result]:
    return {CHAPTER.questions[one.id].id: one for one in results}


def test_groups_take_turns_and_the_chapters_order_stays():
    everything = by_id(*(result(question.id) for question in CHAPTER.questions.values()))
    chosen = select(CHAPTER, everything)
    assert len(chosen) == MOST
    assert chosen == sorted(chosen)
    assert {group: sum(CHAPTER.questions[id].group == group for id in chosen) for group in GROUPS} == dict.fromkeys(
        GROUPS, 2
    )


def test_a_finding_of_its_own_comes_before_a_figure_and_a_figure_before_none():
    told = by_id(result("21.1"), result("21.2", CURVE), result("21.3", finding="F."), result("21.4"))
    everything = told | by_id(*(result(f"21.{n}", CURVE, finding="F.") for n in (*range(11, 15), *range(25, 30))))
    assert [id for id in select(CHAPTER, everything) if id < "21.05"] == ["21.02", "21.03"]


def test_what_is_wrong_or_failed_or_silent_opens_no_page():
    failed = replace(result("21.2"), status="failed")
    told = by_id(result("21.1", checks=(BROKEN,)), failed, result("21.3", summary=""), result("21.4", checks=(MISSED,)))
    assert select(CHAPTER, told) == ["21.04"]
    assert select(CHAPTER, told, computed_only=True) == []


def test_sentences_and_pictures_are_the_answers_own():
    heat = Heatmap(((1.0,),), "x", "y")
    assert sentence_of(result("21.1")) == "One thing."
    assert sentence_of(result("21.1", summary="0.5 nats e.g. of Li et al. here; more there.")).endswith(" here.")
    assert sentence_of(result("21.1", summary="No end")) == "No end"
    assert sentence_of(result("21.1", finding="F.")) == "F."
    assert picture_of(result("21.1", heat, CURVE)) == CURVE
    assert picture_of(result("21.1", heat)) == heat
    assert picture_of(result("21.1", CURVE, picture=(heat,))) == heat
    assert picture_of(result("21.1", Prose("x"))) is None


def opening_of(*results: Result, **run) -> str:
    html = page.render(results=results, run=RunInfo("laptop", **run))
    return html[html.index("<main") : html.index('class="overview"')]


def test_findings_then_what_failed_then_the_score_then_where_it_comes_from():
    html = opening_of(result("21.2", CURVE, checks=(HOLDS, MISSED), unexpected="It is *shallow*."))
    order = [html.index(mark) for mark in ('id="findings"', 'id="missed"', 'id="score"', "provenance")]
    assert order == sorted(order)
    assert '<a href="#ex-21-02">' in html
    assert "<svg" in html
    assert "<details class" in html[order[-1] - 30 : order[-1]]
    text = plain(html)
    assert "loss with warm-up minus loss without (nats): expected ≤ 0, measured 0.744 It is shallow ." in text
    assert "One thing." in text


def test_what_failed_without_a_reason_is_said_to_be_open():
    assert "why it differs is open" in plain(opening_of(result("21.2", checks=(HOLDS, MISSED))))
    assert "Predictions that failed" not in opening_of(result("21.2"))


def test_a_rehearsal_says_so_and_tells_only_what_is_computed():
    html = opening_of(
        result("21.2", summary="Trained.", checks=(HOLDS, MISSED)),
        result("21.3", summary="Computed."),
        caution="Its numbers mean nothing: `chapter run`.",
    )
    text = plain(html)
    assert text.index("Its numbers mean nothing") < text.index("What we found")
    assert "Computed." in text
    assert "Trained." not in text
    assert "Predictions that failed" not in text


def test_a_broken_exact_check_is_said_above_everything():
    text = plain(opening_of(result("21.2", checks=(BROKEN,)), result("21.3", checks=(BROKEN, BROKEN))))
    assert "Exact checks fail in 21.2 , 21.3" in text
    assert text.index("Exact checks fail") < text.index("The score")


@pytest.mark.parametrize(("others", "single"), [([2.0], True), ([2.0, 2.1, 1.9], False)])
def test_one_seed_that_carries_a_comparison_is_said(others, single):
    prose = Prose(words.describe(compare(others, [x - 1 for x in others]), "B", "A"))
    one = result("21.22", prose)
    assert rests_on_one_seed(one) == single
    assert ("One seed carries a comparison" in opening_of(one)) == single
    assert rests_on_one_seed(result("21.22", Table(("v", "verdict"), (("B", "one seed"),))))


def test_nothing_in_the_opening_is_a_number_of_its_own():
    """Digits come from results, titles and the score; the template itself has none."""
    from importlib import resources

    template = resources.files("reports").joinpath("templates/opening.html").read_text()
    text = re.sub(r"\{%.*?%\}|\{\{.*?\}\}|<[^>]+>", "", template, flags=re.DOTALL)
    assert not re.search(r"\d", text)


def test_the_sample_has_an_opening(html):
    assert html.count('class="card"') == len(select(CHAPTER, by_id(*sample.results())))
