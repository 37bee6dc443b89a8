"""Answers and their drawn parts, kept from run to run: each is a function of its data and of the code that makes it."""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from importlib import metadata, resources
from pathlib import Path

TextCache = Callable[[str, Callable[[], str]], str]
"""Called with a key and a function that makes the text; returns the text, made or remembered."""

_LIBRARIES = ("matplotlib", "markdown-it-py", "latex2mathml", "jinja2", "markupsafe", "pygments")


@lru_cache(maxsize=4)
def code_digest(packages: tuple[str, ...], libraries: tuple[str, ...]) -> str:
    """Digest of all files of packages of this project, and of the versions of Python and of libraries."""
    digest = hashlib.sha256()
    for package in packages:
        root = Path(str(resources.files(package)))
        for path in sorted(root.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                name = path.relative_to(root.parent).as_posix()
                digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    digest.update(" ".join([sys.version, *(f"{name} {metadata.version(name)}" for name in libraries)]).encode())
    return digest.hexdigest()


def renderer_digest() -> str:
    """Digest of all that decides how a result is shown: this package's files and its libraries' versions."""
    return code_digest(("reports",), _LIBRARIES)


def key(data: object) -> str:
    """The key under which the rendering of plain JSON data is kept."""
    text = json.dumps([renderer_digest(), data], sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class DirectoryCache:
    """A ``TextCache`` of one file per key. Safe for several processes: files appear whole or not at all.

    Files used longest ago are dropped when there are more than ``most``. Their names end in ``suffix``.
    """

    def __init__(self, directory: Path, most: int = 2000, suffix: str = ".html") -> None:
        self.directory, self.most, self.suffix = directory, most, suffix
        self._pruned = False

    def __call__(self, name: str, make: Callable[[], str]) -> str:
        """The text kept under ``name``, made and kept if it is not there."""
        path = self.directory / f"{name}{self.suffix}"
        try:
            text = path.read_text(encoding="utf-8")
            os.utime(path)
            return text
        except (FileNotFoundError, UnicodeDecodeError):
            text = make()
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._pruned:
            self.prune()
        handle, temporary = tempfile.mkstemp(dir=self.directory, suffix=".tmp")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
        return text

    def drop(self, name: str) -> None:
        """Forget what is kept under ``name``."""
        (self.directory / f"{name}{self.suffix}").unlink(missing_ok=True)

    def prune(self) -> int:
        """Drop the files used longest ago beyond ``most``; returns how many."""
        self._pruned = True
        used = []
        for path in self.directory.glob(f"*{self.suffix}"):
            with suppress(FileNotFoundError):  # another process prunes too
                used.append((path.stat().st_mtime, path))
        dropped = sorted(used, reverse=True)[self.most :]
        for _, path in dropped:
            path.unlink(missing_ok=True)
        return len(dropped)
