"""The scored text of 21.24: the loss of each of its tokens, its words, and the passage at its beginning."""

import bisect
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.evaluation.word_losses import Token, Word, describe, names_in, sentence_starts, words_of
from minigpt.evaluation.words import words as words_in
from minigpt.pretrained.causal_lm import ScoredText, first_choices, row_losses, score_text, target_windows
from minigpt.pretrained.limits import context_of
from tasks.exercise import Context
from tasks.exercises.ex24_loss_decomposition.findings import BOUNDS, RARE
from tasks.exercises.ex24_loss_decomposition.modern import MODERN


@dataclass(frozen=True)
class Reading:
    """A text under the model."""

    before: str  # the first token, which nothing precedes
    text: ScoredText
    ids: Tensor  # (N + 1,)
    window: int
    words: list[Word]
    tokens: list[Token]
    passage: int  # scored tokens shown
    choices: list[tuple[str, float]]  # of the passage: the likeliest token and its probability
    alone: Tensor  # losses of the passage scored by itself

    @property
    def whole_words(self) -> list[Word]:
        """Those that the edges of the text do not cut."""
        return [word for word in self.words if word.whole]


def read(ctx: Context) -> Reading:
    """Score held-out text from the start of a sentence on, and find its words."""
    text = ctx.text("validation")
    return _read(ctx, "losses", text[next(iter(sentence_starts(text[: min(5_000, len(text) // 2)])), 0) :], 0.05)


def read_modern(ctx: Context) -> Reading:
    """The same of the modern passage, which is shorter."""
    return _read(ctx, "modern losses", MODERN, 0.8)


def _read(ctx: Context, key: str, whole: str, start: float) -> Reading:
    pretrained = ctx.pretrained()
    ctx.progress(start, f"scoring up to {ctx.numbers['tokens']:,} tokens with {pretrained.name}")
    text, ids = score(ctx, key, whole)
    window = min(ctx.numbers["window"], context_of(pretrained.model), text.tokens)
    passage = min(ctx.numbers["passage"], text.tokens)
    rows = target_windows(ids[: passage + 1].to(ctx.device), window)
    chosen = [first_choices(pretrained.model, row) for row in rows]
    choices = [
        (pretrained.tokenizer.decode([token]), p)
        for tokens, probabilities in chosen
        for token, p in zip(tokens.flatten().tolist(), probabilities.flatten().tolist(), strict=True)
    ]
    alone = torch.cat([row_losses(pretrained.model, row).flatten() for row in rows]).cpu()
    words = words_of(text.text, text.ends, text.losses.tolist(), window)
    tokens = tokens_of(ctx, text, ids, words, window)
    before = pretrained.tokenizer.decode(ids[:1].tolist())
    return Reading(before, text, ids, window, words, tokens, passage, choices, alone)


def score(ctx: Context, key: str, text: str) -> tuple[ScoredText, Tensor]:
    """A text's losses, kept as ``key`` while the exercise runs, and the ids of all its tokens, the first included."""
    pretrained, n = ctx.pretrained(), ctx.numbers

    def compute() -> list[Any]:
        scored = score_text(
            pretrained.model, pretrained.tokenizer, text, tokens=n["tokens"], window=n["window"], batch_size=n["batch"]
        )
        return [scored.losses.tolist(), scored.pieces, scored.text, scored.ends]

    losses, pieces, covered, ends = ctx.once(key, compute)
    ids = pretrained.tokenizer(text, add_special_tokens=False)["input_ids"][: len(losses) + 1]
    return ScoredText(torch.tensor(losses), tuple(pieces), covered, tuple(ends)), torch.tensor(ids)


def tokens_of(ctx: Context, text: ScoredText, ids: Tensor, words: list[Word], window: int) -> list[Token]:
    """The scored tokens; names and rare words by the training text."""
    train = ctx.text("train")
    names, counts = names_in(f"{train}\n\n{text.text}"), Counter(words_in(train))
    least = sum(counts.values()) / RARE
    losses = text.losses.tolist()
    return describe(
        text.pieces, ids.tolist(), losses, words, window, names=names, rare=lambda word: counts[word] < least
    )


def position_bin(position: int) -> int:
    """Which bin a position in the window is in."""
    return bisect.bisect_right(BOUNDS, position)
