"""Files whose SHA-256 was compared and which nobody has touched since: they are not read again, as in git's index."""

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from minigpt.atomic import write_atomic

# A file that was written within this time could be written again without a change of its times: it is not noted.
SETTLED_SECONDS = 2.0

# Path → SHA-256, size, inode, and when content and inode were last changed, in nanoseconds.
# None: nothing is remembered.
_compared: dict[str, tuple[str, int, int, int, int]] | None = None


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def has_sha256(path: Path, sha256: str) -> bool:
    """Whether a file has this content. Within ``comparisons_kept_in`` it is read only if it may have changed."""
    before = path.stat()
    seen = (sha256, before.st_size, before.st_ino, before.st_mtime_ns, before.st_ctime_ns)
    if _compared is not None and _compared.get(str(path)) == seen:
        return True
    same = file_sha256(path) == sha256
    if _compared is not None and same and time.time() - before.st_ctime > SETTLED_SECONDS:
        _compared[str(path)] = seen
    return same


@contextmanager
def comparisons_kept_in(file: Path) -> Iterator[None]:
    """Meanwhile files are not compared again that are as when ``file`` was written; at the end it knows the new ones.

    A run that finds everything in the store would read hundreds of megabytes otherwise. Damaged, the file counts for
    nothing; and a file whose time of change is forged is read when a step uses it, in a process of its own.
    """
    global _compared
    outer, before = _compared, {}
    with suppress(OSError, ValueError, TypeError, AttributeError):
        kept = json.loads(file.read_bytes()).items()
        before = {path: (str(sha256), *map(int, stat)) for path, (sha256, *stat) in kept if len(stat) == 4}
    _compared = dict(before) if outer is None else outer
    try:
        yield
    finally:
        found, _compared = _compared, outer
        if found != before:
            found = {path: seen for path, seen in found.items() if Path(path).exists()}
            with suppress(OSError):  # a folder that cannot be written is told of by what needs it
                write_atomic(file, json.dumps(found).encode())
