"""What 21.27 says of drafts follows from intervals, and is told with how many there are."""

import json
from dataclasses import replace

import pytest

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import compare_paired, holm
from reports.types import Table, flattened
from tasks.answers import answer_of, dump, load
from tasks.exercises.ex27_speculative_decoding.findings import ITSELF, DraftModel, Findings, Output, Student, Writing
from tasks.exercises.ex27_speculative_decoding.speed import predicted


def drafting(label: str, loss: float, alpha: float, speedup: float) -> DraftModel:
    """With an interval of a tenth to both sides."""
    speed = predicted(
        gamma=4,
        acceptance=alpha,
        tokens_per_pass=2.0,
        alpha=alpha,
        draft_cost=0.1,
        verify_cost=1.5,
        measured=speedup,
        low=speedup * 0.9,
        high=speedup * 1.1,
        texts=30,
    )
    return DraftModel(label, label.replace(" ", "_"), 1, 4, 100, 1_000, loss, (speed,))


@pytest.fixture
def findings() -> Findings:
    students = tuple(Student(f"student {i}", f"s{i}", (2.0, 2.1, 1.9), (0.5, 0.51, 0.49), 2.0) for i in range(5))
    return Findings(
        drafts=(drafting("a", 2.0, 0.2, 1.0), drafting("b", 2.1, 0.8, 1.5), drafting(ITSELF, 1.5, 1.0, 0.7)),
        output=Output(100, {"speculative": 0.5, "target": 0.5, "draft": 0.0}, 6, 2, 20, 4, 4, 4, 4),
        n_new=60,
        stretch=30,
        students=students,
        source="def speculate(): ...",
        writing=Writing("a", "In the", " beginning", 1, 1, 0.0, ()),
        baselines=Baselines(3.3, 2.5, 1.3, 5),
    )


def said(findings, part: int) -> str:
    texts = (
        block.text for block in flattened(answer_of("21.27", findings).parts[part].blocks) if block.type == "prose"
    )
    return " ".join(" ".join(texts).split())


def named(findings, part: int, name: str) -> Table:
    blocks = flattened(answer_of("21.27", findings).parts[part].blocks)
    return next(block for block in blocks if isinstance(block, Table) and block.name == name)


def with_alphas(findings, *alphas: tuple[float, ...]):
    students = zip(findings.students, alphas, strict=True)
    return replace(findings, students=tuple(replace(s, alphas=its, losses=its) for s, its in students))


def test_the_best_of_four_students_is_one_of_four(findings):
    """Three pairs with p = 0.02 alone: not after Holm for four."""
    base = (0.50, 0.55, 0.60)
    close = (0.53, 0.585, 0.623)
    rest = ((0.49, 0.58, 0.60), (0.52, 0.54, 0.61), (0.50, 0.57, 0.59))
    found = with_alphas(findings, base, close, *rest)
    pairs = holm([compare_paired(base, alphas) for alphas in (close, *rest)])
    assert compare_paired(base, close).verdict == "higher"
    assert pairs[0].verdict == "one of many"
    assert found.distillation == pairs[0]
    assert "enough alone, but not as one of 4 comparisons" in said(found, 3)
    assert [row[6] for row in named(found, 3, "distilled_drafts").rows][:2] == ["baseline", "one of many"]


def test_students_of_the_same_seeds_are_pairs(findings):
    """Seeds scatter far more than what distillation gives each of them: Welch's interval would see nothing."""
    base = (0.50, 0.60, 0.70)
    gained = tuple(alpha + gain for alpha, gain in zip(base, (0.05, 0.0501, 0.0499), strict=True))
    found = with_alphas(findings, base, gained, *(base,) * 3)
    assert found.distillation.paired
    assert found.distillation.verdict == "higher"


def test_an_order_inside_the_intervals_is_left_open(findings):
    itself = drafting(ITSELF, 1.5, 1.0, 0.7)
    apart = [drafting("a", 3.0, 0.2, 1.0), drafting("b", 2.0, 0.8, 1.5), itself]
    close = [drafting("a", 3.0, 0.2, 1.4), drafting("b", 2.0, 0.8, 1.5), itself]
    assert "leaves the order open" not in said(replace(findings, drafts=tuple(apart)), 3)
    assert "the order by α is the order by speed-up as measured, where intervals overlap" in said(
        replace(findings, drafts=tuple(close)), 3
    )


def test_one_training_of_each_draft_carries_no_law(findings):
    drafts = (drafting("a", 2.0, 0.2, 1.0), drafting("b", 2.1, 0.8, 1.5), drafting(ITSELF, 1.5, 1.0, 0.7))
    text = said(replace(findings, drafts=drafts), 3)
    assert "not the loss" not in text
    assert "Each draft was trained once" in text


def test_how_many_speed_ups_there_are_is_told(findings):
    drafts = (drafting("a", 2.0, 0.2, 1.0), drafting("b", 2.1, 0.8, 1.5), drafting(ITSELF, 1.5, 1.0, 0.7))
    text = said(replace(findings, drafts=drafts), 2)
    assert "It is the best of 3 drafts; of the 3 speed-ups below, each interval is that of one alone" in text


@pytest.mark.parametrize(("bigram", "told"), [(1.4, True), (2.5, False)])
def test_a_target_that_has_not_beaten_the_bigram_is_not_called_better(findings, bigram, told):
    drafts = (drafting("a", 3.0, 0.2, 1.0), drafting("b", 2.0, 0.8, 1.5), drafting(ITSELF, 1.5, 1.0, 0.7))
    found = replace(findings, drafts=drafts, baselines=Baselines(3.3, bigram, 1.3, 5))
    text = said(found, 0)
    assert ("not trained far enough to say what the target is worth" in text) == told
    assert ("the target is better than the best of them" in text) != told
    rows = named(found, 0, "models").rows
    assert [(row[0], row[-1]) for row in rows[-3:]] == [("unigram", 3.3), ("bigram", bigram), ("5-gram", 1.3)]


def test_findings_from_before_have_no_baselines(findings):
    assert load("21.27", dump(findings)) == findings
    before = json.loads(dump(findings))
    assert before.pop("baselines")
    assert load("21.27", json.dumps(before)) == replace(findings, baselines=None)
    old = replace(findings, baselines=None)
    assert len(named(old, 0, "models").rows) == len(old.drafts)
    assert old.beats_bigram
