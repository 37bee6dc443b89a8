"""The race reports what its numbers say, and both sides really train."""

import json
import math

import pytest

from minigpt.config import GPTConfig
from minigpt.train import TrainConfig
from tests.benchmarks.bench_training import compare, seconds_to, table
from tests.exercise_context import bible


def test_time_to_a_loss_lies_on_the_line_between_two_evaluations() -> None:
    curve = [(0.0, 4.0), (10.0, 2.0), (20.0, 1.5), (30.0, 1.6), (40.0, 1.0)]
    assert seconds_to(2.0, curve) == 10.0
    assert seconds_to(1.75, curve) == pytest.approx(15.0)
    assert seconds_to(1.5, curve) == 20.0
    assert seconds_to(1.3, curve) == pytest.approx(35.0)
    assert seconds_to(0.9, curve) is None
    assert seconds_to(5.0, curve) == 0.0


@pytest.mark.slow
def test_a_race_is_plain_data() -> None:
    config = GPTConfig(n_layer=1, n_head=2, d_model=32, context=32, position="rope", bias=False)
    tc = TrainConfig(steps=1, batch_size=8, learning_rate=4e-3, optimizer="muon")
    result = json.loads(json.dumps(compare(bible()[:60_000], 1, 60, config, tc)))
    nano, ours = result["rows"]
    assert nano["steps"] == 60
    assert ours["steps"] == result["recipe"]["train"]["steps"] > 1
    assert nano["nats at 64"] < math.log(80)
    assert result["gain_nats"] == pytest.approx(nano["nats at 64"] - ours["nats at 32"])
    times, losses = zip(*result["curve"], strict=True)
    assert list(times) == sorted(times)
    assert losses[-1] == pytest.approx(ours["nats at 32"])
    assert (result["seconds_to_nanogpt"] is None) == (min(losses) > nano["nats at 64"])
    if (reached := result["seconds_to_nanogpt"]) is not None:
        assert result["time_ratio"] == reached / nano["seconds"]
    assert "nanoGPT, published" in table(result)
