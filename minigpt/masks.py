"""Attention masks. One convention everywhere: a boolean tensor, ``True`` where a query attends.

Queries are the *last* ``n_query`` of ``n_key`` positions, so that the same function serves training
(``n_query == n_key``) and decoding with a cache. ``scaled_dot_product_attention(is_causal=True)``
aligns the other way round when the two differ: with one cached query it would see key 0 only.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.checks import whole


def _offsets(n_query: int, n_key: int, device: torch.device | str | None) -> Tensor:
    """Query position minus key position, (n_query, n_key)."""
    if not 1 <= whole("n_query", n_query) <= whole("n_key", n_key):
        raise ValueError(f"need 1 <= n_query <= n_key, got {n_query} and {n_key}")
    queries = torch.arange(n_key - n_query, n_key, device=device)
    return queries[:, None] - torch.arange(n_key, device=device)[None, :]


def causal_mask(n_query: int, n_key: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
    """Each query sees itself and everything before it, (n_query, n_key) bool.

    Raises:
        ValueError: fewer than one query, or more queries than keys.
    """
    return _offsets(n_query, n_query if n_key is None else n_key, device) >= 0


def window_mask(
    n_query: int, window: int, n_key: int | None = None, *, device: torch.device | str | None = None
) -> Tensor:
    """Causal, and at most ``window`` keys per query, itself included, (n_query, n_key) bool.

    Source: Beltagy et al. (2020), section 3.1; Jiang et al. (2023), section 2, whose figure counts
    the token itself among the W.

    Raises:
        ValueError: see ``causal_mask``; or a window below 1.
    """
    whole("window", window, 1)
    offset = _offsets(n_query, n_query if n_key is None else n_key, device)
    return (offset >= 0) & (offset < window)


def prefix_mask(n: int, prefix: int | Tensor, *, device: torch.device | str | None = None) -> Tensor:
    """Bidirectional over the first ``prefix`` positions, causal after them.

    ``prefix`` is one length, giving (n, n) bool, or one per sequence (B,), giving (B, 1, n, n).
    ``prefix=0`` is the causal mask, ``prefix=n`` the full one. Source: Raffel et al. (2020), section 3.2.1.

    Raises:
        ValueError: one length that is not from 0 to n.
    """
    causal = causal_mask(n, device=device)
    keys = torch.arange(n, device=device)
    if not isinstance(prefix, Tensor):
        return causal | (keys < whole("prefix", prefix, 0, n))
    return causal | (keys < prefix.to(keys.device)[:, None, None, None])


@dataclass(frozen=True)
class Visible:
    """What the queries of one pass see: made once by ``visible_keys``, used by the attention of every block.

    At most one field is set. Where none is, attention is causal, which the kernel does by itself, or a single query
    sees every key.
    """

    mask: Tensor | None = None  # (T, S), or what broadcasts to (B, H, T, S): True where a query attends
    last: int | None = None  # only so many of the last keys
    blocks: int | None = None  # the window of ``minigpt.window.windowed_attention``


CAUSAL = Visible()


def visible_keys(
    n_query: int,
    n_key: int,
    window: int | None = None,
    mask: Tensor | None = None,  # bool; replaces the causal mask and the window
    *,
    maps: bool = False,
    dropout: bool = False,
    device: torch.device | str | None = None,
) -> Visible:
    """What the last ``n_query`` of ``n_key`` positions see, in the cheapest form that there is for it.

    - A mask that was given is used as it is.
    - Attention maps are computed by hand, which needs the mask as a tensor.
    - A query alone sees all keys, and in a window the last W: those before them are cut off, not masked.
    - A whole text without a window is causal, and the kernel skips what it masks.
    - A whole text longer than its window is cut into blocks, which skip what they mask. They do not know dropout.
    - Everything else, as several tokens after cached ones, is masked by a tensor.
    """
    if mask is not None:
        return Visible(mask)
    if not maps:
        if n_query == 1:
            return Visible(last=window)
        if n_query == n_key and window is None:
            return CAUSAL
        if n_query == n_key and window is not None and n_key > window and not dropout:
            return Visible(blocks=window)
    if window is None:
        return Visible(causal_mask(n_query, n_key, device=device))
    return Visible(window_mask(n_query, window, n_key, device=device))
