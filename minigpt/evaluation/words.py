"""Simple facts about a generated text that need no other model: are its words real, and is it copied?

What a word is, in any script: a run of letters with the marks that belong to them (vowel signs, accents, joiners) and
with apostrophes inside. Scripts that put no spaces between words, as Chinese, Japanese and Thai, do not show where a
word ends; there each character counts as a word, as by default in Unicode's rules for Chinese and Japanese (UAX #29,
https://www.unicode.org/reports/tr29/, "Default Word Boundary Specification").
"""

from collections.abc import Collection, Iterable, Sequence

import regex

from minigpt.tokenizers import Tokenizer

_ALONE = r"[\p{L}&&[\p{Ideographic}\p{Script=Hiragana}\p{Script=Katakana}\p{Line_Break=Complex_Context}]]"
_LETTER = rf"[\p{{L}}--{_ALONE}]"
_MARKS = r"[\p{M}\u200c\u200d]*"  # and the joiners of Persian and Hindi
_RUN = rf"{_LETTER}[\p{{M}}\u200c\u200d[{_LETTER}]]*"
WORD = regex.compile(rf"(?V1){_ALONE}{_MARKS}|{_RUN}(?:['’]{_RUN})*")
_LONGEST = 32  # German words have 7, lines of a table some 25
_PART = regex.compile(rf"(?V1)[\p{{M}}\u200c\u200d[{_LETTER}]]+")
_SIGNS = regex.compile(r"(?:[\p{P}\p{S}][\p{M}\p{Cf}]*)+")


def words(text: str) -> list[str]:
    """The words of a text in lower case, marks and digits left out."""
    return [word.lower() for word in WORD.findall(text)]


def spaced(text: str) -> bool:
    """Whether white space divides the words of a text: on average it comes after no more than 32 characters.

    It is not so in Chinese, Japanese or Thai, and not in what has no words.
    """
    return 0 < len(text) <= _LONGEST * len(text.split())


def letters_of_words(text: str) -> bool:
    """Whether a text is part of words that spaces divide: letters, and the marks and joiners that belong to them."""
    return _PART.fullmatch(text) is not None


def whole_words(pieces: Iterable[str]) -> frozenset[str]:
    """Words that a byte-pair vocabulary has whole, with a space before them, in lower case: the common ones."""
    return frozenset(piece[1:].lower() for piece in pieces if piece[:1] == " " and piece[1:].isalpha())


def common_words(tokenizer: Tokenizer) -> frozenset[str]:
    """``whole_words`` of all tokens of a byte-pair tokenizer."""
    return whole_words(tokenizer.decode([token]) for token in range(tokenizer.vocab_size))


def is_punctuation(text: str) -> bool:
    """Whether a text is punctuation and symbols only (Unicode categories P and S), white space aside.

    With a sign goes what only changes its looks, such as the colour of an emoji. What could not be decoded, U+FFFD, is
    no sign.
    """
    signs = text.strip()
    return "\ufffd" not in signs and _SIGNS.fullmatch(signs) is not None


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
