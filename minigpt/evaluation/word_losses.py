"""From the losses of tokens to those of words, whatever the tokens are: pieces of words, characters, or words.

    text    And thou shalt set the candlestick over against the table.
    pieces  And| thou| sh|alt| set| the| cand|lest|ick| over| against| the| table|.
    words   And, thou, shalt, …        a word's loss is the sum over its pieces; its first piece has to choose the word

A piece belongs to the word whose letters it holds; the white space before a word is part of its first piece where the
tokenizer has it so, and a token of its own with characters. Positions count from 0.
"""

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import regex

from minigpt.evaluation.function_words import is_function_word
from minigpt.evaluation.words import WORD, is_punctuation

_STOP = regex.compile(r"\p{Sentence_Terminal}")  # . ? ! and those of other scripts, as 。 । ؟
_BLANK_LINE = re.compile(r"\n\s*\n")


@dataclass(frozen=True)
class Word:
    """A word of a scored text."""

    text: str
    start: int  # of its first character in the text
    pieces: range  # of the scored tokens
    loss: float  # sum over the pieces, nats
    first: float  # of the first piece alone, nats
    position: int  # of the first piece in its window
    sentence: int  # number of the sentence
    place: int | None  # of the word in its sentence; None before the first beginning of one that is in the text
    whole: bool  # False: it stands at the edge of the text, which may have cut it

    @property
    def function(self) -> bool:
        """Of a closed class, see ``minigpt.evaluation.function_words``."""
        return is_function_word(self.text)


def begins_sentence(between: str, word: str) -> bool:
    """Whether a word begins a sentence, by what stands between it and the word before it.

    It does after a full stop, a question mark or an exclamation mark of any script, where it has a capital or its
    script has none, and after a blank line. Abbreviations are not known: "Mr. Smith" makes two.
    """
    return (not word[:1].islower() and bool(_STOP.search(between))) or bool(_BLANK_LINE.search(between))


def sentence_starts(text: str) -> list[int]:
    """Where the words that begin a sentence stand, the first word of the text excepted."""
    spans = [(match.start(), match.end(), match[0]) for match in WORD.finditer(text)]
    pairs = itertools.pairwise(spans)
    return [start for (_, end, _), (start, _, word) in pairs if begins_sentence(text[end:start], word)]


def words_of(text: str, ends: Sequence[int], losses: Sequence[float], window: int) -> list[Word]:
    """The words of a text whose pieces end at ``ends`` (N,) and have ``losses`` (N,), read in windows of ``window``.

    A piece that holds letters of two words counts for the first; a word that is left without a piece is left out.

    Raises:
        ValueError: the pieces do not end in order, or not with the text.
    """
    if len(ends) != len(losses) or list(ends) != sorted(ends) or (ends and ends[-1] != len(text)):
        raise ValueError(f"{len(ends)} pieces with {len(losses)} losses do not cover a text of {len(text)} characters")
    starts, found = set(sentence_starts(text)), list[Word]()
    sentence, place, free = 0, None, 0  # free: the first piece that no word has
    for match in WORD.finditer(text):
        if match.start() in starts:
            sentence, place = sentence + 1, 0
        elif place is not None:
            place += 1
        stop = max(bisect_left(ends, match.end()) + 1, bisect_right(ends, match.end()))  # parts of one letter too
        own = range(max(free, bisect_right(ends, match.start())), stop)
        if not own:
            continue
        free = own.stop
        whole = match.start() > 0 and match.end() < len(text)
        loss, first = sum(losses[piece] for piece in own), losses[own.start]
        found.append(Word(match[0], match.start(), own, loss, first, own.start % window, sentence, place, whole))
    return found


FUNCTION, CONTENT, LATER = "function word, first piece", "content word, first piece", "later piece of a word"
MARK, SPACE, OTHER = "punctuation", "white space", "other"
KINDS = (FUNCTION, CONTENT, LATER, MARK, SPACE, OTHER)


def kinds_of_pieces(pieces: Sequence[str], words: Sequence[Word]) -> list[str]:
    """What each piece of a text is: one of the six kinds above. Pieces of words that are cut are ``OTHER``."""
    kinds = [MARK if is_punctuation(piece) else OTHER if piece.strip() else SPACE for piece in pieces]
    for word in words:
        for piece in word.pieces:
            kinds[piece] = LATER if word.whole else OTHER
        if word.whole:
            kinds[word.pieces.start] = FUNCTION if word.function else CONTENT
    return kinds


def names_in(text: str) -> frozenset[str]:
    """Words, in lower case, that have a capital wherever they stand in a text, and somewhere not at a sentence's start.

    Function words are no names: "I" is written with a capital for another reason.
    """
    starts, inner, lower = set(sentence_starts(text)), set[str](), set[str]()
    for i, match in enumerate(WORD.finditer(text)):
        if not match[0][:1].isupper():
            lower.add(match[0].lower())
        elif i and match.start() not in starts:
            inner.add(match[0].lower())
    return frozenset(word for word in inner - lower if not is_function_word(word))


@dataclass(frozen=True)
class Token:
    """A scored token, and what is known about it."""

    index: int  # among the scored tokens
    piece: str
    loss: float  # nats
    kind: str
    word: Word | None
    name: bool  # of a word that is written like a name
    rare: bool  # of a word that is rare in a reference text
    begins: bool  # the first piece of a sentence's first word
    seen: bool  # it followed the same token earlier in its window: it could be copied


def describe(
    pieces: Sequence[str],
    ids: Sequence[int],
    losses: Sequence[float],
    words: Sequence[Word],
    window: int,
    *,
    names: Collection[str],
    rare: Callable[[str], bool],
) -> list[Token]:
    """Every scored token of a text (N,) with what is known about it; ``ids`` (N + 1,) begin with the one not scored.

    ``names`` are in lower case, and ``rare`` is asked for a word in lower case.
    """
    kinds = kinds_of_pieces(pieces, words)
    owner = {piece: word for word in words for piece in word.pieces}
    found, pairs = list[Token](), set[tuple[int, int]]()
    for i, pair in enumerate(itertools.pairwise(ids)):
        if i % window == 0:
            pairs.clear()
        word = owner.get(i)
        lower = word.text.lower() if word and word.whole else ""
        begins = word is not None and word.place == 0 and word.pieces.start == i
        flags = (lower in names, bool(lower) and rare(lower), begins, pair in pairs)
        found.append(Token(i, pieces[i], losses[i], kinds[i], word, *flags))
        pairs.add(pair)
    return found
