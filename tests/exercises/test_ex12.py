from dataclasses import replace

import pytest
import torch

from tasks.exercises.ex12_attention_layer import experiment as ex12
from tasks.exercises.ex12_attention_layer.experiment import EXERCISE
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


class NotScaled(ex12.SingleHeadAttention):
    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        weights = (q @ k.mT).masked_fill(~torch.ones(x.shape[1], x.shape[1]).tril().bool(), -torch.inf).softmax(-1)
        return self.out(weights @ v), weights


class Bidirectional(ex12.SingleHeadAttention):
    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        weights = (q @ k.mT / x.shape[-1] ** 0.5).softmax(-1)
        return self.out(weights @ v), weights


@pytest.mark.parametrize("broken", [NotScaled, Bidirectional])
def test_the_checks_notice_a_broken_layer(monkeypatch, broken):
    monkeypatch.setattr(ex12, "SingleHeadAttention", broken)
    answer = answered(EXERCISE)
    failed = [check.claim for check in answer.checks if check.kind == "exact" and not check.passed]
    assert any("scaled_dot_product_attention" in claim for claim in failed)
    assert any("GPT-2" in claim for claim in failed)


def test_a_single_token_attends_to_itself(generator):
    layer = ex12.SingleHeadAttention(8)
    x = torch.randn(3, 1, 8, generator=generator)
    output, weights = layer(x)
    assert torch.equal(weights, torch.ones(3, 1, 1))
    torch.testing.assert_close(output, layer.out(layer.value(x)))


def test_no_difference_at_all_reads_well(findings):
    none = ex12.Parity(0.0, 0.0)
    equal = replace(findings, sdpa=0.0, gpt2=none, minigpt=none, batch=0.0, row_sums=(1.0, 1.0))
    answer = answered(EXERCISE, equal)
    assert answer.summary.endswith("attention bit for bit.")
    text = " ".join(" ".join(prose(answer)).split())
    assert "as in the batch, bit for bit." in text
    assert "The sums of the rows are 1.0000000:" in text
    assert "as in the batch, to 3e-08." in " ".join(
        " ".join(prose(answered(EXERCISE, replace(findings, batch=3e-8)))).split()
    )
