"""Does a text repeat itself, and do texts differ from one another?"""

from collections.abc import Hashable, Sequence

from minigpt.checks import whole


def ngrams(sequence: Sequence[Hashable], n: int) -> list[tuple[Hashable, ...]]:
    """All runs of ``n`` neighbours, in order; none where the sequence is shorter.

    Raises:
        ValueError: n is below 1.
    """
    if whole("n", n) < 1:
        raise ValueError(f"n must be at least 1, got {n}")
    return [tuple(sequence[i : i + n]) for i in range(len(sequence) - n + 1)]


def repetition(sequence: Sequence[Hashable], n: int) -> float:
    """Share of a text's n-grams that occurred before in it: seq-rep-n = 1 - distinct / all.

    Source: Welleck et al. (2020), https://arxiv.org/abs/1908.04319, section 6. 0 for a text shorter than n.
    """
    found = ngrams(sequence, n)
    return 1.0 - len(set(found)) / len(found) if found else 0.0


def distinct(sequences: Sequence[Sequence[Hashable]], n: int) -> float:
    """Distinct n-grams of several texts together, over all of their n-grams: distinct-n.

    Source: Li et al. (2016), https://arxiv.org/abs/1510.03055, section 5. Falls with the amount of text: compare equal
    amounts only. 0 where there are no n-grams.
    """
    found = [gram for sequence in sequences for gram in ngrams(sequence, n)]
    return len(set(found)) / len(found) if found else 0.0
