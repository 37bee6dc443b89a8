"""A storage that hiccups costs nothing but waiting; one that says no is not asked twice."""

import errno
import http.server
import logging
import pickle
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tasks.cache.objects import Objects
from tasks.cache.patience import LONGEST, Patience, StoreRefused, StoreUnreachable, is_passing
from tasks.cache.store import Store
from tasks.failures import is_no_room, kind_of
from tests.tasks.cache.flaky import Clock, Flaky, busy
from tests.tasks.cache.test_store import persist


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock, tmp_path: Path) -> Iterator[Store]:
    Flaky.fault = staticmethod(lambda: None)
    yield Store("flaky://chapter", cache=tmp_path, patience=Patience(600, clock.sleep, clock))
    Flaky.fault = staticmethod(lambda: None)
    Flaky.store.clear()


def out_until(clock: Clock, end: float) -> None:
    Flaky.fault = staticmethod(lambda: busy() if clock.now < end else None)


USES: dict[str, Any] = {
    "write": lambda store: store.write("records/new", b"content"),
    "create": lambda store: store.create("leases/new", b"content"),
    "write a stream": lambda store: store.write_stream("blobs/new", iter([b"con", b"tent"])),
    "read": lambda store: store.read("records/old"),
    "open": lambda store: store.open("records/old").read(),
    "look": lambda store: store.exists("records/old"),
    "size": lambda store: store.size("records/old"),
    "delete": lambda store: store.delete("records/old"),
    "list": lambda store: [entry["path"] for entry in store.listing("records")],
    "put": lambda store: store.put(b"weights"),
}


@pytest.mark.parametrize("what", USES)
@pytest.mark.parametrize("seconds", [20, 300])
def test_an_outage_costs_nothing_but_waiting(store: Store, clock: Clock, what: str, seconds: float) -> None:
    store.write("records/old", b"content")
    expected = USES[what](store)
    Flaky.store.clear()
    store.write("records/old", b"content")
    out_until(clock, seconds)
    assert USES[what](store) == expected
    assert seconds <= clock.now <= seconds + 2 * LONGEST  # and goes on soon after the storage does


def test_an_absent_object_is_not_what_an_outage_looks_like(store: Store, clock: Clock) -> None:
    """fsspec's own ``exists`` takes every failure for absence: then a run would train again what it has."""
    kept = store.put(b"weights")
    out_until(clock, 100)
    assert store.has(kept)
    assert clock.now >= 100


def test_a_finished_step_survives_an_outage_at_its_end(store: Store, clock: Clock) -> None:
    out_until(clock, 20)
    kept = store.put(b"weights")
    out_until(clock, clock.now + 20)
    assert store.fetch_bytes(kept) == b"weights"


def test_pauses_grow_and_differ(store: Store, clock: Clock) -> None:
    out_until(clock, 200)
    store.exists("records")
    assert max(clock.sleeps) <= LONGEST
    assert sum(clock.sleeps[-5:]) > 3 * sum(clock.sleeps[:5])
    assert len({round(seconds, 6) for seconds in clock.sleeps}) == len(clock.sleeps)


def test_after_minutes_it_is_said_in_one_sentence(store: Store, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    out_until(clock, 10_000)
    with caplog.at_level(logging.WARNING), pytest.raises(StoreUnreachable) as told:
        store.read("records/old")
    assert 600 <= clock.now <= 600 + LONGEST
    assert str(told.value) == (
        "flaky://chapter has not answered for 10 minutes (reading records/old: [Errno 16] Please reduce your request "
        "rate.); what is finished is kept, and the same command goes on from there when it answers again"
    )
    assert len(caplog.records) == 1  # not a line per try
    assert "tried again for up to 10 minutes" in caplog.text
    assert str(pickle.loads(pickle.dumps(told.value))) == str(told.value)
    assert kind_of(told.value) == "failed"


def test_passwords_are_not_told(clock: Clock) -> None:
    def work() -> None:
        raise ConnectionResetError("https://me:secret@host/bucket")

    with pytest.raises(StoreUnreachable) as told:
        Patience(60, clock.sleep, clock)("s3://key:secret@bucket", "reading", work)
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (FileNotFoundError("no such key"), FileNotFoundError),
        (PermissionError("Access Denied"), StoreRefused),
        (OSError(errno.ENOSPC, "No space left on device"), OSError),
        (ValueError("not a name"), ValueError),
    ],
)
def test_what_lasts_is_not_tried_again(store: Store, clock: Clock, error: Exception, kind: type[Exception]) -> None:
    Flaky.fault = staticmethod(lambda: error)
    before = Flaky.calls
    with pytest.raises(kind) as told:
        store.read("records/old")
    assert Flaky.calls == before + 1
    assert not clock.sleeps
    assert is_no_room(told.value) == ("No space" in str(error))
    if kind is StoreRefused:
        assert str(told.value) == (
            "flaky://chapter refuses (Access Denied); check the credentials of this machine and its name"
        )


def test_a_refusal_in_an_outage_ends_it(store: Store, clock: Clock) -> None:
    Flaky.fault = staticmethod(lambda: busy() if clock.now < 5 else PermissionError("expired token"))
    with pytest.raises(StoreRefused, match="expired token"):
        store.read("records/old")
    assert clock.now < 5 + 2 * LONGEST


class Foreign(Exception):
    """As libraries tell a status that are not imported here."""

    def __init__(self, **facts: Any) -> None:
        super().__init__("foreign")
        self.__dict__.update(facts)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def botocore(status: int) -> Exception:
    return Foreign(response={"Error": {"Code": str(status)}, "ResponseMetadata": {"HTTPStatusCode": status}})


EndpointConnectionError = type("EndpointConnectionError", (Exception,), {})
ServerDisconnectedError = type("ServerDisconnectedError", (Exception,), {})


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (botocore(503), True),
        (botocore(500), True),
        (botocore(429), True),
        (botocore(403), False),
        (botocore(404), False),
        (botocore(507), False),
        (caused(OSError(errno.EIO, "Bad Request"), botocore(400)), False),  # s3fs: whatever it does not know
        (caused(OSError(errno.EIO, "Bad Gateway"), botocore(502)), True),
        (Foreign(status=504), True),  # aiohttp
        (Foreign(code="503"), True),  # gcsfs
        (Foreign(status_code=403), False),  # Azure
        (Foreign(code="NoSuchKey"), False),
        (TimeoutError(), True),
        (ConnectionResetError(), True),
        (BrokenPipeError(), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError(errno.EROFS, "Read-only file system"), False),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), False),
        (EndpointConnectionError("no answer"), True),
        (ServerDisconnectedError(), True),
        (caused(RuntimeError("wrapped"), ConnectionResetError()), True),
        (caused(FileNotFoundError("no such key"), botocore(404)), False),
        (KeyError("x"), False),
    ],
)
def test_what_passes_and_what_lasts(error: Exception, passing: bool) -> None:
    assert is_passing(error) == passing


class Bucket(http.server.BaseHTTPRequestHandler):
    """One object, behind a service that answers 503, hangs up, or refuses as often as it is told to."""

    moods: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        mood = self.moods.pop(0) if self.moods else "well"
        if mood == "hang up":
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        content = b"weights" if mood == "well" else b"SlowDown"
        self.send_response({"well": 200, "busy": 503, "forbidden": 403}[mood])
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def bucket() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Bucket)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/bucket"
    Bucket.moods = []
    server.shutdown()
    server.server_close()


def test_over_a_real_connection(bucket: str, clock: Clock) -> None:
    objects = Objects(bucket, Patience(600, clock.sleep, clock))
    Bucket.moods = ["busy"] * 3 + ["hang up"] * 2 + ["busy"]
    assert objects.read("blobs/one") == b"weights"
    assert len(clock.sleeps) >= 4  # aiohttp asks once more by itself where a connection was closed
    assert not Bucket.moods


def test_a_refusal_over_a_real_connection(bucket: str, clock: Clock) -> None:
    Bucket.moods = ["forbidden"]
    with pytest.raises(StoreRefused, match="check the credentials"):
        Objects(bucket, Patience(600, clock.sleep, clock)).read("blobs/one")
    assert not clock.sleeps


def test_nobody_listens(clock: Clock) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(StoreUnreachable, match="has not answered for 60 s"):
        Objects(f"http://127.0.0.1:{port}/bucket", Patience(60, clock.sleep, clock)).read("blobs/one")


def test_records_are_found_again_after_an_outage(tmp_path: Path, clock: Clock) -> None:
    """A folder behaves alike: network disks hiccup as well."""
    store = Store(str(tmp_path), patience=Patience(600, clock.sleep, clock))
    persist(store, "k1")
    assert store.record("k1", verify=True) is not None
    assert not clock.sleeps
