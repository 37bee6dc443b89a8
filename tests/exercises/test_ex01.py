import math
from dataclasses import replace

import pytest
import torch

from tasks.exercises.ex01_factorization import experiment as ex01
from tasks.exercises.ex01_factorization.experiment import EXERCISE
from tasks.exercises.ex01_factorization.findings import SENTENCE, WORDS, by_word
from tasks.recipes.catalogue import STUDY
from tests.exercise_context import answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas, prose


@pytest.fixture(scope="module")
def context():
    return make_context(EXERCISE)


@pytest.mark.parametrize(("architecture", "tokens"), [("gpt2", 6), ("llama", 6), ("stand-in", 22)])
def test_it_is_sound(architecture, tokens):
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, pretrained=architecture)))
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    assert answer.metrics["conditional_distributions"] == 6
    assert answer.metrics["pretrained_tokens"] == tokens
    assert answer.metrics["character_tokens"] == len(SENTENCE)
    terms = [answer.metrics[f"pretrained_conditional_probability_{i}"] for i in range(1, tokens + 1)]
    assert math.prod(terms) == pytest.approx(answer.metrics["pretrained_probability"])
    assert ("read as 22 tokens" in answer.summary) == (tokens == 22)


@pytest.fixture(scope="module")
def findings(context):
    return measured(EXERCISE, context)


def said(findings):
    return " ".join(" ".join(prose(answered(EXERCISE, findings))).split())


def test_the_terms_are_written_out(findings):
    formula = answered(EXERCISE, findings).parts[0].blocks[0].text
    assert formula.count(r"\mid") == len(WORDS) - 1
    for i, word in enumerate(WORDS[1:], start=1):
        assert rf"P(\text{{{word}}} \mid \text{{{' '.join(WORDS[:i])}}})" in formula


def test_starts_that_make_no_difference_read_well(findings):
    equal = replace(findings.beginnings[0], capital=0.2, small=0.1, nats=50.0)
    text = said(replace(findings, beginnings=(equal, equal)))
    assert "likelier than “the” after each of these starts: the ratio is 2. The start" in text
    assert "costs 50.0 nats, whatever stands in front of it" in text


def test_factors_by_hand():
    table = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.6, 0.3], [0.2, 0.2, 0.6]]).log()  # a bigram model
    found = ex01.factors(lambda tokens: table[tokens], [0], [1, 2, 2], "abc".__getitem__)
    assert [f.probability for f in found] == pytest.approx([0.25, 0.3, 0.6], rel=1e-6)
    assert [(f.piece, f.guess, f.rank) for f in found] == [("b", "a", 2), ("c", "b", 2), ("c", "c", 1)]
    assert ex01.one_by_one(lambda tokens: table[tokens], [0], [1, 2, 2]) == pytest.approx([0.25, 0.3, 0.6], rel=1e-6)


def test_words_are_groups_of_tokens(context):
    scorer = ex01.study_scorer(context.model(STUDY))
    words = ["".join(f.piece for f in word) for word in by_word(scorer.factors())]
    assert words == ["The", " cat", " sat", " on", " the", " mat"]


def test_a_leak_breaks_the_sum(monkeypatch):
    """With full attention the conditionals see their own target, and the total probability is not 1."""
    hidden = ex01.GPT.hidden
    everything = lambda self, tokens, **_: hidden(self, tokens, mask=torch.ones(*[tokens.shape[1]] * 2).bool())  # noqa: E731
    assert all(math.isclose(total.probability, 1, abs_tol=1e-12) for total in ex01.tiny_sums(3))
    monkeypatch.setattr(ex01.GPT, "hidden", everything)
    assert any(abs(total.probability - 1) > 1e-3 for total in ex01.tiny_sums(3))
