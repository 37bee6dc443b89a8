import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.masks import window_mask
from minigpt.model import GPT
from tasks.exercises.ex26_sliding_window import experiment as ex26
from tasks.exercises.ex26_sliding_window.experiment import EXERCISE
from tasks.exercises.ex26_sliding_window.findings import HEADS, WIDTH, pairs, position_buckets
from tests.exercise_context import answered, assert_sound


def test_the_answer_is_sound():
    answer = answered(EXERCISE)
    assert_sound(EXERCISE, answer)
    assert answer.metrics["reach_trained_window_8"] == 2 * 7


def test_pairs_by_counting():
    for length in range(1, 30):
        for window in range(1, 35):
            assert pairs(length, window) == int(window_mask(length, window).sum())


def with_one_key_more(length, window, n_key=None, *, device=None):
    return window_mask(length, window + 1, n_key, device=device)


def test_the_checks_notice_another_window(monkeypatch):
    monkeypatch.setattr(ex26, "window_mask", with_one_key_more)
    answer = answered(EXERCISE)
    failed = [check.claim for check in answer.checks if check.kind == "exact" and not check.passed]
    assert any("closed form says" in claim for claim in failed)
    assert any("dense mask" in claim for claim in failed)


def test_flops_are_counted_not_assumed():
    ways = ex26.ways(64, 8, torch.Generator().manual_seed(0), torch.device("cpu"))
    causal, dense, blocks = (ex26.counted_flops(way) for way in ways.values())
    assert causal == dense == 4 * HEADS * WIDTH * 64 * 64
    assert blocks == dense * 16 // 64


def test_buckets_of_positions_double_and_miss_none():
    assert position_buckets(10) == [(1, 1), (2, 2), (3, 4), (5, 8), (9, 10)]
    assert position_buckets(64)[-1] == (33, 64)
    assert position_buckets(1) == [(1, 1)]
    covered = [i for first, last in position_buckets(37) for i in range(first, last + 1)]
    assert covered == list(range(1, 38))


def test_losses_by_position_are_those_of_windows_read_one_by_one():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=2, d_model=8, context=6, vocab_size=5, position="rope")).eval()
    tokens = torch.randint(5, (6 * 4 + 3,), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        rows = [
            torch.nn.functional.cross_entropy(
                model(tokens[None, s : s + 6])[0], tokens[s + 1 : s + 7], reduction="none"
            )
            for s in range(0, 24, 6)
        ]
    at = torch.stack(rows).double().mean(dim=0)
    expected = [at[0], at[1], at[2:4].mean(), at[4:].mean()]
    assert ex26.by_position(model, tokens) == pytest.approx([x.item() for x in expected], abs=1e-6)
