"""The store: blobs by SHA-256 and the records of finished steps, under one fsspec URL.

    <store>/blobs/ab/abcdef…      content-addressed, written once
    <store>/records/<key>         Prefect's persisted results, one per step key: JSON, never pickle
    <store>/latest/<name>         the last key of each named step, so that a plan can say what changed

Nothing that is read from here can run code: Prefect would load whatever serializer a record
names, so every record but ours is refused (``Store.stored``) before Prefect parses it (``tasks.cache.results``).
This module knows nothing of Prefect, which takes longer to import than a plan takes to make.
"""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from minigpt.atomic import write_atomic
from tasks.cache.compared import has_sha256
from tasks.cache.keys import digest
from tasks.cache.objects import Objects, opened
from tasks.cache.patience import Patience, refusal
from tasks.cache.schema import SERIALIZER, Blob, Note, Record, Serializer, Stored, as_its_kind, blob_path, checked

__all__ = ["SERIALIZER", "blob_path", "opened"]  # beside what is defined here


class MissingArtifact(ValueError):
    """A blob that a record names is gone, truncated or altered."""


@dataclass(frozen=True)
class Artifact:
    """A blob: where it is, relative to the store, what it must contain, and its size in bytes.

    ``url`` is for people and records. The store looks where the SHA-256 says, whatever ``url`` does.
    """

    url: str
    sha256: str
    size: int


class Store(Objects):
    """Blobs and records among the objects under ``url``.

    ``cache`` is where blobs of a remote store are kept after their first download.
    """

    def __init__(self, url: str, cache: Path | None = None, patience: Patience | None = None) -> None:
        super().__init__(url, patience)
        self.cache = cache

    # --- blobs ---

    def put(self, content: bytes) -> Artifact:
        """Keep ``content``; writing the same bytes twice writes them once."""
        sha256 = hashlib.sha256(content).hexdigest()
        artifact = Artifact(blob_path(sha256), sha256, len(content))
        if not self.has(artifact):
            self.write(artifact.url, content)
        elif self.local is not None:  # young again, for ``chapter gc``: the record that names it is still to come
            with suppress(OSError):
                os.utime(self.local / artifact.url)
        return artifact

    def has(self, artifact: Artifact) -> bool:
        """Whether the blob is there with the right size."""
        return self.size(blob_path(artifact.sha256)) == artifact.size

    def fetch(self, artifact: Artifact) -> Path:
        """A local file with the blob's content, its SHA-256 checked.

        Raises:
            MissingArtifact: gone, truncated or altered; an altered blob is deleted, so that its step runs again.
        """
        url = blob_path(artifact.sha256)
        if self.local is not None:
            path = self.local / url
        else:
            path = (self.cache or Path(tempfile.gettempdir()) / "chapter-blobs") / artifact.sha256
            if path.exists() and has_sha256(path, artifact.sha256):
                return path
            try:  # no copy, or a damaged one, which says nothing of the blob
                write_atomic(path, self._read_whole(artifact))
            except FileNotFoundError:
                path.unlink(missing_ok=True)
        if not path.exists():
            raise MissingArtifact(f"blob {artifact.sha256[:12]} is not in the store")
        if not has_sha256(path, artifact.sha256):
            path.unlink(missing_ok=True)
            self.delete(url)
            raise MissingArtifact(f"blob {artifact.sha256[:12]} was altered; it has been dropped")
        return path

    def _read_whole(self, artifact: Artifact) -> bytes:
        """A blob's content; once more if what came is not it, as one answer says nothing of what lies in the store."""
        content = self.read(blob_path(artifact.sha256))
        if hashlib.sha256(content).hexdigest() != artifact.sha256:
            content = self.read(blob_path(artifact.sha256))
        return content

    def fetch_bytes(self, artifact: Artifact) -> bytes:
        """Like ``fetch``, but the content."""
        return self.fetch(artifact).read_bytes()

    # --- records ---

    def record(self, key: str, *, kind: str = "", verify: bool = False) -> dict[str, Any] | None:
        """The record of a finished step, or None if there is none that is whole.

        With a ``kind`` it must be as steps of that kind leave it. With ``verify`` the SHA-256 of the blobs is compared
        (``tasks.cache.compared``), otherwise only their sizes.
        """
        try:
            record = self.parse(self.stored(key)["result"])
            if kind:
                as_its_kind(kind, record)
            if verify:
                for artifact in record["artifacts"].values():
                    self.fetch(Artifact(**artifact))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
            return None
        return record

    def stored(self, key: str) -> dict[str, Any]:
        """What Prefect has stored under a key, if it is one of our records.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it names another serializer, or belongs to another key.
            StoreRefused: the storage does not let us.
        """
        try:
            content = self.read(f"records/{key}")
        except ValueError as error:  # gcsfs says so of credentials, too; here it would mean that there is no record
            if self.local is not None:
                raise
            raise refusal(self.url, error) from error
        stored = stored_result(key, content)
        # Prefect builds the serializer from here: the store may have been moved since the record was written.
        stored["metadata"]["serializer"]["url"] = self.url
        return stored

    def parse(self, text: str | bytes) -> dict[str, Any]:
        """The record that ``serialized`` has written.

        Raises:
            ValueError: not a record, altered, or without its blobs.
        """
        record = parse_record(text)
        for name, artifact in record["artifacts"].items():
            if not self.has(Artifact(**artifact)):
                raise MissingArtifact(f"the blob of {name} is missing or has the wrong size")
        return record

    def drop_unfit(self, key: str, kind: str) -> None:
        """Drop a record that is not as steps of this kind leave it: Prefect, which knows no kinds, would take it."""
        record = self.record(key)
        if record is None:
            return
        try:
            as_its_kind(kind, record)
        except ValueError:
            self.delete(f"records/{key}")

    def record_keys(self) -> list[str]:
        """Keys of all records."""
        return [entry["path"].rpartition("/")[2] for entry in self.listing("records")]

    def remember(self, name: str, entry: Mapping[str, Any]) -> None:
        """Note the last run of a named step: its key, its ingredients and its duration."""
        self.write(f"latest/{slug(name)}.json", json.dumps(entry).encode())

    def last(self, name: str) -> dict[str, Any] | None:
        """What ``remember`` noted."""
        try:
            return note(self.read(f"latest/{slug(name)}.json"))
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):
            return None


def slug(name: str) -> str:
    """A file name for a step's name."""
    return re.sub(r"[^A-Za-z0-9=-]+", "-", name).strip("-")


def loads(text: str | bytes) -> Any:
    """What JSON text says.

    Raises:
        ValueError: it is none, or nested too deeply to have been written here.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("JSON that is nested too deeply") from error


def serialized(record: Mapping[str, Any]) -> bytes:
    """A record as JSON: ``{"key", "artifacts": {name: {url, sha256, size}}, "data", "checksum"}``."""
    body = {"key": record["key"], "artifacts": record["artifacts"], "data": record["data"]}
    return json.dumps({**body, "checksum": digest(body)}).encode()


def parse_record(blob: bytes | str) -> dict[str, Any]:
    """What ``serialized`` wrote, without a look at the blobs that it names.

    Raises:
        ValueError: not a record, altered, or one that names a file which is not a blob of a store.
    """
    record = loads(blob)
    artifacts = record.get("artifacts") if isinstance(record, dict) else None
    for name, artifact in artifacts.items() if isinstance(artifacts, dict) else ():
        checked(Blob, artifact, f"the record's {name[:40]} is not a blob of a store")
    checked(Record, record, "not a record of a finished step")
    checksum = record.pop("checksum")
    try:
        altered = checksum != digest(record)
    except RecursionError as error:
        raise ValueError("the record is nested too deeply to be one of ours") from error
    if altered:
        raise ValueError("the record was altered after it was written")
    return dict(record)


def stored_result(key: str, content: bytes) -> dict[str, Any]:
    """A record as Prefect keeps it, if it is one of ours, with as much of its metadata as says something here.

    Raises:
        ValueError: it names another serializer, or belongs to another key.
    """
    stored = loads(content)
    metadata = stored.get("metadata") if isinstance(stored, dict) else None
    serializer = metadata.get("serializer") if isinstance(metadata, dict) else None
    checked(Serializer, serializer, f"record {key} names a foreign serializer")
    found = checked(Stored, stored, f"record {key} is not a stored result")
    result = loads(found.result)
    if not isinstance(result, dict) or result.get("key") != key:
        raise ValueError(f"record {key} belongs to another step")
    return {
        "metadata": {
            "storage_key": key,
            "expiration": None,
            "serializer": {"type": SERIALIZER, "url": ""},
            "prefect_version": found.metadata.prefect_version,
            "storage_block_id": None,
        },
        "result": found.result,
    }


def note(content: bytes | str) -> dict[str, Any]:
    """What ``Store.remember`` wrote.

    Raises:
        ValueError: it is something else.
    """
    entry = loads(content)
    checked(Note, entry, "not a note of a finished step")
    return dict(entry)


def as_record(key: str, artifacts: Mapping[str, Artifact], data: Mapping[str, Any]) -> dict[str, Any]:
    """What a step's task returns."""
    return {"key": key, "artifacts": {name: asdict(a) for name, a in artifacts.items()}, "data": dict(data)}


def artifacts_of(records: Iterable[Mapping[str, Any]]) -> set[str]:
    """Store paths of all blobs that the records name."""
    return {artifact["url"] for record in records for artifact in record["artifacts"].values()}
