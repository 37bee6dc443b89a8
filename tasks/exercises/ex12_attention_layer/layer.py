"""The layer that 21.12 asks for."""

import math

import torch
from torch import Tensor, nn


class SingleHeadAttention(nn.Module):
    """softmax(q kᵀ / √C + mask) v with learned projections (Vaswani et al., 2017, equation 1)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C) → output (B, T, C) and attention weights (B, T, T)."""
        _, T, C = x.shape
        q, k, v = self.query(x), self.key(x), self.value(x)  # (B, T, C) each
        scores = q @ k.transpose(-2, -1) / math.sqrt(C)  # (B, T, T)
        allowed = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
        return self.out(weights @ v), weights
