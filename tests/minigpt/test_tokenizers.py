"""Byte-pair encoding equals Transformers'; words and characters make the round trip."""

import functools
import itertools
import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2TokenizerFast

from minigpt.tokenizers import (
    UNKNOWN,
    BPETokenizer,
    CharTokenizer,
    Tokenizer,
    WordTokenizer,
    bytes_to_unicode,
    from_json,
)
from tests.exercise_context import bible, gpt2_bpe

TEXT = bible()[:30_000]
TRICKY = [
    "",
    " ",
    "  ",
    "\n\n\t \r\n",
    "Hello world",
    " leading and trailing ",
    "it's we'll I'D they've you're I'm he'd ''s",
    "3.14159 1,000,000 x²  ½ Ⅷ",
    "naïve café ÆSOP æ — “quoted” … don’t",
    "日本語のテキスト 中文 한국어 العربية हिन्दी",
    "🙂👩‍👩‍👧‍👦🏳️‍🌈",
    "a\u0301 \u00a0 \u200b \u2028 \ufeff",
    "def f(x):\n    return x ** 2  # comment\n\n\n",
    "<|endoftext|> is ordinary text <|endoftext|>",
    "\x00\x01\x7f",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
]
anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)


@functools.cache
def theirs() -> GPT2TokenizerFast:
    ours = gpt2_bpe()
    return GPT2TokenizerFast(vocab=ours.encoder, merges=list(ours.ranks), split_special_tokens=True)


def test_the_vocabulary_is_gpt2s() -> None:
    tokenizer = gpt2_bpe()
    assert tokenizer.vocab_size == 50_257
    assert len(tokenizer.ranks) == 50_000
    assert tokenizer.end_of_text == 50_256
    assert tokenizer.encode("Hello world") == [15496, 995]  # as published everywhere


@pytest.mark.parametrize("text", [*TRICKY, TEXT], ids=lambda text: repr(text[:12]))
def test_byte_pairs_equal_transformers(text: str) -> None:
    ids = gpt2_bpe().encode(text)
    assert ids == theirs()(text).input_ids
    assert gpt2_bpe().decode(ids) == text


def test_byte_pairs_equal_transformers_on_code() -> None:
    text = Path(json.__file__).read_text(encoding="utf-8")
    assert gpt2_bpe().encode(text) == theirs()(text).input_ids


@settings(max_examples=300, deadline=None)
@given(text=anything)
def test_byte_pairs_equal_transformers_on_anything(text: str) -> None:
    ours = gpt2_bpe()
    ids = ours.encode(text)
    assert ids == theirs()(text).input_ids
    assert ours.decode(ids) == text


def test_half_a_character_decodes_to_the_replacement_character() -> None:
    ids = gpt2_bpe().encode("日")
    assert len(ids) > 1
    assert UNKNOWN in gpt2_bpe().decode(ids[:1])


def test_every_byte_has_a_printable_character_of_its_own() -> None:
    table = bytes_to_unicode()
    assert sorted(table) == list(range(256))
    assert len(set(table.values())) == 256
    assert not any(character.isspace() or not character.isprintable() for character in table.values())


# --- characters ---------------------------------------------------------------------------------------------------


def test_characters_are_the_texts_own_and_one_unknown() -> None:
    tokenizer = CharTokenizer.train("hello world")
    assert tokenizer.vocab_size == len(set("hello world")) + 1
    assert tokenizer.encode("low") == [tokenizer.characters.index(c) for c in "low"]
    assert tokenizer.decode(tokenizer.encode("hello")) == "hello"
    assert tokenizer.decode(tokenizer.encode("hXllo")) == f"h{UNKNOWN}llo"
    assert CharTokenizer.train(f"a{UNKNOWN}").vocab_size == 2


@given(text=anything.filter(bool))
def test_characters_make_the_round_trip(text: str) -> None:
    tokenizer = CharTokenizer.train(text)
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert len(ids) == len(text)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)


# --- words --------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(text=anything.filter(bool))
def test_known_words_make_the_round_trip_whatever_stands_between_them(text: str) -> None:
    assert WordTokenizer.train(text).decode(WordTokenizer.train(text).encode(text)) == text


@settings(max_examples=200)
@given(text=st.text("ab ,.'\n_1", max_size=40).filter(bool))
def test_known_words_make_the_round_trip_in_dense_punctuation(text: str) -> None:
    tokenizer = WordTokenizer.train(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("text", [text for text in TRICKY if text] + [TEXT], ids=lambda text: repr(text[:12]))
def test_words_of_tricky_texts_make_the_round_trip(text: str) -> None:
    tokenizer = WordTokenizer.train(text)
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_words_single_space_is_no_token() -> None:
    tokenizer = WordTokenizer.train("the cat sat, the dog ran.")
    ids = tokenizer.encode("the dog sat, the cat ran.")
    assert [tokenizer.words[i] for i in ids] == ["the", "dog", "sat", ",", "the", "cat", "ran", "."]


def test_words_are_ranked_by_frequency() -> None:
    tokenizer = WordTokenizer.train("b b b a a c " * 3, max_vocab=6)
    assert tokenizer.words == ("<unk>", "<glue>", " ", "\n", "b", "a")
    assert tokenizer.decode(tokenizer.encode("b c a")) == f"b {UNKNOWN} a"
    assert WordTokenizer.train("a a a b c c", min_count=2).words[4:] == ("a", "c")


@settings(max_examples=200)
@given(text=anything, known=st.text("ab ,", min_size=1, max_size=20))
def test_unknown_words_become_one_token_each(text: str, known: str) -> None:
    tokenizer = WordTokenizer.train(known)
    ids = tokenizer.encode(text)
    assert all(0 <= i < tokenizer.vocab_size for i in ids)
    assert tokenizer.encode(text) == ids
    assert isinstance(tokenizer.decode(ids), str)


# --- all ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "tokenizer", [CharTokenizer.train(TEXT), WordTokenizer.train(TEXT, 500), gpt2_bpe()], ids=lambda t: t.name
)
def test_the_way_through_json(tokenizer: Tokenizer) -> None:
    copy = from_json(json.loads(json.dumps(tokenizer.to_json())))
    assert type(copy) is type(tokenizer)
    assert (copy.name, copy.vocab_size) == (tokenizer.name, tokenizer.vocab_size)
    for text in (*TRICKY, TEXT[:3000]):
        assert copy.encode(text) == tokenizer.encode(text)


@pytest.mark.parametrize(
    "data",
    [{}, {"name": "chars"}, {"name": "char"}, {"name": "char", "characters": "ab"}, {"name": "word", "words": ["a"]}],
    ids=str,
)
def test_damaged_json_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"tokenizer|distinct"):
        from_json(data)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="empty"):
        CharTokenizer.train("")
    with pytest.raises(ValueError, match="empty"):
        WordTokenizer.train("")
    with pytest.raises(ValueError, match="empty"):
        BPETokenizer.train("", 300)
    with pytest.raises(ValueError, match="fewer than 256"):
        BPETokenizer.train("abc", 255)
    with pytest.raises(ValueError, match="ids of the encoder"):
        BPETokenizer({"a": 0, "b": 2}, [])


# --- Byte pairs trained on a text -----------------------------------------------------------------------------

PHRASES = "low lower lowest, new newer newest; wide wider widest. " * 3 + "the wind in the willows; 1984 naïve ☃ "


def test_every_trained_merge_is_of_a_most_frequent_pair() -> None:
    """The definition (Sennrich et al., 2016, algorithm 1), counted anew before every merge."""
    trained = BPETokenizer.train(PHRASES, 270)
    words = [tuple(bytes_to_unicode()[b] for b in word.encode()) for word in BPETokenizer._pattern.findall(PHRASES)]
    assert len(trained.ranks) == 14
    for left, right in trained.ranks:
        counts = Counter(pair for word in words for pair in itertools.pairwise(word))
        assert counts[left, right] == max(counts.values()) >= 2
        words = [merged(word, left, right) for word in words]


def merged(word: tuple[str, ...], left: str, right: str) -> tuple[str, ...]:
    out: list[str] = []
    for part in word:
        if out and out[-1] == left and part == right:
            out[-1] = left + right
        else:
            out.append(part)
    return tuple(out)


def test_trained_pairs_lose_nothing_and_are_the_same_each_time() -> None:
    trained = BPETokenizer.train(PHRASES, 270, "bpe-small")
    assert trained.vocab_size == 270
    for text in (PHRASES, "never seen: Ελλάς 東京 \x00\n\n\tend"):
        assert trained.decode(trained.encode(text)) == text
    assert len(trained.encode(PHRASES)) < len(PHRASES) / 2
    again = from_json(json.loads(json.dumps(trained.to_json())))
    assert again.name == "bpe-small"
    assert again.encode(PHRASES) == trained.encode(PHRASES)
    assert BPETokenizer.train(PHRASES, 270, "bpe-small").to_json() == trained.to_json()


def test_a_short_text_gives_fewer_pairs_than_asked_for() -> None:
    assert BPETokenizer.train("ab ab", 4_096).vocab_size < 262
