"""A watermark for generated text: a secret, harmless-looking preference for half of the vocabulary.

    context    the previous k tokens, hashed with a secret key, choose a "green" list of γV tokens
    embed      δ is added to the green logits before sampling
    detect     without the model: count the green tokens; by chance a share γ of them would be green

Source: Kirchenbauer et al. (2023), "A Watermark for Large Language Models", https://arxiv.org/abs/2301.10226,
algorithm 2 and equation 3.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.checks import number, token_ids, whole

GreenLists = Callable[[Tensor], Tensor]  # contexts (N, k) -> (N, V) bool

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15 as a signed number: 2^64 / golden ratio


def _mix(x: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea & Flood, 2014), int64 → int64: every input bit reaches every output bit.

    Shifts of int64 copy the sign bit, hence the masks; products wrap around, as they should.
    """
    x = (x ^ ((x >> 30) & (2**34 - 1))) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    x = (x ^ ((x >> 27) & (2**37 - 1))) * -7723592293110705685  # 0x94D049BB133111EB
    return x ^ ((x >> 31) & (2**33 - 1))


def keyed_hash(key: int, contexts: Tensor) -> Tensor:
    """SplitMix64 chained over the tokens of each context, (N, k) int64 → (N,) int64.

    The same on every machine and in every process, unlike Python's ``hash``. Not cryptographic: whoever must resist
    an adversary who studies much marked text replaces it by a keyed pseudo-random function such as BLAKE2.
    """
    state = torch.full((len(contexts),), key, dtype=torch.int64, device=contexts.device)
    state = _mix(state + _GOLDEN)
    for token in contexts.unbind(dim=1):
        state = _mix((state ^ _mix(token + _GOLDEN)) + _GOLDEN)
    return state


@dataclass(frozen=True)
class KeyedGreenLists:
    """For each context the ``size`` tokens whose keyed hash is smallest: a pseudo-random part of fixed size.

    Raises:
        ValueError: the size is not between 1 and V - 1, or the key does not fit 64 bits.
    """

    key: int
    vocab_size: int
    size: int  # green tokens per list, γV

    def __post_init__(self) -> None:
        whole("vocab_size", self.vocab_size, 2)
        if not 1 <= whole("size", self.size) < self.vocab_size:
            raise ValueError(f"a green list needs 1 to {self.vocab_size - 1} tokens, got {self.size}")
        if not -(2**63) <= whole("key", self.key) < 2**63:
            raise ValueError(f"the key must fit 64 bits, got {self.key}")

    @property
    def fraction(self) -> float:
        """γ as it really is: the size is a whole number."""
        return self.size / self.vocab_size

    def __call__(self, contexts: Tensor) -> Tensor:
        """Contexts (N, k) → (N, V), True for green."""
        vocabulary = torch.arange(self.vocab_size, device=contexts.device)
        rank = _mix(keyed_hash(self.key, contexts)[:, None] + (vocabulary + 1) * _GOLDEN)  # (N, V)
        green = rank.topk(self.size, dim=-1, largest=False, sorted=False).indices
        return torch.zeros_like(rank, dtype=torch.bool).scatter_(1, green, True)


@dataclass(frozen=True)
class Watermark:
    """A logits processor for ``generate``: adds δ to the green logits, given the previous ``width`` tokens.

    Texts shorter than ``width`` are left alone.

    Raises:
        ValueError: a width below 0, or a δ that is not a finite number.
    """

    green_lists: GreenLists
    width: int  # k
    delta: float

    def __post_init__(self) -> None:
        whole("width", self.width, 0)
        number("delta", self.delta, lambda x: True, "a finite number")

    def __call__(self, tokens: Tensor, logits: Tensor) -> Tensor:
        """Tokens so far (B, T), logits (B, V) → (B, V)."""
        if tokens.shape[1] < self.width:
            return logits
        return logits + self.delta * self.green_lists(tokens[:, tokens.shape[1] - self.width :])


@dataclass(frozen=True)
class Detection:
    """One number per text, (N,) each."""

    scored: Tensor  # distinct n-grams
    green: Tensor  # of them, those whose last token is green
    z: Tensor  # standard deviations above chance
    p_value: Tensor  # chance of at least as many green ones in unmarked text, exact binomial


def detect(tokens: Tensor, green_lists: GreenLists, width: int, fraction: float) -> Detection:
    """Test texts (N, T) for the watermark, by their tokens alone.

    Each distinct (k+1)-gram of a text counts once: a repeated one is green every time or never, and counting it
    again would inflate z (the option ``ignore_repeated_ngrams`` of Transformers' detector).
    z = (g - γn) / √(n γ(1-γ)): Kirchenbauer et al. (2023), equation 3. No text (0, T) gives no numbers.

    Raises:
        ValueError: texts of no more than ``width`` tokens, tokens that the green lists do not know, or a fraction
            outside (0, 1).
    """
    whole("width", width, 0)
    if not isinstance(tokens, Tensor) or tokens.ndim != 2 or tokens.shape[1] <= width:
        raise ValueError(f"need texts (N, T) of more than {width} tokens, got {getattr(tokens, 'shape', tokens)}")
    number("fraction", fraction, lambda x: 0 < x < 1, "in (0, 1)")
    token_ids("tokens", tokens, getattr(green_lists, "vocab_size", None), 2)
    if not len(tokens):
        nothing = tokens.new_zeros(0)
        return Detection(nothing, nothing, nothing.float(), nothing.double())
    grams = tokens.unfold(1, width + 1, 1)  # (N, T - k, k + 1)
    names = keyed_hash(0, grams.reshape(-1, width + 1))  # one number per n-gram: faster to sort than rows
    names, ids = torch.unique(names, return_inverse=True)
    places = torch.empty_like(names).scatter_(0, ids, torch.arange(len(ids), device=ids.device))
    is_green = _are_green(grams.reshape(-1, width + 1)[places], green_lists)  # (distinct,)
    ids = ids.view(grams.shape[:2]).sort(dim=1).values
    fresh = torch.ones_like(ids, dtype=torch.bool)
    fresh[:, 1:] = ids[:, 1:] != ids[:, :-1]
    scored = fresh.sum(dim=1)
    green = (fresh & is_green[ids]).sum(dim=1)
    z = (green - fraction * scored) / (scored * fraction * (1 - fraction)).sqrt()
    return Detection(scored, green, z, binomial_tail(green, scored, fraction))


def _are_green(grams: Tensor, green_lists: GreenLists) -> Tensor:
    """Whether the last token of each (k+1)-gram (M, k + 1) is on its context's list, (M,) bool."""
    chunks = torch.split(grams, 512)  # the lists of a chunk are (512, V)
    return torch.cat([green_lists(chunk[:, :-1]).gather(1, chunk[:, -1:])[:, 0] for chunk in chunks])


def binomial_tail(successes: Tensor, trials: Tensor, probability: float) -> Tensor:
    """P(X >= successes) for X binomial, elementwise in float64, summed term by term.

    Raises:
        ValueError: negative trials, another number of them than of successes, or a probability outside (0, 1).
    """
    number("probability", probability, lambda x: 0 < x < 1, "in (0, 1)")
    if successes.shape != trials.shape or successes.ndim != 1 or (trials < 0).any():
        shapes = f"{tuple(successes.shape)} and {tuple(trials.shape)}"
        raise ValueError(f"successes and trials must be two rows (N,) of counts from 0 up, got {shapes}")
    if not len(trials):
        return trials.double()
    n, k = trials.double()[:, None], torch.arange(int(trials.max()) + 1, device=trials.device).double()
    p = torch.tensor(probability, dtype=torch.float64, device=trials.device)
    log_term = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp(min=0) + 1)
    log_term = log_term + k * p.log() + (n - k) * (1 - p).log()
    counted = (k >= successes[:, None]) & (k <= n)
    return torch.where(counted, log_term.exp(), 0.0).sum(dim=1).clamp(max=1.0)
