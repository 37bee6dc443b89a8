"""From logits to tokens: temperature, top-k, nucleus, and the loop that writes a text token by token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.checks import number, prompt_of, share, whole
from minigpt.decoding.readers import GPTReader, Reader, limit_of
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT

Processor = Callable[[Tensor, Tensor], Tensor]  # tokens so far (B, T), logits (B, V) -> logits (B, V)
Progress = Callable[[float], None]  # told the fraction that is done

REMOVED = float("-inf")
SMALL = 1e-20  # a temperature; logits over a smaller one may be more than a float can be


def _check_temperature(temperature: float) -> None:
    number("temperature", temperature, lambda x: x >= 0, "a finite number from 0 up")


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
        _check_temperature(self.temperature)
        whole("top_k", self.top_k, 0)
        share("top_p", self.top_p)


PLAIN = Sampling()
GREEDY = Sampling(temperature=0.0)


def temperature_warp(logits: Tensor, temperature: float) -> Tensor:
    """logits / τ (Ackley et al., 1985). τ = 0 is the limit: all but the largest logit removed, the first of ties.

    A very small τ would make all logits infinite; they are then given relative to the largest.

    Raises:
        ValueError: τ is negative or not a finite number.
    """
    _check_temperature(temperature)
    if temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        return torch.full_like(logits, REMOVED).scatter(-1, best, logits.gather(-1, best))
    if temperature < SMALL:
        return (_below_the_largest(logits).double() / temperature).to(logits.dtype)
    return logits if temperature == 1 else logits / temperature


def top_k_warp(logits: Tensor, k: int) -> Tensor:
    """Remove logits below the k-th largest (Fan et al., 2018, section 5). Ties with the k-th stay. k = 0 removes none.

    Raises:
        ValueError: k is no whole number from 0 up.
    """
    if whole("top_k", k, 0) == 0:
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
    share("top_p", p)
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


def distribution(logits: Tensor, sampling: Sampling = PLAIN) -> Tensor:
    """The probabilities with which ``sample`` draws: softmax of the warped logits, (…, V) → (…, V).

    Where logits are infinite, or become it when they are divided by a small temperature, it is the limit: all that is
    infinite shares the probability.

    Raises:
        ValueError: logits of which one is not a number, or all are removed.
    """
    if not logits.is_floating_point() or not logits.ndim or not logits.shape[-1]:
        check_logits(logits)
    probabilities = warp(logits, sampling).softmax(dim=-1)
    if probabilities[..., :1].isnan().any():  # softmax spreads what is not a number over its row
        safe = warp(_below_the_largest(check_logits(logits)), sampling).softmax(dim=-1)
        probabilities = torch.where(probabilities.isnan(), safe, probabilities)
    return probabilities


def check_logits(logits: Tensor) -> Tensor:
    """The same logits (…, V).

    Raises:
        ValueError: they are no distribution: one of a row is not a number, or all of a row are -inf.
    """
    if not logits.is_floating_point() or not logits.ndim or not logits.shape[-1]:
        raise ValueError(f"logits must be (…, V) floats with V >= 1, got {logits.dtype} {tuple(logits.shape)}")
    if logits.isnan().any():
        raise ValueError("logits must be numbers, got nan: the model, or what changed its logits, is broken")
    if (logits == REMOVED).all(dim=-1).any():
        raise ValueError("logits must leave one token to draw, got -inf for all: too much is banned")
    return logits


def _below_the_largest(logits: Tensor) -> Tensor:
    """Logits less the largest of their row, which becomes 0, an infinite one too."""
    largest = logits.amax(dim=-1, keepdim=True)
    top = torch.zeros_like(largest).masked_fill(largest == REMOVED, REMOVED)
    return torch.where(logits == largest, top, logits - largest)


def sample(logits: Tensor, sampling: Sampling = PLAIN, generator: torch.Generator | None = None) -> Tensor:
    """Draw one token id per distribution, (…, V) → (…) int64; temperature 0 is greedy and draws nothing.

    Numbers are drawn on the generator's device, so that a CPU generator gives the same text everywhere.

    Raises:
        ValueError: see ``check_logits``.
    """
    if sampling.temperature == 0:
        best = logits.argmax(dim=-1, keepdim=True)
        if not (logits.gather(-1, best) > REMOVED).all():  # nan is the largest to argmax; where all are -inf, the first
            check_logits(logits)
        return best[..., 0]
    probabilities = distribution(logits, sampling)
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

    Raises:
        ValueError: no prompt, fewer than 0 tokens to write, or logits that are no distribution.
    """
    prompt_of(prompt, None)
    n_new, T = whole("n_new", n_new, 0), prompt.shape[1]
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
        ValueError: an empty prompt or one of unknown tokens, fewer than 0 tokens to write, a limit below 1 or beyond
            the learned positions, or logits that are no distribution.
    """
    prompt_of(prompt, model.config.vocab_size)
    n_new, limit = whole("n_new", n_new, 0), limit_of(model, limit)
    capacity = min(limit, prompt.shape[1] + n_new) if use_cache and limit > prompt.shape[1] else 0
    reader = GPTReader(model, len(prompt), limit=limit, capacity=capacity)
    with evaluating(model):
        return decode(reader, prompt, n_new, sampling, generator, processors)
