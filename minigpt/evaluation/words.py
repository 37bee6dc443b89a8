"""Simple facts about a generated text that need no other model: are its words real, and is it copied?"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Sequence

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")


def words(text: str) -> list[str]:
    """The words of a text in lower case, marks and digits left out."""
    return [word.lower() for word in WORD.findall(text)]


def whole_words(pieces: Iterable[str]) -> frozenset[str]:
    """Words that a byte-pair vocabulary has whole, with a space before them, in lower case: the common ones."""
    return frozenset(piece[1:].lower() for piece in pieces if piece[:1] == " " and piece[1:].isalpha())


def is_punctuation(text: str) -> bool:
    """Whether a text is marks and symbols only (Unicode categories P and S), white space aside.

    What could not be decoded, U+FFFD, is no mark.
    """
    marks = text.strip()
    return bool(marks) and "\ufffd" not in marks and all(unicodedata.category(mark)[0] in "PS" for mark in marks)


def share_of_real_words(texts: Sequence[str], known: Collection[str], *, cut_start: bool = False) -> float:
    """Share of the words in all texts that are among ``known``, in lower case; 0 where there are no words.

    The last word of each text does not count: where the text ends, it may be cut. Nor does the first with
    ``cut_start``: a text that goes on from a prompt may begin in the middle of a word.
    """
    found = [word for text in texts for word in words(text)[int(cut_start) : -1]]
    return sum(word in known for word in found) / max(1, len(found))


def longest_copy(text: str, source: str) -> int:
    """Characters of the longest run of ``text`` that occurs in ``source``."""
    longest = 0
    for start in range(len(text)):
        while start + longest < len(text) and text[start : start + longest + 1] in source:
            longest += 1
    return longest
