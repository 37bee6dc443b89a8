"""Greedy generation with and without a cache, and two usual mistakes with it.

The model's ``CausalSelfAttention`` takes a cache as an argument; here are the loops that do or do not use it.
"""

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.model import GPT


@torch.inference_mode()
def generate_uncached(model: GPT, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor]:
    """Greedy, all tokens read again for each new one: (1, P) → tokens (1, P + n), logits (n, V)."""
    tokens, logits = prompt, []
    for _ in range(n_new):
        last = model(tokens, last_only=True)[:, -1]  # (1, V)
        logits.append(last)
        tokens = torch.cat([tokens, last.argmax(dim=-1, keepdim=True)], dim=1)
    return tokens, torch.cat(logits)


@torch.inference_mode()
def generate_cached(model: GPT, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor]:
    """Greedy, each token read once: (1, P) → tokens (1, P + n), logits (n, V)."""
    weight = model.token_embedding.weight
    capacity = prompt.shape[1] + n_new - 1  # the last token is never read
    cache = KVCache(model.config, 1, capacity, device=weight.device, dtype=weight.dtype)
    tokens, logits, unread = prompt, [], prompt
    for _ in range(n_new):
        last = model(unread, cache=cache, last_only=True)[:, -1]
        logits.append(last)
        unread = last.argmax(dim=-1, keepdim=True)
        tokens = torch.cat([tokens, unread], dim=1)
    return tokens, torch.cat(logits)


Loop = Callable[[GPT, Tensor, int], tuple[Tensor, Tensor]]


# --- The traps ------------------------------------------------------------------------------------------------


def largest(values: Tensor) -> float:
    """max |x|."""
    return values.abs().max().item()


def top_left_alignment(generator: torch.Generator) -> tuple[float, float]:
    """One cached query with ``is_causal=True``: how far its output is from the right one, and from the first value."""
    q, k, v = (torch.randn(1, 1, n, 16, generator=generator) for n in (1, 8, 8))
    right = F.scaled_dot_product_attention(q, k, v)  # the newest query may see every key
    wrong = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return largest(wrong - right), largest(wrong - v[:, :, :1])


def restarted_positions(model: GPT, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor]:
    """The cached loop with the mistake that every cached step counts its positions from 0 again."""
    broken = copy.copy(model)
    embed = model._embed
    broken._embed = lambda tokens, start: embed(tokens, 0)  # type: ignore[method-assign]
    return generate_cached(broken, prompt, n_new)
