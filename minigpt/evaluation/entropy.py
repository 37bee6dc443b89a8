"""How spread out a distribution is: entropy in its units, and the number of tokens it is worth."""

import math

import torch
from torch import Tensor

from minigpt.checks import token_ids, whole


def entropy(probabilities: Tensor) -> Tensor:
    """Shannon entropy -Σ p ln p over the last dimension, (…, V) → (…), in nats; 0 ln 0 is 0."""
    nats: Tensor = torch.special.entr(probabilities).sum(dim=-1)
    return nats


def normalised_entropy(probabilities: Tensor) -> Tensor:
    """Entropy over its maximum ln V, (…, V) → (…) in [0, 1]; 1 is the uniform distribution.

    Raises:
        ValueError: a single outcome, for which the maximum is 0.
    """
    if probabilities.shape[-1] < 2:
        raise ValueError("normalised entropy needs at least two outcomes")
    return entropy(probabilities) / math.log(probabilities.shape[-1])


def effective_support(probabilities: Tensor) -> Tensor:
    """exp of the entropy, (…, V) → (…): the size of the uniform distribution that is as uncertain.

    The perplexity of the distribution itself; Hill's (1973) diversity number of order 1.
    """
    return entropy(probabilities).exp()


def participation_ratio(probabilities: Tensor) -> Tensor:
    """1 / Σ p², (…, V) → (…): Hill's (1973) number of order 2, which weighs rare outcomes less."""
    return 1.0 / probabilities.square().sum(dim=-1)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Σ p ln(p / q) over the last dimension in nats, infinite where p has mass and q has none."""
    terms = torch.where(p == 0, torch.zeros_like(p), p * (p.log() - q.log()))  # what is no number stays none
    return terms.sum(dim=-1)


def total_variation(p: Tensor, q: Tensor) -> Tensor:
    """Half of Σ |p - q| over the last dimension: the largest difference in the probability of any event."""
    return (p - q).abs().sum(dim=-1) / 2


def unigram_loss(train: Tensor, tokens: Tensor, vocab_size: int) -> float:
    """Loss on tokens 1 … N - 1 of a text (N,) for one who knows how frequent each training token is, in nats per token.

    Frequencies have one added to each count (Laplace). What a language model must beat to have learned any order.

    Raises:
        ValueError: tokens outside the vocabulary, or none to score.
    """
    whole("vocab_size", vocab_size, 1)
    for name, text in (("train", train), ("tokens", tokens)):
        token_ids(name, text, vocab_size, 1)
    if len(tokens) < 2:
        raise ValueError(f"tokens must be at least 2, got {len(tokens)}")
    counts = torch.bincount(train, minlength=vocab_size).double() + 1
    return -(counts / counts.sum()).log()[tokens[1:]].mean().item()
