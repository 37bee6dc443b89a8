"""Filling gaps and writing on, with a model that reads both ways and with one that reads one way.

A masked model (``minigpt.objectives.masked``) predicts a hidden token from both sides in one pass, but must read
everything again for each token it writes. A causal model writes with one step per token, and fills a gap by trying
every candidate: Bayes' rule turns the probability of the whole text into that of the candidate.
"""

import torch
from torch import Tensor

from minigpt.checks import prompt_of, whole
from minigpt.decoding.sampling import sample
from minigpt.evaluation.evaluate import LOGITS_AT_ONCE, evaluating
from minigpt.model import GPT

RATE = 0.15  # of the tokens that ``minigpt.objectives.masked`` scores where a recipe names no other
HIDDEN = 0  # the unknown token of the project's tokenizers stands for "hidden", in training as here


def everything(n: int, device: torch.device | str = "cpu") -> Tensor:
    """Full attention, (n, n) bool."""
    return torch.ones(n, n, dtype=torch.bool, device=device)


@torch.no_grad()
def fill_both_ways(model: GPT, tokens: Tensor, position: int) -> Tensor:
    """ln P(token at ``position`` | all others) of a masked model, (B, T) → (B, V); HIDDEN itself is ruled out.

    Raises:
        ValueError: unknown tokens, or a position outside the text.
    """
    _check(model, tokens, position, first=0)
    hidden = tokens.clone()
    hidden[:, position] = HIDDEN
    with evaluating(model):
        logits = model(hidden, mask=everything(tokens.shape[1], tokens.device))[:, position].float()
    return _without_hidden(logits).log_softmax(dim=-1)


@torch.no_grad()
def fill_from_the_left(model: GPT, tokens: Tensor, position: int) -> Tensor:
    """ln P(token at ``position`` | those before it) of a causal model, (B, T) → (B, V).

    Raises:
        ValueError: unknown tokens, or a position outside the text or with nothing before it.
    """
    _check(model, tokens, position, first=1)
    with evaluating(model):
        logits = model(tokens[:, :position], last_only=True)[:, -1].float()
    return _without_hidden(logits).log_softmax(dim=-1)


@torch.no_grad()
def fill_by_scoring(model: GPT, tokens: Tensor, position: int) -> Tensor:
    """ln P(token at ``position`` | all others) of a causal model, (B, T) → (B, V), exactly and at V times the cost.

    P(c | left, right) ∝ P(c | left) · P(right | left, c): each of the V candidates is put into the gap, and what
    follows is scored. What precedes is the same for all and cancels.

    Raises:
        ValueError: unknown tokens, or a position outside the text or with nothing before it.
    """
    _check(model, tokens, position, first=1)
    (B, T), V = tokens.shape, model.config.vocab_size
    candidates = tokens[:, None].repeat(1, V, 1)
    candidates[:, :, position] = torch.arange(V, device=tokens.device)
    scores = []
    with evaluating(model):
        for chunk in candidates.view(-1, T).split(max(1, LOGITS_AT_ONCE // (T * V))):
            logs = model(chunk[:, :-1])[:, position - 1 :].float().log_softmax(dim=-1)
            scores.append(logs.gather(-1, chunk[:, position:, None])[..., 0].sum(dim=-1))
    return _without_hidden(torch.cat(scores).view(B, V)).log_softmax(dim=-1)


@torch.no_grad()
def next_both_ways(model: GPT, tokens: Tensor) -> Tensor:
    """ln P(next token | tokens) of a masked model, (B, T) → (B, V): a hidden token is appended and predicted.

    Chained from left to right, these conditionals are a distribution over texts like any other (exercise 21.1).
    """
    appended = torch.cat([tokens, torch.full_like(tokens[:, :1], HIDDEN)], dim=1)
    with evaluating(model):
        logits = model(appended, mask=everything(appended.shape[1], tokens.device))[:, -1].float()
    return _without_hidden(logits).log_softmax(dim=-1)


def write_left_to_right(model: GPT, prompt: Tensor, n_new: int, generator: torch.Generator | None = None) -> Tensor:
    """Continue with a masked model, one appended token at a time, (B, T) → (B, T + n_new).

    Raises:
        ValueError: an empty prompt or one of unknown tokens, or fewer than 0 tokens to write.
    """
    prompt_of(prompt, model.config.vocab_size)
    tokens = prompt
    for _ in range(whole("n_new", n_new, 0)):
        drawn = sample(next_both_ways(model, tokens), generator=generator)
        tokens = torch.cat([tokens, drawn[:, None]], dim=1)
    return tokens


@torch.no_grad()
def write_in_any_order(model: GPT, prompt: Tensor, n_new: int, generator: torch.Generator | None = None) -> Tensor:
    """Continue with a masked model from an all-hidden continuation, the surest draw first, (B, T) → (B, T + n_new).

    Mask-predict (Ghazvininejad et al., 2019) with as many iterations as tokens, but for two things: tokens are drawn
    where it takes the likeliest, and what is written stays where it may hide the unsurest again.

    Raises:
        ValueError: see ``write_left_to_right``.
    """
    prompt_of(prompt, model.config.vocab_size)
    (B, T), n_new = prompt.shape, whole("n_new", n_new, 0)
    tokens = torch.cat([prompt, prompt.new_full((B, n_new), HIDDEN)], dim=1)
    rows, mask = torch.arange(B, device=prompt.device), everything(T + n_new, prompt.device)
    with evaluating(model):
        for _ in range(n_new):
            probabilities = _without_hidden(model(tokens, mask=mask).float()).softmax(dim=-1)
            drawn = sample(probabilities.log(), generator=generator)  # (B, T + n_new)
            surety = probabilities.gather(-1, drawn[..., None])[..., 0]
            surety[tokens != HIDDEN] = -1.0
            surety[:, :T] = -1.0  # an unknown token in the prompt looks like a gap and is none
            best = surety.argmax(dim=-1)
            tokens[rows, best] = drawn[rows, best]
    return tokens


def _check(model: GPT, tokens: Tensor, position: int, first: int) -> None:
    prompt_of(tokens, model.config.vocab_size)
    whole("position", position, first, tokens.shape[1] - 1)


def _without_hidden(logits: Tensor) -> Tensor:
    logits = logits.clone()
    logits[..., HIDDEN] = float("-inf")
    return logits
