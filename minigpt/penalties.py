"""Making a token less likely because it is there already."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def repetition_penalty(alpha: float) -> Callable[[Tensor, Tensor], Tensor]:
    """A processor that penalises every token that occurs in the text so far.

    Keskar et al. (2019), "CTRL", section 4.1, divides the logit of such a token by α. A negative logit would become
    *more* likely that way, so it is multiplied instead, as all implementations do. A token is penalised
    once, however often it occurs.

    Returns:
        (tokens (B, T), logits (B, V)) → logits (B, V).

    Raises:
        ValueError: α is not a positive number.
    """
    if not alpha > 0:
        raise ValueError(f"alpha must be a positive number (1 penalises nothing), got {alpha}")

    def process(tokens: Tensor, logits: Tensor) -> Tensor:
        seen = torch.zeros_like(logits, dtype=torch.bool).scatter(1, tokens, True)
        return torch.where(seen, torch.where(logits < 0, logits * alpha, logits / alpha), logits)

    return process


def repeated_ngrams(tokens: Sequence[int], n: int) -> float:
    """Share of a text's n-grams that occurred in it before, from 0 to 1: 1 - distinct / all (Welleck et al., 2020).

    Raises:
        ValueError: the text has no n-gram.
    """
    grams = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    if n < 1 or not grams:
        raise ValueError(f"a text of {len(tokens)} tokens has no {n}-grams")
    return 1 - len(set(grams)) / len(grams)
