import itertools

import pytest
import torch

from minigpt.analysis.induction import CopyRows, copy_rows


def made(**changes: int) -> CopyRows:
    size = {"rows": 5, "length": 48} | changes
    return copy_rows(torch.arange(100, 200), **size, generator=torch.Generator().manual_seed(0))


def test_rows_repeat_with_periods_of_their_own_and_controls_do_not() -> None:
    rows = made()
    assert rows.periods == [8, 10, 13, 16, 19]
    for row, control, period in zip(rows.tokens, rows.controls, rows.periods, strict=True):
        assert torch.equal(row[period:], row[:-period])
        assert len(set(row.tolist())) == period
        assert len(set(control.tolist())) == 48
    assert rows.tokens.min() >= 100
    assert made(length=500).tokens.shape == (5, 100)


def test_the_first_column_that_can_be_copied() -> None:
    """A model that remembers pairs: loss 0 where the token before has been followed by the target already, else 1."""
    rows = made()
    losses = torch.ones(5, 47)
    for r, row in enumerate(rows.tokens.tolist()):
        for c in range(47):
            losses[r, c] = float((row[c], row[c + 1]) not in itertools.pairwise(row[: c + 1]))
    before, after = rows.split(losses)
    assert before == [1.0] * 5
    assert after == [0.0] * 5
    distances, values = rows.aligned(losses)
    assert (distances[0], distances[-1]) == (-8, 47 - 19 - 1)
    assert values.shape == (5, len(distances))
    assert torch.equal(values, torch.tensor(distances).lt(0).float().expand(5, -1))


def test_wanted_keys_hold_what_comes_next() -> None:
    rows = made()
    r, query, key = rows.wanted[:, :-1].nonzero().T
    assert torch.equal(rows.tokens[r, key], rows.tokens[r, query + 1])
    for row, period in zip(rows.wanted, rows.periods, strict=True):
        assert row.any(dim=1).nonzero()[0].item() == period  # the first query whose token came before


def test_too_little_to_repeat() -> None:
    with pytest.raises(ValueError, match="different periods"):
        made(rows=1)
