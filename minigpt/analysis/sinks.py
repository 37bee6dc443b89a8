"""How much attention single positions receive, whatever token stands there: where a model has its attention sinks.

    received[j] = mean over queries i ≥ begin of A[i, j]           uniform[j] = the same of A[i, j] = 1 / (i + 1)

Xiao et al. (2023), https://arxiv.org/abs/2309.17453, section 3.1: every later token sees the first ones, and softmax
must put its weight somewhere. Late queries only, so that no position gets its share for want of others.

Shapes: L layers, H heads, T tokens. Positions count from 0.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def received(weights: Tensor, begin: int) -> Tensor:
    """Mean attention that each key gets from queries ``begin`` … T - 1, (…, T, T) → (…, T); sums to 1.

    Raises:
        ValueError: no such query.
    """
    if not 0 <= begin < weights.shape[-2]:
        raise ValueError(f"begin must be from 0 to {weights.shape[-2] - 1}, got {begin}")
    return weights[..., begin:, :].mean(dim=-2)


def uniform_received(length: int, begin: int) -> Tensor:
    """The same of attention that is uniform over the visible keys, (T,) float64."""
    visible = torch.ones(length, length, dtype=torch.float64).tril()
    return received(visible / visible.sum(dim=-1, keepdim=True), begin)


@torch.inference_mode()
def attention_received(model: Any, ids: Tensor, begin: int) -> Tensor:
    """``received`` of every head of a Transformers model for one row of tokens (T,), (L, H, T) on the CPU.

    One row at a time: the maps of all layers are in memory together, L · H · T² numbers. No logits are computed.
    """
    maps = model.base_model(ids[None], output_attentions=True, use_cache=False).attentions
    return torch.stack([received(layer[0], begin).float().cpu() for layer in maps])


def planted(text: Tensor, token: int, place: int) -> Tensor:
    """A text (T - 2,) with ``token`` before it and once more inside, where it becomes position ``place``, (T,).

    Raises:
        ValueError: the place is not inside.
    """
    if not 1 <= place <= len(text):
        raise ValueError(f"place must be from 1 to {len(text)}, got {place}")
    own = text.new_tensor([token])
    return torch.cat([own, text[: place - 1], own, text[place - 1 :]])


@dataclass(frozen=True)
class SinkProfile:
    """What the positions of a few rows receive from the queries of their second halves."""

    ids: Tensor  # (R, T)
    first: Tensor  # (R, L, H, n) of every head, the first positions only
    mean: Tensor  # (R, T) over layers and heads

    @property
    def begin(self) -> int:
        """The first query that counts."""
        return self.ids.shape[1] // 2

    @property
    def heads(self) -> Tensor:
        """Share of position 0 by head, mean over rows, (L, H)."""
        return self.first[..., 0].mean(dim=0)

    def rows(self, n: int) -> list[float]:
        """Share of the first ``n`` positions together, mean over layers and heads, per row."""
        values: list[float] = self.first[..., :n].sum(dim=-1).mean(dim=(1, 2)).tolist()
        return values

    def share(self, n: int = 1) -> float:
        """Mean of it over rows."""
        return self.first[..., :n].sum(dim=-1).mean().item()

    def uniform(self, n: int = 1) -> float:
        """The same of uniform attention."""
        return uniform_received(self.ids.shape[1], self.begin)[:n].sum().item()

    def ratio(self, n: int = 1) -> float:
        """How many times its uniform share."""
        return self.share(n) / self.uniform(n)

    def recurring(self) -> list[float]:
        """What later occurrences of a row's first token receive, in its first half, mean over layers and heads."""
        found: list[float] = []
        for row, mean in zip(self.ids[:, : self.begin], self.mean, strict=True):
            found += mean[: self.begin][1:][row[1:] == row[0]].tolist()
        return found


def sink_profile(model: Any, rows: Tensor, kept: int, tell: Callable[[float], None]) -> SinkProfile:
    """Of rows of tokens (R, T); every head's shares for the first ``kept`` positions only.

    ``tell`` hears what fraction is done.
    """
    first, mean = [], []
    for i, row in enumerate(rows):
        tell(i / len(rows))
        every = attention_received(model, row.to(model.device), len(row) // 2)
        first.append(every[..., :kept])
        mean.append(every.mean(dim=(0, 1)))
    return SinkProfile(rows, torch.stack(first), torch.stack(mean))


def planted_shares(model: Any, texts: Tensor, token: int) -> tuple[float, float]:
    """What one token receives as the first of texts (R, T - 2), and what it receives in the middle of the same texts.

    Mean over layers, heads and texts, from queries of the last quarter.
    """
    length = texts.shape[1] + 2
    place = length // 2
    rows = [planted(text, token, place).to(model.device) for text in texts]
    found = torch.stack([attention_received(model, row, length * 3 // 4).mean(dim=(0, 1)) for row in rows])
    return found[:, 0].mean().item(), found[:, place].mean().item()
