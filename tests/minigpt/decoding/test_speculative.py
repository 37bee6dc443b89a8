"""Speculative decoding must not be noticeable in its output: distribution and greedy tokens are the target's own."""

import copy
import itertools
import math

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.decoding.sampling import GREEDY, PLAIN, Sampling, generate, warp
from minigpt.decoding.speculative import (
    acceptance_probabilities,
    acceptance_probability,
    draw,
    expected_speedup,
    expected_tokens,
    speculate,
    verify,
)
from minigpt.model import GPT

VOCABULARY = 4


def peaked_model(seed: int, n_layer: int = 2, **changes) -> GPT:
    """Random weights, enlarged so that distributions are far from uniform and depend on the whole history."""
    torch.manual_seed(seed)
    fields = {"n_head": 2, "d_model": 16, "context": 16, "vocab_size": VOCABULARY, "position": "rope"} | changes
    model = GPT(GPTConfig(n_layer=n_layer, **fields)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(12)
    return model


def perturbed(model: GPT, scale: float, seed: int = 1) -> GPT:
    """A draft that resembles the target: the same weights with relative noise."""
    torch.manual_seed(seed)
    other = copy.deepcopy(model)
    with torch.no_grad():
        for weight in other.parameters():
            weight.add_(scale * weight.std(correction=0) * torch.randn_like(weight))
    return other


@torch.inference_mode()
def joint_distribution(model: GPT, prompt: list[int], n: int, sampling: Sampling = PLAIN) -> Tensor:
    """Probabilities of all V**n continuations, by the chain rule, without cache and without sampling."""
    texts = torch.tensor([[*prompt, *rest] for rest in itertools.product(range(VOCABULARY), repeat=n)])
    p = warp(model(texts[:, :-1]), sampling).softmax(-1)[:, len(prompt) - 1 :]
    return p.gather(-1, texts[:, len(prompt) :, None])[..., 0].double().prod(dim=1)


def histogram(texts: Tensor) -> Tensor:
    """Counts of the continuations in the order of ``joint_distribution``."""
    place = VOCABULARY ** torch.arange(texts.shape[1]).flip(0)
    return torch.bincount((texts * place).sum(dim=1), minlength=VOCABULARY ** texts.shape[1])


def p_value(counts: Tensor, probabilities: Tensor) -> float:
    """Chi-square, with the cells of small expectation pooled."""
    expected = probabilities / probabilities.sum() * counts.sum()
    assert counts[probabilities == 0].sum() == 0  # what the truncation removed was never drawn
    rare = expected < 5
    observed = torch.cat([counts[~rare], counts[rare].sum()[None]])
    expected = torch.cat([expected[~rare], expected[rare].sum()[None]])
    keep = expected > 0
    return float(chisquare(observed[keep].numpy(), expected[keep].numpy()).pvalue)


def test_verify_returns_the_targets_distribution_at_every_place():
    """100,000 rows through one verification; the draft is wrong on purpose, and lacks a token the target has."""
    B, gamma, g = 100_000, 3, torch.Generator().manual_seed(0)
    p = torch.softmax(torch.randn(1, gamma + 1, 6, generator=g) * 1.5, -1)
    q = torch.softmax(torch.randn(1, gamma, 6, generator=g), -1)
    q[..., 0] = 0
    q = q / q.sum(-1, keepdim=True)
    drafted = draw(q.expand(B, -1, -1), g)
    kept, emitted = verify(p.expand(B, -1, -1), q.expand(B, -1, -1), drafted, g)
    for place in range(gamma + 1):
        tokens = emitted[kept >= place, place]
        expected = p[0, place].double() / p[0, place].double().sum() * len(tokens)
        assert chisquare(torch.bincount(tokens, minlength=6).numpy(), expected.numpy()).pvalue > 1e-3
    # Leviathan et al., corollary 3.6: the first draft is accepted with probability sum min(p, q).
    alpha = torch.minimum(p[0, 0], q[0, 0]).sum().item()
    assert abs((kept > 0).double().mean().item() - alpha) < 4 * math.sqrt(alpha * (1 - alpha) / B)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("noise", "rows", "gamma", "sampling"),
    [
        (0.01, 32, 2, PLAIN),  # nearly the target: often all are accepted, so that bonus tokens matter
        (0.3, 64, 2, PLAIN),  # rejected early
        (0.02, 32, 2, Sampling(0.8, top_k=3, top_p=0.95)),
    ],
)
def test_whole_texts_follow_the_targets_distribution(noise, rows, gamma, sampling):
    """51,200 texts of 5 tokens over a vocabulary of 4, against all 1,024 exact probabilities."""
    target, prompt, draws = peaked_model(0), [1, 2, 0], 51_200
    draft = perturbed(target, noise)
    g = torch.Generator().manual_seed(3)
    prompts = torch.tensor([prompt]).expand(rows, -1)
    texts = [
        speculate(target, draft, prompts, 5, gamma=gamma, sampling=sampling, generator=g).tokens[:, 3:]
        for _ in range(draws // rows)
    ]
    exact = joint_distribution(target, prompt, 5, sampling)
    assert p_value(histogram(torch.cat(texts)), exact) > 1e-3


def test_the_distribution_test_would_notice_the_drafts_own_distribution():
    target = peaked_model(0)
    draft, prompt = perturbed(target, 0.3), torch.tensor([[1, 2, 0]])
    texts = generate(draft, prompt.expand(20_000, -1), 3, generator=torch.Generator().manual_seed(0))[:, 3:]
    assert p_value(histogram(texts), joint_distribution(target, [1, 2, 0], 3)) < 1e-6
    texts = generate(target, prompt.expand(20_000, -1), 3, generator=torch.Generator().manual_seed(0))[:, 3:]
    assert p_value(histogram(texts), joint_distribution(target, [1, 2, 0], 3)) > 1e-3


def test_greedy_equals_greedy_over_208_prompts():
    """A good and a bad draft in turn, prompts of several lengths, γ from 1 to 6."""
    target = peaked_model(0, vocab_size=20, context=32, position="learned")
    drafts = [perturbed(target, 0.05), perturbed(target, 0.5)]
    g = torch.Generator().manual_seed(0)
    accepted = tested = 0
    for length, gamma in itertools.product((1, 3, 7, 12), (1, 2, 3, 6)):
        prompts = torch.randint(20, (13, length), generator=g)
        plain = generate(target, prompts, 13, sampling=GREEDY)
        for row in range(13):
            result = speculate(target, drafts[row % 2], prompts[row : row + 1], 13, gamma=gamma, sampling=GREEDY)
            assert torch.equal(result.tokens, plain[row : row + 1])
            accepted, tested = accepted + result.accepted, tested + result.tested
    assert 0.1 < accepted / tested < 0.95  # both outcomes happened


def test_who_watches_sees_how_the_text_comes_about():
    target = peaked_model(0)
    draft, prompt, passes = perturbed(target, 0.7), torch.tensor([[0, 1, 2]]), []
    g = torch.Generator().manual_seed(3)
    found = speculate(target, draft, prompt, 12, gamma=3, generator=g, watch=lambda *seen: passes.append(seen))
    pieces = [torch.cat([drafted[0, :accepted], added[0]]) for _, _, drafted, accepted, added in passes]
    assert torch.equal(torch.cat(pieces), found.tokens[0, 3:])
    length = 3
    for p, q, drafted, accepted, _ in passes:
        text = torch.cat([found.tokens[:, :length], drafted], dim=1)
        with torch.inference_mode():
            expected_p = target(text).softmax(-1)[:, length - 1 :]
            expected_q = draft(text).softmax(-1)[:, length - 1 : -1]
        torch.testing.assert_close(p, expected_p, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(q, expected_q, atol=1e-5, rtol=1e-4)
        length += accepted + 1
    silent = speculate(target, draft, prompt, 12, gamma=3, generator=torch.Generator().manual_seed(3))
    assert torch.equal(silent.tokens, found.tokens)  # watching changes nothing


def test_batches_in_lockstep_give_the_same_greedy_tokens():
    target = peaked_model(0, vocab_size=20, context=32)
    prompts = torch.randint(20, (16, 5), generator=torch.Generator().manual_seed(0))
    result = speculate(target, perturbed(target, 0.05), prompts, 20, gamma=3, sampling=GREEDY)
    assert torch.equal(result.tokens, generate(target, prompts, 20, sampling=GREEDY))


@pytest.mark.parametrize("changes", [{}, {"n_kv_head": 1}, {"window": 4}, {"position": "learned"}])
def test_the_target_as_its_own_draft_is_always_accepted(changes):
    """Fails when the missing cache entry after full acceptance, or the bonus token, is forgotten."""
    target = peaked_model(0, context=64, **changes)
    prompt = torch.tensor([[1, 2, 0]])
    result = speculate(target, target, prompt, 30, gamma=4, generator=torch.Generator().manual_seed(0))
    assert result.accepted == result.tested
    assert result.acceptance_rate == 1.0
    assert (result.passes, result.emitted) == (6, 30)  # five tokens each
    assert result.tokens.shape == (1, 33)


def test_acceptance_probability_is_what_is_measured():
    target = peaked_model(0, context=64)
    draft = perturbed(target, 0.2)
    prompts = torch.tensor([[1, 2, 0]])
    g = torch.Generator().manual_seed(0)
    # One draft, a text of two tokens: the first verification always tests exactly the first token.
    result = speculate(target, draft, prompts[:1], 1, gamma=1, generator=g)
    assert result.tested == 0  # one token needs no draft
    alpha = acceptance_probability(target, draft, prompts[:1])[0, -1].item()
    runs = [speculate(target, draft, prompts[:1], 2, gamma=1, generator=g) for _ in range(500)]
    measured = sum(run.accepted for run in runs) / sum(run.tested for run in runs)
    assert abs(measured - alpha) < 4 * math.sqrt(alpha * (1 - alpha) / 500)


def test_acceptance_of_several_drafts_is_that_of_each():
    target = peaked_model(0, context=64)
    drafts = [perturbed(target, 0.2), perturbed(target, 0.5), target]
    texts = torch.tensor([[1, 2, 0, 1], [0, 2, 2, 1]])
    together = acceptance_probabilities(target, drafts, texts)
    for draft, found in zip(drafts, together, strict=True):
        assert torch.equal(found, acceptance_probability(target, draft, texts))
        assert not found.requires_grad
    assert together[2] == pytest.approx(1.0, abs=1e-5)
    assert together[1].mean() < together[0].mean() < 1


def test_expected_tokens_against_the_sum_and_the_limits():
    for alpha, gamma in itertools.product((0.0, 0.3, 0.9, 1.0), (1, 4)):
        assert expected_tokens(alpha, gamma) == pytest.approx(sum(alpha**i for i in range(gamma + 1)))
    # Leviathan et al., table 1: α = 0.8 and γ = 5 with a free draft.
    assert expected_speedup(0.8, 5, 0.0) == pytest.approx(3.69, abs=5e-3)
    assert expected_speedup(1.0, 4, 1.0) == 1.0  # the target as its own draft gains nothing
    assert expected_speedup(0.0, 4, 0.1) < 1.0


def test_wrong_arguments_are_refused():
    target, prompt = peaked_model(0, position="learned"), torch.zeros(1, 3, dtype=torch.long)
    with pytest.raises(ValueError, match="gamma"):
        speculate(target, target, prompt, 2, gamma=0)
    with pytest.raises(ValueError, match="positions"):
        speculate(target, target, prompt, 15)
    with pytest.raises(ValueError, match="vocabularies"):
        speculate(target, peaked_model(0, vocab_size=5), prompt, 2)
    with pytest.raises(ValueError, match="prompt"):
        speculate(target, target, prompt[:, :0], 2)
