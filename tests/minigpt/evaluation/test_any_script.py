"""What is asked of a text has an answer in any script: properties that hold for pieces of every kind of text."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.evaluation.craft import Source
from minigpt.evaluation.excerpts import opening, spread_starts
from minigpt.evaluation.overlap import shared_lines, without_shared_lines
from minigpt.evaluation.word_losses import KINDS as PIECES
from minigpt.evaluation.word_losses import kinds_of_pieces, names_in, sentence_starts, words_of
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.tokenizers import CharTokenizer, WordTokenizer
from tests.any_text import KINDS

LONG = {kind: make(2_000) for kind, make in KINDS.items()}
ONE = st.builds(
    lambda kind, start, length: LONG[kind][start : start + length],
    st.sampled_from(sorted(KINDS)),
    st.integers(0, 1_900),
    st.integers(1, 100),
)
ANY = st.lists(ONE | st.text(max_size=5), min_size=1, max_size=3).map("".join).filter(bool)  # scripts mix, too


@given(ANY)
def test_every_word_gets_the_losses_of_its_own_characters(text: str) -> None:
    found = words_of(text, range(1, len(text) + 1), [float(i) for i in range(len(text))], 16)
    assert [word.text.lower() for word in found] == words(text)
    for word in found:
        assert text[word.start : word.start + len(word.text)] == word.text
        assert word.pieces == range(word.start, word.start + len(word.text))
        assert word.loss == sum(word.pieces)
        assert word.first == word.start
    assert all(a.pieces.stop <= b.pieces.start for a, b in itertools.pairwise(found))
    kinds = kinds_of_pieces(text, found)
    assert len(kinds) == len(text)
    assert set(kinds) <= set(PIECES)


@given(ANY)
def test_sentences_and_names_are_made_of_words(text: str) -> None:
    starts = sentence_starts(text)
    assert starts == sorted(set(starts))
    found = {word.start for word in words_of(text, range(1, len(text) + 1), [0.0] * len(text), 16)}
    assert set(starts) <= found
    assert names_in(text) <= set(words(text))


@given(ANY)
def test_a_text_knows_its_own_words(text: str) -> None:
    own, inner = words(text), words(text)[1:-1]
    assert share_of_real_words([text], set(own)) == float(len(own) > 1)
    craft = Source(text).judge([text])
    assert craft.spelled == (float(bool(inner)),)
    assert craft.paired == (float(len(inner) > 1),)
    assert craft.copied == (len(text),)
    assert not craft.invented


@given(ANY)
def test_a_prompt_is_never_empty(text: str) -> None:
    found = opening(text)
    assert 0 < len(found) <= 60
    assert set(found) <= {*text, " "}


@given(ANY, st.integers(1, 8), st.integers(0, 30))
def test_prompts_begin_in_different_places(text: str, count: int, length: int) -> None:
    last = len(text) - length
    if last + 1 < count or not length:
        with pytest.raises(ValueError, match="cannot take"):
            spread_starts(text, count, last, length)
    else:
        starts = list(spread_starts(text, count, last, length))
        assert starts == sorted(set(starts))
        assert len(starts) == count
        assert starts[0] >= 0
        assert starts[-1] <= last


@given(ANY, ANY)
def test_what_is_left_of_a_text_says_nothing_twice(train: str, held_out: str) -> None:
    left = without_shared_lines(train, held_out)
    assert left == train or not shared_lines(left, held_out)


@settings(max_examples=50)
@given(ANY)
def test_own_characters_and_words_make_the_round_trip(text: str) -> None:
    for tokenizer in (CharTokenizer.train(text), WordTokenizer.train(text)):
        assert tokenizer.decode(tokenizer.encode(text)) == text
