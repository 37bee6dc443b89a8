"""Every token is scored once, with the context it is said to have."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.evaluation.evaluate import Evaluation, evaluate, token_losses
from minigpt.model import GPT

CONFIG = GPTConfig(n_layer=2, n_head=2, d_model=32, context=16, vocab_size=23)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    model = GPT(CONFIG)
    with torch.no_grad():
        for weight in model.blocks.parameters():
            weight.mul_(2)
    return model.train()


def by_hand(model: GPT, tokens: Tensor, begin: int, target: int) -> float:
    """Loss of one token, given those from ``begin`` on."""
    logits = model(tokens[None, begin:target])[0, -1]
    return F.cross_entropy(logits, tokens[target]).item()


@pytest.mark.parametrize("length", [2, 3, 16, 17, 18, 32, 33, 34, 100])
@pytest.mark.parametrize("batch_size", [1, 2, None])
def test_contiguous_windows(model: GPT, length: int, batch_size: int | None) -> None:
    tokens = torch.randint(23, (length,), generator=torch.Generator().manual_seed(1))
    losses = token_losses(model, tokens, batch_size=batch_size)
    expected = [by_hand(model, tokens, (target - 1) // 16 * 16, target) for target in range(1, length)]
    assert losses.tolist() == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("stride", [1, 3, 8, 15])
@pytest.mark.parametrize("length", [10, 17, 18, 40, 77])
def test_overlapping_windows_give_every_token_its_context(model: GPT, stride: int, length: int) -> None:
    tokens = torch.randint(23, (length,), generator=torch.Generator().manual_seed(1))
    losses = token_losses(model, tokens, stride=stride)
    for target in range(1, length):
        if target <= 16:
            begin = 0
        else:  # the window whose last ``stride`` targets hold it, or the last window of all
            step = -(-(target - 16) // stride)
            begin = min(step * stride, length - 1 - 16)
        assert losses[target - 1].item() == pytest.approx(by_hand(model, tokens, begin, target), abs=2e-5)
        assert target - begin > 16 - stride or begin == 0


def test_another_context_than_the_models_own(model: GPT) -> None:
    tokens = torch.randint(23, (30,), generator=torch.Generator().manual_seed(1))
    losses = token_losses(model, tokens, 4)
    expected = [by_hand(model, tokens, (target - 1) // 4 * 4, target) for target in range(1, 30)]
    assert losses.tolist() == pytest.approx(expected, abs=2e-5)


def test_evaluation_is_the_mean_and_changes_nothing(model: GPT) -> None:
    tokens = torch.randint(23, (50,), generator=torch.Generator().manual_seed(1))
    result = evaluate(model, tokens, n_bytes=60)
    assert result.tokens == 49
    assert result.nats_per_token == pytest.approx(token_losses(model, tokens).mean().item(), abs=1e-6)
    assert result.perplexity == pytest.approx(math.exp(result.nats_per_token))
    assert result.bits_per_byte == pytest.approx(result.nats_per_token / math.log(2) * 49 / 60)
    assert model.training
    assert not token_losses(model, tokens).is_inference()


def test_dropout_is_off() -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, d_model=32, context=8, vocab_size=9, dropout=0.5)).train()
    tokens = torch.randint(9, (40,))
    assert torch.equal(token_losses(model, tokens), token_losses(model, tokens))


def test_a_uniform_model_has_the_perplexity_of_its_vocabulary() -> None:
    model = GPT(CONFIG)
    with torch.no_grad():
        model.token_embedding.weight.zero_()  # tied: all logits are 0
    result = evaluate(model, torch.arange(23))
    assert result.perplexity == pytest.approx(23, rel=1e-6)
    assert result.bits_per_token == pytest.approx(math.log2(23), rel=1e-6)


def test_what_makes_no_sense_is_refused(model: GPT) -> None:
    for tokens, stride in ((torch.zeros(1, dtype=torch.int64), None), (torch.zeros(9, dtype=torch.int64), 17)):
        with pytest.raises(ValueError, match="need two tokens"):
            token_losses(model, tokens, stride=stride)
    with pytest.raises(ValueError, match="n_bytes"):
        _ = Evaluation(1.0, 5).bits_per_byte
