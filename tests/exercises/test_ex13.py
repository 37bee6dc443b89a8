import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.exercises.ex13_temperature_sampling import sampler
from tasks.exercises.ex13_temperature_sampling.experiment import EXERCISE, chi_square
from tasks.exercises.ex13_temperature_sampling.findings import TEMPERATURES as TRIED
from tasks.exercises.ex13_temperature_sampling.findings import TOKENS
from tests.exercise_context import answered, assert_sound, make_context, measured

LOGITS = st.lists(st.floats(-50, 50, width=32), min_size=2, max_size=12)
TEMPERATURES = st.sampled_from([0.0, 1e-9, 0.1, 1.0, 7.0])


def test_the_answer_is_sound():
    answer = answered(EXERCISE)
    assert_sound(EXERCISE, answer)
    assert all(check.passed for check in answer.checks)


def test_the_histograms_are_among_the_metrics():
    metrics = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, vectors=50))).metrics
    for tau in TRIED:
        counts = [metrics[f"samples_of_{token.lower()}_tau_{tau:g}"] for token in TOKENS]
        assert sum(counts) == metrics["samples_per_temperature"] == 1_000
        assert counts[0] / 1_000 == metrics[f"most_likely_token_sampled_share_tau_{tau:g}"]


def no_temperature(logits, temperature=1.0, top_k=None):
    return logits.double().softmax(dim=-1)


def temperature_twice(logits, temperature=1.0, top_k=None):
    return ORIGINAL(logits, temperature**2, top_k)


ORIGINAL = sampler.next_token_probabilities


@pytest.mark.parametrize("broken", [no_temperature, temperature_twice])
def test_the_checks_notice_a_broken_sampler(monkeypatch, broken):
    monkeypatch.setattr(sampler, "next_token_probabilities", broken)
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, vectors=50)))
    failed = [check.claim for check in answer.checks if not check.passed]
    assert any("chi-square" in claim for claim in failed)
    assert any("Transformers" in claim for claim in failed)


@given(LOGITS, TEMPERATURES, st.none() | st.integers(1, 14))
def test_mass_is_one_and_on_the_best_tokens(logits, temperature, top_k):
    z = torch.tensor(logits)
    p = sampler.next_token_probabilities(z, temperature, top_k)
    assert p.sum().item() == pytest.approx(1.0)
    assert (p >= 0).all()
    assert p[z.argmax()] > 0
    if top_k is not None:  # what is kept is at least as large as what is not
        assert z[p > 0].min() >= z.sort(descending=True).values[: min(top_k, len(z))].min()


@given(LOGITS, st.sampled_from([0.1, 1.0, 7.0]), st.none() | st.integers(1, 12), st.randoms())
def test_renaming_the_tokens_renames_the_distribution(logits, temperature, top_k, random):
    order = list(range(len(logits)))
    random.shuffle(order)
    z = torch.tensor(logits)
    p = sampler.next_token_probabilities(z, temperature, top_k)
    torch.testing.assert_close(sampler.next_token_probabilities(z[order], temperature, top_k), p[order])


def test_a_vector_gives_one_index_and_a_batch_one_each(generator):
    assert sampler.sample_token(torch.zeros(5), generator=generator).shape == ()
    assert sampler.sample_token(torch.zeros(2, 3, 5), generator=generator).shape == (2, 3)


@pytest.mark.parametrize(("temperature", "top_k"), [(-1.0, None), (float("nan"), None), (1.0, 0)])
def test_nonsense_is_refused(temperature, top_k):
    with pytest.raises(ValueError, match="temperature"):
        sampler.sample_token(torch.zeros(3), temperature, top_k)


def test_chi_square_tells_right_from_wrong():
    p = np.array([0.5, 0.3, 0.2])
    assert chi_square(np.array([500, 300, 200]), p)[0] > 0.99
    assert chi_square(np.array([450, 350, 200]), p)[0] < 0.01
    assert chi_square(np.array([999, 0, 1]), np.array([1.0, 0.0, 0.0]))[0] == 0.0
