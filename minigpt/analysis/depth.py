"""What depth does to a model: gradients, the residual stream, and what each block is worth.

Everything here is measured with forward hooks on a model that is left as it was.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.evaluation.evaluate import evaluate
from minigpt.model import GPT, Block
from minigpt.objectives import causal


def gradient_norms(model: GPT, batch: Tensor) -> tuple[list[float], list[float]]:
    """Norms of the gradient of the causal loss on one batch (B, T + 1), block by block, first to last.

    The first list is over all parameters of a block, the second over its last matrix alone, about which theorem 1 of
    Xiong et al. (2020) speaks. Gradients of the model are cleared.
    """
    model.zero_grad(set_to_none=True)
    causal(model, batch).backward()
    blocks = [_norm([w.grad for w in block.parameters() if w.grad is not None]) for block in _blocks(model)]
    last = [_norm([w.grad for w in [block.mlp.down.weight] if w.grad is not None]) for block in _blocks(model)]
    model.zero_grad(set_to_none=True)
    return blocks, last


def _norm(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(tensor.square().sum().item() for tensor in tensors))


def _blocks(model: GPT) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


@torch.no_grad()
def residual_stream(model: GPT, tokens: Tensor) -> list[Tensor]:
    """What enters the first block and what leaves each, (B, T) → L + 1 tensors (B, T, C)."""
    stream: list[Tensor] = []

    def entering(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        stream.append(inputs[0])

    def leaving(module: nn.Module, inputs: Any, output: Tensor) -> None:
        stream.append(output)

    blocks = _blocks(model)
    hooks = [blocks[0].register_forward_pre_hook(entering), *(b.register_forward_hook(leaving) for b in blocks)]
    try:
        model.hidden(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    return stream


@dataclass(frozen=True)
class Step:
    """What one block does to the residual stream, mean over tokens."""

    size: float  # root mean square of what leaves it
    change: float  # ‖after - before‖ / ‖before‖
    cosine: float  # between before and after


def steps(model: GPT, tokens: Tensor) -> list[Step]:
    """The change that each block makes, first to last."""
    stream = residual_stream(model, tokens)
    result = []
    for before, after in pairwise(stream):
        change = (after - before).norm(dim=-1) / before.norm(dim=-1)
        cosine = torch.cosine_similarity(before, after, dim=-1)
        result.append(Step(after.square().mean().sqrt().item(), change.mean().item(), cosine.mean().item()))
    return result


@torch.no_grad()
def surviving_share(model: GPT, tokens: Tensor) -> float:
    """The factor by which the norms on the residual path scale the embeddings, once these have a deviation of 1.

    1 for pre-norm, whose path has none. In post-norm each norm divides by the standard deviation σ of its input: the
    product of the mean of 1/σ over the 2L norms but the first, which only brings the embeddings to that size.
    """
    if model.config.norm == "pre":
        return 1.0
    factors: list[float] = []

    def entering(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        factors.append((1 / inputs[0].std(dim=-1, correction=0)).mean().item())

    norms = [norm for block in _blocks(model) for norm in (block.norm1, block.norm2)]
    hooks = [norm.register_forward_pre_hook(entering) for norm in norms]
    try:
        model.hidden(tokens)
    finally:
        for hook in hooks:
            hook.remove()
    # The first norm brings the embeddings, whatever their size, to 1: that says nothing of the blocks.
    return math.prod(factors[1:])


@contextmanager
def without_block(model: GPT, index: int) -> Iterator[GPT]:
    """The model with one block left out: what enters it leaves it."""

    def skip(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        return inputs[0]

    hook = model.blocks[index].register_forward_hook(skip)
    try:
        yield model
    finally:
        hook.remove()


def cost_of_removal(model: GPT, tokens: Tensor) -> list[float]:
    """By how much the loss on a text (N,) rises when one block is left out, for each in turn, in nats per token."""
    whole = evaluate(model, tokens).nats_per_token
    costs = []
    for index in range(len(model.blocks)):
        with without_block(model, index):
            costs.append(evaluate(model, tokens).nats_per_token - whole)
    return costs
