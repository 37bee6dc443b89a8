"""Holding a model off some tokens: those that are there already, and those that must not come at all."""

from collections.abc import Collection

import torch
from torch import Tensor

from minigpt.checks import whole
from minigpt.decoding.sampling import REMOVED, Processor


def repetition_penalty(alpha: float | Tensor) -> Processor:
    """A processor that penalises every token that occurs in the text so far, its prompt included.

    Keskar et al. (2019), "CTRL", section 4.1, divides the logit of such a token by α. A negative logit would become
    *more* likely that way, so it is multiplied instead, as all implementations do. A token is penalised
    once, however often it occurs. ``alpha`` can be a tensor (B,), one for each text of the batch.

    Returns:
        (tokens (B, T), logits (B, V)) → logits (B, V).

    Raises:
        ValueError: α is not a positive number.
    """
    factor = torch.as_tensor(alpha, dtype=torch.float64).view(-1, 1)  # (B, 1) or (1, 1)
    if not bool(((factor > 0) & factor.isfinite()).all()):
        raise ValueError(f"alpha must be a positive number (1 penalises nothing), got {alpha}")

    def process(tokens: Tensor, logits: Tensor) -> Tensor:
        strength, seen = factor.to(logits), logits.gather(1, tokens)  # (B, T): few of a large vocabulary
        return logits.scatter(1, tokens, torch.where(seen < 0, seen * strength, seen / strength))

    return process


def banned(tokens: Collection[int]) -> Processor:
    """A processor that never lets some tokens come, such as the end of a text that is to have a given length.

    Raises:
        ValueError: a token that is no whole number from 0 up, or, when it is used, one beyond the vocabulary.
    """
    ids = sorted(whole("each banned token", token, 0) for token in tokens)

    def process(_: Tensor, logits: Tensor) -> Tensor:
        if ids and ids[-1] >= logits.shape[1]:
            raise ValueError(f"each banned token must be from 0 to {logits.shape[1] - 1}, got {ids[-1]}")
        return logits.index_fill(1, torch.tensor(ids, dtype=torch.long, device=logits.device), REMOVED)

    return process
