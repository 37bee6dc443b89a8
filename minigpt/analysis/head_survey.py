"""A survey of all heads of a model: what share of their attention goes where, which of them have a name, which to draw.

A head is named after a kind of key where it gives such keys at least half its attention, and several times what a
reference head gives: one that attends uniformly, or the head itself where position alone could make the share.

Shapes: R rows (windows of text, rows of random tokens), L layers, H heads, K kinds. Layers and heads count from 0.
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.analysis import head_scores
from minigpt.analysis.head_ablation import Head

SHARE, TIMES = 0.5, 3  # of attention; of the reference


@dataclass(frozen=True)
class HeadScores:
    """One kind of key: the share of every head in every row, and what a head that does not look for it would have."""

    rows: Tensor  # (R, L, H)
    blind: float  # the share of uniform attention, mean over rows
    control: Tensor | None = None  # (L, H): another share that a head must exceed to be named

    @property
    def mean(self) -> Tensor:
        """Over rows, (L, H)."""
        return self.rows.mean(dim=0)

    @property
    def ranked(self) -> list[Head]:
        """All heads, highest mean first."""
        order = self.mean.flatten().argsort(descending=True, stable=True).tolist()
        return [divmod(place, self.rows.shape[2]) for place in order]

    @property
    def named(self) -> list[Head]:
        """Heads that pass: mean ≥ SHARE and ≥ TIMES the references; highest first."""
        reference = torch.full_like(self.mean, self.blind)
        if self.control is not None:
            reference = reference.maximum(self.control)
        passes = (self.mean >= SHARE) & (self.mean >= TIMES * reference)
        return [head for head in self.ranked if passes[head]]

    @property
    def best(self) -> Head:
        """The highest that is named, or the highest of all where none is."""
        return (self.named or self.ranked)[0]

    def of(self, head: Head) -> list[float]:
        """The share of one head in every row."""
        values: list[float] = self.rows[:, head[0], head[1]].tolist()
        return values


def kinds(tokens: Tensor, marks: Tensor) -> dict[str, Tensor]:
    """The kinds of keys in rows of tokens, (B, T) and (B, T) bool → (B, T, T) each.

    ``marks`` says which tokens are punctuation. The first token of a row does not count as such: heads that rest on
    it are a kind of their own.
    """
    B, T = tokens.shape
    marks = marks.clone()
    marks[:, 0] = False
    wanted = {
        "previous": head_scores.previous_token(T).expand(B, -1, -1),
        "first": head_scores.first_token(T).expand(B, -1, -1),
        "own": head_scores.own_token(T).expand(B, -1, -1),
        "punctuation": head_scores.keys_of_kind(marks),
        "same": head_scores.same_token(tokens),
        "induction": head_scores.induction(tokens),
    }
    return {kind: keys.to(tokens.device) for kind, keys in wanted.items()}


@torch.inference_mode()
def read_maps(model: Any, ids: Tensor) -> tuple[Tensor, ...]:
    """Attention maps of a Transformers model with eager attention, (B, T) → per layer (B, H, T, T)."""
    maps: tuple[Tensor, ...] = model(ids, output_attentions=True, use_cache=False).attentions
    return maps


def survey(
    model: Any, ids: Tensor, wanted: Mapping[str, Tensor], *, batch_size: int = 4
) -> dict[str, list[list[list[float]]]]:
    """Shares of all heads in rows of tokens (R, T) for kinds of keys (R, T, T): per kind ``[row][layer][head]``.

    Rows without a key of a kind are left out. Maps are kept for one batch only.
    """
    found: dict[str, list[list[list[float]]]] = {kind: [] for kind in wanted}
    for rows in torch.arange(len(ids)).split(batch_size):
        maps = read_maps(model, ids[rows])
        for kind, keys in wanted.items():
            found[kind] += head_scores.row_shares(maps, keys[rows].to(ids.device))
    return found


def heads_to_draw(scores: Sequence[HeadScores], size: int = 4) -> dict[int, list[int]]:
    """A few heads that show most of what there is: ``size`` layers, and up to ``size`` heads of each.

    One layer of each quarter of the depth (for 4), so that together they come closest to the best head of every kind;
    in each layer, one head after another that adds most to that.
    """
    reach = torch.stack([s.mean / s.mean.max().clamp_min(1e-9) for s in scores])  # (K, L, H), 1 for the best
    by_layer = reach.amax(dim=2)
    parts = torch.arange(by_layer.shape[1]).tensor_split(min(size, by_layer.shape[1]))
    layers = max(
        itertools.product(*(part.tolist() for part in parts)),
        key=lambda chosen: by_layer[:, list(chosen)].amax(dim=1).sum().item(),
    )
    return {layer: _greedy(reach[:, layer], size) for layer in layers}


def _greedy(reach: Tensor, size: int) -> list[int]:
    """Heads of one layer (K, H), in order."""
    chosen: list[int] = []
    best = torch.zeros_like(reach[:, 0])
    for _ in range(min(size, reach.shape[1])):
        gains = (reach.maximum(best[:, None]) - best[:, None]).sum(dim=0)
        gains[chosen] = -1  # each once, also where nothing more is to be had
        chosen.append(int(gains.argmax()))
        best = best.maximum(reach[:, chosen[-1]])
    return sorted(chosen)
