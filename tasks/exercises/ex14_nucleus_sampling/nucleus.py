"""Nucleus sampling in five visible steps, and two ways to get it wrong."""

import torch
from torch import Tensor


def sort_descending(logits: Tensor) -> tuple[Tensor, Tensor]:
    """(a) The logits from the largest down, and which token each belongs to: (…, V) → (…, V) twice."""
    return torch.sort(logits, dim=-1, descending=True, stable=True)


def cumulative_probabilities(ordered: Tensor) -> Tensor:
    """(b) Probability of a token or any likelier one, (…, V) → (…, V)."""
    weights = (ordered - ordered[..., :1]).exp()  # the largest logit is first: nothing can overflow
    return (weights / weights.sum(dim=-1, keepdim=True)).cumsum(dim=-1)


def cutoff(cumulative: Tensor, p: float) -> Tensor:
    """(c) How many tokens reach p together, the one that crosses it included, (…, V) → (…, 1); never none.

    p = 1 is all of them: rounded, the sum may be 1 before the last token is added.
    """
    size = cumulative.shape[-1]
    if p >= 1:
        return torch.full_like(cumulative[..., :1], size, dtype=torch.long)
    return ((cumulative < p).sum(dim=-1, keepdim=True) + 1).clamp(max=size)


def mask_below(logits: Tensor, order: Tensor, kept: Tensor) -> Tensor:
    """(d) -inf for every token ranked below the cut-off, back in vocabulary order, (…, V) → (…, V)."""
    ranks = torch.arange(logits.shape[-1], device=logits.device)
    removed = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, ranks >= kept)
    return logits.masked_fill(removed, float("-inf"))


def renormalise_and_sample(masked: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """(e) The distribution over what is left, (…, V), and one token drawn from it, (…)."""
    weights = (masked - masked.max(dim=-1, keepdim=True).values).exp()
    probabilities = weights / weights.sum(dim=-1, keepdim=True)
    cumulative = probabilities.cumsum(dim=-1)
    u = torch.rand(*masked.shape[:-1], 1, generator=generator, dtype=torch.float64).to(masked.device)
    return probabilities, (cumulative / cumulative[..., -1:] <= u).sum(dim=-1)


def nucleus_filter(logits: Tensor, p: float) -> Tensor:
    """Steps (a) to (d) (Holtzman et al., 2020, section 3.1).

    Raises:
        ValueError: p is outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], got {p}")
    ordered, order = sort_descending(logits)
    return mask_below(logits, order, cutoff(cumulative_probabilities(ordered), p))


def sample_nucleus(logits: Tensor, p: float, generator: torch.Generator | None = None) -> Tensor:
    """One token per distribution from its nucleus, (…, V) → (…) int64."""
    return renormalise_and_sample(nucleus_filter(logits, p), generator)[1]


# --- Two filters that are wrong ---------------------------------------------------------------------------------


def crossing_dropped(logits: Tensor, p: float) -> Tensor:
    """Wrong: keeps what stays below p, so without the token that crosses it."""
    ordered, order = sort_descending(logits)
    return mask_below(logits, order, (cumulative_probabilities(ordered) < p).sum(dim=-1, keepdim=True))


def not_scattered(logits: Tensor, p: float) -> Tensor:
    """Wrong: takes ranks for token numbers."""
    ordered, order = sort_descending(logits)
    return mask_below(logits, torch.arange(len(order)), cutoff(cumulative_probabilities(ordered), p))
