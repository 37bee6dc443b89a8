"""Completing words: is the next word, letter by letter, what the model would write without any luck?

The task of Paperno et al. (2016, "The LAMBADA dataset") for models of characters: given what stands before a word, the
greedy continuation must be that word and then end it. Whether it is can be read off one pass over the true text: up to
its first error a greedy writer has read nothing but the truth.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


@dataclass(frozen=True)
class Word:
    """A word in a batch of windows: tokens ``first`` … ``end`` - 1 of row ``row``; ``end`` is what ends it."""

    row: int
    first: int
    end: int


def words_after(windows: Tensor, is_letter: Tensor, start: int, shortest: int) -> list[Word]:
    """Words of (B, N) tokens that begin at ``start`` or later and end within the window.

    ``is_letter`` (V,) says which tokens are letters. Words have at least ``shortest`` of them.
    """
    found = []
    for row, letters in enumerate(is_letter[windows].tolist()):
        first = None
        for i in range(max(1, start), len(letters)):
            if letters[i] and not letters[i - 1]:
                first = i
            elif not letters[i] and first is not None:
                if i - first >= shortest:
                    found.append(Word(row, first, i))
                first = None
    return found


@torch.inference_mode()
def completed(
    model: GPT,
    windows: Tensor,  # (B, N) int64
    words: list[Word],
    *,
    prefix: int = 0,
    given: int | None = None,
    batch_size: int = 64,
) -> list[bool]:
    """Whether the model completes each word, given all of its window before it or only the last ``given`` tokens.

    The first ``prefix`` tokens of what is given are read with full attention; all words begin after them.

    Raises:
        ValueError: a word that begins before ``prefix`` or ``given`` tokens.
    """
    before = max(prefix, given or 1)
    if any(word.first < before for word in words):
        raise ValueError(f"a word begins before {before} tokens are given")
    if given is None:
        rows, places = windows, words
    else:
        longest = max((word.end - word.first for word in words), default=0) + 1
        rows = (
            torch.stack([_cut(windows[w.row], w.first - given, given + longest) for w in words]) if words else windows
        )
        places = [Word(i, given, given + w.end - w.first) for i, w in enumerate(words)]
    with evaluating(model):
        best = torch.cat([model(part[:, :-1], prefix=prefix).argmax(dim=-1) for part in rows.split(batch_size)])
    right = best == rows[:, 1:]  # at i: whether token i + 1 is what the model would write
    return [bool(right[w.row, w.first - 1 : w.end].all()) for w in places]


def _cut(row: Tensor, first: int, length: int) -> Tensor:
    """So many tokens from ``first`` on; what would lie beyond the row's end is its last token, which nothing sees."""
    return row[torch.arange(first, first + length, device=row.device).clamp(max=len(row) - 1)]
