"""The measurement of speculative decoding: counts that must come out, and prices that add up."""

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.decoding.sampling import generate
from minigpt.decoding.speculative import expected_tokens, speculate
from minigpt.model import GPT
from tasks.exercises.ex27_speculative_decoding.speed import (
    LEAD,
    Write,
    alpha_on,
    costs,
    pass_times,
    predicted,
    race,
    share,
    speed_up,
    verification_times,
)


@pytest.fixture
def models() -> tuple[GPT, GPT]:
    torch.manual_seed(0)
    shared = {"n_head": 2, "context": 64, "vocab_size": 20}
    return (
        GPT(GPTConfig(n_layer=4, d_model=32, **shared)).eval(),
        GPT(GPTConfig(n_layer=1, d_model=16, **shared)).eval(),
    )


def test_counts_of_timed_drafts(models, generator):
    target, draft = models
    assert set(pass_times(target, (1, 2, 5), length=20, repeats=2)) == {1, 2, 5}
    prompts = torch.randint(20, (3, LEAD), generator=generator)

    def writer(model: GPT, gamma: int) -> Write:
        return lambda prompt, n: speculate(target, model, prompt, n, gamma=gamma, generator=generator)

    writers = {
        f"{name} {gamma}": writer(model, gamma)
        for name, model in zip(("own", "other"), models, strict=True)
        for gamma in (1, 4)
    }
    writers["plain"] = lambda prompt, n: generate(target, prompt, n, generator=generator)
    texts = race(writers, prompts, 20, 20, dict.fromkeys(writers, 3), lambda share: None)
    for gamma in (1, 4):
        own, other = texts[f"own {gamma}"], texts[f"other {gamma}"]
        assert share(own, "accepted", "tested") == 1.0, "the target accepts itself"
        assert alpha_on(target, target, own) == pytest.approx(1.0, abs=1e-5)
        assert share(own, "emitted", "passes") == 20 / -(-20 // (gamma + 1)), "20 tokens in the fewest passes"
        assert 0 < share(other, "accepted", "tested") < 1
        assert 0 < alpha_on(target, draft, texts["plain"]) < 1
        assert 1 < share(other, "emitted", "passes") < gamma + 1
        measured, low, high = speed_up(texts["plain"], other)
        assert low <= measured <= high


def test_what_drafts_cost(models):
    target, draft = models
    found = costs(target, {"own": target, "other": draft}, torch.zeros(1, LEAD, dtype=torch.long), 20, (1, 4), 3)
    assert found["own"].draft == 1.0, "in steps of the target"
    assert found["other"].draft > 0
    assert set(found["other"].verify) == {1, 4}
    prices = found["other"]
    dearest = {gamma: gamma * prices.draft + prices.verify[gamma] for gamma in (1, 4)}
    assert prices.best_gamma(0.0) == min(dearest, key=lambda gamma: dearest[gamma]), "nothing gained: the cheapest"


def test_predictions_are_leviathans():
    speed = predicted(
        gamma=3,
        acceptance=0.7,
        tokens_per_pass=2.5,
        alpha=0.8,
        draft_cost=0.1,
        verify_cost=1.4,
        measured=1.5,
        low=1.4,
        high=1.6,
        texts=30,
    )
    assert speed.expected_tokens == expected_tokens(0.8, 3)
    assert speed.textbook == pytest.approx(expected_tokens(0.8, 3) / 1.3)
    assert speed.predicted == pytest.approx(expected_tokens(0.8, 3) / 1.7)


def test_the_acceptance_test_is_timed_for_each_gamma():
    times = verification_times(20, (1, 8), repeats=3, device=torch.device("cpu"))
    assert set(times) == {1, 8}
    assert all(timing.median > 0 for timing in times.values())
