"""A full disk is said to be one, by name, whatever program or library has met it first."""

import errno
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from flows import disks
from flows.disks import DiskFull, check_room, full_disk
from tasks.failures import StepFailed, is_no_room, kind_of

FULL = OSError(errno.ENOSPC, "No space left on device")


class Usage(NamedTuple):
    total: int
    used: int
    free: int


@pytest.fixture
def nearly_full(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder on a disk with 3 MiB; all others have room."""
    folder = tmp_path / "small"
    folder.mkdir()

    def usage(path: Path) -> Usage:
        return Usage(64 << 20, 0, (3 << 20) if folder in (path, *path.parents) else (9 << 30))

    monkeypatch.setattr(shutil, "disk_usage", usage)
    return folder


def test_too_little_to_start_with(nearly_full: Path, tmp_path: Path) -> None:
    check_room([tmp_path])
    with pytest.raises(DiskFull) as caught:
        check_room([tmp_path, nearly_full / "to" / "be" / "made"])
    assert str(caught.value).startswith(f"{nearly_full}/to/be/made: its disk is full (3.0 MiB are left")


@pytest.mark.parametrize(
    "error",
    [
        FULL,
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        RuntimeError("I/O error: No space left on device (os error 28)"),  # of safetensors, written in Rust
        RuntimeError("(sqlite3.OperationalError) database or disk is full"),
        StepFailed("…", "no room"),
    ],
)
def test_by_its_own_words(error: Exception, nearly_full: Path, tmp_path: Path) -> None:
    assert kind_of(error) == "no room"
    if not isinstance(error, StepFailed):
        outer = ValueError("something else")
        outer.__cause__ = error
        assert is_no_room(outer)
        found = full_disk(outer, [tmp_path, nearly_full])
        assert found is not None
        assert str(nearly_full) in str(found), "the one with least room"
        assert "the same command goes on from there" in str(found)


def test_another_error_is_left_alone(tmp_path: Path) -> None:
    assert full_disk(ValueError("no space"), [tmp_path]) is None
    assert kind_of(PermissionError(errno.EACCES, "Permission denied")) == "failed"


def test_a_folder_that_takes_nothing_more(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A server answers 500 and says no more: then the folders are asked."""

    def no_file(*_: object, dir: Path, **__: object) -> Any:
        if dir == tmp_path:
            raise FULL
        return open("/dev/null", "wb")

    monkeypatch.setattr(disks.tempfile, "TemporaryFile", no_file)
    assert isinstance(full_disk(RuntimeError("status 500"), [Path("/"), tmp_path]), DiskFull)
