"""A disk that is small enough to be filled, where this user may mount one."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOM = 96 << 20  # bytes


class NoMount(RuntimeError):
    """Mounting is not allowed here."""


@contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A folder on a disk of its own, with little room.

    Raises:
        NoMount: this user may not have one.
    """
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", str(folder)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        raise NoMount("mounting is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def may_mount(folder: Path) -> bool:
    """Whether there can be such a disk; tried at ``folder``, which goes."""
    try:
        with small_disk(folder):
            pass
    except NoMount:
        return False
    finally:
        folder.rmdir()
    return True


def fill(folder: Path) -> Path:
    """Take all the room that is left; returns the file that does."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while True:
                    file.write(b"\0" * size)
            except OSError:
                continue
    return filler
