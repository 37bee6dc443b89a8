"""Where a token stands: sinusoids and rotary embeddings."""

import math

import torch
from torch import Tensor

from minigpt.checks import positive, whole


def sinusoidal(positions: Tensor, width: int) -> Tensor:
    """The fixed embeddings of Vaswani et al. (2017), section 3.5, (T,) → (T, width).

    Sine in the even dimensions, cosine in the odd ones, wavelengths from 2π to 10,000 · 2π.

    Raises:
        ValueError: a width below 1.
    """
    whole("width", width, 1)
    rate = torch.exp(torch.arange(0, width, 2, device=positions.device) * (-math.log(10_000.0) / width))
    angle = positions[:, None].float() * rate
    table = torch.empty(len(positions), width, device=positions.device)
    table[:, 0::2] = angle.sin()
    table[:, 1::2] = angle.cos()[:, : width // 2]
    return table


def rope_tables(positions: Tensor, head_dim: int, base: float = 10_000.0) -> tuple[Tensor, Tensor]:
    """cos and sin of m·θ_i for positions m, (T,) → two (T, D), with θ_i = base^(-2i/D).

    Source: Su et al. (2021), equation 15. Pairs are (i, i + D/2), as in Llama's released code,
    not (2i, 2i + 1) as in the paper: the two differ by a fixed permutation of the dimensions.

    Raises:
        ValueError: an odd head width, or a base that is not positive.
    """
    if whole("head_dim", head_dim, 2) % 2:
        raise ValueError(f"head_dim must be even, got {head_dim}")
    positive("base", base)
    rate = base ** (-torch.arange(0, head_dim, 2, device=positions.device).float() / head_dim)
    angle = positions[:, None].float() * rate  # (T, D/2)
    angle = torch.cat([angle, angle], dim=-1)
    return angle.cos(), angle.sin()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair of dimensions of x (B, H, T, D) by its position's angle (Su et al., 2021, eq. 34)."""
    first, second = x.chunk(2, dim=-1)
    return x * cos.to(x.dtype) + torch.cat([-second, first], dim=-1) * sin.to(x.dtype)
