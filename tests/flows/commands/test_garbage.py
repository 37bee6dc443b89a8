"""``chapter gc``: what is old and not wanted goes, in the store and in the outputs; all else stays."""

import json
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flows.commands import garbage
from flows.commands.garbage import collect
from tasks.cache.keys import digest
from tasks.cache.results import RecordSerializer, RecordStorage
from tasks.cache.store import Store, as_record
from tasks.models.pretrained import packaged_folder
from tasks.sources import hub
from tasks.sources.references import SourceError

OLD = time.time() - 10 * 86_400


@pytest.fixture(autouse=True)
def no_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records are live by the tag in their lineage's inputs: no graph is built."""
    live = garbage._signature("train", 1, {"of": "now"}, {})
    monkeypatch.setattr(garbage, "current_signatures", lambda: ({live}, set()))


def persist(store: Store, key: str, content: bytes, of: str) -> str:
    """A record with one blob; returns the blob's SHA-256."""
    artifact = store.put(content)
    lineage = {"kind": "train", "version": 1, "inputs": {"of": of}, "code": {}, "upstream": {}}
    result = RecordSerializer(url=store.url).dumps(as_record(key, {"model": artifact}, {"lineage": lineage}))
    metadata = {"serializer": {"type": "chapter-record", "url": store.url}, "storage_key": key}
    body = {"metadata": metadata, "result": result.decode()}
    RecordStorage(url=store.url).write_path(key, json.dumps(body).encode())
    return artifact.sha256


def file(path: Path, when: float) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("x")
    for changed in (path, path.parent):
        os.utime(changed, (when, when))
    return path


def test_what_is_left_in_the_outputs_beside_a_remote_store(tmp_path: Path) -> None:
    store = Store("memory://chapter-gc-outputs")
    wanted, unwanted = persist(store, "k1", b"wanted", "now"), persist(store, "k2", b"unwanted", "then")
    blobs = tmp_path / "blobs"
    kept = [
        file(blobs / wanted, OLD),
        file(blobs / ("0" * 64), time.time()),
        file(tmp_path / "checkpoints" / "young" / "step.pt", time.time()),
        file(tmp_path / "runs" / "1" / "report.html", OLD),
        file(tmp_path / "compiled" / "fxgraph" / "ab" / "code", OLD),  # PyTorch's own, of which we know nothing
    ]
    gone = [file(blobs / unwanted, OLD), file(tmp_path / "checkpoints" / "old" / "step.pt", OLD)]
    assert collect(tmp_path, store.url, 7.0, False, dry_run=True) == 0
    assert all(path.exists() for path in [*kept, *gone])
    assert collect(tmp_path, store.url, 7.0, False, dry_run=False) == 0
    assert all(path.exists() for path in kept)
    assert not any(path.exists() for path in gone)
    assert not (tmp_path / "checkpoints" / "old").exists()
    assert set(store.record_keys()) == {"k1", "k2"}  # they are young


def test_progress_of_finished_runs(tmp_path: Path) -> None:
    for run, when in (("finished", OLD), ("killed", OLD), ("running", OLD), ("young", time.time())):
        (tmp_path / "progress" / run).mkdir(parents=True)
        if run in ("killed", "running"):
            file(tmp_path / "progress" / run / "a.json", OLD)
        if run == "running":
            file(tmp_path / "progress" / run / "b.json", time.time())
        os.utime(tmp_path / "progress" / run, (when, when))
    collect(tmp_path, str(tmp_path / "store"), 7.0, False, dry_run=False)
    assert {path.name for path in (tmp_path / "progress").iterdir()} == {"running", "young"}


def test_checkpoints_of_a_local_store(tmp_path: Path) -> None:
    old = file(tmp_path / "store" / "checkpoints" / "k" / "step.pt", OLD)
    young = file(tmp_path / "store" / "checkpoints" / "l" / "step.pt", time.time())
    collect(tmp_path, str(tmp_path / "store"), 7.0, False, dry_run=False)
    assert not old.exists()
    assert young.exists()


def test_what_earlier_versions_made_of_the_packaged_model(tmp_path: Path) -> None:
    now = file(packaged_folder(tmp_path / "pretrained") / "model.safetensors", OLD)
    before = file(tmp_path / "pretrained" / "smollm2-0123456789abcdef-0" / "model.safetensors", OLD)
    collect(tmp_path, str(tmp_path / "store"), 7.0, False, dry_run=False)
    assert now.exists()
    assert not before.parent.exists()


def test_age_where_only_the_file_system_knows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 lists ``LastModified``, neither ``mtime`` nor ``created``; other stores know no age at all."""
    store = Store("memory://chapter-gc-age")
    store.put(b"old")
    then = datetime.now(UTC) - timedelta(days=10)

    def find(base: str, **_: Any) -> dict[str, Any]:
        return {f"{base}/ab/abc": {"size": 3, "LastModified": then}}

    monkeypatch.setattr(store.fs, "find", find)
    monkeypatch.setattr(store.fs, "modified", lambda path: then)
    assert [entry["modified"] for entry in store.listing("blobs")] == [then.timestamp()]

    def unknown(path: str) -> datetime:
        raise NotImplementedError

    monkeypatch.setattr(store.fs, "modified", unknown)
    assert [entry["modified"] for entry in store.listing("blobs")] == [None]


def test_the_hub_need_not_be_reached_to_know_its_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: object, **__: object) -> None:
        raise SourceError("no network")

    monkeypatch.setattr(hub, "repo_info", unreachable)
    monkeypatch.setattr(hub, "download", unreachable)
    assert [sources.bundle for sources in garbage._bundles()] == ["embedded", "hub"]


def test_what_was_made_from_equal_inputs_is_live() -> None:
    """After a change of code that changes no text, the text has a new record, and the models the old one's key."""

    def record(kind: str, code: str, sha256: str, upstream: dict[str, str]) -> dict[str, Any]:
        lineage = {"kind": kind, "version": 1, "inputs": {}, "code": {"module": code}, "upstream": upstream}
        return {"artifacts": {"file": {"sha256": sha256}}, "data": {"lineage": lineage}}

    records = {
        "old text": record("text", "before", "a", {}),
        "new text": record("text", "now", "a", {}),
        "other text": record("text", "before", "b", {}),
        "model": record("train", "now", "c", {"text": "old text"}),
        "other model": record("train", "now", "d", {"text": "other text"}),
        "old model": record("train", "before", "e", {"text": "new text"}),
    }
    signatures = {garbage._signature(kind, 1, {}, {"module": "now"}) for kind in ("text", "train")}
    assert garbage.live_keys(records, signatures) == {"old text", "new text", "model"}


def test_room_that_a_dropped_blob_keeps_under_another_name_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = Store(str(tmp_path / "store"))
    for content, of in ((b"a" * 2**20, "then"), (b"b" * 2**20, "then")):
        persist(store, f"k-{content[:1].decode()}", content, of)
    blobs = sorted((tmp_path / "store" / "blobs").rglob("*/*"))
    os.link(blobs[0], tmp_path / "artifact")
    for path in (tmp_path / "store").rglob("*/*"):
        os.utime(path, (OLD, OLD))
    collect(tmp_path, store.url, 7.0, False, dry_run=False)
    assert (
        "dropped 4 objects, 2.0 MiB (1.0 MiB of it stay on the disk as artifacts on MLflow)" in capsys.readouterr().out
    )
    assert (tmp_path / "artifact").stat().st_size == 2**20
    assert not any(blob.exists() for blob in blobs)


def test_what_vanished_machines_left_in_a_remote_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Leases and checkpoints, once they are old: who is at work renews both. A record that says nothing is no reason to
    end with an error."""
    store = Store("memory://chapter-gc-vanished")
    persist(store, "k1", b"wanted", "now")
    result = RecordSerializer(url=store.url).dumps(as_record("k2", {}, {}))
    body = {"metadata": {"serializer": {"type": "chapter-record", "url": ""}}, "result": result.decode()}
    RecordStorage(url=store.url).write_path("k2", json.dumps(body).encode())
    for name in ("leases/" + "a" * 64 + "-000000001", "checkpoints/" + "b" * 64 + "/step-000000001.json"):
        store.write(name, b"x")
    assert collect(tmp_path, store.url, 7.0, False, dry_run=False) == 0
    assert len(store.listing("leases")) == len(store.listing("checkpoints")) == 1
    assert collect(tmp_path, store.url, 0.0, False, dry_run=False) == 0
    assert store.listing("leases") == store.listing("checkpoints") == []
    assert store.record("k1") is not None
    assert "dropped 3 objects" in capsys.readouterr().out


def test_garbage_is_not_what_a_run_has_just_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bits under another key, after an edit that changes no result, while ``chapter gc`` looks."""
    store = Store(str(tmp_path / "store"))
    sha256 = persist(store, "k-before", b"the same bits", "then")
    for path in (tmp_path / "store" / "blobs" / sha256[:2] / sha256, tmp_path / "store" / "records" / "k-before"):
        os.utime(path, (OLD, OLD))
    live = garbage._signature("train", 1, {"of": "now"}, {})

    def signatures() -> tuple[set[str], set[str]]:  # it takes half a minute: meanwhile a training ends
        persist(store, "k-after", b"the same bits", "now")
        return {live}, set()

    monkeypatch.setattr(garbage, "current_signatures", signatures)
    assert collect(tmp_path, store.url, 7.0, False, dry_run=False) == 0
    assert store.record("k-after") is not None


@pytest.mark.parametrize(
    "left",
    [
        "models/0123456789abcdef/model.safetensors",  # 540 MB each for a fine-tuned packaged model
        "store/latest/exercise-21-05-0123456789abcdef.json",  # one more per timed exercise with every edit
        "answers/tmpabc.tmp",
    ],
)
def test_what_nobody_needs_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left: str) -> None:
    monkeypatch.setattr(garbage, "current_signatures", lambda: (set(), set()))
    path = file(tmp_path / left, OLD)
    garbage.collect(tmp_path, str(tmp_path / "store"), 7.0, False, dry_run=False)
    assert not path.exists()


def test_the_library_of_another_python_is_no_text_of_a_user() -> None:
    """After an upgrade of Python, or made by a worker with another: it stayed for ever, but with --user-corpora."""
    key = {"kind": "stdlib", "sha256": "0" * 64}
    lineage = {"kind": "text", "inputs": {"reference": key}, "upstream": {}}
    records: dict[str, Any] = {"k": {"data": {"lineage": lineage}}}
    built_in = {digest({"kind": "stdlib", "sha256": "1" * 64})}
    assert garbage.on_user_texts(records, built_in) == set()
