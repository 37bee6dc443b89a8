"""The store: nothing half-written is seen, nothing altered is believed, nothing foreign is run."""

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tasks.cache.results import RecordSerializer, RecordStorage
from tasks.cache.store import Artifact, MissingArtifact, Store, as_record

DATA = {"loss": 1.5, "curve": [2.0, float("nan")]}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "store"))


def persist(store: Store, key: str, content: bytes = b"weights", data: Mapping[str, Any] = DATA) -> Path:
    """Write a record as Prefect does; returns its file."""
    serializer = RecordSerializer(url=store.url)
    record = as_record(key, {"model": store.put(content)}, data)
    body = {
        "metadata": {"serializer": {"type": "chapter-record", "url": store.url}, "storage_key": key},
        "result": serializer.dumps(record).decode(),
    }
    RecordStorage(url=store.url).write_path(key, json.dumps(body).encode())
    return Path(store.url) / "records" / key


def test_blobs_are_content_addressed_and_written_once(store: Store) -> None:
    first, second = store.put(b"hello"), store.put(b"hello")
    assert first == second
    assert store.fetch_bytes(first) == b"hello"
    assert len(store.listing("blobs")) == 1


def test_a_record_comes_back(store: Store) -> None:
    persist(store, "k1")
    record = store.record("k1", verify=True)
    assert record is not None
    assert record["data"]["loss"] == 1.5


@pytest.mark.parametrize("damage", ["delete", "truncate"])
def test_a_missing_or_truncated_blob_is_a_miss(store: Store, damage: str) -> None:
    persist(store, "k1")
    blob = next((Path(store.url) / "blobs").rglob("*/*"))
    blob.unlink() if damage == "delete" else blob.write_bytes(b"wei")
    assert store.record("k1") is None


def test_an_altered_blob_of_the_same_size_is_found_and_dropped(store: Store) -> None:
    persist(store, "k1")
    blob = next((Path(store.url) / "blobs").rglob("*/*"))
    blob.write_bytes(b"WEIGHTS")
    assert store.record("k1") is not None  # the size is right
    assert store.record("k1", verify=True) is None
    assert not blob.exists()


def test_fetch_of_an_altered_blob_raises(store: Store) -> None:
    artifact = store.put(b"hello")
    (Path(store.url) / artifact.url).write_bytes(b"jello")
    with pytest.raises(MissingArtifact, match="altered"):
        store.fetch(artifact)


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (open, ("exploded", "w"))


@pytest.mark.parametrize("serializer", [{"type": "pickle"}, {"type": "compressed/json"}, "pickle", None, {}])
def test_a_foreign_serializer_is_a_miss_and_runs_nothing(
    store: Store, serializer: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = persist(store, "k1")
    record = json.loads(file.read_text())
    record["metadata"]["serializer"] = serializer
    record["result"] = pickle.dumps(Bomb()).hex()
    file.write_text(json.dumps(record))
    assert store.record("k1") is None
    with pytest.raises(ValueError, match="foreign"):
        RecordStorage(url=store.url).read_path("k1")
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize("result", ['{"a": 1}', "[]", "null", "not json", '{"key": "k1"}'])
def test_other_json_is_a_miss(store: Store, result: str) -> None:
    file = persist(store, "k1")
    record = json.loads(file.read_text())
    record["result"] = result
    file.write_text(json.dumps(record))
    assert store.record("k1") is None


def test_an_edited_record_is_a_miss(store: Store) -> None:
    file = persist(store, "k1")
    file.write_text(file.read_text().replace("1.5", "0.5"))
    assert store.record("k1") is None


def test_a_record_under_another_key_is_a_miss(store: Store) -> None:
    file = persist(store, "k1")
    file.rename(file.with_name("k2"))
    assert store.record("k2") is None


def test_the_store_can_be_moved(store: Store, tmp_path: Path) -> None:
    persist(store, "k1")
    Path(store.url).rename(tmp_path / "elsewhere")
    assert Store(str(tmp_path / "elsewhere")).record("k1", verify=True) is not None


def test_a_remote_store_serves_and_checks_blobs(tmp_path: Path) -> None:
    remote = Store("memory://chapter-test", cache=tmp_path)
    artifact = remote.put(b"far away")
    assert remote.fetch_bytes(artifact) == b"far away"
    with pytest.raises(MissingArtifact):
        remote.fetch(Artifact("blobs/00/00", "0" * 64, 1))


def test_a_damaged_copy_of_a_good_remote_blob_is_downloaded_again(tmp_path: Path) -> None:
    remote = Store("memory://chapter-copies", cache=tmp_path)
    artifact = remote.put(b"far away")
    remote.fetch(artifact).write_bytes(b"far awry")
    assert remote.fetch_bytes(artifact) == b"far away"
    assert remote.has(artifact)


def test_a_remote_blob_that_was_altered_is_dropped_with_its_copy(tmp_path: Path) -> None:
    remote = Store("memory://chapter-altered", cache=tmp_path)
    artifact = remote.put(b"far away")
    remote.write(artifact.url, b"far awry")
    with pytest.raises(MissingArtifact, match="altered"):
        remote.fetch(artifact)
    assert not remote.has(artifact)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_copy_goes_where_the_blob_is_gone(tmp_path: Path) -> None:
    remote = Store("memory://chapter-gone", cache=tmp_path)
    artifact = remote.put(b"far away")
    remote.fetch(artifact).write_bytes(b"far awry")
    remote.delete(artifact.url)
    with pytest.raises(MissingArtifact, match="not in the store"):
        remote.fetch(artifact)
    assert list(tmp_path.iterdir()) == []


def test_the_first_record_of_a_key_stays(tmp_path: Path) -> None:
    """Who was frozen, and comes back after another has finished its step, must not replace what others rest on."""
    store = Store(str(tmp_path))
    persist(store, "k1", b"bits of the machine that took it over")
    first = store.record("k1")
    persist(store, "k1", b"bits of the machine that was frozen")
    assert first is not None
    assert store.record("k1") == first
    store.delete(Artifact(**first["artifacts"]["model"]).url)
    persist(store, "k1", b"bits of who made it again")
    assert (store.record("k1") or first) != first
