"""Comparisons that are remembered: a file that may have changed is always read."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.cache import compared
from tasks.cache.compared import comparisons_kept_in, file_sha256, has_sha256

CONTENT = b"weights of a model"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def blob(tmp_path: Path) -> Path:
    path = tmp_path / "blob"
    path.write_bytes(CONTENT)
    return path


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that have been read, one after the other; and whatever is older than now counts as settled."""
    found: list[Path] = []
    hashed = compared.file_sha256

    def counted(path: Path) -> str:
        found.append(path)
        return hashed(path)

    monkeypatch.setattr(compared, "file_sha256", counted)
    monkeypatch.setattr(compared, "SETTLED_SECONDS", -1.0)
    return found


def test_without_a_place_to_remember_every_comparison_reads(blob: Path, read: list[Path]) -> None:
    assert compared.has_sha256(blob, SHA256)
    assert compared.has_sha256(blob, SHA256)
    assert read == [blob, blob]


def test_it_is_read_once_in_this_run_and_not_in_the_next(blob: Path, read: list[Path], tmp_path: Path) -> None:
    for _ in range(2):
        with compared.comparisons_kept_in(tmp_path / "kept" / "compared.json"):
            assert compared.has_sha256(blob, SHA256)
            assert compared.has_sha256(blob, SHA256)
            assert not compared.has_sha256(blob, "0" * 64)  # what is remembered is of one content
    assert read == [blob, blob, blob], "once, and once a run for the content that it has not"


def overwritten(path: Path) -> None:
    path.write_bytes(CONTENT[::-1])


def with_the_time_of_before(path: Path) -> None:
    stat = path.stat()
    overwritten(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def replaced(path: Path) -> None:
    stat, other = path.stat(), path.with_suffix(".other")
    other.write_bytes(CONTENT[::-1])
    os.utime(other, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    other.replace(path)


def one_byte_in_place(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"W")


@pytest.mark.parametrize("alter", [overwritten, with_the_time_of_before, replaced, one_byte_in_place])
def test_an_altered_file_is_noticed(
    blob: Path, read: list[Path], tmp_path: Path, alter: Callable[[Path], None]
) -> None:
    kept = tmp_path / "compared.json"
    with compared.comparisons_kept_in(kept):
        assert compared.has_sha256(blob, SHA256)
    alter(blob)
    with compared.comparisons_kept_in(kept):
        assert not compared.has_sha256(blob, SHA256)


def test_what_was_written_just_now_is_read_again(
    blob: Path, read: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It might be written again within the tick of the file system's clock."""
    monkeypatch.setattr(compared, "SETTLED_SECONDS", 3600.0)
    with compared.comparisons_kept_in(tmp_path / "compared.json"):
        assert compared.has_sha256(blob, SHA256)
        assert compared.has_sha256(blob, SHA256)
    assert read == [blob, blob]


@pytest.mark.parametrize("text", ["", "[", "[]", "{}", '{"a": 1}', '{"a": []}', '{"a": ["x", 1, 2, "y", 3]}', "null"])
def test_a_damaged_memory_counts_for_nothing(blob: Path, read: list[Path], tmp_path: Path, text: str) -> None:
    kept = tmp_path / "compared.json"
    kept.write_text(text)
    with compared.comparisons_kept_in(kept):
        assert compared.has_sha256(blob, SHA256)
    assert read == [blob]
    with compared.comparisons_kept_in(kept):
        assert compared.has_sha256(blob, SHA256)
    assert read == [blob]


def test_what_has_been_compared_is_forgotten_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compared, "SETTLED_SECONDS", -1.0)
    blob, kept = tmp_path / "blob", tmp_path / "compared.json"
    blob.write_bytes(b"x")
    with comparisons_kept_in(kept):
        assert has_sha256(blob, file_sha256(blob))
    blob.unlink()
    (tmp_path / "another").write_bytes(b"y")
    with comparisons_kept_in(kept):
        assert has_sha256(tmp_path / "another", file_sha256(tmp_path / "another"))
    assert str(blob) not in json.loads(kept.read_bytes())
