"""Single flight across processes, and no lock outlives its holder."""

import multiprocessing
import os
import signal
import threading
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from tasks.cache.locks import FlockManager, LeasedLockManager
from tasks.cache.objects import Objects
from tasks.cache.patience import StoreRefused

SPAWN = multiprocessing.get_context("spawn")


def _hold(folder: Path, holding: Event) -> None:
    FlockManager(folder).acquire_lock("key", "child")
    holding.set()
    time.sleep(60)


@pytest.fixture
def manager(tmp_path: Path) -> FlockManager:
    return FlockManager(tmp_path)


def test_one_holder_at_a_time(manager: FlockManager) -> None:
    assert manager.acquire_lock("key", "a")
    assert manager.acquire_lock("key", "a")  # again by the same holder
    assert not manager.acquire_lock("key", "b", acquire_timeout=0)
    assert manager.is_locked("key")
    assert manager.is_lock_holder("key", "a")
    assert not manager.is_lock_holder("key", "b")
    manager.release_lock("key", "a")
    assert not manager.is_locked("key")
    assert manager.acquire_lock("key", "b", acquire_timeout=0)
    manager.release_lock("key", "b")


def test_only_the_holder_releases(manager: FlockManager) -> None:
    manager.acquire_lock("key", "a")
    with pytest.raises(ValueError, match="does not hold"):
        manager.release_lock("key", "b")
    manager.release_lock("key", "a")


def test_similar_keys_do_not_collide(manager: FlockManager) -> None:
    for key in ("a.b", "a/b", "a_b", "A.b", "a b"):
        assert manager.acquire_lock(key, "holder", acquire_timeout=0)
    for key in ("a.b", "a/b", "a_b", "A.b", "a b"):
        manager.release_lock(key, "holder")


def test_waiting_ends_with_the_lock_or_the_time(manager: FlockManager) -> None:
    assert manager.wait_for_lock("key", timeout=0)
    manager.acquire_lock("key", "a")
    assert not manager.wait_for_lock("key", timeout=0.2)
    manager.release_lock("key", "a")


def test_another_thread_waits_and_another_may_release(manager: FlockManager) -> None:
    """Prefect takes a lock in one thread and may give it back in another, whoever waits for it."""
    manager.acquire_lock("key", "a")
    threading.Timer(0.2, manager.release_lock, ("key", "a")).start()
    assert manager.acquire_lock("key", "b")
    assert manager.is_lock_holder("key", "b")
    assert not manager.is_lock_holder("key", "a")
    manager.release_lock("key", "b")


def test_a_killed_holder_blocks_nobody(manager: FlockManager) -> None:
    holding = SPAWN.Event()
    child = SPAWN.Process(target=_hold, args=(manager.folder, holding))
    child.start()
    assert holding.wait(30)
    assert not manager.acquire_lock("key", "parent", acquire_timeout=0.2)
    assert child.pid is not None
    os.kill(child.pid, signal.SIGKILL)
    child.join()
    assert manager.acquire_lock("key", "parent", acquire_timeout=5)
    manager.release_lock("key", "parent")


def test_a_lease_that_may_not_be_removed_leaves_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A token that has expired by the end of a training: whoever waits on this machine waits until the process ends."""
    store = str(tmp_path / "store")
    manager = LeasedLockManager(tmp_path / "locks", store)
    assert manager.acquire_lock("key", "a")

    def refused(self: Objects, relative: str) -> None:
        raise StoreRefused("expired token")

    with monkeypatch.context() as patch:
        patch.setattr(Objects, "delete", refused)
        manager.release_lock("key", "a")
    assert not manager.is_locked("key")
