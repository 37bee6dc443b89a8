"""Sliding-window attention that skips the blocks it masks."""

import torch.nn.functional as F
from torch import Tensor

from minigpt.masks import window_mask
from minigpt.precision import attend


def windowed_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Causal attention of each query to the last ``window`` keys, its own included, in O(T · window).

    q (B, H, T, D), k and v (B, G, T, D) → (B, H, T, D). The sequence is cut into blocks of
    ``window`` queries; each block needs only its own keys and those of the block before it:

        queries of block i  ×  keys of blocks i-1 and i     →  T/W products of W × 2W, not one of T × T

    Source: the banded chunks of Beltagy et al. (2020), appendix A.
    """
    B, H, T, D = q.shape
    G = k.shape[1]
    blocks = -(-T // window)
    pad = blocks * window - T
    q, k, v = (F.pad(x, (0, 0, 0, pad)) for x in (q, k, v))

    def chunk(x: Tensor, heads: int) -> Tensor:
        return x.view(B, heads, blocks, window, D).transpose(1, 2)  # (B, N, heads, W, D)

    def with_previous(x: Tensor) -> Tensor:
        return F.pad(x, (0, 0, window, 0)).unfold(2, 2 * window, window).permute(0, 2, 1, 4, 3)  # (B, N, G, 2W, D)

    queries = chunk(q, H).reshape(B * blocks, H, window, D)
    keys = with_previous(k).reshape(B * blocks, G, 2 * window, D)
    values = with_previous(v).reshape(B * blocks, G, 2 * window, D)
    mask = window_mask(window, window, 2 * window, device=q.device).repeat(blocks, 1, 1)  # (N, W, 2W)
    mask[0, :, :window] = False  # the block before the first is padding
    mask = mask.repeat(B, 1, 1)[:, None]
    y = attend(queries, keys, values, mask, enable_gqa=G != H)
    return y.view(B, blocks, H, window, D).transpose(1, 2).reshape(B, H, blocks * window, D)[:, :, :T]
