"""The models and the prompts of 21.18, and what the writing model itself thinks of a text."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.evaluation.evaluate import token_losses
from minigpt.evaluation.excerpts import spread_starts
from minigpt.evaluation.words import words
from minigpt.model import GPT
from minigpt.pretrained.quick import quick
from tasks.exercise import Context, Pretrained
from tasks.exercises.ex18_beam_search.findings import PROMPT
from tasks.recipes.catalogue import SMALL_LONG


@dataclass(frozen=True)
class Lab:
    """The models and the prompts."""

    context: Context
    model: GPT
    tokenizer: Any
    judge: Pretrained
    scorer: Any  # the judge, for many texts
    rows: Tensor  # (N, PROMPT + n_new): prompts with their human continuation
    prompts: tuple[str, ...]
    known: frozenset[str]

    @property
    def n_new(self) -> int:
        """Characters to write."""
        return self.rows.shape[1] - PROMPT

    def decode(self, rows: Tensor) -> list[str]:
        """Continuations as text."""
        return [self.tokenizer.decode(row) for row in rows[:, PROMPT:].tolist()]


def prepare(context: Context) -> Lab:
    """Prompts that begin and end with a word, evenly spread over the held-out text."""
    trained, n = context.model(SMALL_LONG), context.numbers
    text, tokens = context.text(), context.tokens(SMALL_LONG)
    n_new = min(n["new"], len(text) // 4)
    starts = torch.tensor(spread_starts(text, n["prompts"], len(text) - PROMPT - n_new, PROMPT), device=tokens.device)
    rows = tokens[starts[:, None] + torch.arange(PROMPT + n_new, device=tokens.device)]
    prompts = tuple(trained.tokenizer.decode(row) for row in rows[:, :PROMPT].tolist())
    known = frozenset(words(context.text("train")))
    judge = context.pretrained()
    scorer = quick(judge.model, context.precision)
    return Lab(context, trained.model, trained.tokenizer, judge, scorer, rows, prompts, known)


def own_loss(model: GPT, text: Tensor) -> float:
    """Mean loss of the new characters of (PROMPT + n,), each after all that the model saw when it wrote it."""
    return token_losses(model, text, stride=1)[PROMPT - 1 :].double().mean().item()
