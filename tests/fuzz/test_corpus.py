"""Bytes of a corpus: refused in one sentence, or a text that can be split, turned into tokens and cut into batches."""

from pathlib import Path

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt.data import Windows
from minigpt.evaluation.excerpts import opening, spread_starts
from minigpt.evaluation.word_losses import names_in, sentence_starts, words_of
from minigpt.evaluation.words import WORD, is_punctuation, share_of_real_words, words
from tasks.recipes.profiles import SMOKE
from tasks.sources.corpora import build_tokenizer, prepare_text
from tasks.sources.references import SourceError
from tasks.sources.user import MIN_CHARACTERS, user_corpus
from tests.exercise_context import gpt2_bpe
from tests.fuzz import fuzzed

texts = st.one_of(
    st.text(min_size=1, max_size=30),
    st.text("ab \n", min_size=1, max_size=30),
    st.text(st.characters(categories=["Mn", "Me", "Cf", "Zl", "Zs", "Lo", "So", "Cc"]), min_size=1, max_size=30),
    st.sampled_from(
        ["\r\n", "\r", "\ufeff", "\u2028", "a\r", "🧑🏿‍🚀", "道可道。", "हिन्दी ", "שלום ", "\ufffd?", "\ufffe."]
    ),
)
contents = st.one_of(
    st.binary(max_size=40).map(lambda piece: piece * (MIN_CHARACTERS // max(1, len(piece)) + 1)),
    st.tuples(texts, texts).map(lambda parts: (parts[0] * MIN_CHARACTERS + parts[1]).encode(errors="replace")),
    st.tuples(texts, texts).map(lambda parts: (parts[0] * (6000 // len(parts[0])) + parts[1] * 9).encode()),
    st.tuples(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1", "shift-jis"]), texts).map(
        lambda parts: (parts[1] * MIN_CHARACTERS)[: 2 * MIN_CHARACTERS].encode(parts[0], errors="replace")
    ),
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("corpus") / "text.txt"


@fuzzed
@example(b"")
@example(b"\r\n" * MIN_CHARACTERS)
@example(b"a\r" * MIN_CHARACTERS)
@example(b" " * MIN_CHARACTERS + b"ab")
@example("\u0301".encode() * MIN_CHARACTERS + b"a")
@given(content=contents)
def test_the_bytes_of_a_corpus(file: Path, content: bytes) -> None:
    file.write_bytes(content)
    try:
        reference = user_corpus(str(file), file.parent)
        train, validation, _ = prepare_text(reference, SMOKE.train_characters, SMOKE.validation_characters)
    except SourceError as error:
        assert "text.txt" in str(error)
        assert str(error).count("\n") == 0
        return
    assert train
    assert validation
    assert (train + validation) in content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    for name in ("char", "word", "bpe"):
        tokenizer = gpt2_bpe() if name == "bpe" else build_tokenizer(name, train)
        ids = tokenizer.encode(train[:2000] + validation[:500])
        assert all(0 <= one < tokenizer.vocab_size for one in ids)
        assert isinstance(tokenizer.decode(torch.tensor(ids)), str)
        if name == "char":
            assert tokenizer.decode(tokenizer.encode(train)) == train
            batch = Windows(torch.tensor(tokenizer.encode(train)), 64, 0).batch(3, 4)
            assert batch.shape == (4, 65)


@fuzzed
@example("")
@example("\ud800")
@given(text=st.one_of(texts, st.text(st.characters(), max_size=60)))
def test_what_a_text_consists_of(text: str) -> None:
    found = words(text)
    assert all(found)
    assert [word.lower() for word in WORD.findall(text)] == found
    assert 0 <= share_of_real_words([text], set(found)) <= 1
    assert set(sentence_starts(text)) <= {match.start() for match in WORD.finditer(text)}
    assert names_in(text) <= set(found)
    assert is_punctuation(text) <= (not found)
    every = words_of(text, list(range(1, len(text) + 1)), [1.0] * len(text), 8)
    assert [word.text.lower() for word in every] == found  # with a piece per character, none is left out
    assert sum(len(word.pieces) for word in every) <= len(text)
    if text:
        assert 1 <= len(opening(text)) <= 60
        assert len(set(spread_starts(text, len(text), len(text) - 1))) == len(text)
