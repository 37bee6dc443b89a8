from dataclasses import replace
from fractions import Fraction

import pytest
import torch
from transformers import TopPLogitsWarper

from tasks.exercises.ex07_top_k_top_p.answer import checks
from tasks.exercises.ex07_top_k_top_p.experiment import EXERCISE, chi_square, tensor
from tasks.exercises.ex07_top_k_top_p.findings import GIVEN, nucleus_size
from tests.exercise_context import answered, assert_sound, measured
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


def test_the_renormalised_probabilities(answer):
    expected = [35 / 70, 20 / 70, 15 / 70]
    assert [answer.metrics[f"top_k_probability_token_{i}"] for i in (1, 2, 3)] == pytest.approx(expected, rel=1e-14)
    assert answer.metrics["top_p_tokens"] == 6
    nucleus = [answer.metrics[f"top_p_probability_token_{i}"] for i in range(1, 7)]
    assert nucleus == pytest.approx([p / 93 for p in (35, 20, 15, 10, 8, 5)], rel=1e-14)


def test_the_constructed_distribution(answer):
    kept = [answer.metrics[f"peaked_top_k_probability_token_{i}"] for i in range(1, 6)]
    assert kept == pytest.approx([960 / 999, 30 / 999, 6 / 999, 2 / 999, 1 / 999], rel=1e-14)
    assert answer.metrics["peaked_unlikely_draws_in_200_tokens"] == pytest.approx(200 * 9 / 999)


@pytest.mark.parametrize(("p", "size"), [("0", 1), ("0.35", 1), ("0.36", 2), ("0.88", 5), ("0.9", 6), ("1", 10)])
def test_the_exact_nucleus(p, size):
    assert nucleus_size(GIVEN, Fraction(p)) == size


def test_the_exact_nucleus_is_the_warpers_away_from_its_boundaries(generator):
    for weights in torch.randint(1, 1000, (50, 10), generator=generator).tolist():
        exact = sorted((Fraction(w, sum(weights)) for w in weights), reverse=True)
        for p in (0.2, 0.5, 0.77, 0.95):
            kept = TopPLogitsWarper(p)(None, tensor(exact).log()[None]).isfinite().sum()
            assert nucleus_size(exact, Fraction(str(p))) == kept


def test_chi_square_notices_another_distribution(findings, answer):
    fair = next(check for check in answer.checks if "chi-square" in check.claim)
    counts = torch.tensor([9_700, 200, 60, 20, 20, 0, 0, 0, 0, 0])
    biased = next(
        check for check in checks(replace(findings, p_value=chi_square(counts))) if "chi-square" in check.claim
    )
    assert fair.passed
    assert not biased.passed
