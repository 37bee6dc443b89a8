"""A key is worked on once among machines that share nothing but a store, and nobody waits for another key."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.cache import locks
from tasks.cache.leases import POLL_SECONDS, Lease
from tasks.cache.locks import LeasedLockManager
from tasks.cache.objects import Objects
from tasks.cache.patience import Patience
from tests.tasks.cache.flaky import Clock, Flaky, busy


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["folder", "flaky"])
def objects(request: pytest.FixtureRequest, tmp_path: Path, clock: Clock) -> Iterator[Objects]:
    Flaky.fault = staticmethod(lambda: None)
    url = str(tmp_path) if request.param == "folder" else "flaky://chapter-leases"
    yield Objects(url, Patience(600, clock.sleep, clock))
    Flaky.fault = staticmethod(lambda: None)
    Flaky.store.clear()


def lease(objects: Objects, clock: Clock, key: str = "key", sleep: Callable[[float], None] | None = None) -> Lease:
    return Lease(objects, key, 60.0, sleep or clock.sleep, clock)


def test_one_holder_at_a_time_and_nothing_is_left(objects: Objects, clock: Clock) -> None:
    first, second = lease(objects, clock), lease(objects, clock)
    assert first.acquire(0)
    assert not second.acquire(0)
    first.release()
    assert second.acquire(0)
    second.release()
    assert objects.names("leases") == []


def test_of_many_at_once_one_gets_it(objects: Objects) -> None:
    """Real threads and a real clock: the store decides."""
    wanted = [Lease(objects, "key") for _ in range(16)]
    start, got = threading.Barrier(len(wanted)), []

    def run(one: Lease) -> None:
        start.wait()
        if one.acquire(0):
            got.append(one)

    threads = [threading.Thread(target=run, args=(one,)) for one in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) <= 1 if objects.local is None else len(got) == 1  # fsspec's memory is not atomic
    assert len(objects.names("leases")) == len(got)


def test_a_hundred_unrelated_keys_wait_for_nobody(objects: Objects, clock: Clock) -> None:
    held = [lease(objects, clock, f"key {number}") for number in range(100)]
    assert all(one.acquire(0) for one in held)
    assert clock.sleeps == []
    assert len(objects.names("leases")) == 100
    for one in held:
        one.release()
    assert objects.names("leases") == []


def test_who_lives_keeps_the_key(objects: Objects, clock: Clock) -> None:
    holder = lease(objects, clock)
    assert holder.acquire(0)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if clock.now - sleep.last > 15:  # type: ignore[attr-defined]
            sleep.last = clock.now  # type: ignore[attr-defined]
            assert holder.renew()

    sleep.last = 0.0  # type: ignore[attr-defined]
    assert not lease(objects, clock, sleep=sleep).acquire(3_600)
    assert holder.renew()


def test_who_has_vanished_loses_it_after_a_minute(objects: Objects, clock: Clock) -> None:
    gone, other = lease(objects, clock), lease(objects, clock)
    assert gone.acquire(0)
    assert not lease(objects, clock).acquire(50)
    assert other.acquire(300)
    assert 60 <= clock.now - 50 <= 60 + 4 * POLL_SECONDS[1]
    assert not gone.renew()
    gone.release()  # comes back, and takes nothing away from the other
    assert other.renew()
    other.release()
    assert objects.names("leases") == []


def test_time_without_the_store_does_not_count(clock: Clock) -> None:
    """When it is back, who had no way to renew must not lose the key to whoever looks first."""
    objects = Objects("flaky://chapter-leases", Patience(600, clock.sleep, clock))
    holder = lease(objects, clock)
    assert holder.acquire(0)

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        if 20 < clock.now < 30:
            Flaky.fault = staticmethod(lambda: busy() if clock.now < 320 else None)
        if clock.now > 330:
            assert holder.renew(), "the holder had ten seconds to come back"

    try:
        assert not lease(objects, clock, sleep=sleep).acquire(400)
    finally:
        Flaky.fault = staticmethod(lambda: None)
        Flaky.store.clear()


def test_an_answer_that_was_lost(clock: Clock) -> None:
    """The store has made the lease, and we did not hear of it: the second try finds our own."""
    objects = Objects("flaky://chapter-leases", Patience(600, clock.sleep, clock))
    wanted = lease(objects, clock)
    pipe = Flaky.pipe_file

    def lost(self: Flaky, *arguments: object, **options: object) -> None:
        pipe(self, *arguments, **options)  # type: ignore[arg-type]
        if clock.now == 0:
            raise busy()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Flaky, "pipe_file", lost)
        assert wanted.acquire(0)
    wanted.release()
    assert objects.names("leases") == []


def test_a_disk_without_links(tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", no_links)
    objects = Objects(str(tmp_path))
    first, second = lease(objects, clock), lease(objects, clock)
    assert first.acquire(0)
    assert not second.acquire(0)
    first.release()
    assert objects.names("leases") == []


# --- As Prefect sees it --------------------------------------------------------------------------------------------


def test_two_machines_with_one_store(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    here, there = LeasedLockManager(tmp_path / "here", store), LeasedLockManager(tmp_path / "there", store)
    assert here.acquire_lock("key", "a")
    assert here.acquire_lock("key", "a")
    assert not there.acquire_lock("key", "b", acquire_timeout=0)
    assert not there.is_locked("key"), "who could not have it holds no lock of its own machine"
    got = threading.Event()
    waiting = threading.Thread(target=lambda: there.acquire_lock("key", "b") and got.set())
    waiting.start()
    assert not got.wait(0.3)
    here.release_lock("key", "a")
    assert got.wait(30)
    there.release_lock("key", "b")
    waiting.join()
    assert Objects(store).names("leases") == []


def test_a_lease_is_renewed_while_its_holder_works(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    manager = LeasedLockManager(tmp_path / "here", store, lease_seconds=0.2)
    assert manager.acquire_lock("key", "a")
    [name] = Objects(store).names("leases")
    first, end = Objects(store).read(f"leases/{name}"), time.monotonic() + 30
    while Objects(store).read(f"leases/{name}") == first:
        assert time.monotonic() < end
        time.sleep(0.02)
    manager.release_lock("key", "a")
    assert Objects(store).names("leases") == []


def test_a_hundred_steps_at_once_on_two_machines(tmp_path: Path) -> None:
    """With 256 limits for all keys, as it was, 17 of 100 waited for a key that was not theirs."""
    store = str(tmp_path / "store")
    machines = [LeasedLockManager(tmp_path / name, store) for name in ("here", "there")]
    keys = [(machines[number % 2], f"step {number}") for number in range(100)]
    assert all(machine.acquire_lock(key, "holder", acquire_timeout=0) for machine, key in keys)
    for machine, key in keys:
        machine.release_lock(key, "holder")
    assert Objects(store).names("leases") == []
    assert not locks._leases


def test_who_lost_a_lease_does_not_take_that_of_the_same_turn(objects: Objects, clock: Clock) -> None:
    """A is frozen; B takes turn 2 and gives it up; C has turn 1 again, which A takes for its own."""
    a, b, c = (Lease(objects, "key", 60.0, clock.sleep, clock) for _ in range(3))
    assert a.acquire(0)
    assert b.acquire(300)
    b.release()
    assert c.acquire(0)
    assert not a.renew()
    a.release()
    assert c.renew()
