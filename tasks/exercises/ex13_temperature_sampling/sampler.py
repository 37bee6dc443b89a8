"""The sampler that 21.13 asks for."""

import torch
from torch import Tensor


def next_token_probabilities(logits: Tensor, temperature: float = 1.0, top_k: int | None = None) -> Tensor:
    """softmax(logits / τ) over the k most likely tokens, (…, V) → (…, V) in float64.

    τ = 0 is defined as greedy: all mass on the largest logit, the first one of ties. Ties with the k-th stay.

    Raises:
        ValueError: a negative temperature, or k below 1.
    """
    if not temperature >= 0 or (top_k is not None and top_k < 1):
        raise ValueError(f"need temperature >= 0 and top_k >= 1, got {temperature} and {top_k}")
    logits = logits.double()
    if temperature == 0:
        return torch.nn.functional.one_hot(logits.argmax(dim=-1), logits.shape[-1]).double()
    if top_k is not None and top_k < logits.shape[-1]:
        smallest = logits.sort(dim=-1, descending=True).values[..., top_k - 1, None]
        logits = logits.masked_fill(logits < smallest, float("-inf"))
    # Relative to the largest, so that no temperature, however small, can overflow.
    weights = ((logits - logits.max(dim=-1, keepdim=True).values) / temperature).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


def sample_token(
    logits: Tensor,
    temperature: float = 1.0,
    top_k: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One token index per distribution, (…, V) → (…) int64, by inverting the cumulative distribution.

    A uniform number u falls between two cumulative probabilities; the token between them is drawn.
    """
    cumulative = next_token_probabilities(logits, temperature, top_k).cumsum(dim=-1)
    cumulative = cumulative / cumulative[..., -1:]  # ends in exactly 1, and u < 1: the index is always valid
    u = torch.rand(*logits.shape[:-1], 1, generator=generator, dtype=torch.float64)
    return (cumulative <= u).sum(dim=-1)
