"""What lies on the disk, altered at random: a stored record, a note, a checkpoint, a result. A miss, never a fault."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from minigpt.checkpoint import Checkpoints
from minigpt.files import config_from_json
from minigpt.tokenizers import CharTokenizer, from_json
from tasks.cache.results import RecordSerializer, RecordStorage
from tasks.cache.store import Store, as_record, parse_record, stored_result
from tests.fuzz import fuzzed, json_values

KEY = "a" * 64


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("store") / "inside"))


def whole(store: Store) -> bytes:
    """A sound record, as Prefect writes it."""
    serializer = RecordSerializer(url=store.url)
    record = as_record(KEY, {"model": store.put(b"weights")}, {"loss": 1.5})
    metadata = {"serializer": {"type": "chapter-record", "url": store.url}, "storage_key": KEY}
    return json.dumps({"metadata": metadata, "result": serializer.dumps(record).decode()}).encode()


def changed(value: Any, path: list[int], new: Any) -> Any:
    """A JSON value with something new somewhere in it."""
    if not path or not isinstance(value, dict | list) or not value:
        return new
    if isinstance(value, list):
        place = path[0] % len(value)
        return [changed(one, path[1:], new) if i == place else one for i, one in enumerate(value)]
    name = sorted(value)[path[0] % len(value)]
    return {**value, name: changed(value[name], path[1:], new)}


def everything(folder: Path) -> dict[str, bytes]:
    return {
        os.path.join(where, name): Path(where, name).read_bytes()
        for where, _, names in os.walk(folder)
        for name in names
    }


DEEP = b"[" * 100_000 + b"]" * 100_000


@fuzzed
@example(path=[], new=None, content=DEEP)
@example(path=[], new=None, content=b"\xff")
@example(
    path=[], new=None, content=b'{"metadata": {"serializer": {"type": "chapter-record"}}, "result": "' + DEEP + b'"}'
)
@example(path=[1], new=json.dumps({"key": KEY, "artifacts": [], "data": {}, "checksum": ""}), content=b"")
@given(path=st.lists(st.integers(0, 7), max_size=4), new=json_values, content=st.binary(max_size=60))
def test_a_stored_record(store: Store, path: list[int], new: Any, content: bytes) -> None:
    outside = Path(store.url).parent / "mine.txt"
    outside.write_bytes(b"weights")
    sound = json.loads(whole(store))
    inner = json.loads(sound["result"])
    altered = [
        content,
        json.dumps(changed(sound, path, new)).encode(),
        json.dumps({**sound, "result": json.dumps(changed(inner, path, new))}).encode(),
    ]
    for stored in altered:
        RecordStorage(url=store.url).write_path(KEY, stored)
        store.write("latest/step.json", stored)
        record = store.record(KEY, verify=True)
        assert record is None or record == {name: inner[name] for name in ("key", "artifacts", "data")}
        assert store.last("step") is None or isinstance(store.last("step"), dict)
        for parse in (parse_record, lambda blob: stored_result(KEY, blob)):
            with pytest.MonkeyPatch.context():
                try:
                    parse(stored)
                except ValueError:
                    continue
    assert everything(outside.parent).keys() <= {
        str(outside),
        *(
            str(Path(store.url) / entry["path"])
            for folder in ("records", "blobs", "latest")
            for entry in store.listing(folder)
        ),
    }
    assert outside.read_bytes() == b"weights"


@fuzzed
@example({"encoder": {"a": 0}, "merges": [], "name": "bpe", "kind": "bpe"})
@example({"name": "word", "words": ["<unk>", "<glue>", ""]})
@example({"name": "char", "characters": 3})
@given(
    data=st.one_of(
        json_values,
        st.fixed_dictionaries(
            {"name": st.sampled_from(["char", "word", "bpe"])},
            optional={
                "kind": st.just("bpe"),
                "characters": json_values,
                "words": json_values,
                "encoder": json_values,
                "merges": json_values,
            },
        ),
    )
)
def test_a_stored_tokenizer(data: Any) -> None:
    try:
        tokenizer = from_json(data)
    except ValueError as error:
        assert str(error)
        return
    assert isinstance(tokenizer.decode(tokenizer.encode("any text")), str)


@fuzzed
@given(data=st.one_of(json_values, st.dictionaries(st.sampled_from(["n_layer", "d_model", "norm"]), json_values)))
def test_a_stored_configuration(data: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):  # none has all that is needed
        config_from_json(data)


@fuzzed
@example(path=[], new=None, content=DEEP)
@given(path=st.lists(st.integers(0, 7), max_size=3), new=json_values, content=st.binary(max_size=40))
def test_a_checkpoint(tmp_path_factory: pytest.TempPathFactory, path: list[int], new: Any, content: bytes) -> None:
    folder = tmp_path_factory.getbasetemp() / "checkpoints"
    kept = Checkpoints(folder, {"recipe": 1})
    kept.save(3, {"w": torch.ones(2)}, {"loss": 1.0}, [])
    record = folder / "step-000000003.json"
    sound = json.loads(record.read_text())
    for damaged in (content, json.dumps(changed(sound, path, new)).encode()):
        record.write_bytes(damaged)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = kept.latest()
        assert found is None or set(found[0]) == {"w"}


def test_the_tokenizer_of_a_sound_record() -> None:
    assert from_json(CharTokenizer.train("abc").to_json()).decode([1, 2, 3]) == "abc"
