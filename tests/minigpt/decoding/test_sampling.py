"""Temperature, top-k and nucleus equal Transformers' warpers; what is drawn has the distribution it should have."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from minigpt.config import GPTConfig
from minigpt.decoding.sampling import GREEDY, Sampling, generate, sample, temperature_warp, top_k_warp, top_p_warp, warp
from minigpt.model import GPT

TEMPERATURES = (1e-3, 0.1, 0.5, 0.7, 1.0, 1.5, 2.0, 10.0, 1e3)
TOP_KS = (1, 2, 3, 5, 10, 49, 50, 51, 1000)
TOP_PS = (0.0, 1e-6, 0.01, 0.1, 0.3, 0.5, 0.9, 0.92, 0.99, 0.999999, 1.0)


def logit_vectors() -> dict[str, Tensor]:
    """10,000 vectors: smooth ones, ones full of ties, and extremes up to the largest number and infinity."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(3600, 50, generator=generator) * torch.logspace(-3, 2, 3600)[:, None]
    ties = torch.randint(-2, 3, (3000, 50), generator=generator).float()
    flat = torch.zeros(500, 50)
    peaked = torch.randn(1500, 50, generator=generator)
    peaked.scatter_add_(1, torch.randint(50, (1500, 1), generator=generator), torch.full((1500, 1), 1e4))
    removed = torch.randn(1000, 50, generator=generator)
    removed[:, ::3] = float("-inf")
    single = torch.full((100, 50), float("-inf"))
    single[torch.arange(100), torch.randint(50, (100,), generator=generator)] = 1.0
    huge = (torch.rand(200, 50, generator=generator) * 2 - 1) * torch.finfo(torch.float32).max
    infinite = torch.randn(100, 50, generator=generator)
    infinite[torch.arange(100), torch.randint(50, (100,), generator=generator)] = float("inf")
    return {
        "normal": normal,
        "ties": ties,
        "flat": flat,
        "peaked": peaked,
        "removed": removed,
        "single": single,
        "huge": huge,
        "infinite": infinite,
    }


LOGITS = logit_vectors()


def test_there_are_ten_thousand_vectors() -> None:
    assert sum(map(len, LOGITS.values())) == 10_000


@pytest.mark.parametrize("kind", LOGITS)
def test_temperature_equals_transformers(kind: str) -> None:
    for temperature in TEMPERATURES:
        assert torch.equal(
            temperature_warp(LOGITS[kind], temperature), TemperatureLogitsWarper(temperature)(None, LOGITS[kind])
        )


@pytest.mark.parametrize("kind", LOGITS)
def test_top_k_equals_transformers(kind: str) -> None:
    for k in TOP_KS:
        assert torch.equal(top_k_warp(LOGITS[kind], k), TopKLogitsWarper(k)(None, LOGITS[kind]))


@pytest.mark.parametrize("kind", LOGITS)
def test_top_p_equals_transformers(kind: str) -> None:
    for p in TOP_PS:
        assert torch.equal(top_p_warp(LOGITS[kind], p), TopPLogitsWarper(p)(None, LOGITS[kind]))


@pytest.mark.parametrize("kind", LOGITS)
def test_the_three_together_equal_transformers(kind: str) -> None:
    for temperature, k, p in itertools.product((0.3, 1.0, 1.7), (0, 5, 40), (0.0, 0.5, 0.92)):
        expected = TemperatureLogitsWarper(temperature)(None, LOGITS[kind])
        expected = TopKLogitsWarper(k)(None, expected) if k else expected
        expected = TopPLogitsWarper(p)(None, expected)
        assert torch.equal(warp(LOGITS[kind], Sampling(temperature, k, p)), expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("kind", ["normal", "ties", "peaked", "removed"])
def test_other_precisions_equal_transformers(kind: str, dtype: torch.dtype) -> None:
    logits = LOGITS[kind][::10].to(dtype)
    for temperature, k, p in ((0.7, 5, 0.9), (1.3, 40, 0.5), (1.0, 1, 0.0)):
        expected = TopKLogitsWarper(k)(None, TemperatureLogitsWarper(temperature)(None, logits))
        assert torch.equal(warp(logits, Sampling(temperature, k, p)), TopPLogitsWarper(p)(None, expected))


def test_huge_logits_are_sampled() -> None:
    """Sampling works up to the largest number there is, where differences of logits overflow."""
    ids = sample(LOGITS["huge"], Sampling(1.0, 5, 0.9), torch.Generator().manual_seed(0))
    assert torch.equal(ids, LOGITS["huge"].argmax(-1))
    assert torch.equal(
        sample(LOGITS["single"], generator=torch.Generator().manual_seed(0)), LOGITS["single"].argmax(-1)
    )


def test_top_p_by_its_definition() -> None:
    """Exercise 21.7 (b) by hand: the token that crosses p belongs to the set."""
    probabilities = torch.tensor([0.10, 0.35, 0.03, 0.20, 0.08, 0.15, 0.05, 0.02, 0.01, 0.01])
    kept = top_p_warp(probabilities.log(), 0.85).isfinite()
    assert probabilities[kept].tolist() == pytest.approx([0.10, 0.35, 0.20, 0.08, 0.15])
    kept = top_p_warp(probabilities.log(), 0.75).isfinite()
    assert probabilities[kept].tolist() == pytest.approx([0.10, 0.35, 0.20, 0.15])


def test_one_dimension_and_many() -> None:
    logits = torch.randn(2, 3, 7, generator=torch.Generator().manual_seed(0))
    expected = warp(logits.view(6, 7), Sampling(0.7, 5, 0.8))
    assert torch.equal(warp(logits, Sampling(0.7, 5, 0.8)).view(6, 7), expected)
    assert torch.equal(warp(logits[1, 2], Sampling(0.7, 5, 0.8)), expected[5])


# Distinct numbers, in steps that fp32 keeps apart.
distinct = st.lists(st.integers(-4000, 4000), min_size=1, max_size=40, unique=True).map(
    lambda values: torch.tensor(values, dtype=torch.float32) / 400
)
parameters = {
    "temperature": st.floats(0.05, 20),
    "k": st.integers(0, 45),
    "p": st.floats(0, 1),
}


@settings(max_examples=200, deadline=None)
@given(logits=distinct, order=st.randoms(use_true_random=False), **parameters)
def test_the_order_of_the_vocabulary_does_not_matter(
    logits: Tensor, order: object, temperature: float, k: int, p: float
) -> None:
    permutation = list(range(len(logits)))
    order.shuffle(permutation)  # type: ignore[attr-defined]
    # The probability of the softmax differs in its last bits with the order of the sum, so p stays off the steps.
    cumulative = warp(logits, Sampling(temperature, k)).sort().values.softmax(-1).cumsum(-1)
    if (cumulative - (1 - p)).abs().min() < 1e-5:
        return
    assert torch.equal(
        warp(logits[permutation], Sampling(temperature, k, p)), warp(logits, Sampling(temperature, k, p))[permutation]
    )


@settings(max_examples=200, deadline=None)
@given(logits=distinct, temperature=parameters["temperature"], k=st.integers(1, 45))
def test_top_k_keeps_the_k_largest_and_all_their_mass(logits: Tensor, temperature: float, k: int) -> None:
    logits = logits.double()
    kept = warp(logits, Sampling(temperature, k)).isfinite()
    assert kept.sum() == min(k, len(logits))  # the numbers are distinct
    assert logits[kept].min() >= logits[~kept].max() if (~kept).any() else True
    before, after = (logits / temperature).softmax(-1), warp(logits, Sampling(temperature, k)).softmax(-1)
    torch.testing.assert_close(after[kept], before[kept] / before[kept].sum())
    assert after[~kept].sum() == 0
    assert after.sum().item() == pytest.approx(1)


@settings(max_examples=200, deadline=None)
@given(logits=distinct, **parameters)
def test_the_nucleus_holds_its_mass_and_no_token_too_many(logits: Tensor, temperature: float, k: int, p: float) -> None:
    before = warp(logits.double(), Sampling(temperature, k)).softmax(-1)
    kept = warp(logits.double(), Sampling(temperature, k, p)).isfinite()
    assert kept.any()
    assert before[kept].sum() >= p - 1e-12
    assert before[kept].min() >= before[~kept].max() if (~kept).any() else True
    assert before[kept].sum() - before[kept].min() < p + 1e-12 or kept.sum() == 1 or p == 1
    assert warp(logits.double(), Sampling(temperature, k, p)).softmax(-1).sum().item() == pytest.approx(1)


def exact_distribution(logits: Tensor, temperature: float, k: int, p: float) -> np.ndarray:
    """The definition in numpy, token by token: no ties, none of the code under test."""
    weights = np.exp(logits.double().numpy() / temperature)
    probabilities = weights / weights.sum()
    order = np.argsort(-probabilities)[: k or None]
    kept, mass, whole = [], 0.0, probabilities[order].sum()
    for token in order:
        if mass < p * whole or not kept:
            kept.append(token)
            mass += probabilities[token]
    result = np.zeros(len(logits))
    result[kept] = probabilities[kept] / mass
    return result


@pytest.mark.parametrize(
    ("temperature", "k", "p"),
    [(1.0, 0, 1.0), (0.5, 0, 1.0), (2.0, 0, 1.0), (1.0, 3, 1.0), (1.0, 0, 0.7), (1.5, 6, 0.8)],
)
def test_frequencies_are_those_of_the_warped_softmax(
    temperature: float, k: int, p: float, generator: torch.Generator
) -> None:
    draws = 20_000
    logits = torch.tensor([2.0, 1.0, 0.5, -1.0, 0.0, 1.5, -0.3, 0.2])
    expected = exact_distribution(logits, temperature, k, p)
    ids = sample(logits.expand(draws, -1), Sampling(temperature, k, p), generator)
    counts = torch.bincount(ids, minlength=8).numpy()
    assert counts[expected == 0].sum() == 0
    kept = expected > 0
    assert stats.chisquare(counts[kept], expected[kept] * draws).pvalue > 1e-3
    wrong = exact_distribution(logits, 1.1 * temperature, k, 1.0)[kept]  # the test can tell a wrong one apart
    wrong /= wrong.sum()
    assert stats.chisquare(counts[kept], wrong * draws).pvalue < 1e-3


def test_temperature_zero_is_greedy_and_the_limit() -> None:
    logits = torch.randn(100, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(sample(logits, GREEDY), logits.argmax(-1))
    assert torch.equal(sample(logits, Sampling(1e-4)), logits.argmax(-1))
    assert torch.equal(warp(logits, GREEDY).softmax(-1).argmax(-1), logits.argmax(-1))
    assert (warp(logits, GREEDY).isfinite().sum(-1) == 1).all()
    tied = torch.tensor([1.0, 3.0, 3.0])
    assert sample(tied, GREEDY) == warp(tied, GREEDY).argmax() == 1


@pytest.mark.parametrize("bad", [{"temperature": -1.0}, {"temperature": float("nan")}, {"top_k": -1}, {"top_p": 1.1}])
def test_numbers_out_of_range_are_refused(bad: dict[str, float]) -> None:
    warps = {"temperature": temperature_warp, "top_k": top_k_warp, "top_p": top_p_warp}
    ((field, value),) = bad.items()
    with pytest.raises(ValueError, match=f"^{field} must .* got {value}$"):
        Sampling(**bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=f"^{field} must .* got {value}$"):
        warps[field](torch.zeros(3), value)  # type: ignore[arg-type]


# --- generate ----------------------------------------------------------------------------------------------------

CONFIG = GPTConfig(n_layer=2, n_head=2, d_model=32, context=24, vocab_size=17)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG).eval()


@pytest.mark.parametrize("n_new", [0, 1, 10, 21, 40])
def test_cached_text_equals_uncached_also_beyond_the_context(model: GPT, n_new: int) -> None:
    prompt = torch.randint(17, (3, 4), generator=torch.Generator().manual_seed(1))
    texts = [
        generate(model, prompt, n_new, generator=torch.Generator().manual_seed(2), use_cache=use_cache)
        for use_cache in (True, False)
    ]
    assert texts[0].shape == (3, 4 + n_new)
    assert torch.equal(texts[0], texts[1])
    assert torch.equal(texts[0][:, :4], prompt)


@pytest.mark.parametrize("length", [23, 24, 30])
def test_prompts_as_long_as_the_context_and_longer(model: GPT, length: int) -> None:
    prompt = torch.randint(17, (1, length), generator=torch.Generator().manual_seed(1))
    text = generate(model, prompt, 3, sampling=GREEDY)
    for end in range(length, length + 3):
        expected = model(text[:, max(0, end - 24) : end])[:, -1].argmax(-1)
        assert text[0, end] == expected


def test_a_batch_is_its_rows_one_by_one(model: GPT) -> None:
    prompts = torch.randint(17, (4, 5), generator=torch.Generator().manual_seed(1))
    together = generate(model, prompts, 12, sampling=GREEDY)
    for row, prompt in zip(together, prompts, strict=True):
        assert torch.equal(row, generate(model, prompt[None], 12, sampling=GREEDY)[0])


def test_the_first_token_has_the_models_distribution(model: GPT, generator: torch.Generator) -> None:
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    prompt = torch.tensor([[3, 1, 4]])
    expected = model(prompt)[0, -1].detach().double().softmax(-1)
    counts = torch.bincount(generate(model, prompt.expand(20_000, -1), 1, generator=generator)[:, -1], minlength=17)
    kept = expected * 20_000 > 5
    expected = expected[kept] / expected[kept].sum() * counts[kept].sum()
    assert stats.chisquare(counts[kept].numpy(), expected.numpy()).pvalue > 1e-3


def test_processors_see_all_tokens_and_change_the_logits(model: GPT) -> None:
    seen: list[Tensor] = []

    def only_successors(tokens: Tensor, logits: Tensor) -> Tensor:
        seen.append(tokens.clone())
        return torch.full_like(logits, float("-inf")).scatter(1, (tokens[:, -1:] + 1) % 17, 0.0)

    text = generate(model, torch.tensor([[0], [9]]), 5, processors=[only_successors])
    assert text.tolist() == [[0, 1, 2, 3, 4, 5], [9, 10, 11, 12, 13, 14]]
    assert [t.shape[1] for t in seen] == [1, 2, 3, 4, 5]
    assert torch.equal(seen[-1], text[:, :-1])


def test_training_mode_is_put_back_and_dropout_is_off(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, d_model=32, context=16, vocab_size=9, dropout=0.5)).train()
    texts = [generate(model, torch.tensor([[1, 2]]), 12, sampling=GREEDY) for _ in range(2)]
    assert torch.equal(*texts)
    assert model.training


def test_a_rotary_model_may_be_given_more_than_its_context() -> None:
    torch.manual_seed(0)
    rope = GPT(GPTConfig(n_layer=1, n_head=2, d_model=32, context=8, vocab_size=9, position="rope"))
    prompt = torch.tensor([[1, 2]])
    text = generate(rope, prompt, 20, sampling=GREEDY, limit=100)
    assert torch.equal(text, generate(rope, prompt, 20, sampling=GREEDY, limit=100, use_cache=False))
    assert text[0, -1] == rope(text[:, :-1])[0, -1].argmax()


def test_what_makes_no_sense_is_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match="prompt"):
        generate(model, torch.zeros(1, 0, dtype=torch.int64), 3)
    with pytest.raises(ValueError, match="learned positions"):
        generate(model, torch.zeros(1, 1, dtype=torch.int64), 3, limit=25)
