import time

import pytest

from minigpt.evaluation.timing import measure


def test_medians_and_quartiles_of_known_waits():
    waits = iter([0.0, 0.001, 0.02, 0.001, 0.001, 0.001])  # the first is the warm-up, one is an outlier
    calls = []

    def wait() -> None:
        calls.append(1)
        time.sleep(next(waits))

    timing = measure({"wait": wait}, repeats=5)["wait"]
    assert len(calls) == 6
    assert 0.001 <= timing.low <= timing.median <= timing.high < 0.02
    assert timing.repeats == 5


def test_functions_take_turns():
    order: list[str] = []
    measure({name: lambda name=name: order.append(name) for name in "ab"}, repeats=3, warmup=2)
    assert "".join(order) == "aabb" + "ababab"


def test_no_repeats_are_refused():
    with pytest.raises(ValueError):
        measure({}, repeats=0)
