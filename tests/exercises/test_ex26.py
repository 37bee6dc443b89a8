import torch

from minigpt.masks import window_mask
from tasks.exercises.ex26_sliding_window import experiment as ex26
from tasks.exercises.ex26_sliding_window.experiment import EXERCISE
from tasks.exercises.ex26_sliding_window.findings import HEADS, WIDTH, pairs
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
