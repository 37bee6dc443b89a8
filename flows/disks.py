"""A full disk, wherever it shows first: which one it is, in one sentence."""

import errno
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

from flows.options import UsageError
from tasks.failures import is_no_room

MIB = 2**20
LEAST = 32 * MIB  # the databases of Prefect and MLflow alone take 5, and their journals as much again
KEPT = "what is finished is kept, and the same command goes on from there"


class DiskFull(UsageError):
    """A disk has no room left; names the folder and the remedy."""


def check_room(folders: Iterable[Path]) -> None:
    """Refuse to start where it would end half-way through the first step.

    Raises:
        DiskFull: less than ``LEAST`` is left.
    """
    for folder in folders:
        free = _free(folder)
        if free < LEAST:
            raise DiskFull(
                f"{folder}: its disk is full ({free / MIB:.1f} MiB are left, a run takes at least {LEAST // MIB}); "
                "make room there, or name another folder in CHAPTER_OUTPUTS"
            )


def full_disk(error: BaseException | None, folders: Iterable[Path]) -> DiskFull | None:
    """What an error comes to if a disk is full: by its own words, or since a folder takes nothing more.

    A server that cannot write says no more than that it failed.
    """
    folders = list(folders)
    full = next((folder for folder in folders if not _takes(folder)), None)
    if full is None and is_no_room(error):  # what was half written has been removed since
        full = min(folders, key=_free)
    if full is None:
        return None
    free = f"{_free(full) / MIB:.1f} MiB are left"
    return DiskFull(f"{full}: its disk is full ({free}); make room there: {KEPT}")


def _there(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _free(folder: Path) -> int:
    return shutil.disk_usage(_there(folder)).free


def _takes(folder: Path) -> bool:
    """Whether a folder takes another MiB: free room says nothing of quotas."""
    try:
        with tempfile.TemporaryFile(dir=_there(folder)) as file:
            file.write(b"\0" * MIB)
            file.flush()
    except OSError as error:
        return error.errno not in (errno.ENOSPC, errno.EDQUOT)
    return True
