import pytest
import torch

from tasks.exercises import ex12_attention_layer as ex12
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex12.EXERCISE.answer(make_context(ex12.EXERCISE))
    assert_sound(ex12.EXERCISE, answer)
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
    answer = ex12.EXERCISE.answer(make_context(ex12.EXERCISE))
    failed = [check.claim for check in answer.checks if check.kind == "exact" and not check.passed]
    assert any("scaled_dot_product_attention" in claim for claim in failed)
    assert any("GPT-2" in claim for claim in failed)


def test_a_single_token_attends_to_itself(generator):
    layer = ex12.SingleHeadAttention(8)
    x = torch.randn(3, 1, 8, generator=generator)
    output, weights = layer(x)
    assert torch.equal(weights, torch.ones(3, 1, 1))
    torch.testing.assert_close(output, layer.out(layer.value(x)))
