"""From logits to tokens: temperature, top-k, nucleus, and a generation loop with a key/value cache."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT

Processor = Callable[[Tensor, Tensor], Tensor]  # tokens so far (B, T), logits (B, V) -> logits (B, V)

REMOVED = float("-inf")


def temperature_warp(logits: Tensor, temperature: float) -> Tensor:
    """logits / τ (Ackley et al., 1985). τ = 0 is the limit: all but the largest logit removed, the first of ties.

    Raises:
        ValueError: τ is negative or not a number.
    """
    if not temperature >= 0:
        raise ValueError(f"temperature must not be negative, got {temperature}")
    if temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, REMOVED).scatter(-1, best, logits.gather(-1, best))
    return logits / temperature


def top_k_warp(logits: Tensor, k: int) -> Tensor:
    """Remove logits below the k-th largest (Fan et al., 2018, section 5). Ties with the k-th stay. k = 0 removes none.

    Raises:
        ValueError: k is negative.
    """
    if k < 0:
        raise ValueError(f"top_k must not be negative, got {k}")
    if k == 0:
        return logits
    smallest = logits.topk(min(k, logits.shape[-1]), dim=-1).values[..., -1:]
    return logits.masked_fill(logits < smallest, REMOVED)


def top_p_warp(logits: Tensor, p: float) -> Tensor:
    """Keep the smallest set of tokens whose probability reaches p (Holtzman et al., 2020, section 3.1).

    The token that crosses p belongs to the set, so that at least one stays. Summed from the least likely token up,
    as the small terms are then added first: a token goes while it and all below it hold at most 1 - p.

    Raises:
        ValueError: p is outside [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"top_p must be in [0, 1], got {p}")
    ascending, order = logits.sort(dim=-1)
    remove = ascending.softmax(dim=-1).cumsum(dim=-1) <= 1 - p
    remove[..., -1] = False
    return logits.masked_fill(remove.scatter(-1, order, remove), REMOVED)


def warp(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """Temperature, then top-k, then top-p, (…, V) → (…, V) with -inf for removed tokens.

    The order is that of Transformers: the nucleus is taken of the softened distribution.
    """
    logits = top_k_warp(temperature_warp(logits, temperature), top_k)
    return logits if top_p == 1.0 else top_p_warp(logits, top_p)


def sample(
    logits: Tensor,
    generator: torch.Generator | None = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Tensor:
    """Draw one token id per distribution, (…, V) → (…) int64; temperature 0 is greedy and draws nothing.

    Numbers are drawn on the generator's device, so that a CPU generator gives the same text everywhere.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = warp(logits, temperature, top_k, top_p).softmax(dim=-1)
    if generator is not None:
        probabilities = probabilities.to(generator.device)
    drawn = torch.multinomial(probabilities.reshape(-1, logits.shape[-1]), 1, generator=generator)
    return drawn.view(logits.shape[:-1]).to(logits.device)


def generate(
    model: GPT,
    prompt: Tensor,  # (B, T) int64, T >= 1
    n_new: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    processors: Sequence[Processor] = (),
    limit: int | None = None,
) -> Tensor:
    """Continue prompts of equal length by ``n_new`` tokens, (B, T) → (B, T + n_new).

    The model sees at most the last ``limit`` tokens, by default the length it was trained on. Beyond it the positions
    of all visible tokens shift with every new one, so the cache is of no use and the last ``limit`` tokens are read
    again each time. A model without learned positions can be given a larger ``limit`` to try how far it reaches.

    ``processors`` change the logits (B, V) of the next token, given all tokens so far, before the warping.

    Raises:
        ValueError: an empty prompt, or a limit beyond the learned positions.
    """
    limit = limit or model.config.context
    if prompt.ndim != 2 or prompt.shape[1] < 1:
        raise ValueError(f"the prompt must be (B, T) with T >= 1, got {tuple(prompt.shape)}")
    if model.position_embedding is not None and limit > model.config.context:
        raise ValueError(f"limit {limit} is beyond the {model.config.context} learned positions")
    T = prompt.shape[1]
    cache = cache_for(model, len(prompt), min(limit, T + n_new)) if use_cache and limit > T else None
    with torch.inference_mode(), evaluating(model):
        tokens = torch.cat([prompt, prompt.new_empty(len(prompt), n_new)], dim=1)
        for end in range(T, T + n_new):
            if cache is not None and end <= cache.capacity:
                logits = model(tokens[:, cache.length : end], cache=cache, last_only=True)
            else:
                logits = model(tokens[:, max(0, end - limit) : end], last_only=True)
            logits = logits[:, -1].float()
            for process in processors:
                logits = process(tokens[:, :end], logits)
            tokens[:, end] = sample(logits, generator, temperature, top_k, top_p)
    return tokens.clone()  # outside of inference mode, so that gradients may flow through its use


def cache_for(model: GPT, batch: int, capacity: int) -> KVCache:
    """An empty cache where the model is, in the precision that it computes in."""
    weight = model.token_embedding.weight
    return KVCache(model.config, batch, capacity, device=weight.device, dtype=weight.dtype)
