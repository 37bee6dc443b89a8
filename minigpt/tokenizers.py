"""Text to token ids and back: characters, words, and byte-pair encoding with GPT-2's vocabulary or one of its own.

Every tokenizer encodes any string. Characters and words that were not seen in training become one
unknown token, so only known text makes the round trip; byte-pair encoding always does. A lone surrogate, which Python's
strings can hold and Unicode text cannot, is read as the replacement character U+FFFD.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import regex

from minigpt.checks import plain_ids, whole

UNKNOWN = "\ufffd"  # U+FFFD, the replacement character


class Tokenizer(Protocol):
    """What every tokenizer can do."""

    name: str

    @property
    def vocab_size(self) -> int:
        """Number of token ids, 0 … vocab_size - 1."""

    def encode(self, text: str) -> list[int]:
        """Token ids of a text."""

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids: a list, a tensor (T,), or whatever else gives whole numbers.

        Raises:
            ValueError: an id outside 0 … vocab_size - 1, or something that is no id.
        """

    def to_json(self) -> dict[str, Any]:
        """Plain JSON types from which ``from_json`` makes an equal tokenizer."""


class CharTokenizer:
    """One token per Unicode character; id 0 is the unknown character, the others are in code-point order.

    Raises:
        ValueError: characters that are not single or not distinct, or of which the unknown one is not the first.
    """

    name = "char"

    def __init__(self, characters: Sequence[str]) -> None:
        self.characters = tuple(characters)
        if not all(isinstance(character, str) and len(character) == 1 for character in self.characters):
            raise ValueError("each of a tokenizer's characters must be a single one")
        if self.characters[:1] != (UNKNOWN,) or len(set(self.characters)) != len(self.characters):
            raise ValueError("the characters must be distinct and begin with the unknown character U+FFFD")
        self._ids = {character: i for i, character in enumerate(self.characters)}

    @classmethod
    def train(cls, text: str) -> "CharTokenizer":
        """The characters of a text.

        Raises:
            ValueError: the text is empty.
        """
        if not text:
            raise ValueError("cannot train a tokenizer on an empty text")
        return cls((UNKNOWN, *sorted(set(_readable(text)) - {UNKNOWN})))

    @property
    def vocab_size(self) -> int:
        """Distinct characters and the unknown one."""
        return len(self.characters)

    def encode(self, text: str) -> list[int]:
        """One id per character."""
        ids = self._ids
        return [ids.get(character, 0) for character in _readable(text)]

    def decode(self, ids: Iterable[int]) -> str:
        """The characters, joined; unknown ones as U+FFFD."""
        return "".join([self.characters[i] for i in plain_ids(ids, self.vocab_size)])

    def to_json(self) -> dict[str, Any]:
        """``{"name", "characters"}``."""
        return {"name": self.name, "characters": "".join(self.characters)}


class WordTokenizer:
    """One token per word or punctuation mark, most frequent first.

    A single space before a word is left out, as in written text, where it is the rule; every other white space
    is a token of its own, and a word that follows without space is preceded by ``GLUE``. So the length of a text
    is about its number of words and marks, and text of known words makes the round trip exactly.

    Raises:
        ValueError: words that are empty or not distinct, or of which ``UNK`` and ``GLUE`` are not the first.
    """

    name = "word"
    UNK, GLUE = "<unk>", "<glue>"
    # Of at most 32 characters: where no spaces are written, what stands between two marks may be anything.
    _pattern = regex.compile(r"\w{1,32}(?:['’]\w{1,32})*|[^\w\s]|\s")

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)
        if not all(isinstance(word, str) and word for word in self.words):
            raise ValueError("each of a tokenizer's words must be a text that is not empty")
        if self.words[:2] != (self.UNK, self.GLUE) or len(set(self.words)) != len(self.words):
            raise ValueError(f"the words must be distinct and begin with {self.UNK} and {self.GLUE}")
        self._ids = {word: i for i, word in enumerate(self.words)}

    @classmethod
    def train(cls, text: str, max_vocab: int = 8192, min_count: int = 1) -> "WordTokenizer":
        """The most frequent words of a text, at most ``max_vocab`` tokens with the two special ones.

        Raises:
            ValueError: the text is empty or ``max_vocab`` leaves no word.
        """
        if not text:
            raise ValueError("cannot train a tokenizer on an empty text")
        whole("max_vocab", max_vocab, 3)
        whole("min_count", min_count, 0)
        counts = Counter(cls._pattern.findall(_readable(text)))
        counts.update({" ": 0, "\n": 0})  # white space always has a token, or unseen layouts would lose it
        ranked = sorted(counts, key=lambda word: (not word.isspace(), -counts[word], word))
        frequent = [word for word in ranked if word.isspace() or counts[word] >= min_count]
        return cls((cls.UNK, cls.GLUE, *frequent[: max_vocab - 2]))

    @property
    def vocab_size(self) -> int:
        """Words, marks, white space and the two special tokens."""
        return len(self.words)

    def encode(self, text: str) -> list[int]:
        """Ids of words, marks, and of the white space that is not implied."""
        pieces = self._pattern.findall(_readable(text))
        ids: list[int] = []
        previous: int | None = None
        i = 0
        while i < len(pieces):
            piece = pieces[i]
            follower = self._ids.get(pieces[i + 1], 0) if i + 1 < len(pieces) else None
            if piece == " " and follower is not None and self._implies_space(previous, follower):
                previous = follower
                ids.append(follower)
                i += 2
                continue
            token = self._ids.get(piece, 0)
            if self._implies_space(previous, token):
                ids.append(1)
            ids.append(token)
            previous = token
            i += 1
        return ids

    def _implies_space(self, previous: int | None, token: int) -> bool:
        """Whether a space stands between two tokens that follow each other."""
        if previous is None or previous == 1 or self.words[previous].isspace():
            return False
        return token == 0 or self.words[token][0].isalnum() or self.words[token][0] == "_"

    def decode(self, ids: Iterable[int]) -> str:
        """The text, with the implied spaces; unknown words as U+FFFD."""
        text: list[str] = []
        previous: int | None = None
        for token in plain_ids(ids, self.vocab_size):
            if self._implies_space(previous, token):
                text.append(" ")
            text.append({0: UNKNOWN, 1: ""}.get(token, self.words[token]))
            previous = token
        return "".join(text)

    def to_json(self) -> dict[str, Any]:
        """``{"name", "words"}``."""
        return {"name": self.name, "words": list(self.words)}


def bytes_to_unicode() -> dict[int, str]:
    """A printable character for each of the 256 bytes, so that merges can be written as text.

    Bytes that are visible in Latin-1 stand for themselves, the other 68 move to U+0100 and after.
    Source: Radford et al. (2019), section 2.2, and the table in their released code.
    """
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {**{byte: chr(byte) for byte in visible}, **{byte: chr(256 + i) for i, byte in enumerate(hidden)}}


class BPETokenizer:
    """Byte-level byte-pair encoding as in GPT-2 (Radford et al., 2019, section 2.2; Sennrich et al., 2016).

    Text is cut into words with their leading space; the bytes of each word are merged pair by pair, the pair of
    lowest rank first. Nothing is ever unknown. ``<|endoftext|>`` in a text is ordinary text here: what a model or a
    reader wrote must not be able to smuggle in a control token.

    Args:
        encoder: token, in printable bytes, to id.
        merges: pairs of tokens, in order of rank.
        name: what reports call it.

    Raises:
        ValueError: ids with a gap or a repetition, a byte or a merged pair without id, or a token that is not written
            in printable bytes.
    """

    # Contractions, words, numbers, marks, each with one leading space, and white space not before a word.
    _pattern = regex.compile(r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")

    def __init__(self, encoder: Mapping[str, int], merges: Iterable[tuple[str, str]], name: str = "bpe") -> None:
        self.name = name
        self.encoder = dict(encoder)
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(merges)}
        self._tokens = {i: token for token, i in self.encoder.items()}
        if sorted(self._tokens) != list(range(len(self.encoder))):
            raise ValueError("the ids of the encoder must be 0, 1, 2, … without gap or repetition")
        self._byte_to_char = bytes_to_unicode()
        merged = {left + right for left, right in self.ranks}
        if not self.encoder.keys() >= {*self._byte_to_char.values(), *merged}:
            raise ValueError("the encoder must have an id for each of the 256 bytes and for each merged pair")
        if not set("".join(self.encoder)) <= set(self._byte_to_char.values()):
            raise ValueError("the encoder's tokens must be written in the 256 printable bytes")
        self._char_to_byte = {character: byte for byte, character in self._byte_to_char.items()}
        self._encode_word = lru_cache(maxsize=65_536)(self._merge)

    @classmethod
    def from_files(cls, encoder: Path | str, merges: Path | str, name: str = "bpe") -> "BPETokenizer":
        """From GPT-2's ``encoder.json`` (or ``vocab.json``) and ``vocab.bpe`` (or ``merges.txt``)."""
        lines = Path(merges).read_text(encoding="utf-8").split("\n")
        pairs = [tuple(line.split()) for line in lines if line and not line.startswith("#version")]
        return cls(
            json.loads(Path(encoder).read_text(encoding="utf-8")), [(left, right) for left, right in pairs], name
        )

    @classmethod
    def train(cls, text: str, vocab_size: int, name: str = "bpe") -> "BPETokenizer":
        """The pairs that are most frequent in a text, merged one after another until there are ``vocab_size`` tokens.

        The 256 bytes come first. There are fewer tokens where no pair is left that occurs twice.

        Raises:
            ValueError: the text is empty, or there is no room for the bytes.
        """
        if not text or vocab_size < 256:
            raise ValueError("cannot train byte pairs on an empty text or with fewer than 256 tokens")
        from tokenizers import Tokenizer, models, pre_tokenizers, trainers  # here: a trained one works without

        trained = Tokenizer(models.BPE())
        trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # cuts words as ``_pattern`` does
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trained.train_from_iterator(
            [text],
            trainers.BpeTrainer(
                vocab_size=vocab_size,
                min_frequency=2,
                initial_alphabet=alphabet,
                special_tokens=[],
                show_progress=False,
            ),
        )
        found = json.loads(trained.to_str())["model"]
        return cls(found["vocab"], [(left, right) for left, right in found["merges"]], name)

    @property
    def vocab_size(self) -> int:
        """50,257 for GPT-2."""
        return len(self.encoder)

    @property
    def end_of_text(self) -> int | None:
        """Id of the token between documents, where the vocabulary has one."""
        return self.encoder.get("<|endoftext|>")

    def encode(self, text: str) -> list[int]:
        """Ids of the merged byte pairs."""
        return [i for word in self._pattern.findall(_readable(text)) for i in self._encode_word(word)]

    def _merge(self, word: str) -> tuple[int, ...]:
        parts = [self._byte_to_char[byte] for byte in word.encode("utf-8")]
        while len(parts) > 1:
            best = min(itertools.pairwise(parts), key=lambda pair: self.ranks.get(pair, len(self.ranks)))
            if best not in self.ranks:
                break
            parts = _merge_pair(parts, best)
        return tuple(self.encoder[part] for part in parts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text; bytes that are not UTF-8 as U+FFFD."""
        characters = "".join([self._tokens[i] for i in plain_ids(ids, self.vocab_size)])
        return bytes([self._char_to_byte[character] for character in characters]).decode("utf-8", errors="replace")

    def to_json(self) -> dict[str, Any]:
        """``{"name", "kind", "encoder", "merges"}``."""
        return {"name": self.name, "kind": "bpe", "encoder": self.encoder, "merges": [list(p) for p in self.ranks]}


def _readable(text: str) -> str:
    """The same text; surrogates in pairs as the character that they stand for, lone ones as U+FFFD."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16", errors="surrogatepass").decode("utf-16", errors="replace")
    return text


def _merge_pair(parts: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of a pair, from left to right."""
    merged: list[str] = []
    i = 0
    while i < len(parts):
        if i + 1 < len(parts) and (parts[i], parts[i + 1]) == pair:
            merged.append(parts[i] + parts[i + 1])
            i += 2
        else:
            merged.append(parts[i])
            i += 1
    return merged


def from_json(data: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer that ``to_json`` described.

    Raises:
        ValueError: the data describe none.
    """
    if not isinstance(data, Mapping):
        raise ValueError(f"not a tokenizer: {type(data).__name__}")
    try:
        if data.get("kind") == "bpe":
            return BPETokenizer(data["encoder"], [(left, right) for left, right in data["merges"]], data["name"])
        if data.get("name") == "char":
            return CharTokenizer(data["characters"])
        if data.get("name") == "word":
            return WordTokenizer(data["words"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a tokenizer: {error!r}") from error
    raise ValueError(f"no tokenizer is called {data.get('name')!r}")
