"""Text that stands on both sides of a split: lines that are said twice, and what is left of it in shorter runs.

A corpus of songs or sayings repeats whole lines. A held-out line that was trained on measures memory, so it goes from
the training text: what is measured stays as it is.
"""

from minigpt.evaluation.diversity import ngrams
from minigpt.evaluation.words import words

LONG = 20  # characters: shorter lines are common phrases


def said(line: str) -> str:
    """The words of a line, whatever their case and what stands between them: lines that say the same are equal."""
    return " ".join(word.casefold() for word in words(line))


def shared_lines(train: str, held_out: str) -> list[str]:
    """Lines of the training text, of more than ``LONG`` characters, that say what a line of the held-out text says."""
    known = {said(line) for line in held_out.splitlines() if len(line) > LONG} - {""}
    return [line for line in train.splitlines() if len(line) > LONG and said(line) in known]


def without_shared_lines(train: str, held_out: str) -> str:
    """The training text without them.

    Where they are more than half of it, the text is few lines that come again and again; it then stays as it is.
    """
    shared = set(shared_lines(train, held_out))
    kept = "".join(line for line in train.splitlines(keepends=True) if line.splitlines()[0] not in shared)
    return kept if 2 * len(kept) > len(train) else train


def shared_runs(train: str, held_out: str, length: int = 8) -> float:
    """Share of the held-out text's runs of so many words that stand in the training text, too; 0 where it has none."""
    known = set(ngrams([word.casefold() for word in words(train)], length))
    found = ngrams([word.casefold() for word in words(held_out)], length)
    return sum(run in known for run in found) / len(found) if found else 0.0
