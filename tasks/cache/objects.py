"""Objects under one fsspec URL: the one place through which everything of a store is read and written.

Here a name becomes an address, an object is written whole or not at all, and a storage that hiccups is waited for
(``tasks.cache.patience``).
"""

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import fsspec
from fsspec.implementations.local import LocalFileSystem

from minigpt.atomic import replaced_atomically, write_atomic
from tasks.cache.patience import Patience, status_of
from tasks.folders import is_address

T = TypeVar("T")
PRECONDITION_FAILED = 412


class Objects:
    """What lies under ``url``, any location that fsspec can write. A name without "://" is a folder."""

    def __init__(self, url: str, patience: Patience | None = None) -> None:
        self.url = url
        self.fs, root = opened(url)
        self.root = root.rstrip("/")
        self.local = Path(self.root) if "file" in self._protocols() else None
        self._patience = patience or Patience()

    def _protocols(self) -> tuple[str, ...]:
        protocol = self.fs.protocol
        return (protocol,) if isinstance(protocol, str) else tuple(protocol)

    def _at(self, relative: str) -> str:
        """An object's address for fsspec.

        Raises:
            ValueError: it would be none of this store.
        """
        if "\0" in relative or "\\" in relative or any(part in ("", ".", "..") for part in relative.split("/")):
            raise ValueError(f"{relative[:80]!r} is no place in a store")
        return f"{self.root}/{relative}"

    def _do(self, what: str, work: Callable[[], T]) -> T:
        return self._patience(self.url, what, work)

    def write(self, relative: str, content: bytes) -> None:
        """Write one object, all or nothing."""
        address = self._at(relative)

        def work() -> None:
            if self.local is not None:
                write_atomic(self.local / relative, content)
                _share(self.local / relative)
            else:
                self._make_folder(address)
                self.fs.pipe_file(address, content)

        self._do(f"writing {relative}", work)

    def create(self, relative: str, content: bytes) -> bool:
        """Write one object unless it is there; False if it is. Of several who do so at once, one succeeds.

        Amazon's, Google's and most other object stores decide that themselves; fsspec says "create".
        """
        address = self._at(relative)

        def work() -> bool:
            try:
                if self.local is not None:
                    _create(self.local / relative, content)
                else:
                    self._make_folder(address)
                    self.fs.pipe_file(address, content, mode="create")
            except FileExistsError:
                return False
            except Exception as error:  # s3fs knows Amazon's way to say so; of MinIO's the status is left
                if status_of(error) == PRECONDITION_FAILED:
                    return False
                raise
            return True

        return self._do(f"creating {relative}", work)

    def write_stream(self, relative: str, chunks: Iterable[bytes]) -> None:
        """Write one object that need not fit into memory, all or nothing: also if ``chunks`` raises."""
        self._at(relative)
        if self.local is not None:
            with replaced_atomically(self.local / relative) as path:
                _write_chunks(path, chunks)
                _share(path)
            return
        with tempfile.TemporaryDirectory() as folder:  # whole before the first byte of it travels
            path = Path(folder) / "object"
            _write_chunks(path, chunks)
            self.write_file(relative, path)

    def write_file(self, relative: str, path: Path) -> None:
        """Write one object from a file of this machine, all or nothing."""
        address = self._at(relative)
        if self.local is not None:
            with path.open("rb") as file:
                self.write_stream(relative, iter(lambda: file.read(1 << 20), b""))
            return

        def work() -> None:
            self._make_folder(address)
            self.fs.put_file(str(path), address)

        self._do(f"writing {relative}", work)

    def _make_folder(self, address: str) -> None:
        self.fs.makedirs(address.rpartition("/")[0], exist_ok=True)

    def open(self, relative: str) -> BinaryIO:
        """One object as a file to read; it is whole on this machine before its first byte is read.

        Raises:
            FileNotFoundError: there is none.
        """
        address = self._at(relative)
        if self.local is not None:
            return cast(BinaryIO, self.fs.open(address, "rb"))
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "object"
            self._do(f"reading {relative}", lambda: self.fs.get_file(address, str(path)))
            return path.open("rb")  # which keeps the content when the name goes

    def read(self, relative: str) -> bytes:
        """Read one object.

        Raises:
            FileNotFoundError: there is none.
        """
        address = self._at(relative)
        return bytes(self._do(f"reading {relative}", lambda: self.fs.cat_file(address)))

    def delete(self, relative: str) -> None:
        """Delete one object, if it is there."""
        address = self._at(relative)

        def work() -> None:
            if self._info(address) is not None:
                try:
                    self.fs.rm_file(address)
                except FileNotFoundError:  # by somebody else, or by a try whose answer was lost
                    return

        self._do(f"deleting {relative}", work)

    def size(self, relative: str) -> int | None:
        """The size of one object in bytes; None if there is none."""
        info = self._do(f"looking for {relative}", lambda: self._info(self._at(relative)))
        return None if info is None or info.get("type") == "directory" else info["size"]

    def exists(self, relative: str) -> bool:
        """Whether there is such an object, or such a folder."""
        address = self._at(relative)
        return self._do(f"looking for {relative}", lambda: self._info(address)) is not None

    def _info(self, address: str) -> Mapping[str, Any] | None:
        """What is known of an object. Not ``fs.exists``, to which any failure means that there is none."""
        try:
            return cast(Mapping[str, Any], self.fs.info(address))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def names(self, folder: str) -> list[str]:
        """The names of the objects right in a folder, as they are now."""
        base = self._at(folder)

        def work() -> list[str]:
            self.fs.invalidate_cache(base)
            try:
                return [str(path).rstrip("/").rpartition("/")[2] for path in self.fs.ls(base, detail=False)]
            except FileNotFoundError:
                return []

        return self._do(f"listing {folder}", work)

    def listing(self, folder: str) -> list[dict[str, Any]]:
        """Path, size and time of modification (seconds, None if unknown) of everything below a folder."""
        base = self._at(folder)
        return self._do(f"listing {folder}", lambda: self._list(base))

    def _list(self, base: str) -> list[dict[str, Any]]:
        self.fs.invalidate_cache(base)
        if self._info(base) is None:
            return []
        found = self.fs.find(base, detail=True)
        return [
            {"path": path[len(self.root) + 1 :], "size": info["size"], "modified": self._modified(path, info)}
            for path, info in found.items()
        ]

    def _modified(self, path: str, info: Mapping[str, Any]) -> float | None:
        when = info.get("mtime")  # local; every other file system has a name of its own for it
        if when is None:
            try:
                when = self.fs.modified(path)
            except (NotImplementedError, FileNotFoundError):
                when = info.get("created")
        return when if when is None or isinstance(when, int | float) else float(when.timestamp())


def opened(url: str) -> tuple[Any, str]:
    """The file system of a store and the place in it. What is no address is a folder, whatever is in its name.

    Raises:
        ValueError: fsspec knows no such protocol.
        ImportError: the package is missing that reads it.
    """
    if not is_address(url) or url.startswith("file://"):
        fs = LocalFileSystem()
        return fs, str(fs._strip_protocol(url))
    fs, root = fsspec.core.url_to_fs(url)
    return fs, str(root)


def _umask() -> int:
    before = os.umask(0)
    os.umask(before)
    return before


MODE = 0o666 & ~_umask()  # asked once, while there is one thread: to ask is to change it for a moment


def _share(path: Path) -> None:
    """Let a file of the store be read by whom the user's umask lets read; files made aside are for the user alone."""
    with suppress(OSError):  # a disk without such bits, or somebody else's file
        path.chmod(MODE)


def _create(path: Path, content: bytes) -> None:
    """A file that is there whole from the moment that it is there; raises ``FileExistsError`` where one is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".") as file:
        file.write(content)
        file.flush()
        _share(Path(file.name))
        try:
            path.hardlink_to(file.name)
        except FileExistsError:
            raise
        except OSError:  # a disk without links: then for a moment it is there and empty
            with path.open("xb") as made:
                made.write(content)


def _write_chunks(path: Path, chunks: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        for chunk in chunks:
            file.write(chunk)
