from dataclasses import replace

import pytest

from minigpt.evaluation.ngrams import Baselines
from tasks.exercises.ex31_contrastive_decoding import experiment as ex31
from tests.exercise_context import answered, assert_sound, make_context, measured

BEATEN = Baselines(9.0, 9.0, 9.0, 1)  # by any model


@pytest.fixture(scope="module")
def findings():
    return measured(ex31.EXERCISE)


def test_the_answer_is_sound(findings):
    assert_sound(ex31.EXERCISE, answered(ex31.EXERCISE, findings))


def test_matched_temperature_of_a_pure_temperature():
    """An amateur that is the expert: α = 0.5 is temperature 2, and that is what the match must find."""
    lab = ex31.prepare(make_context(ex31.EXERCISE))
    lab = ex31.Lab(**{**vars(lab), "heldout": (lab.heldout[0], (lab.heldout[0],))})
    found = ex31.matched(lab, ex31.Setting(ex31.BOOK, 0.5))
    assert abs(found.temperature - 2.0) < 1e-3


def test_the_entropy_is_the_mean_over_the_amateurs():
    lab = ex31.prepare(make_context(ex31.EXERCISE))
    expert, amateurs = lab.heldout
    other = expert.roll(1, dims=-1)
    both = ex31.Lab(**{**vars(lab), "heldout": (expert, (amateurs[0], other))})
    setting = ex31.Setting(ex31.PAPER, 0.7)
    alone = [
        ex31.heldout_entropy(ex31.Lab(**{**vars(lab), "heldout": (expert, (a,))}), setting) for a in both.heldout[1]
    ]
    assert abs(ex31.heldout_entropy(both, setting) - sum(alone) / 2) < 1e-6
    assert abs(alone[0] - alone[1]) > 1e-3


def judged(pair: ex31.Pair, shift: float) -> ex31.Pair:
    """The pair with contrastive texts whose NLL differs from the plain ones' by a shift."""
    plain = replace(pair.plain, nll=(2.0, 2.1, 1.9, 2.0))
    return ex31.Pair(replace(pair.own, nll=tuple(value + shift for value in plain.nll)), plain)


@pytest.mark.parametrize(
    ("book", "paper", "said"),
    [
        (1.0, -1.0, "writes less likely text at α = 0.5; the paper's writes likelier text at α = 1."),
        (
            0.0,
            0.0,
            "writes text neither more nor less likely, beyond noise, at α = 0.5; the paper's writes text neither more",
        ),
    ],
)
def test_the_summary_follows_the_texts(findings, book, paper, said):
    shifts = {ex31.BOOK: book, ex31.PAPER: paper}
    pairs = tuple(judged(pair, shifts[pair.own.setting.formula]) for pair in findings.pairs)
    answer = answered(ex31.EXERCISE, replace(findings, pairs=pairs, baselines=BEATEN))
    assert answer.summary.startswith("Compared with plain sampling of equal entropy, the book's formula ")
    assert said in answer.summary


def test_several_alphas_and_verdicts_are_one_sentence(findings):
    weak, strong = (judged(findings.at(ex31.BOOK, 0.5), shift) for shift in (0.0, 1.0))
    more = [
        replace(pair, own=replace(pair.own, setting=ex31.Setting(ex31.BOOK, alpha)))
        for pair, alpha in ((weak, 0.25), (weak, 0.5), (strong, 0.75))
    ]
    pairs = (findings.at(ex31.BOOK, 0.0), *more, *findings.of(ex31.PAPER))
    answer = answered(ex31.EXERCISE, replace(findings, pairs=pairs, baselines=BEATEN))
    wanted = (
        "writes less likely text at α = 0.75 and text neither more nor less likely, beyond noise, at α = 0.25 and 0.5; "
        "the paper's"
    )
    assert wanted in answer.summary


def test_an_expert_that_does_not_beat_a_bigram_has_no_opinion(findings):
    answer = answered(ex31.EXERCISE, replace(findings, baselines=Baselines(3.0, 0.1, 0.1, 2)))
    assert "not trained far enough" in answer.summary
    assert "likelier" not in answer.summary
