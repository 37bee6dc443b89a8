"""Paths are paths: what a person names is where things are written, whatever characters are in it."""

import os
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from tasks.cache.store import Store
from tasks.folders import named_path, outputs_folder, store_url
from tasks.tracking.tracker import Tracker

ODD = ["a?b", "a#b", "a%20b", "a::b", "~", "é ü", "a b", "a\nb", "a&b=c;d", "x" * 200, "[a]*", "-a", "file:a", "a\\b"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def below(folder: Path) -> set[Path]:
    """All files below a folder, relative to it."""
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ODD)
def test_a_store_is_where_its_name_says(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv("CHAPTER_STORE", f"./{name}")
    store = Store(store_url())
    artifact = store.put(b"content")
    assert below(place) == {Path(name) / artifact.url}
    assert store.fetch_bytes(artifact) == b"content"
    store.write("latest/one.json", b"{}")
    assert [entry["path"] for entry in store.listing("latest")] == ["latest/one.json"]
    store.delete(artifact.url)
    assert not store.has(artifact)


def test_a_file_address_is_a_path_as_well(tmp_path: Path) -> None:
    Store(f"file://{tmp_path}/a::b?c").write("records/one", b"{}")
    assert below(tmp_path) == {Path("a::b?c/records/one")}


@pytest.mark.parametrize("name", ODD)
def test_the_tracking_database_is_in_the_outputs(place: Path, name: str) -> None:
    """SQLAlchemy reads the address as MLflow gives it to it."""
    tracker = Tracker(place / name)
    database = make_url(tracker.uri).database
    assert database == str(place / name / "mlflow" / "mlflow.db")
    tracker.folder.mkdir(parents=True)
    sqlite3.connect(database).close()
    assert below(place) == {Path(name) / "mlflow" / "mlflow.db"}


def test_home_is_expanded(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAPTER_OUTPUTS", "~/out")
    assert outputs_folder() == place.parent / "home" / "out"
    assert store_url() == str(place.parent / "home" / "out" / "store")
    monkeypatch.setenv("CHAPTER_STORE", "~/st")
    assert store_url() == str(place.parent / "home" / "st")
    monkeypatch.setenv("CHAPTER_STORE", "s3://bucket/~")
    assert store_url() == "s3://bucket/~"


def test_a_path_that_cannot_be_says_why(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.symlink("a", "b")
    os.symlink("b", "a")
    with pytest.raises(ValueError, match="loop"):
        named_path("a/x")
    with pytest.raises(ValueError, match="home"):
        named_path("~nobody-of-that-name/x")
    gone = place / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    with pytest.raises(ValueError, match="No such file"):
        named_path("outputs")
