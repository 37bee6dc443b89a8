from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tasks.exercises.ex11_causal_mask import experiment as ex11
from tasks.exercises.ex11_causal_mask.experiment import EXERCISE
from tests.exercise_context import answered, assert_sound, measured
from tests.exercises.formulas import assert_formulas, prose


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


def test_the_answer_is_sound(findings):
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    assert all(check.passed for check in answer.checks)


def test_the_mask_of_four_tokens():
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 1, 1, 1]]
    assert ex11.create_causal_mask(4).int().tolist() == expected


def one_token_ahead(seq_len: int) -> Tensor:
    return torch.ones(seq_len, seq_len).tril(1).bool()


@pytest.mark.parametrize(
    ("name", "broken"),
    [("create_causal_mask", one_token_ahead), ("masked_softmax", ex11.masked_after)],
)
def test_the_checks_notice_a_broken_implementation(monkeypatch, name, broken):
    monkeypatch.setattr(ex11, name, broken)
    answer = answered(EXERCISE)
    assert [check.claim for check in answer.checks if check.kind == "exact" and not check.passed]


def test_which_ways_of_masking_leak(generator):
    attend = ex11.Attention(8, generator)
    x = torch.randn(4, 8, generator=generator)
    altered = torch.cat([x[:-1], torch.randn(1, 8, generator=generator)])
    found = ex11.mistakes(attend, x, altered, ex11.create_causal_mask(4))
    leak = {way.name: way.leak for way in found if way.precision == "fp32"}
    right, after, _, multiplied, inverted, minus_1e9 = ex11.WAYS
    assert leak[right] == leak[minus_1e9] == 0
    assert min(leak[after], leak[multiplied], leak[inverted]) > 1e-3


@pytest.mark.parametrize(
    ("leaks", "said"),
    [(0, "no earlier outputs change"), (1, "1 earlier output changes"), (7, "7 earlier outputs change")],
)
def test_leaks_read_well_in_any_number(findings, leaks, said):
    answer = answered(EXERCISE, replace(findings, leaks=leaks))
    assert f"; {said} in" in answer.summary
    assert f"{said[0].upper()}{said[1:]} by as much as a bit" in " ".join(" ".join(prose(answer)).split())
