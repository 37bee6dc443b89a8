from dataclasses import replace

import pytest
import torch

from tasks.exercises.ex12_attention_layer import experiment
from tasks.exercises.ex12_attention_layer.experiment import EXERCISE
from tasks.exercises.ex12_attention_layer.layer import SingleHeadAttention
from tests.exercise_context import answered, assert_sound, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


def test_the_answer_is_sound(findings):
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer)
    assert all(check.passed for check in answer.checks)


class NotScaled(SingleHeadAttention):
    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        weights = (q @ k.mT).masked_fill(~torch.ones(x.shape[1], x.shape[1]).tril().bool(), -torch.inf).softmax(-1)
        return self.out(weights @ v), weights


class Bidirectional(SingleHeadAttention):
    def forward(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        weights = (q @ k.mT / x.shape[-1] ** 0.5).softmax(-1)
        return self.out(weights @ v), weights


@pytest.mark.parametrize("broken", [NotScaled, Bidirectional])
def test_the_checks_notice_a_broken_layer(monkeypatch, broken):
    monkeypatch.setattr(experiment, "SingleHeadAttention", broken)
    answer = answered(EXERCISE)
    failed = [check.claim for check in answer.checks if check.kind == "exact" and not check.passed]
    assert any("scaled_dot_product_attention" in claim for claim in failed)
    assert any("GPT-2" in claim for claim in failed)


def test_a_single_token_attends_to_itself(generator):
    layer = SingleHeadAttention(8)
    x = torch.randn(3, 1, 8, generator=generator)
    output, weights = layer(x)
    assert torch.equal(weights, torch.ones(3, 1, 1))
    torch.testing.assert_close(output, layer.out(layer.value(x)))


@pytest.mark.parametrize(("batch", "said"), [(0.0, "bit for bit."), (2.4e-7, "to 2e−07.")])
def test_a_sequence_alone_is_compared_in_words(findings, batch, said):
    text = answered(EXERCISE, replace(findings, batch=batch)).parts[0].blocks[-1].text
    assert text.endswith(said)
