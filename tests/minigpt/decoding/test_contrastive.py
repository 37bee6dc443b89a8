"""Contrastive decoding against its definition, and against plain decoding where it must not change anything."""

import math

import pytest
import torch
from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor
from transformers.modeling_outputs import CausalLMOutput

from minigpt.config import GPTConfig
from minigpt.decoding.contrastive import Contrastive, contrast, plausible
from minigpt.decoding.sampling import Sampling, generate
from minigpt.model import GPT

V = 30


def model(seed: int, n_layer: int, context: int = 24, **changes) -> GPT:
    torch.manual_seed(seed)
    gpt = GPT(GPTConfig(n_layer=n_layer, n_head=2, d_model=16, context=context, vocab_size=V, **changes)).eval()
    with torch.no_grad():
        for weight in gpt.parameters():
            if weight.ndim == 2:
                weight.mul_(8)
    return gpt


def test_alpha_zero_is_plain_sampling_token_for_token():
    expert, amateur = model(0, 3), model(1, 1)
    prompt = torch.randint(V, (5, 4), generator=torch.Generator().manual_seed(0))
    sampling = Sampling(0.9, top_k=12)
    plain = generate(expert, prompt, 30, generator=torch.Generator().manual_seed(7), sampling=sampling)
    same = generate(
        expert,
        prompt,
        30,
        generator=torch.Generator().manual_seed(7),
        processors=(Contrastive(amateur, 0.0),),
        sampling=sampling,
    )
    other = generate(
        expert,
        prompt,
        30,
        generator=torch.Generator().manual_seed(7),
        processors=(Contrastive(amateur, 0.5),),
        sampling=sampling,
    )
    assert torch.equal(same, plain)
    assert not torch.equal(other, plain)


@pytest.mark.parametrize("amateur_context", [24, 10])
def test_the_amateurs_cache_gives_what_a_fresh_reading_gives(amateur_context):
    """Also where the text outgrows the amateur's context, or the expert's."""
    expert, amateur = model(0, 3), model(1, 1, context=amateur_context)
    contrastive, seen = Contrastive(amateur, 0.7, 0.1), []

    def compare(tokens, logits):
        found = contrastive(tokens, logits)
        fresh = amateur(tokens[:, -amateur_context:])[:, -1]
        expected = contrast(logits, fresh, 0.7, 0.1)
        seen.append(torch.equal(found.isinf(), expected.isinf()))
        kept = ~found.isinf()
        torch.testing.assert_close(found[kept], expected[kept], atol=1e-4, rtol=1e-4)
        return found

    prompt = torch.randint(V, (3, 6), generator=torch.Generator().manual_seed(0))
    generate(expert, prompt, 24, generator=torch.Generator().manual_seed(0), processors=(compare,))
    assert seen == [True] * 24


def test_plausible_set_by_probabilities():
    """Li et al. (2022), section 3.3, in probabilities and one row at a time."""
    logits = torch.randn(200, V, generator=torch.Generator().manual_seed(0)) * 3
    for threshold in (0.0, 0.01, 0.1, 0.5, 1.0):
        expected = [[bool(p >= threshold * max(row)) for p in row] for row in logits.softmax(-1).tolist()]
        assert plausible(logits, threshold).tolist() == expected


def test_logits_and_log_probabilities_give_one_distribution():
    g = torch.Generator().manual_seed(0)
    e, a = (torch.randn(50, V, generator=g) * 3 for _ in range(2))
    for alpha, threshold in ((0.5, 0.0), (1.0, 0.1), (2.0, 0.3)):
        one = contrast(e, a, alpha, threshold).softmax(-1)
        two = contrast(e.log_softmax(-1), a.log_softmax(-1) + 3.0, alpha, threshold).softmax(-1)
        torch.testing.assert_close(one, two)


def test_an_amateur_equal_to_the_expert_only_changes_the_temperature():
    e = torch.randn(50, V, generator=torch.Generator().manual_seed(0)) * 3
    for alpha in (0.25, 0.5, 0.9):
        torch.testing.assert_close(contrast(e, e, alpha).softmax(-1), (e * (1 - alpha)).softmax(-1))
    uniform = contrast(e, e, 1.0).softmax(-1)
    torch.testing.assert_close(uniform, torch.full_like(uniform, 1 / V))
    # Inside the plausible set as well: the paper's score at α = 1 is then uniform over V_head.
    inside = contrast(e, e, 1.0, 0.1).softmax(-1)
    torch.testing.assert_close(inside, plausible(e, 0.1) / plausible(e, 0.1).sum(-1, keepdim=True))


def test_books_formula_is_classifier_free_guidance_at_another_temperature():
    """Transformers' guidance computes g·e + (1 - g)·a; with g = 1/(1 - α) that is ours divided by 1 - α."""
    g = torch.Generator().manual_seed(0)
    e, a = (torch.randn(4, V, generator=g) for _ in range(2))

    class Unconditional:
        def __call__(self, ids, **_):
            return CausalLMOutput(logits=a[:, None])

    for alpha in (0.25, 0.5, 0.75):
        ids = torch.zeros(4, 3, dtype=torch.long)
        guidance = UnbatchedClassifierFreeGuidanceLogitsProcessor(1 / (1 - alpha), Unconditional())
        expected = (guidance(ids, e) * (1 - alpha)).softmax(-1)
        torch.testing.assert_close(contrast(e, a, alpha).softmax(-1), expected)


def test_wrong_arguments_are_refused():
    logits = torch.zeros(1, 3)
    for alpha in (-0.1, math.nan):
        with pytest.raises(ValueError, match="alpha"):
            contrast(logits, logits, alpha)
    with pytest.raises(ValueError, match="plausibility"):
        contrast(logits, logits, 1.0, 1.5)
