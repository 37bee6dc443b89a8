"""Answers of storages that say something else than they seem to."""

import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.cache.leases import Lease
from tasks.cache.objects import Objects
from tasks.cache.patience import StoreRefused
from tasks.cache.store import MissingArtifact, Store
from tests.tasks.cache.flaky import Clock, Flaky, flaky_objects


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects(clock: Clock) -> Iterator[Objects]:
    yield from flaky_objects("chapter-objects", clock)


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code: str, status: int) -> None:
        super().__init__(f"An error occurred ({code}) when calling the PutObject operation")
        self.response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}


def as_s3fs_says(code: str, status: int, number: int) -> OSError:
    """``s3fs.errors.translate_boto_error``: an OSError, behind it botocore's."""
    error = OSError(number, "At least one of the pre-conditions you specified did not hold")
    error.__cause__ = ClientError(code, status)
    return error


def test_a_store_that_does_not_name_the_condition(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    """s3fs makes a FileExistsError of a 412 only where its XML has <Condition>: Amazon's has, MinIO's has not."""
    pipe = Flaky.pipe_file

    def raised(*args: Any, **options: Any) -> None:
        try:
            pipe(*args, **options)
        except FileExistsError:
            error = as_s3fs_says("PreconditionFailed", 412, errno.EINVAL)
            raise error from error.__cause__

    monkeypatch.setattr(Flaky, "pipe_file", raised)
    assert objects.create("leases/key-000000001", b"first")
    assert not objects.create("leases/key-000000001", b"second")


def test_a_conditional_write_that_met_another_one(
    objects: Objects, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Amazon: "If a conflicting operation occurs during the upload S3 returns a 409 … you should retry"."""
    pipe, conflicts = Flaky.pipe_file, [1]

    def conflict(*args: Any, **options: Any) -> None:
        if conflicts.pop() if conflicts else 0:
            error = as_s3fs_says("ConditionalRequestConflict", 409, errno.EIO)
            raise error from error.__cause__
        pipe(*args, **options)

    monkeypatch.setattr(Flaky, "pipe_file", conflict)
    assert Lease(objects, "key", 60.0, clock.sleep, clock).acquire(0)


@pytest.mark.parametrize("times", [1, 2])
def test_a_garbled_transfer_deletes_no_blob(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """One answer that was cut short says nothing of what lies in the store; two say that it is altered."""
    store = Store(objects.url, cache=tmp_path)
    artifact, cat, left = store.put(b"hours of training"), Flaky.cat_file, [4] * times

    def cut(self: Flaky, path: str, *args: Any, **options: Any) -> bytes:
        content = bytes(cat(self, path, *args, **options))
        return content[: -left.pop()] if left else content

    monkeypatch.setattr(Flaky, "cat_file", cut)
    if times == 1:
        assert store.fetch_bytes(artifact) == b"hours of training"
    else:
        with pytest.raises(MissingArtifact):
            store.fetch(artifact)
    assert store.has(artifact) == (times == 1)


def test_a_request_that_is_refused_as_invalid_is_no_missing_record(
    objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    """gcsfs, with credentials that have run out: a finished step must not count as one that never ran."""

    def invalid(*args: Any, **options: Any) -> None:
        raise ValueError("Bad Request: invalid_grant")

    monkeypatch.setattr(Flaky, "cat_file", invalid)
    with pytest.raises(StoreRefused, match="invalid_grant"):
        Store(objects.url).record("k1")
