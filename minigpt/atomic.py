"""Files that are there whole or not at all. Standard library only: what keeps no model needs no PyTorch for it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced_atomically(path: Path) -> Iterator[Path]:
    """Give a path to write to; what stands there at the end takes ``path``'s place, whole, even through a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _flush(temporary)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush(path.parent)  # the rename itself lives in the folder


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, even through a power cut."""
    with replaced_atomically(path) as temporary:
        temporary.write_bytes(data)


def _flush(path: Path) -> None:
    """Wait until what was written to a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
