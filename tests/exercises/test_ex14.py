import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.exercises.ex14_nucleus_sampling import experiment, nucleus
from tasks.exercises.ex14_nucleus_sampling.experiment import EXERCISE, top_p_warp
from tests.exercise_context import answered, assert_sound, make_context, measured

LOGITS = st.lists(st.floats(-40, 40), min_size=1, max_size=12)


def test_the_answer_is_sound():
    answer = answered(EXERCISE)
    assert_sound(EXERCISE, answer)
    assert all(check.passed for check in answer.checks)


def test_the_renormalised_probabilities_are_the_fractions():
    metrics = measured(EXERCISE, make_context(EXERCISE, vectors=50)).metrics
    expected = {"the": 40 / 90, "said": 24 / 90, "of": 14 / 90, "lord": 12 / 90, "and": 0, "unto": 0, "ark": 0}
    for token, probability in expected.items():
        assert metrics[f"renormalised_probability_{token}"] == pytest.approx(probability, abs=1e-12)


@pytest.mark.parametrize("broken", [nucleus.crossing_dropped, lambda z, p: top_p_warp(z, p * p)])
def test_the_checks_notice_a_broken_filter(monkeypatch, broken):
    for module in (nucleus, experiment):
        monkeypatch.setattr(module, "nucleus_filter", broken)
    answer = answered(EXERCISE, measured(EXERCISE, make_context(EXERCISE, vectors=50)))
    failed = [check.claim for check in answer.checks if check.kind == "exact" and not check.passed]
    assert any("reference" in claim for claim in failed)
    said = str(answer.parts[4].blocks)
    assert "differs from a reference in" in said
    assert "keeps the same tokens" not in said


@given(LOGITS, st.floats(0, 1))
def test_the_nucleus_is_the_smallest_set_that_reaches_p(logits, p):
    z = torch.tensor(logits, dtype=torch.float64)
    kept = nucleus.nucleus_filter(z, p).isfinite()
    probabilities = z.softmax(dim=-1)
    mass = probabilities[kept].sum().item()
    assert kept.any()
    assert mass >= p - 1e-12
    if 0 < p < 1 and kept.sum() > 1:  # without its least likely token it would not reach p
        assert mass - probabilities[kept].min().item() < p + 1e-12
    if not kept.all():
        assert z[kept].min() >= z[~kept].max()


@given(LOGITS, st.floats(0.01, 0.99), st.randoms())
def test_renaming_the_tokens_renames_the_nucleus(logits, p, random):
    order = list(range(len(logits)))
    random.shuffle(order)
    z = torch.tensor(logits, dtype=torch.float64)
    kept, renamed = nucleus.nucleus_filter(z, p), nucleus.nucleus_filter(z[order], p)
    assert torch.equal(kept.sort().values, renamed.sort().values)  # among ties either may be kept
    if len(set(logits)) == len(logits):
        assert torch.equal(renamed, kept[order])


def test_a_mask_that_is_not_scattered_back_keeps_the_wrong_tokens():
    z = torch.tensor([0.0, 5.0, 1.0], dtype=torch.float64)
    assert nucleus.nucleus_filter(z, 0.5).isfinite().tolist() == [False, True, False]
    assert nucleus.not_scattered(z, 0.5).isfinite().tolist() == [True, False, False]


@pytest.mark.parametrize("p", [-0.1, 1.1, float("nan")])
def test_nonsense_is_refused(p):
    with pytest.raises(ValueError, match="p must be"):
        nucleus.nucleus_filter(torch.zeros(3), p)
