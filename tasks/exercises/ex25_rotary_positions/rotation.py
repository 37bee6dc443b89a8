"""Part (a) of 21.25: the rotation against its matrix, and against Transformers' Llama."""

import inspect

import torch
from torch import Tensor

from minigpt.positions import rope_tables, rotate
from tasks.exercise import Context
from tasks.exercises.ex25_rotary_positions.findings import D, Rotation

PAIRS = (0, 1, 2, 4)  # that are drawn


def measure_rotation(ctx: Context, context: int) -> Rotation:
    """The rotation, compared and drawn."""
    length = ctx.numbers["positions"]
    cos, _ = rope_tables(torch.arange(context), D)
    return Rotation(
        positions=length,
        from_matrix=difference_from_matrix(length, ctx.generator("matrix")),
        from_llama=difference_from_llama(length, ctx.generator("llama")),
        from_orthogonal=max(
            (rotation_matrix(m) @ rotation_matrix(m).T - torch.eye(D)).abs().max().item() for m in range(length)
        ),
        code=inspect.getsource(rope_tables) + "\n\n" + inspect.getsource(rotate),
        turned=turning(),
        cosines=tuple(tuple(row) for row in cos[:, : D // 2].T.tolist()),
    )


def rotation_matrix(position: float, base: float = 10_000.0) -> Tensor:
    """R_m of Su et al. (2021), equation 15, written out: one 2 × 2 rotation per pair of dimensions, (D, D) float64.

    Pairs are (i, i + D/2). Nobody multiplies by it, as all but 2 numbers in each row are 0.
    """
    matrix = torch.zeros(D, D, dtype=torch.float64)
    for i in range(D // 2):
        angle = torch.tensor(position * base ** (-2 * i / D), dtype=torch.float64)
        matrix[i, i] = matrix[i + D // 2, i + D // 2] = angle.cos()
        matrix[i, i + D // 2], matrix[i + D // 2, i] = -angle.sin(), angle.sin()
    return matrix


def difference_from_matrix(length: int, generator: torch.Generator) -> float:
    """Largest difference between ``rotate`` and the product with the matrix."""
    x = torch.randn(1, 1, length, D, generator=generator)
    turned = rotate(x, *rope_tables(torch.arange(length), D))[0, 0]
    expected = torch.stack([rotation_matrix(m) @ x[0, 0, m].double() for m in range(length)])
    return float((turned - expected).abs().max())


def difference_from_llama(length: int, generator: torch.Generator) -> float:
    """Largest difference between our rotated queries and those of Transformers' Llama."""
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

    q = torch.randn(2, 4, length, D, generator=generator)
    embedding = LlamaRotaryEmbedding(LlamaConfig(hidden_size=4 * D, num_attention_heads=4))
    expected, _ = apply_rotary_pos_emb(q, q, *embedding(q, torch.arange(length)[None]))
    return float((rotate(q, *rope_tables(torch.arange(length), D)) - expected).abs().max())


def turning(positions: int = 12) -> dict[int, tuple[tuple[float, ...], tuple[float, ...]]]:
    """One vector of ones, pair by pair, at successive positions."""
    x = torch.ones(1, 1, positions, D)
    turned = rotate(x, *rope_tables(torch.arange(positions), D))[0, 0]
    return {i: (tuple(turned[:, i].tolist()), tuple(turned[:, i + D // 2].tolist())) for i in PAIRS}
