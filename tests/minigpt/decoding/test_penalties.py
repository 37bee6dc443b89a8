"""The repetition penalty against Transformers'."""

import pytest
import torch
from transformers import RepetitionPenaltyLogitsProcessor

from minigpt.decoding.penalties import banned, repetition_penalty


@pytest.mark.parametrize("alpha", [0.5, 1.0, 1.2, 1.5, 2.0])
def test_equals_transformers(alpha: float, generator: torch.Generator) -> None:
    logits = torch.randn(50, 40, generator=generator) * 5
    tokens = torch.randint(40, (50, 30), generator=generator)  # with repetitions
    expected = RepetitionPenaltyLogitsProcessor(alpha)(tokens, logits.clone())
    assert torch.equal(repetition_penalty(alpha)(tokens, logits), expected)


def test_no_penalty_changes_nothing(generator: torch.Generator) -> None:
    logits = torch.randn(3, 9, generator=generator)
    assert torch.equal(repetition_penalty(1.0)(torch.zeros(3, 4, dtype=torch.long), logits), logits)


def test_a_seen_token_never_becomes_more_likely(generator: torch.Generator) -> None:
    logits = torch.randn(100, 20, generator=generator)
    tokens = torch.randint(20, (100, 5), generator=generator)
    penalised = repetition_penalty(1.7)(tokens, logits)
    assert (penalised.gather(1, tokens) <= logits.gather(1, tokens)).all()


def test_once_per_token_however_often_it_occurs() -> None:
    logits = torch.tensor([[3.0, -3.0, 1.0]])
    once = repetition_penalty(2.0)(torch.tensor([[0, 1]]), logits)
    often = repetition_penalty(2.0)(torch.tensor([[0, 0, 0, 1, 1]]), logits)
    assert torch.equal(once, torch.tensor([[1.5, -6.0, 1.0]]))
    assert torch.equal(once, often)


def test_one_penalty_for_each_text(generator: torch.Generator) -> None:
    logits = torch.randn(4, 40, generator=generator) * 5
    tokens = torch.randint(40, (4, 30), generator=generator)
    alphas = (1.0, 1.2, 1.5, 2.0)
    together = repetition_penalty(torch.tensor(alphas))(tokens, logits)
    for row, alpha in enumerate(alphas):
        alone = repetition_penalty(alpha)(tokens[row : row + 1], logits[row : row + 1])
        assert torch.equal(together[row], alone[0])


def test_a_banned_token_never_comes(generator: torch.Generator) -> None:
    logits = torch.randn(3, 9, generator=generator)
    held = banned({7, 2})(torch.zeros(3, 1, dtype=torch.long), logits)
    assert held.isinf().nonzero()[:, 1].tolist() == [2, 7] * 3
    assert torch.equal(held.softmax(-1) > 0, ~held.isinf())
    assert torch.equal(banned(())(torch.zeros(3, 1, dtype=torch.long), logits), logits)


@pytest.mark.parametrize("alpha", [0.0, -1.0, float("nan"), torch.tensor([1.0, 0.0])])
def test_impossible_penalties(alpha: float | torch.Tensor) -> None:
    with pytest.raises(ValueError, match="positive"):
        repetition_penalty(alpha)
