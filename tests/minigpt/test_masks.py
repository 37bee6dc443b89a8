"""Every form of "what is visible" stands for the same mask: causal, in the window if there is one."""

import pytest
import torch
from torch import Tensor

from minigpt.masks import CAUSAL, Visible, causal_mask, visible_keys, window_mask


def as_mask(visible: Visible, n_query: int, n_key: int) -> Tensor:
    """What each field promises, written down again as a tensor."""
    if visible.mask is not None:
        return visible.mask
    if visible.blocks:
        return window_mask(n_query, visible.blocks, n_key)
    if visible.last:
        return (torch.arange(n_key) >= n_key - visible.last).expand(n_query, -1)
    return causal_mask(n_query, n_key)


@pytest.mark.parametrize(("n_query", "n_key"), [(1, 1), (1, 9), (4, 9), (9, 9)])
@pytest.mark.parametrize("window", [None, 1, 4, 9, 20])
def test_every_form_is_the_same_mask(n_query: int, n_key: int, window: int | None) -> None:
    expected = causal_mask(n_query, n_key) if window is None else window_mask(n_query, window, n_key)
    for maps in (False, True):
        for dropout in (False, True):
            visible = visible_keys(n_query, n_key, window, maps=maps, dropout=dropout)
            assert torch.equal(as_mask(visible, n_query, n_key), expected)
            assert sum(field is not None for field in (visible.mask, visible.last, visible.blocks)) <= 1
            if maps:
                assert visible.mask is not None
            if dropout:
                assert visible.blocks is None


def test_the_cheap_forms_are_chosen() -> None:
    assert visible_keys(9, 9) is CAUSAL
    assert visible_keys(1, 9) == CAUSAL
    assert visible_keys(1, 9, 4) == Visible(last=4)
    assert visible_keys(9, 9, 4) == Visible(blocks=4)
    given = torch.ones(9, 9, dtype=torch.bool)
    assert visible_keys(9, 9, 4, given).mask is given
