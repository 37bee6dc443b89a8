"""What of a store goes into a pack, and how a pack comes into a store.

Carried are the records of finished steps with their blobs, the notes from which a plan says what changed, and the
checkpoints of unfinished steps. Nothing of MLflow need be: a run that finds a model or an answer in the store logs it
from its record.

Nothing that comes in can run code: a record is JSON of our own serializer, a blob is named by its SHA-256, a
checkpoint holds safetensors and JSON. What is refused is refused before anything is written, and records are written
last, so that whoever looks meanwhile sees finished steps only.
"""

import functools
import io
import json
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from tasks.cache.archive import PLACE, Member, Pack, PackError, Source
from tasks.cache.compared import file_sha256
from tasks.cache.locks import FlockManager
from tasks.cache.store import Artifact, Store, note, parse_record, stored_result

Record = Mapping[str, Any]
KEY = re.compile(r"[0-9a-f]{64}")
STEP = re.compile(r"step-([0-9]+)\.json")
RECORD_BYTES = 64 << 20  # a record is read whole; none of ours comes near
ROOM = 64 << 20  # bytes left free beside what is written


# --- Out of a store ------------------------------------------------------------------------------------------------


def contents(store: Store, folder: Path, keys: Collection[str] | None = None) -> list[Source]:
    """What a pack of a store holds: all that is sound, or what belongs to the steps with these keys.

    Args:
        store: where the records and blobs are.
        folder: where ``checkpoints`` is, the store or the outputs, see ``tasks.place.Place.folder``.
        keys: of the steps that are wanted; None: all.
    """
    finished = {key: record for key in store.record_keys() if KEY.fullmatch(key) and (record := store.record(key))}
    wanted = {k: record for k, record in finished.items() if (keys is None or k in keys) and _is_whole(record)}
    found = [_bytes(f"records/{key}", portable(key, store.read(f"records/{key}"))) for key in wanted]
    artifacts = {artifact["url"]: artifact for record in wanted.values() for artifact in record["artifacts"].values()}
    for url, artifact in artifacts.items():
        found.append(Source(Member(url, artifact["size"], artifact["sha256"]), functools.partial(store.open, url)))
    for entry in store.listing("latest"):
        content = store.read(entry["path"])
        if PLACE.fullmatch(entry["path"]) and _key_of(content) in wanted:
            found.append(_bytes(entry["path"], content))
    for key in _unfinished(folder, finished, keys):
        files = sorted((folder / "checkpoints" / key).iterdir())
        latest = max((file.stem for file in files if STEP.fullmatch(file.name)), default="")
        for file in files:
            path = f"checkpoints/{key}/{file.name}"
            older = file.name.startswith("step-") and file.stem != latest  # kept beside it in case of damage
            if PLACE.fullmatch(path) and not older:
                found.append(_file(path, file))
    return found


def portable(key: str, content: bytes) -> bytes:
    """A stored record without what holds only where it was written: the store's address, a Prefect server's block."""
    return json.dumps(stored_result(key, content)).encode()


def _unfinished(folder: Path, finished: Collection[str], keys: Collection[str] | None) -> Iterator[str]:
    """Keys of the steps that broke off: with checkpoints, without a record, and not at work now."""
    locks = FlockManager(folder / "locks")
    for path in sorted((folder / "checkpoints").glob("*")):
        key = path.name
        wanted = KEY.fullmatch(key) and key not in finished and (keys is None or key in keys)
        if wanted and path.is_dir() and not locks.is_locked(key):
            yield key


def _bytes(path: str, content: bytes) -> Source:
    def open_content() -> BinaryIO:
        return io.BytesIO(content)

    return Source(Member(path, len(content), sha256(content).hexdigest()), open_content)


def _file(path: str, file: Path) -> Source:
    def open_file() -> BinaryIO:
        return file.open("rb")

    return Source(Member(path, file.stat().st_size, file_sha256(file)), open_file)


def _key_of(content: bytes) -> str | None:
    """The key in a note of ``Store.remember``, if it is a whole one."""
    try:
        return str(note(content)["key"])
    except ValueError:
        return None


def _is_whole(record: Record) -> bool:
    """Whether a record says what ``tasks.steps.run_step`` lets each say, on which others rely."""
    data = record["data"]
    lineage = data.get("lineage")
    named = {"kind", "name", "version", "inputs", "code", "upstream"}
    return isinstance(lineage, dict) and lineage.keys() >= named and isinstance(data.get("seconds"), int | float)


# --- Into a store --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TakenIn:
    """How many files of each kind were written, their bytes, and how many files were there already."""

    records: int
    blobs: int
    checkpoints: int
    bytes: int
    there: int


def take_in(pack: Pack, store: Store, folder: Path) -> TakenIn:
    """Put a pack into a store; ``folder`` as for ``contents``.

    A sound record that is there stays: two results of one key differ in measured times at most. So does a checkpoint
    that is as far as the pack's.

    Raises:
        PackError: it holds what cannot be a record, a record whose blobs are nowhere, or more than there is room for;
            nothing has been written. Or its files change under our eyes.
    """
    by_kind: dict[str, list[Member]] = {"blobs": [], "checkpoints": [], "latest": [], "records": []}
    for member in pack.members.values():
        by_kind[member.path.partition("/")[0]].append(member)
    records = [member for member in by_kind["records"] if store.record(_last(member)) is None]
    blobs = [member for member in by_kind["blobs"] if not _is_intact(store, member)]
    _check_records(pack, by_kind["records"], store, {member.path: member.size for member in blobs})
    new = {_last(member) for member in records}
    notes = [member for member in by_kind["latest"] if _is_news(pack, member, store, new)]
    unfinished = Store(str(folder))
    checkpoints = list(_further(by_kind["checkpoints"], store, folder, {_last(m) for m in by_kind["records"]}))
    # In this order: what is named before what names it.
    written = [(store, member) for member in blobs] + [(unfinished, member) for member in checkpoints]
    written += [(store, member) for member in [*notes, *records]]
    _check_room(written)
    for place, member in written:
        place.write_stream(member.path, pack.chunks(member))
    _drop_checkpoints(folder, new)
    size = sum(member.size for _, member in written)
    return TakenIn(len(records), len(blobs), len(checkpoints), size, len(pack.members) - len(written))


def _last(member: Member) -> str:
    return member.path.rpartition("/")[2]


def _content(pack: Pack, member: Member) -> bytes:
    if member.size > RECORD_BYTES:
        raise PackError(f"{member.path} in the pack has {member.size} bytes, which is no record")
    return b"".join(pack.chunks(member))


def _check_records(pack: Pack, members: Collection[Member], store: Store, coming: Mapping[str, int]) -> None:
    """Raise ``PackError`` unless each is a record of ours whose blobs come with it (path to size) or are there."""
    for member in members:
        key = _last(member)
        try:
            record = parse_record(stored_result(key, _content(pack, member))["result"])
        except PackError:
            raise
        except ValueError as error:
            raise PackError(f"{member.path} in the pack is not a record of a finished step ({error})") from error
        if not _is_whole(record):
            raise PackError(f"{member.path} in the pack does not say what it was made from")
        for name, artifact in record["artifacts"].items():
            if coming.get(artifact["url"]) != artifact["size"] and not store.has(Artifact(**artifact)):
                raise PackError(
                    f"{member.path} in the pack needs the blob of {name}, which is neither in it nor in the store; "
                    "unpack first what it was packed --only-new-since"
                )


def _is_intact(store: Store, member: Member) -> bool:
    """Whether a blob is in the store; where that is a folder, also whether it is unaltered."""
    artifact = Artifact(member.path, member.sha256, member.size)
    if not store.has(artifact):
        return False
    return store.local is None or file_sha256(store.local / member.path) == member.sha256


def _is_news(pack: Pack, member: Member, store: Store, new: Collection[str]) -> bool:
    """Whether a note tells of a record that is new here, or is the first of its step."""
    key = _key_of(_content(pack, member))
    if key is None:
        raise PackError(f"{member.path} in the pack is not a note of a finished step")
    return key in new or not store.exists(member.path)


def _further(members: Collection[Member], store: Store, folder: Path, packed: Collection[str]) -> Iterator[Member]:
    """The files of unfinished steps that are further than what is here, each checkpoint's tensors before its JSON."""
    steps: dict[str, list[Member]] = {}
    for member in members:
        steps.setdefault(member.path.split("/")[1], []).append(member)
    locks = FlockManager(folder / "locks")
    for key, files in steps.items():
        if key in packed or store.record(key) is not None:
            continue
        if locks.is_locked(key):
            raise PackError(
                f"step {key[:12]}, whose checkpoint is in the pack, is at work here; unpack when it has ended"
            )
        here = {path.name for path in (folder / "checkpoints" / key).glob("*")}
        ahead = _progress(map(_last, files)) > _progress(here)
        for file in sorted(files, key=lambda file: (file.path.endswith(".json"), file.path)):
            if ahead or (_last(file) not in here and not _last(file).startswith(("step-", "snapshot-"))):
                yield file


def _progress(names: Iterable[str]) -> int:
    """The step of the latest checkpoint among the files of a step; -1 where there is none."""
    return max((int(found[1]) for name in names if (found := STEP.fullmatch(name))), default=-1)


def _drop_checkpoints(folder: Path, finished: Collection[str]) -> None:
    """Checkpoints of steps whose records have come, which no run here will drop."""
    locks = FlockManager(folder / "locks")
    for key in finished:
        if not locks.is_locked(key):
            shutil.rmtree(folder / "checkpoints" / key, ignore_errors=True)


def _check_room(written: Collection[tuple[Store, Member]]) -> None:
    needed: dict[Path, int] = {}
    for store, member in written:
        if store.local is not None:
            needed[store.local.absolute()] = needed.get(store.local.absolute(), ROOM) + member.size
    for folder, size in needed.items():
        free = shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free
        if free < size:
            raise PackError(f"{size >> 20} MiB are needed in {folder} and {free >> 20} MiB are free; make room")
