"""Two tasks with labels that no letter count gives away: is a window as it was, misspelled, or out of order?"""

import random
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tasks.exercise import Context
from tasks.exercises.ex10_causal_bidirectional.findings import PAIRS
from tasks.recipes.catalogue import STUDY_ROPE


def misspell(text: str, rng: random.Random) -> str:
    """Transpose three pairs of neighbouring, different letters."""
    letters = list(text)
    for _ in range(PAIRS):
        places = [
            i
            for i in range(len(letters) - 1)
            if letters[i].isalpha() and letters[i + 1].isalpha() and letters[i] != letters[i + 1]
        ]
        if places:
            i = rng.choice(places)
            letters[i], letters[i + 1] = letters[i + 1], letters[i]
    return "".join(letters)


def reorder(text: str, rng: random.Random) -> str:
    """Shuffle the words, the first and the last apart, which the window may have cut."""
    first, *inner, last = text.split(" ") if text.count(" ") > 1 else (text, "")
    rng.shuffle(inner)
    return " ".join([first, *inner, last])[: len(text)]


CORRUPTIONS: dict[str, Callable[[str, random.Random], str]] = {"spelling": misspell, "word order": reorder}


@dataclass(frozen=True)
class Task:
    """Windows of text, half of them corrupted: as token ids (N, T), with label 1 where corrupted."""

    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor


def make_task(context: Context, name: str, length: int) -> Task:
    """Windows of the training text for the probe, of the validation text for its test; each whole and corrupted."""
    tokenizer = context.model(STUDY_ROPE).tokenizer
    rng = random.Random(int(torch.randint(2**31, (), generator=context.generator(name))))
    parts: list[Tensor] = []
    for split, wanted in (("train", "train_windows"), ("validation", "test_windows")):
        text = context.text("train" if split == "train" else "validation")
        starts = list(range(0, len(text) - length + 1, length))
        whole = [text[i : i + length] for i in rng.sample(starts, min(len(starts), context.numbers[wanted]))]
        both = [*whole, *(CORRUPTIONS[name](window, rng) for window in whole)]
        parts.append(torch.tensor([tokenizer.encode(window) for window in both], device=context.device))
        parts.append((torch.arange(len(both), device=context.device) >= len(whole)).long())
    return Task(*parts)


def letters(task: Task, vocab_size: int) -> tuple[Tensor, Tensor]:
    """Features: how often each token occurs. Both halves of a task have the same."""
    one_hot = torch.nn.functional.one_hot
    train, test = (one_hot(tokens, vocab_size).double().mean(dim=1) for tokens in (task.train, task.test))
    return train, test
