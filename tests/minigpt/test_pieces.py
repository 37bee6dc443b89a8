import pytest
import torch

from minigpt.pieces import places, windows


def test_windows_reach_from_end_to_end_without_overlap() -> None:
    found = windows(torch.arange(100), 4, 20)
    assert found.shape == (4, 20)
    assert found[0, 0] == 0
    assert found[-1, -1] == 99
    assert (found[1:, 0] > found[:-1, -1]).all()
    assert (found.diff(dim=1) == 1).all()


def test_windows_of_a_short_sequence() -> None:
    assert windows(torch.arange(50), 4, 20).shape == (2, 20)
    assert windows(torch.arange(7), 4, 20).tolist() == [list(range(7))]
    assert windows(torch.arange(40), 2, 20).tolist() == [list(range(20)), list(range(20, 40))]
    with pytest.raises(ValueError, match="0 tokens"):
        windows(torch.arange(0), 4, 20)


def test_places() -> None:
    assert places(32, 127, 5) == [51, 70, 89, 108, 127]
    assert places(10, 12, 8) == [11, 12]
