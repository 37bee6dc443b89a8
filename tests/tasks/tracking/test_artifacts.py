"""Artifacts: one copy on the disk where the store and MLflow are folders of one, and never one that both can spoil."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.cache.store import Artifact, MissingArtifact, Store
from tasks.tracking.artifacts import _local_folder
from tasks.tracking.tracker import Tracker

WEIGHTS = os.urandom(300_000)
TEXT = "samples"


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of outputs whose MLflow database is made once."""
    folder = tmp_path_factory.mktemp("outputs")
    tracker_of(folder)._connection()
    return folder


def tracker_of(outputs: Path) -> Tracker:
    return Tracker(outputs, f"sqlite:///{outputs.resolve() / 'mlflow' / 'mlflow.db'}")


def log(outputs: Path, key: str, content: bytes) -> tuple[Store, Artifact, Path]:
    """A model in the store and on MLflow; returns the store, the blob, and the artifact's file."""
    store, tracker = Store(str(outputs / "store")), tracker_of(outputs)
    blob = store.put(content)
    record = {"config": {"n_layer": 2}, "samples": TEXT, "training_seconds": 1.0}
    run_id = tracker.log_training(None, key, {"name": "small", "seed": 0}, record, {"model": store.fetch(blob)})
    assert run_id is not None
    folder = tracker.folder / "artifacts" / run_id / "artifacts"
    assert (folder / "samples.txt").read_text() == TEXT
    assert {path.name for path in (folder / "model").iterdir()} == {"model.safetensors", "config.json"}
    return store, blob, folder / "model" / "model.safetensors"


def used(*folders: Path) -> int:
    """Bytes on the disk, as ``du`` counts them: the blocks of every inode once."""
    blocks = {}
    for folder in folders:
        for path in folder.rglob("*"):
            if path.is_file():
                blocks[path.stat().st_dev, path.stat().st_ino] = path.stat().st_blocks * 512
    return sum(blocks.values())


def test_a_model_in_store_and_mlflow_takes_the_room_of_one(tmp_path: Path) -> None:
    tracker_of(tmp_path)._connection()
    before = used(tmp_path)
    _, _, artifact = log(tmp_path, "k", WEIGHTS)
    assert artifact.read_bytes() == WEIGHTS
    assert len(WEIGHTS) <= used(tmp_path) - before < 1.5 * len(WEIGHTS)


def test_what_gc_drops_is_still_on_mlflow_and_the_other_way_round(outputs: Path) -> None:
    store, blob, artifact = log(outputs, "k-gc", WEIGHTS + b"1")
    store.delete(blob.url)
    assert artifact.read_bytes() == WEIGHTS + b"1"
    with pytest.raises(MissingArtifact):
        store.fetch(blob)
    store, blob, artifact = log(outputs, "k-deleted-run", WEIGHTS + b"2")
    artifact.unlink()
    assert store.fetch_bytes(blob) == WEIGHTS + b"2"


def test_neither_side_writes_into_the_file_of_the_other(outputs: Path, tmp_path: Path) -> None:
    store, blob, artifact = log(outputs, "k-replaced", WEIGHTS + b"3")
    store.write(blob.url, b"the store writes aside and renames")
    assert artifact.read_bytes() == WEIGHTS + b"3"
    store, blob, artifact = log(outputs, "k-logged-again", WEIGHTS + b"4")
    (tmp_path / "model.safetensors").write_bytes(b"and so does MLflow")
    tracker_of(outputs)._connection()[0].log_artifact(artifact.parts[-4], tmp_path / "model.safetensors", "model")
    assert artifact.read_bytes() == b"and so does MLflow"
    assert store.fetch_bytes(blob) == WEIGHTS + b"4"


def test_an_artifact_that_somebody_edits_in_place_is_found_in_the_store(outputs: Path) -> None:
    store, blob, artifact = log(outputs, "k-edited", WEIGHTS + b"5")
    with artifact.open("r+b") as file:
        file.write(b"?")
    assert os.path.samefile(artifact, store.local / blob.url)  # type: ignore[operator]
    with pytest.raises(MissingArtifact, match="altered"):
        store.fetch(blob)
    assert store.put(WEIGHTS + b"5") == blob
    assert store.fetch_bytes(blob) == WEIGHTS + b"5", "the step that runs again writes a file of its own"


def refusing(code: int) -> Callable[..., None]:
    def link(*_: object, **__: object) -> None:
        raise OSError(code, os.strerror(code))

    return link


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP])
def test_where_there_can_be_no_link_there_is_a_copy(outputs: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(os, "link", refusing(code))
    content = WEIGHTS + str(code).encode()
    store, blob, artifact = log(outputs, f"k-{code}", content)
    assert artifact.read_bytes() == content
    assert artifact.stat().st_nlink == 1
    assert store.fetch_bytes(blob) == content


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="needs a second file system")
def test_on_another_disk_there_is_a_copy(outputs: Path) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        other = Path(folder) / "blob"
        other.write_bytes(WEIGHTS)
        if other.stat().st_dev == outputs.stat().st_dev:
            pytest.skip("the same file system")
        tracker = tracker_of(outputs)
        run_id = tracker.log_training(None, "k-far", {"name": "small"}, {"training_seconds": 1.0}, {"model": other})
        assert run_id is not None
        kept = tracker.folder / "artifacts" / run_id / "artifacts" / "model" / "model.safetensors"
        assert kept.read_bytes() == WEIGHTS
        assert not kept.is_symlink()


def test_a_file_that_has_gone_is_left_out(outputs: Path, tmp_path: Path) -> None:
    tracker = tracker_of(outputs)
    gone = {"model": tmp_path / "gone"}
    run_id = tracker.log_training(None, "k-gone", {"name": "small"}, {"training_seconds": 1.0}, gone)
    assert run_id is not None
    kept = tracker.folder / "artifacts" / run_id / "artifacts"
    assert {path.name for path in kept.rglob("*") if path.is_file()} == {"curves.json", "recipe.json"}


@pytest.mark.parametrize("uri", ["mlflow-artifacts:/1/abc/artifacts", "s3://bucket/1/abc", "http://127.0.0.1:5000/a"])
@pytest.mark.parametrize("tracking", ["sqlite:///mlflow.db", None])
def test_what_travels_is_no_folder(uri: str, tracking: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever server MLflow's global state names: a proxied address used to be looked up there, and refused."""
    monkeypatch.setattr("mlflow.tracking._tracking_service.utils._tracking_uri", tracking)
    assert _local_folder(uri) is None


def test_a_folder_is_one_however_it_is_spelt(tmp_path: Path) -> None:
    assert _local_folder(str(tmp_path)) == _local_folder(tmp_path.as_uri()) == tmp_path
