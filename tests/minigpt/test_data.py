"""An epoch is one pass: every window once, in an order that only the seed and the epoch decide."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.data import Windows, derive_seed


def stream(windows: Windows, steps: int, size: int) -> torch.Tensor:
    return torch.cat([windows.batch(step, size) for step in range(steps)])


@settings(max_examples=60, deadline=None)
@given(n=st.integers(6, 200), context=st.integers(1, 5), seed=st.integers(0, 9))
def test_an_epoch_holds_each_target_at_most_once_and_nearly_all(n: int, context: int, seed: int) -> None:
    windows = Windows(torch.arange(n), context, seed)
    offsets = set()
    for epoch in range(6):
        starts = windows.starts(epoch)
        rows = stream(windows, (epoch + 1) * windows.per_epoch, 1)[epoch * windows.per_epoch :]
        assert torch.equal(rows, starts[:, None] + torch.arange(context + 1))  # tokens are their own positions
        targets = rows[:, 1:].flatten()
        assert len(targets.unique()) == len(targets)
        assert targets.max() < n
        assert n - 1 - len(targets) < 2 * context or windows.per_epoch == 1
        assert ((starts - starts.min()) % context == 0).all()  # windows share their boundary token
        offsets.add(int(starts.min()))
    assert n < 3 * context or context < 4 or len(offsets) > 1


def test_epochs_differ_and_seeds_differ() -> None:
    tokens = torch.arange(1000)
    a, b = Windows(tokens, 10, 0), Windows(tokens, 10, 1)
    assert not torch.equal(a.starts(0), a.starts(1))
    assert not torch.equal(a.starts(0), b.starts(0))
    assert torch.equal(a.starts(0), Windows(tokens, 10, 0).starts(0))


@pytest.mark.parametrize("size", [1, 3, 7, 19, 50])
def test_batches_are_one_stream_whatever_their_size_and_order(size: int) -> None:
    tokens = torch.arange(100)
    expected = stream(Windows(tokens, 5, 0), 200, 1)
    windows = Windows(tokens, 5, 0)
    steps = 200 // size
    assert torch.equal(stream(windows, steps, size), expected[: steps * size])
    for step in (steps - 1, 0, 1):  # going back gives the same batch again
        assert torch.equal(windows.batch(step, size), expected[step * size : (step + 1) * size])


def test_a_text_of_one_window() -> None:
    windows = Windows(torch.arange(7), 6, 0)
    assert torch.equal(windows.batch(3, 2), torch.arange(7).expand(2, -1))
    with pytest.raises(ValueError, match="fewer than one window of 8"):
        Windows(torch.arange(7), 7, 0)


def test_derived_seeds_are_the_same_everywhere() -> None:
    assert derive_seed(0, "epoch", 1) == derive_seed(0, "epoch", 1) == 2031624461621881088
    seeds = {derive_seed(seed, name, i) for seed in range(5) for name in ("epoch", "dropout") for i in range(50)}
    assert len(seeds) == 500
    assert all(0 <= seed < 2**63 for seed in seeds)
