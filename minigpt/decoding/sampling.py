"""From logits to tokens: temperature, top-k, nucleus, and the loop that writes a text token by token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.decoding.readers import GPTReader, Reader
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT

Processor = Callable[[Tensor, Tensor], Tensor]  # tokens so far (B, T), logits (B, V) -> logits (B, V)
Progress = Callable[[float], None]  # told the fraction that is done

REMOVED = float("-inf")


@dataclass(frozen=True)
class Sampling:
    """How the next token is drawn: temperature, then top-k, then top-p; by default from the model's own distribution.

    Raises:
        ValueError: a field is out of range.
    """

    temperature: float = 1.0  # 0 takes the most likely token
    top_k: int = 0  # 0 removes none
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise ValueError(f"temperature must not be negative, got {self.temperature}")
        if self.top_k < 0:
            raise ValueError(f"top_k must not be negative, got {self.top_k}")
        if not 0 <= self.top_p <= 1:
            raise ValueError(f"top_p must be in [0, 1], got {self.top_p}")


PLAIN = Sampling()
GREEDY = Sampling(temperature=0.0)


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
    return logits if temperature == 1 else logits / temperature


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


def warp(logits: Tensor, sampling: Sampling = PLAIN) -> Tensor:
    """Temperature, then top-k, then top-p, (…, V) → (…, V) with -inf for removed tokens.

    The order is that of Transformers: the nucleus is taken of the softened distribution.
    """
    logits = top_k_warp(temperature_warp(logits, sampling.temperature), sampling.top_k)
    return logits if sampling.top_p == 1.0 else top_p_warp(logits, sampling.top_p)


def sample(logits: Tensor, sampling: Sampling = PLAIN, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token id per distribution, (…, V) → (…) int64; temperature 0 is greedy and draws nothing.

    Numbers are drawn on the generator's device, so that a CPU generator gives the same text everywhere.
    """
    if sampling.temperature == 0:
        return logits.argmax(dim=-1)
    probabilities = warp(logits, sampling).softmax(dim=-1)
    if generator is not None:
        probabilities = probabilities.to(generator.device)
    drawn = torch.multinomial(probabilities.reshape(-1, logits.shape[-1]), 1, generator=generator)
    return drawn.view(logits.shape[:-1]).to(logits.device)


def decode(
    reader: Reader,
    prompt: Tensor,  # (B, T) int64, T >= 1
    n_new: int,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
    processors: Sequence[Processor] = (),
    progress: Progress | None = None,
) -> Tensor:
    """The loop behind everything that writes: read, change the logits, draw, (B, T) → (B, T + n_new).

    ``processors`` change the logits (B, V) of the next token, given all tokens so far, before the warping. The last
    token is not read any more.
    """
    T = prompt.shape[1]
    with torch.inference_mode():
        tokens = torch.cat([prompt, prompt.new_empty(len(prompt), n_new)], dim=1)
        unread = tokens[:, :T]
        for end in range(T, T + n_new):
            logits = reader.read(unread)
            for process in processors:
                logits = process(tokens[:, :end], logits)
            tokens[:, end] = sample(logits, sampling, generator)
            unread = tokens[:, end : end + 1]
            if progress and (end - T) % 16 == 0:
                progress((end - T) / n_new)
    return tokens.clone()  # outside of inference mode, so that gradients may flow through its use


def generate(
    model: GPT,
    prompt: Tensor,  # (B, T) int64, T >= 1
    n_new: int,
    *,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
    use_cache: bool = True,
    processors: Sequence[Processor] = (),
    limit: int | None = None,
) -> Tensor:
    """Continue prompts of equal length by ``n_new`` tokens, (B, T) → (B, T + n_new); see ``decode``.

    The model sees at most the last ``limit`` tokens, by default the length it was trained on. Beyond it the positions
    of all visible tokens shift with every new one, so the cache is of no use and the last ``limit`` tokens are read
    again each time. A model without learned positions can be given a larger ``limit`` to try how far it reaches.

    Raises:
        ValueError: an empty prompt, or a limit beyond the learned positions.
    """
    limit = limit or model.config.context
    if prompt.ndim != 2 or prompt.shape[1] < 1:
        raise ValueError(f"the prompt must be (B, T) with T >= 1, got {tuple(prompt.shape)}")
    if model.position_embedding is not None and limit > model.config.context:
        raise ValueError(f"limit {limit} is beyond the {model.config.context} learned positions")
    capacity = min(limit, prompt.shape[1] + n_new) if use_cache and limit > prompt.shape[1] else 0
    reader = GPTReader(model, len(prompt), limit=limit, capacity=capacity)
    with evaluating(model):
        return decode(reader, prompt, n_new, sampling, generator, processors)
