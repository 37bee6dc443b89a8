"""The figures are small for the cache as it is, and large for one with a fault."""

import pytest
import torch
from torch import Tensor

from minigpt.decoding import streaming
from tasks.exercises.ex29_attention_sinks.streaming_parity import streaming_parity


def test_the_cache_is_right(generator: torch.Generator) -> None:
    found = streaming_parity(generator)
    assert max(found.rotation, found.roomy, found.one_layer) <= 1e-4
    assert found.n_bytes == {found.expected_bytes}


@pytest.mark.parametrize("fault", [1, -1])
def test_a_position_off_by_one_shows(fault: int, generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    right = streaming.shifted

    def wrong(keys: Tensor, theta: Tensor, distance: int) -> Tensor:
        return right(keys, theta, distance + fault)

    monkeypatch.setattr(streaming, "shifted", wrong)
    found = streaming_parity(generator)
    assert found.rotation > 1e-2
    assert found.one_layer > 1e-2


def test_a_sink_that_is_evicted_shows(generator: torch.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    class Forgetful(streaming.SinkCache):
        def __init__(self, sinks, size, theta) -> None:
            super().__init__([0 for _ in sinks], size, theta)

    monkeypatch.setattr(streaming, "SinkCache", Forgetful)
    assert streaming_parity(generator).one_layer > 1e-2
