"""Pieces and places of a sequence, evenly spread, so that a few of them speak for all of it."""

import torch
from torch import Tensor


def windows(ids: Tensor, count: int, length: int) -> Tensor:
    """Up to ``count`` windows without overlap from the beginning to the end of a sequence, (N,) → (R, T).

    Of a sequence that is too short, as many as there is room for; of one shorter than a window, all of it.

    Raises:
        ValueError: an empty sequence, or no window asked for.
    """
    if not len(ids) or count < 1 or length < 1:
        raise ValueError(f"cannot take {count} windows of {length} from {len(ids)} tokens")
    length = min(length, len(ids))
    count = min(count, len(ids) // length)
    starts = [i * (len(ids) - length) // max(1, count - 1) for i in range(count)]
    return torch.stack([ids[start : start + length] for start in starts])


def places(first: int, last: int, count: int) -> list[int]:
    """Up to ``count`` places above ``first``, evenly spread, the last one being ``last``."""
    return sorted({first + (i + 1) * (last - first) // count for i in range(count)} - {first})
