"""What an attention head looks at: its share of attention on keys of one kind, beside what a blind head would give.

A kind of key is a boolean table, ``wanted[i, j]``: is key j of that kind for query i? Every score is the same mean

    share = mean over queries i of  Σ_j  A[i, j] · wanted[i, j]

over those queries that have a wanted key, and its baseline is the share of uniform attention over the visible keys:
a head that looks nowhere in particular. Induction heads: Olsson et al. (2022), https://arxiv.org/abs/2209.11895.

Shapes: B sentences of T tokens, H heads. Positions count from 0.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def share(weights: Tensor, wanted: Tensor) -> Tensor:
    """Mean attention on wanted keys, (B, H, T, T) and (B, T, T) bool → (H,).

    Queries without a wanted key, and the first query, which can see itself only, do not count.

    Raises:
        ValueError: no query has a wanted key, or a wanted key lies in the future.
    """
    queries = _queries(wanted)
    mass = (weights * wanted[:, None]).sum(dim=-1)  # (B, H, T)
    return (mass * queries[:, None]).sum(dim=(0, 2)) / queries.sum()


def uniform_share(wanted: Tensor) -> float:
    """The same of attention that is uniform over the visible keys: wanted keys over keys, mean over queries.

    Raises:
        ValueError: see ``share``.
    """
    queries = _queries(wanted)
    visible = torch.arange(1, wanted.shape[-1] + 1, device=wanted.device)
    return ((wanted.sum(dim=-1) / visible)[queries]).mean().item()


def row_shares(maps: Sequence[Tensor], wanted: Tensor) -> list[list[list[float]]]:
    """The share of each row by itself, per layer (B, H, T, T) and (B, T, T) → ``[row][layer][head]``.

    Rows without a query that counts are left out.
    """
    rows = (row for row in range(len(wanted)) if wanted[row, 1:].any())
    return [[share(layer[row : row + 1], wanted[row : row + 1]).tolist() for layer in maps] for row in rows]


def row_uniform_shares(wanted: Tensor) -> list[float]:
    """``uniform_share`` of the rows that ``row_shares`` has."""
    return [uniform_share(wanted[row : row + 1]) for row in range(len(wanted)) if wanted[row, 1:].any()]


def _queries(wanted: Tensor) -> Tensor:
    """Queries that count, (B, T) bool."""
    if wanted.triu(1).any():
        raise ValueError("a wanted key lies after its query")
    queries = wanted.any(dim=-1)
    queries[:, 0] = False
    if not queries.any():
        raise ValueError("no query has a wanted key")
    return queries


def previous_token(length: int) -> Tensor:
    """The token before the query, (1, T, T)."""
    return torch.ones(length, length, dtype=torch.bool).tril(-1).triu(-1)[None]


def first_token(length: int) -> Tensor:
    """The first token of the sequence, (1, T, T)."""
    wanted = torch.zeros(1, length, length, dtype=torch.bool)
    wanted[:, :, 0] = True
    return wanted


def own_token(length: int) -> Tensor:
    """The query's own position, (1, T, T)."""
    return torch.eye(length, dtype=torch.bool)[None]


def keys_of_kind(kind: Tensor) -> Tensor:
    """Visible keys of a kind, such as punctuation, the query itself excepted, (B, T) bool → (B, T, T)."""
    return kind[:, None, :].expand(-1, kind.shape[1], -1).tril(-1)


def same_token(tokens: Tensor) -> Tensor:
    """Earlier occurrences of the query's token, (B, T) → (B, T, T)."""
    return (tokens[:, :, None] == tokens[:, None, :]).tril(-1)


def induction(tokens: Tensor) -> Tensor:
    """Keys that follow an earlier occurrence of the query's token, (B, T) → (B, T, T).

    … A B … A → attends to B: what came after it last time. The token itself is not such a key, even after its twin.
    """
    same = same_token(tokens)
    wanted = torch.zeros_like(same)
    wanted[:, :, 1:] = same[:, :, :-1]  # the key after it
    return wanted.tril(-1)


def repeated_tokens(
    periods: list[int], length: int, choices: Tensor, generator: torch.Generator | None = None
) -> Tensor:
    """Random tokens that repeat, each row with a period of its own, (B, T).

    A row is a block of ``period`` different tokens out of ``choices`` (V,), again and again. Periods must differ: with
    one for all rows, a head that always looks so many positions back would pass for an induction head.

    Raises:
        ValueError: a period that leaves nothing to repeat, fewer than two different ones, or too few tokens to choose.
    """
    if len(set(periods)) < 2 or not 2 <= min(periods) <= max(periods) < length:
        raise ValueError(f"need different periods from 2 to {length - 1}, got {periods}")
    if max(periods) > len(choices):
        raise ValueError(f"a period of {max(periods)} needs as many tokens to choose from, got {len(choices)}")
    rows = []
    for period in periods:
        block = choices[torch.randperm(len(choices), generator=generator)[:period]]
        rows.append(block.repeat(-(-length // period))[:length])
    return torch.stack(rows)
