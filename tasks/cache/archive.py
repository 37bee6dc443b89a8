"""A pack: files of a store in parts that can be carried one by one, and a manifest that says what they must be.

    chapter-0001.tar …   plain tar files; a file that does not fit goes on in the next part as ``<path>@<offset>``
    manifest.json        the SHA-256 of every part and of every file, in order; written last

Equal files make equal bytes: no times, no owners. Nothing is compressed, because weights do not shrink (zstd leaves
93 % of them). Reading trusts nothing: a path must be a place in a store, whatever a part holds must be what the
manifest says comes next, and all of it is read once before anything is handed out. A file is never held in memory.
"""

import hashlib
import json
import os
import re
import tarfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from minigpt.atomic import write_atomic

MANIFEST, FORMAT, VERSION = "manifest.json", "chapter-pack", 1
BLOCK, END = 512, 2 * tarfile.BLOCKSIZE  # bytes; a tar file ends with two empty blocks
CHUNK = 1 << 20  # bytes read at a time
SMALLEST_PART = 16 * BLOCK
MANIFEST_BYTES = 64 << 20  # no manifest of ours comes near
PLACE = re.compile(
    r"blobs/(?P<two>[0-9a-f]{2})/(?P=two)[0-9a-f]{62}"
    r"|records/[0-9a-f]{64}"
    r"|latest/[A-Za-z0-9=-]{1,80}\.json"
    r"|checkpoints/[0-9a-f]{64}/((step|snapshot)-[0-9]{9,12}\.(safetensors|json|sha256)|[0-9a-f]{16}\.json)"
)
SHA256 = re.compile(r"[0-9a-f]{64}")


class PackError(ValueError):
    """A pack that cannot be written or believed; the text is one sentence for a person."""


@dataclass(frozen=True)
class Member:
    """A file in a pack: its path in the store, its size in bytes and its SHA-256."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Source:
    """A file to be packed, and how to read it."""

    member: Member
    open: Callable[[], BinaryIO]


# --- Writing ---------------------------------------------------------------------------------------------------


def write_pack(folder: Path, sources: Sequence[Source], part_size: int) -> list[Member]:
    """Write the files, sorted by path, as parts of at most ``part_size`` bytes into a new or empty folder.

    Returns the members. If it fails, no part is left.

    Raises:
        PackError: the folder is not empty, a part would be too small, or a file changes meanwhile.
    """
    if part_size < SMALLEST_PART:
        raise PackError(f"parts of {part_size} bytes are too small; give at least {SMALLEST_PART}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise PackError(f"{folder} is not an empty folder; name one that is empty or not there yet")
    folder.mkdir(parents=True, exist_ok=True)
    ordered = sorted(sources, key=lambda source: source.member.path)
    parts = _Parts(folder, part_size)
    try:
        for source in ordered:
            _write_member(parts, source)
        parts.close()
    except BaseException:
        parts.discard()
        raise
    members = [source.member for source in ordered]
    listed = [{"path": member.path, "size": member.size, "sha256": member.sha256} for member in members]
    manifest = {"format": FORMAT, "version": VERSION, "parts": parts.written, "members": listed}
    write_atomic(folder / MANIFEST, json.dumps(manifest, indent=1).encode() + b"\n")
    return members


def _write_member(parts: "_Parts", source: Source) -> None:
    member, offset, digest = source.member, 0, hashlib.sha256()
    with source.open() as file:
        while offset < member.size or offset == 0:
            size = parts.begin(_piece(member.path, offset), member.size - offset)
            for wanted in _chunk_sizes(size):
                chunk = file.read(wanted)
                if len(chunk) != wanted:
                    raise PackError(f"{member.path} changed while it was packed; pack again when no run is at work")
                digest.update(chunk)
                parts.write(chunk)
            parts.pad(size)
            offset += size
            if member.size == 0:
                break
    if digest.hexdigest() != member.sha256:
        raise PackError(f"{member.path} is not what its SHA-256 says; run the chapter again, which mends it")


def _piece(path: str, offset: int) -> str:
    return f"{path}@{offset}" if offset else path


def _chunk_sizes(size: int) -> Iterator[int]:
    for start in range(0, size, CHUNK):
        yield min(CHUNK, size - start)


class _Parts:
    """Tar files in a row, each of at most ``limit`` bytes."""

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self.written: list[dict[str, Any]] = []
        self._file: BinaryIO | None = None
        self._used, self._digest = 0, hashlib.sha256()

    @property
    def _name(self) -> str:
        return f"chapter-{len(self.written) + 1:04d}.tar"

    def begin(self, name: str, wanted: int) -> int:
        """The header of a file of ``wanted`` bytes, or of as many of them as fit; returns how many those are."""
        room = self._room()
        if self._file is not None and room < wanted and room < self.limit // 8:  # no crumbs
            self._end()
            room = self._room()
        if self._file is None:
            self._file = (self.folder / self._name).open("xb")
        size = min(wanted, room)
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o644
        self.write(info.tobuf(tarfile.USTAR_FORMAT))
        return size

    def _room(self) -> int:
        return (self.limit - self._used - BLOCK - END) // BLOCK * BLOCK

    def write(self, content: bytes) -> None:
        assert self._file is not None
        self._file.write(content)
        self._digest.update(content)
        self._used += len(content)

    def pad(self, size: int) -> None:
        self.write(bytes(-size % BLOCK))

    def _end(self) -> None:
        self.write(bytes(END))
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self.written.append({"name": self._name, "size": self._used, "sha256": self._digest.hexdigest()})
        self._file, self._used, self._digest = None, 0, hashlib.sha256()

    def close(self) -> None:
        """End the last part."""
        if self._file is not None:
            self._end()

    def discard(self) -> None:
        """Remove all that was written."""
        names = [part["name"] for part in self.written]
        if self._file is not None:
            self._file.close()
            names.append(self._name)
        for name in names:
            (self.folder / name).unlink(missing_ok=True)


# --- Reading ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pack:
    """A pack of which every byte was checked: its members by path, and where they lie."""

    members: Mapping[str, Member]
    _pieces: Mapping[str, Sequence[tuple[Path, int, int]]]  # (part, position in it, size)

    def chunks(self, member: Member) -> Iterator[bytes]:
        """The content of a member, bit by bit, and its SHA-256 once more: the parts may change under our eyes.

        Raises:
            PackError: they have.
        """
        digest = hashlib.sha256()
        for part, position, size in self._pieces[member.path]:
            with part.open("rb") as file:
                file.seek(position)
                for wanted in _chunk_sizes(size):
                    chunk = file.read(wanted)
                    digest.update(chunk)
                    yield chunk
        if digest.hexdigest() != member.sha256:
            raise PackError(f"{member.path} in the pack is not what {MANIFEST} says; copy the pack again")


def read_manifest(file: Path) -> tuple[list[dict[str, Any]], dict[str, Member]]:
    """The parts and the members that a manifest names.

    Raises:
        PackError: there is none, or it is not one, or it names what can be no file of a store.
    """
    try:
        if file.stat().st_size > MANIFEST_BYTES:
            raise PackError(f"{file} is too large to be the manifest of a pack")
        manifest = json.loads(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PackError(
            f"{file} is not there; give the folder that `chapter pack` wrote, with all its files"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise PackError(f"{file} cannot be read as JSON; copy it again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise PackError(f"{file} is not the manifest of a pack")
    if manifest.get("version") != VERSION:
        raise PackError(f"{file} is of version {str(manifest.get('version'))[:20]}; this program reads {VERSION}")
    parts, members = manifest.get("parts"), manifest.get("members")
    if not _all_have(parts, "name") or not _all_have(members, "path"):
        raise PackError(f"{file} is not the manifest of a pack: a part or member lacks its name, size or SHA-256")
    assert isinstance(parts, list) and isinstance(members, list)  # noqa: PT018
    if [part["name"] for part in parts] != [f"chapter-{i + 1:04d}.tar" for i in range(len(parts))]:
        raise PackError(f"{file} names parts other than chapter-0001.tar, chapter-0002.tar, …")
    found: dict[str, Member] = {}
    for entry in members:
        member = Member(entry["path"], entry["size"], entry["sha256"])
        if not PLACE.fullmatch(member.path):
            raise PackError(f"{file} names {member.path[:120]!r}, which is no place in a store")
        if member.path in found:
            raise PackError(f"{file} names {member.path} twice")
        if member.path.startswith("blobs/") and not member.path.endswith(member.sha256):
            raise PackError(f"{file} gives {member.path} another SHA-256 than its name")
        found[member.path] = member
    return parts, found


def _all_have(entries: object, name: str) -> bool:
    return isinstance(entries, list) and all(
        isinstance(entry, dict)
        and isinstance(entry.get(name), str)
        and type(entry.get("size")) is int
        and entry["size"] >= 0
        and isinstance(entry.get("sha256"), str)
        and SHA256.fullmatch(entry["sha256"]) is not None
        for entry in entries
    )


def open_pack(folder: Path) -> Pack:
    """The pack in a folder, every byte of it checked.

    Raises:
        PackError: something is missing, altered, foreign, or not what the manifest says.
    """
    parts, members = read_manifest(folder / MANIFEST)
    _check_parts(folder, parts)
    pieces: dict[str, list[tuple[Path, int, int]]] = {}
    expected = iter(members.values())
    member, offset = next(expected, None), 0
    for part in parts:
        file = folder / part["name"]
        for info, position in _headers(file):
            if member is None or info.name != _piece(member.path, offset) or info.size > member.size - offset:
                raise PackError(
                    f"{file} holds {info.name[:120]!r} where {MANIFEST} does not say so; copy the pack again"
                )
            pieces.setdefault(member.path, []).append((file, position, info.size))
            offset += info.size
            if offset == member.size:
                member, offset = next(expected, None), 0
    if member is not None:
        raise PackError(f"the parts in {folder} end before {member.path} is complete; copy the pack again")
    pack = Pack(members, pieces)
    for one in members.values():
        for _ in pack.chunks(one):
            pass
    return pack


def _check_parts(folder: Path, parts: Collection[Mapping[str, Any]]) -> None:
    others = {file.name for file in folder.glob("chapter-*.tar")} - {part["name"] for part in parts}
    if others:
        raise PackError(
            f"{folder / min(others)} is not of the pack of this {MANIFEST}; keep each pack in its own folder"
        )
    for part in parts:
        file = folder / part["name"]
        if not file.is_file():
            raise PackError(f"{file} is missing; copy it from where the pack was made")
        if file.stat().st_size != part["size"]:
            raise PackError(f"{file} has {file.stat().st_size} bytes instead of {part['size']}; copy it again")
        with file.open("rb") as content:
            if hashlib.file_digest(content, "sha256").hexdigest() != part["sha256"]:
                raise PackError(f"{file} was altered, or is a part of another pack; copy it again")


def _headers(file: Path) -> Iterator[tuple[tarfile.TarInfo, int]]:
    """What a part holds, and where the content of each begins: plain files only, and nothing after its end."""
    size, position = file.stat().st_size, 0
    with file.open("rb") as tar:
        while True:
            tar.seek(position)
            header = tar.read(BLOCK)
            if not any(header):
                break
            try:
                info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
            except (tarfile.HeaderError, UnicodeDecodeError) as error:
                raise PackError(f"{file} is not a tar file; copy it again") from error
            position += BLOCK
            if info.type != tarfile.REGTYPE:
                raise PackError(f"{file} holds {info.name[:120]!r}, which is not a plain file")
            if info.size < 0 or position + info.size > size:
                raise PackError(f"{file} ends within {info.name[:120]!r}; copy it again")
            yield info, position
            position += info.size + -info.size % BLOCK
        if size - position != END or any(header + tar.read()):
            raise PackError(f"{file} does not end where its last file does; copy it again")
