"""Numbers of a longer run: marked, beside the measured ones and never in their place, and only where both exist."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reports import page
from reports.beside.reference import (
    FOLDER,
    Reference,
    ReferenceFileError,
    Unreadable,
    load,
    matches,
    of,
    origins,
    parse,
)
from reports.chapter import QUESTIONS, exercise_id
from reports.plain import to_json
from reports.types import Answer, Check, Provenance, Result
from reports.write import dumps
from tests.references import assert_belongs
from tests.reports import sample
from tests.reports.test_page import section, words

HERE = Result(
    "21.2",
    "t",
    "ok",
    Provenance("smoke", {"main corpus": "Book: all of it"}, seeds=(0,), code_version="new"),
    checks=(
        Check.at_most("error of 100 draws", 0.5, 1.0),
        Check.at_least("gain", -1.25, 0.0, "empirical"),
        Check.equal("only here", True, True),
    ),
    metrics={"loss_nats": 2.5, "only_here": 1},
)
THERE = replace(
    HERE,
    provenance=replace(HERE.provenance, profile="overnight", seeds=(0, 1, 2)),
    checks=(
        Check.at_most("error of 9,000 draws", 0.03125, 1.0),
        Check.at_least("gain", 1.75, 0.0, "empirical"),
        Check.equal("only there", True, True),
    ),
    metrics={"loss_nats": 1.125, "only_there": 2},
)
WHERE = {"commit": "0123abc", "date": "2026-11-29T04:05:06+00:00", "machine": "Some Processor, 2 cores"}


@pytest.fixture
def reference() -> Reference:
    return of(THERE, **WHERE)


def shown(here: Result, reference: Reference | Unreadable | None) -> str:
    return words(str(page.section(QUESTIONS[here.id], here, reference=reference)))


# --- The files ---------------------------------------------------------------------------------------------------


def test_what_is_kept_is_marked_and_is_of_an_exercise() -> None:
    """Whatever is in the folder: some exercises only, or none. ``assert_sound`` asks each exercise for its own."""
    for id, reference in load().items():
        assert isinstance(reference, Reference), reference.reason
        assert (FOLDER / f"{id}.json").stat().st_size < 100_000
        assert reference.metrics
        assert reference.checks
        assert re.fullmatch(r"[0-9a-f]{7,40}", reference.commit)


def test_an_absent_folder_holds_nothing(tmp_path: Path) -> None:
    assert load(tmp_path / "none") == load(tmp_path) == {}


def test_a_reference_is_the_same_after_its_way_through_a_file(tmp_path: Path, reference: Reference) -> None:
    odd = replace(reference, metrics={"a": 1, "b": float("inf"), "c": 0.1}, checks=(Check.at_most("é", 1e-300, 1),))
    (tmp_path / "21.02.json").write_text(dumps(to_json(odd)))
    assert load(tmp_path) == {"21.02": odd}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"machine": ""}, "machine: String should have at least 1 character"),
        ({"commit": None}, "commit: Input should be a valid string"),
        ({"date": "yesterday"}, "date: Value error, Invalid isoformat string: 'yesterday'"),
        ({"id": "21.99"}, "id: Value error, the chapter has no exercise 21.99"),
        ({"id": "21.03"}, "id: it holds exercise 21.03; rename it 21.03.json"),
        ({"metrics": {"loss": "low"}}, "metrics.loss"),
        ({"checks": [{"claim": "x"}]}, "checks.0.kind: Field required"),
        ({"note": "hand-made"}, "note: Unexpected keyword argument"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_file_that_is_no_reference_says_why(
    tmp_path: Path, reference: Reference, change: dict[str, object], said: str
) -> None:
    file = tmp_path / "21.02.json"
    file.write_text(json.dumps(to_json(reference) | change))
    with pytest.raises(ReferenceFileError) as refused:
        parse(file)
    assert str(refused.value).startswith(f"21.02.json: {said}")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"id": "21.02"}', "\x00"])
def test_no_reference_at_all(tmp_path: Path, text: str) -> None:
    (tmp_path / "21.02.json").write_text(text)
    [(id, fault)] = load(tmp_path).items()
    assert id == "21.02"
    assert isinstance(fault, Unreadable)


# --- Beside a result ---------------------------------------------------------------------------------------------


def test_both_are_shown_where_both_exist(reference: Reference) -> None:
    text = shown(HERE, reference)
    assert "error of 100 draws measured 0.5 bound ≤ 1 reference 0.03125 holds for: error of 9,000 draws" in text
    assert "not confirmed gain measured −1.25 expected ≥ 0 reference 1.75 confirmed" in text
    assert "only here measured yes expected yes exact" in text
    assert "Metric Value Reference loss_nats 2.5 1.125 only_here 1 –" in text


def test_what_was_measured_is_the_same_with_a_reference_and_without(reference: Reference) -> None:
    def measured(html: str) -> list[str]:
        return re.findall(r'<span class="what">measured</span> <b title="([^"]*)"', html)

    question = QUESTIONS[HERE.id]
    plain = str(page.section(question, HERE))
    assert measured(plain) == ["0.5", "-1.25", "True"]
    assert measured(str(page.section(question, HERE, reference=reference))) == measured(plain)
    assert "eference" not in plain


def test_it_says_where_a_reference_comes_from(reference: Reference) -> None:
    text = shown(HERE, reference)
    for mark in ("overnight", "seeds 0, 1, 2", "0123abc", "2026-11-29 04:05 UTC", "Some Processor, 2 cores"):
        assert mark in text
    assert "2 of its numbers have no counterpart here only there; only_there" in text
    assert "has changed since" not in text
    assert "0.25 times its steps" in shown(HERE, replace(reference, budget=0.25))


def test_it_says_that_a_reference_is_of_another_version(reference: Reference) -> None:
    assert "Some of the code that measures has changed since then" in shown(
        HERE, replace(reference, code_version="old")
    )


def test_it_says_that_a_reference_is_of_other_sources(reference: Reference) -> None:
    other = replace(reference, sources={"main corpus": "Novel", "pretrained model": "GPT-2"})
    text = shown(HERE, other)
    assert "main corpus: Novel there, Book here." in text
    assert "pretrained model: GPT-2 there, none here." in text
    assert "Novel" not in shown(HERE, reference)


def test_a_broken_file_costs_a_remark(reference: Reference) -> None:
    text = shown(HERE, Unreadable("21.02", "21.02.json: date: no date"))
    assert "The reference of this exercise cannot be shown: 21.02.json: date: no date." in text
    assert "Metric Value loss_nats 2.5" in text


def test_claims_are_matched_once_and_by_kind() -> None:
    here = (Check.at_most("at τ = 1", 1, 2), Check.at_most("at τ = 2", 1, 2), Check.at_most("n = 3 texts", 1, 2))
    there = (
        Check.at_most("at τ = 2", 10, 2),
        Check.at_most("at τ = 4", 40, 2),
        Check.at_most("n = 9 texts", 90, 2, "empirical"),
    )
    found = matches(here, there)
    # "τ = 1" takes what is left of "τ = …"; the texts are of another kind.
    assert {claim: check.measured for claim, check in found.items()} == {"at τ = 2": 10, "at τ = 1": 40}
    both = (*there, Check.at_most("at τ = 5", 50, 2))
    assert set(matches(here, both)) == {"at τ = 2"}, "two are left: which is meant nobody knows"


def test_hostile_text_in_a_file_is_text(reference: Reference) -> None:
    bad = replace(reference, machine="<script>alert(1)</script>", commit="<b>")
    html = str(page.section(QUESTIONS[HERE.id], HERE, reference=bad))
    assert "<script>alert" not in html
    assert "&lt;script&gt;alert(1)" in html


def test_the_page_names_the_runs_once_each() -> None:
    results = [result for result in sample.results() if result.status == "ok"]
    references = {exercise_id(result.id): of(result, **WHERE) for result in results[:-1]}
    [(first, count)] = origins(references)
    assert count == len(results) - 1
    html = page.render(results=results, references=references)
    said = words(html[html.index('id="how-to-read"') : html.index('<section class="exercise')])
    assert f"Reference values of {count} exercises: profile {first.profile}" in said
    without = exercise_id(results[-1].id).replace(".", "-")
    assert "Reference" not in words(section(html, without))


# --- Whether a reference is of the exercise as it is ------------------------------------------------------------------


def test_belonging_is_judged_by_names(reference: Reference) -> None:
    answer = Answer("", (), HERE.checks, {"loss_nats": 0.0, "layer_4_share": 0.5})
    mine = replace(reference, metrics={"loss_nats": 1, "loss_nats_std": 1, "layer_16_share": 1}, checks=HERE.checks[:2])
    assert_belongs(mine, answer)
    with pytest.raises(AssertionError, match="no metrics \\['perplexity'\\]"):
        assert_belongs(replace(mine, metrics={"perplexity": 2.0}), answer)
    with pytest.raises(AssertionError, match="no checks \\['only there'\\]"):
        assert_belongs(replace(mine, checks=THERE.checks[1:]), answer)
