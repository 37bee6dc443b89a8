"""The turns, and the ratios taken from them, against times that are known beforehand."""

import math

import pytest
from scipy import stats

from tests.benchmarks.interleaving import Spread, interleaved, ratios


def test_each_round_begins_with_another_function_and_warm_ups_come_first() -> None:
    order: list[str] = []
    functions = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = interleaved(4, functions, warmup=2)
    assert "".join(order) == "aabbcc" + "abc" + "bca" + "cab" + "abc"
    assert {name: len(values) for name, values in seconds.items()} == {"a": 4, "b": 4, "c": 4}


def test_a_function_that_times_itself_is_believed_and_its_warm_up_left_out() -> None:
    told = iter([100.0, 1.0, 2.0, 3.0])
    assert interleaved(3, {"a": lambda: next(told)}) == {"a": [1.0, 2.0, 3.0]}


def test_a_call_is_timed_where_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 2.5, 10.0, 10.5])
    monkeypatch.setattr("tests.benchmarks.interleaving.time.perf_counter", lambda: next(now))
    assert interleaved(2, {"a": lambda: None}) == {"a": [2.5, 0.5]}


@pytest.mark.parametrize("told", [0.0, -1.0, math.nan, math.inf])
def test_times_that_cannot_be_are_refused(told: float) -> None:
    with pytest.raises(ValueError, match="round 0"):
        interleaved(1, {"a": lambda: told})


def test_no_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="rounds"):
        interleaved(0, {"a": lambda: None})


def test_a_ratio_is_taken_round_by_round() -> None:
    """The machine is ten times slower in the second round: the ratio does not see it, a ratio of means would."""
    ours, theirs = [1.0, 10.0, 1.0], [2.0, 20.0, 4.0]
    assert ratios(theirs, ours) == [2.0, 2.0, 4.0]
    spread = Spread.of(ratios(theirs, ours))
    assert (spread.median, spread.low, spread.high, spread.rounds) == (2.0, 2.0, 4.0, 3)


def test_the_interval_is_students_over_logarithms() -> None:
    values = [1.5, 2.0, 2.2, 1.9, 2.6]
    logs = [math.log(value) for value in values]
    expected = stats.t.interval(0.95, len(logs) - 1, loc=sum(logs) / len(logs), scale=stats.sem(logs))
    assert Spread.of(values).interval == pytest.approx(tuple(math.exp(end) for end in expected))


def test_two_rounds_far_apart_have_a_finite_interval_and_one_has_none() -> None:
    interval = Spread.of([1e-30, 1e30]).interval
    assert interval is not None
    assert all(map(math.isfinite, interval))
    assert Spread.of([2.0]).interval is None


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [1.0, math.nan]])
def test_ratios_that_mean_nothing_are_refused(values: list[float]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Spread.of(values)
