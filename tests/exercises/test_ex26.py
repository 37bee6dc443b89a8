import torch

from minigpt.masks import window_mask
from tasks.exercises import ex26_sliding_window as ex26
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex26.EXERCISE.answer(make_context(ex26.EXERCISE))
    assert_sound(ex26.EXERCISE, answer)
    assert answer.metrics["reach_trained_window_8"] == 2 * 7


def test_pairs_by_counting():
    for length in range(1, 30):
        for window in range(1, 35):
            assert ex26.pairs(length, window) == int(window_mask(length, window).sum())


def with_one_key_more(length, window, n_key=None, *, device=None):
    return window_mask(length, window + 1, n_key, device=device)


def test_the_checks_notice_another_window(monkeypatch):
    monkeypatch.setattr(ex26, "window_mask", with_one_key_more)
    answer = ex26.EXERCISE.answer(make_context(ex26.EXERCISE))
    failed = [check.claim for check in answer.checks if check.kind == "exact" and not check.passed]
    assert any("closed form says" in claim for claim in failed)
    assert any("dense mask" in claim for claim in failed)


def test_flops_are_counted_not_assumed():
    ways = ex26.ways(64, 8, torch.Generator().manual_seed(0), torch.device("cpu"))
    causal, dense, blocks = (ex26.counted_flops(way) for way in ways.values())
    assert causal == dense == 4 * ex26.HEADS * ex26.WIDTH * 64 * 64
    assert blocks == dense * 16 // 64
