"""The measurement of speculative decoding: counts that must come out, and prices that add up."""

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.decoding.speculative import expected_tokens
from minigpt.model import GPT
from tasks.exercises.ex27_speculative_decoding.speed import (
    pass_times,
    predicted,
    time_speculation,
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


def test_counts_of_a_timed_draft(models, generator):
    target, draft = models
    passes = pass_times(target, (1, 2, 5), length=20, repeats=2)
    assert set(passes) == {1, 2, 5}
    prompts = torch.randint(20, (3, 8), generator=generator)
    own, other = (
        time_speculation(target, model, prompts, 20, gammas=(1, 4), passes=passes, repeats=2, generator=generator)
        for model in (target, draft)
    )
    assert [speed.gamma for speed in own] == [1, 4]
    for speed in own:  # the target accepts itself: n_new tokens in the fewest passes
        assert speed.acceptance == 1.0
        assert speed.alpha == pytest.approx(1.0, abs=1e-5)
        assert speed.tokens_per_pass == 20 / -(-20 // (speed.gamma + 1))
    for speed in other:
        assert 0 < speed.acceptance < 1
        assert 1 < speed.tokens_per_pass < speed.gamma + 1
        assert speed.low <= speed.measured <= speed.high
        assert speed.draft_cost > 0


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
    )
    assert speed.expected_tokens == expected_tokens(0.8, 3)
    assert speed.textbook == pytest.approx(expected_tokens(0.8, 3) / 1.3)
    assert speed.predicted == pytest.approx(expected_tokens(0.8, 3) / 1.7)


def test_the_acceptance_test_is_timed_for_each_gamma():
    times = verification_times(20, (1, 8), repeats=3, device=torch.device("cpu"))
    assert set(times) == {1, 8}
    assert all(timing.median > 0 for timing in times.values())
