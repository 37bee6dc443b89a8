"""Where the tokens of 21.23 lie in the text, under each of the three tokenizers."""

from collections.abc import Sequence

import regex

from minigpt.tokenizers import Tokenizer

# Words, marks, and each white space; cut as the tokenizer cuts them.
PIECE = regex.compile(r"\w{1,32}(?:['’]\w{1,32})*|[^\w\s]|\s")


def char_spans(text: str, tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int]]:
    """Where each token lies in the text, as characters [start, end)."""
    return [(i, i + 1) for i in range(len(ids))]


def bpe_spans(text: str, tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The same for byte pairs; a character of several bytes may belong to more than one token."""
    lengths = {i: len(token) for token, i in tokenizer.to_json()["encoder"].items()}  # one printable sign per byte
    owner = [i for i, character in enumerate(text) for _ in character.encode()]
    spans, at = [], 0
    for token in ids:
        spans.append((owner[at], owner[at + lengths[token] - 1] + 1))
        at += lengths[token]
    return spans


def word_spans(text: str, tokenizer: Tokenizer, ids: Sequence[int]) -> list[tuple[int, int]]:
    """The same for words: a space that is implied belongs to the word after it; glue has no length."""
    words, pieces = tokenizer.to_json()["words"], list(PIECE.finditer(text))
    spans, at, begin = [], 0, 0
    for token in ids:
        if words[token] == "<glue>":
            spans.append((begin, begin))
            continue
        if pieces[at][0] == " " and words[token] != " ":
            at += 1
        spans.append((begin, pieces[at].end()))
        begin = pieces[at].end()
        at += 1
    return spans


SPANS = {"characters": char_spans, "byte pairs": bpe_spans, "words": word_spans}
