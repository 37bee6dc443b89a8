"""How well generated texts are made, by what can be counted: spelling, word pairs, repetition, copying.

Each measure is one of a text's own, held against a source (the training text) and comparable with what a held-out text
of the same length scores. None of them sees sense: a text may pass all of them and mean nothing.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

from minigpt.evaluation.diversity import repetition
from minigpt.evaluation.words import WORD, longest_copy

INVENTED = 6  # words that are quoted


@dataclass(frozen=True)
class Craft:
    """Some texts, one value per text; the word with which a text begins or ends may be cut, and counts nowhere."""

    spelled: tuple[float, ...]  # share of the words that occur in the source
    paired: tuple[float, ...]  # share of the neighbouring words that are neighbours in the source, too
    repeated: tuple[float, ...]  # share of the 8-grams of characters that the text had before
    copied: tuple[int, ...]  # characters of the longest run that the source has, too
    invented: tuple[str, ...]  # words that neither the source nor the common ones beside it have, the first few
    fluent: str  # the longest run of words of which all neighbours are neighbours in the source


@dataclass(frozen=True)
class _Words:
    """The words of a text in lower case, with their places."""

    words: tuple[str, ...]
    spans: tuple[tuple[int, int], ...]


class Source:
    """A text whose words and word pairs count as known.

    ``common`` are words, in lower case, that nobody would call invented though the text does not have them ("has" in a
    Bible that writes "hath"). They are not quoted as such; the shares go by the text alone.
    """

    def __init__(self, text: str, common: Collection[str] = ()) -> None:
        words = _words(text).words
        self.text, self.words, self.pairs = text, frozenset(words), frozenset(pairwise(words))
        self.common = self.words.union(common)

    def judge(self, texts: Sequence[str]) -> Craft:
        """Texts that go on from a prompt. Where a text has no words, or no pair of them, its share is 0.

        Raises:
            ValueError: no text.
        """
        if not texts:
            raise ValueError("there is no text to judge")
        found = [_words(text, inner=True) for text in texts]
        invented = dict.fromkeys(word for text in found for word in text.words if word not in self.common)
        return Craft(
            spelled=tuple(_share([word in self.words for word in text.words]) for text in found),
            paired=tuple(_share([pair in self.pairs for pair in pairwise(text.words)]) for text in found),
            repeated=tuple(repetition(text, 8) for text in texts),
            copied=tuple(longest_copy(text, self.text) for text in texts),
            invented=tuple(invented)[:INVENTED],
            fluent=max((self._fluent(text, of) for text, of in zip(texts, found, strict=True)), key=len),
        )

    def _fluent(self, text: str, found: _Words) -> str:
        best, start = (0, 0), 0
        for end in range(len(found.words)):
            if end and (found.words[end - 1], found.words[end]) not in self.pairs:
                start = end
            if found.words[end] not in self.words:
                start = end + 1
            elif end + 1 - start > best[1] - best[0]:
                best = (start, end + 1)
        if best[0] == best[1]:
            return ""
        return " ".join(text[found.spans[best[0]][0] : found.spans[best[1] - 1][1]].split())


def _words(text: str, *, inner: bool = False) -> _Words:
    """As ``minigpt.evaluation.words.words``; ``inner`` leaves out the first and the last."""
    found = list(WORD.finditer(text))
    found = found[1:-1] if inner else found
    return _Words(tuple(match[0].lower() for match in found), tuple(match.span() for match in found))


def _share(known: Sequence[bool]) -> float:
    return sum(known) / len(known) if known else 0.0
