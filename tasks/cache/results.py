"""The store as Prefect sees it: the serializer of its results, and the block that holds them."""

import asyncio
import json
from typing import Any, Literal

from prefect.filesystems import WritableFileSystem
from prefect.serializers import Serializer

from tasks.cache.store import SERIALIZER, Store, serialized


class RecordSerializer(Serializer):
    """Records as JSON with a checksum; see ``tasks.cache.store.serialized``.

    Loading raises when the record was edited or one of its blobs is missing or has the wrong size. Prefect takes
    a failed load for a cache miss, and the step runs again.
    """

    type: Literal["chapter-record"] = SERIALIZER
    url: str

    def dumps(self, obj: Any) -> bytes:
        """The record as bytes, with a checksum of its own content."""
        return serialized(obj)

    def loads(self, blob: bytes) -> dict[str, Any]:
        """The record; raises as ``Store.parse`` does."""
        return Store(self.url).parse(blob)


class RecordStorage(WritableFileSystem):
    """Prefect's result storage, in the store's folder ``records``.

    Only records that name our own serializer are handed to Prefect: it would import and run any other one.
    """

    _block_type_name = "Chapter record storage"
    _block_type_slug = "chapter-record-storage"

    url: str

    def checked(self, path: str) -> bytes:
        """A stored record, if it is one of ours; raises as ``Store.stored`` does."""
        return json.dumps(Store(self.url).stored(path)).encode()

    # Prefect calls the synchronous pair with ``_sync=True`` and the asynchronous pair without.

    def read_path(self, path: str, _sync: bool = True) -> bytes:  # type: ignore[override]
        """Read a record."""
        return self.checked(path)

    def write_path(self, path: str, content: bytes, _sync: bool = True) -> None:  # type: ignore[override]
        """Write a record, unless there is a whole one.

        Then another machine has taken the step over, while this one was frozen, and has finished it: later steps may
        rest on its bits already, which on unlike hardware are others.
        """
        store = Store(self.url)
        if store.record(path) is None:
            store.write(f"records/{path}", content)

    async def aread_path(self, path: str) -> bytes:
        """Read a record, from asynchronous code, which a storage that hiccups must not hold up."""
        return await asyncio.to_thread(self.checked, path)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """Write a record, from asynchronous code."""
        await asyncio.to_thread(self.write_path, path, content)
