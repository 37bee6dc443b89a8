import math

import pytest
import scipy.stats
import torch

from minigpt.evaluation.entropy import (
    effective_support,
    entropy,
    kl_divergence,
    normalised_entropy,
    participation_ratio,
    total_variation,
    unigram_loss,
)


@pytest.fixture
def distributions(generator):
    return torch.randn(50, 7, generator=generator, dtype=torch.float64).mul(2).softmax(dim=-1)


def test_entropy_and_divergence_agree_with_scipy(distributions):
    p, q = distributions[:25], distributions[25:]
    torch.testing.assert_close(entropy(p), torch.from_numpy(scipy.stats.entropy(p.numpy(), axis=-1)))
    torch.testing.assert_close(
        kl_divergence(p, q), torch.from_numpy(scipy.stats.entropy(p.numpy(), q.numpy(), axis=-1))
    )


@pytest.mark.parametrize("size", [2, 4, 50_257])
def test_a_uniform_distribution_is_worth_its_size(size):
    p = torch.full((size,), 1 / size, dtype=torch.float64)
    assert entropy(p).item() == pytest.approx(math.log(size), rel=1e-12)
    assert normalised_entropy(p).item() == pytest.approx(1.0, rel=1e-12)
    assert effective_support(p).item() == pytest.approx(size, rel=1e-9)
    assert participation_ratio(p).item() == pytest.approx(size, rel=1e-9)


def test_a_certain_outcome_has_no_entropy():
    p = torch.tensor([0.0, 1.0, 0.0])
    assert (entropy(p), effective_support(p), participation_ratio(p)) == (0, 1, 1)


def test_divergence_is_infinite_where_support_is_missing_and_zero_for_itself():
    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([1.0, 0.0, 0.0])
    assert kl_divergence(p, q) == math.inf
    assert kl_divergence(q, p) == pytest.approx(math.log(2))
    assert kl_divergence(p, p) == 0


def test_total_variation_is_the_best_event(distributions):
    p, q = distributions[0], distributions[1]
    events = [sum(((p - q)[i]).item() for i in range(7) if mask >> i & 1) for mask in range(2**7)]
    assert total_variation(p, q).item() == pytest.approx(max(events), rel=1e-12)


def test_the_unigram_loss_by_hand():
    train, text = torch.tensor([0, 0, 0, 1]), torch.tensor([1, 0, 1, 2])
    expected = -(math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 3
    assert unigram_loss(train, text, 3) == pytest.approx(expected)


def test_one_outcome_has_no_normalised_entropy():
    with pytest.raises(ValueError, match="at least two"):
        normalised_entropy(torch.ones(1))
