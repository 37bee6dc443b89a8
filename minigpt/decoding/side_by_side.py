"""Several ways to draw the next token in one batch: a step of all of them costs little more than a step of one.

    rows of the batch:   way 1: prompt 1 … prompt B | way 2: prompt 1 … prompt B | …

Most of a step of a pretrained model goes into fetching its weights. And drawing from 50,000 tokens takes as long as all
the rest, if all of them are sorted and given a random number each; what a truncation keeps is among the largest, so
that here only those are looked at (``draw``).
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.decoding.sampling import SMALL, Processor, Sampling, sample
from minigpt.pretrained.full_context import FullReader
from minigpt.pretrained.limits import context_of

CANDIDATES = 512  # largest logits in which a nucleus is looked for first


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> Tensor:
    """One token per row, (B, V) → (B,) int64: of the same distribution as ``sample``, from other random numbers.

    With top-k the k largest logits are drawn from; of ties with the k-th only as many as make k, where ``sample`` keeps
    them all. A nucleus is taken of the largest ones; rows whose largest do not hold enough probability are left to
    ``sample``.
    """
    if sampling.temperature < SMALL or sampling.top_p == 0 or not (sampling.top_k or sampling.top_p < 1):
        return sample(logits, sampling, generator)  # which knows the limits, and what removes nothing
    warm = logits / sampling.temperature
    largest, ids = warm.topk(min(sampling.top_k or CANDIDATES, warm.shape[-1]), dim=-1)  # (B, n), descending
    whole = largest.logsumexp(-1) if sampling.top_k else warm.logsumexp(-1)  # top-p is taken of what top-k leaves
    p = (largest - whole[:, None]).exp()
    held = p.cumsum(-1)
    p = p.masked_fill(held - p >= sampling.top_p, 0.0)  # the token that crosses p belongs to the nucleus
    drawn = torch.multinomial(p.to(generator.device), 1, generator=generator).to(ids.device)
    tokens = ids.gather(-1, drawn)[:, 0]
    short = (held[:, -1] < sampling.top_p) & (sampling.top_k == 0)
    if bool(short.any()):
        tokens[short] = sample(logits[short], sampling, generator)
    return tokens


@torch.inference_mode()
def side_by_side(
    model: Any,
    prompt: Tensor,  # (B, T) int64
    n_new: int,
    ways: Sequence[Sampling],
    *,
    generator: torch.Generator,
    processors: Sequence[Processor] = (),
) -> Tensor:
    """Continue the prompts by ``n_new`` tokens in every way with a model of Transformers, → (W · B, T + n_new).

    ``processors`` change the logits (W · B, V), given all tokens so far; see ``minigpt.decoding.sampling.decode``. A
    model that ends a text goes on all the same.

    Raises:
        ValueError: the text would be longer than the model's context.
    """
    count, T = prompt.shape
    if T + n_new > context_of(model):
        raise ValueError(f"{T} + {n_new} tokens are beyond the context of {context_of(model)}")
    once = FullReader(model)
    once.read(prompt)  # the prompts are the same for all: they are read once
    reader = once.branch(list(range(count)) * len(ways))
    tokens = torch.cat([prompt.repeat(len(ways), 1), prompt.new_empty(len(ways) * count, n_new)], dim=1)
    for end in range(T, T + n_new):
        logits = reader.logits if end == T else reader.read(tokens[:, end - 1 : end])
        assert logits is not None
        for process in processors:
            logits = process(tokens[:, :end], logits)
        rows = zip(logits.split(count), ways, strict=True)
        tokens[:, end] = torch.cat([draw(row, way, generator) for row, way in rows])
    return tokens
