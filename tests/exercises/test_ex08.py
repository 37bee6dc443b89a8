import pytest

from tasks.exercises.ex08_kv_cache import answer as wording
from tasks.exercises.ex08_kv_cache.experiment import EXERCISE
from tasks.exercises.ex08_kv_cache.findings import squares_to, sum_to
from tests.exercise_context import answered, assert_sound, measured
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


def test_the_memory_is_that_of_gpt2_small(answer):
    assert answer.metrics["kv_cache_fp32_mib"] == 72
    assert answer.metrics["kv_cache_fp16_mib"] == 36
    assert answer.metrics["kv_cache_batch_8_fp32_mib"] == 576
    assert answer.metrics["kv_cache_batch_8_fp16_mib"] == 288


def test_the_flops_by_hand(answer):
    per_pair = 2 * 2 * 64 * 12 * 12
    assert answer.metrics["attention_flops_without_cache"] == per_pair * sum(n * n for n in range(256, 768))
    assert answer.metrics["attention_flops_with_cache"] == per_pair * (256 * 256 + sum(range(257, 768)))


@pytest.mark.parametrize("n", [0, 1, 2, 17])
def test_sums(n):
    assert sum_to(n) == sum(range(n + 1))
    assert squares_to(n) == sum(i * i for i in range(n + 1))


def test_the_counter_notices_a_wrong_formula(monkeypatch, findings):
    monkeypatch.setattr(wording, "pair_flops", lambda pairs: 2 * 12 * 768 * pairs)  # forgets the weighted values
    answer = answered(EXERCISE, findings)
    assert sum(not check.passed for check in answer.checks) == 3
