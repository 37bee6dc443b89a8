"""Attention masks. One convention everywhere: a boolean tensor, ``True`` where a query attends.

Queries are the *last* ``n_query`` of ``n_key`` positions, so that the same function serves training
(``n_query == n_key``) and decoding with a cache. ``scaled_dot_product_attention(is_causal=True)``
aligns the other way round when the two differ: with one cached query it would see key 0 only.
"""

import torch
from torch import Tensor


def _offsets(n_query: int, n_key: int, device: torch.device | str | None) -> Tensor:
    """Query position minus key position, (n_query, n_key)."""
    if not 1 <= n_query <= n_key:
        raise ValueError(f"need 1 <= n_query <= n_key, got {n_query} and {n_key}")
    queries = torch.arange(n_key - n_query, n_key, device=device)
    return queries[:, None] - torch.arange(n_key, device=device)[None, :]


def causal_mask(n_query: int, n_key: int | None = None, *, device: torch.device | str | None = None) -> Tensor:
    """Each query sees itself and everything before it, (n_query, n_key) bool."""
    return _offsets(n_query, n_key or n_query, device) >= 0


def window_mask(
    n_query: int, window: int, n_key: int | None = None, *, device: torch.device | str | None = None
) -> Tensor:
    """Causal, and at most ``window`` keys per query, itself included, (n_query, n_key) bool.

    Source: Beltagy et al. (2020), section 3.1; Jiang et al. (2023), section 2, whose figure counts
    the token itself among the W.
    """
    if window < 1:
        raise ValueError(f"window must be at least 1 (the token itself), got {window}")
    offset = _offsets(n_query, n_key or n_query, device)
    return (offset >= 0) & (offset < window)


def prefix_mask(n: int, prefix: int | Tensor, *, device: torch.device | str | None = None) -> Tensor:
    """Bidirectional over the first ``prefix`` positions, causal after them.

    ``prefix`` is one length, giving (n, n) bool, or one per sequence (B,), giving (B, 1, n, n).
    ``prefix=0`` is the causal mask, ``prefix=n`` the full one. Source: Raffel et al. (2020), section 3.2.1.
    """
    causal = causal_mask(n, device=device)
    keys = torch.arange(n, device=device)
    if isinstance(prefix, int):
        return causal | (keys < prefix)
    return causal | (keys < prefix.to(keys.device)[:, None, None, None])
