import pytest
import torch

from minigpt.extrapolation import losses_by_bucket, readings
from minigpt.model import GPT
from tasks.exercises import ex25_rotary_positions as ex25
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex25.EXERCISE.answer(make_context(ex25.EXERCISE))
    assert_sound(ex25.EXERCISE, answer)
    assert "learned embedding" in next(b.text for b in answer.parts[3].blocks if b.type == "code")


def half_speed(positions, head_dim, base=10_000.0):
    return ORIGINAL(positions / 2, head_dim, base)


ORIGINAL = ex25.rope_tables


def test_the_checks_notice_a_rotation_at_another_speed(monkeypatch):
    monkeypatch.setattr(ex25, "rope_tables", half_speed)
    assert ex25.difference_from_matrix(20, torch.Generator().manual_seed(0)) > 0.1
    assert ex25.difference_from_llama(20, torch.Generator().manual_seed(0)) > 0.1


def test_buckets_are_means_of_the_right_positions():
    model = GPT(ex25.GPTConfig(n_layer=1, n_head=1, d_model=8, context=8, vocab_size=5, position="rope")).eval()
    tokens = torch.randint(5, (70,), generator=torch.Generator().manual_seed(0))
    found = losses_by_bucket(model, tokens, 32, 4)
    with torch.inference_mode():
        expected = [
            torch.nn.functional.cross_entropy(
                model(tokens[None, s : s + 32])[0], tokens[s + 1 : s + 33], reduction="none"
            )
            for s in (0, 32)
        ]
    assert found == pytest.approx(torch.stack(expected).mean(0).view(8, 4).mean(1).tolist(), abs=1e-5)


def test_the_interpolated_reading_stays_in_the_trained_range():
    model = GPT(ex25.GPTConfig(n_layer=1, n_head=1, d_model=8, context=16, vocab_size=5, position="rope")).eval()
    ways = readings(model, 64)
    assert ways["RoPE, positions interpolated"].config.rope_scale == 4.0
    for way in ways.values():
        assert all(torch.equal(a, b) for a, b in zip(way.parameters(), model.parameters(), strict=True))
    # The NTK-aware base turns the fastest pair as before and the slowest as interpolation does.
    base = ways["RoPE, NTK-aware base"].config.rope_base
    assert base ** (-6 / 8) == pytest.approx(10_000.0 ** (-6 / 8) / 4.0)
