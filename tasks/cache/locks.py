"""Single flight: of several processes that want the same step, one does it and the others wait.

Prefect's own file lock hangs for ever once its holder was killed. ``filelock`` asks the kernel for a ``flock``, which
is released with the process that holds it, however it ends.
"""

import asyncio
import hashlib
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from filelock import FileLock, Timeout

_held: dict[tuple[str, str], tuple[FileLock, str]] = {}  # (folder, key) -> (lock, holder), of this process
_leases: dict[tuple[str, str], ExitStack] = {}
_guard = threading.Lock()
LEASE_SECONDS = 60
POLL_SECONDS = 0.05
# Not filelock's endless wait, which it refuses in the thread that took the lock: here another one may give it back.
FOR_EVER = threading.TIMEOUT_MAX


class FlockManager:
    """Prefect's ``LockManager`` protocol over ``flock``, for all processes of one machine.

    ``folder`` must be on a local file system. The object itself holds no state, so that it can be pickled into
    the processes of a pool.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)

    def _file(self, key: str) -> Path:
        # Hashed, so that keys that differ in a character that a file system folds away do not collide.
        return self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.lock"

    def _lock(self, key: str) -> FileLock:
        # For all threads: Prefect may release in another one. And no lock at all rather than one that outlives
        # its holder, where the file system has no ``flock``.
        return FileLock(self._file(key), thread_local=False, fallback_to_soft=False)

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """Take the lock, waiting at most ``acquire_timeout`` seconds (None: for ever). True if it was taken.

        ``hold_timeout`` is not needed: a lock cannot outlive its process.
        """
        if self.is_lock_holder(key, holder):
            return True
        lock = self._lock(key)
        try:
            lock.acquire(FOR_EVER if acquire_timeout is None else acquire_timeout, POLL_SECONDS)
        except Timeout:
            return False
        with _guard:
            _held[(str(self.folder), key)] = lock, holder
        return True

    async def aacquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """``acquire_lock`` off the event loop."""
        return await asyncio.to_thread(self.acquire_lock, key, holder, acquire_timeout, hold_timeout)

    def release_lock(self, key: str, holder: str) -> None:
        """Give the lock back.

        Raises:
            ValueError: somebody else holds it, or nobody.
        """
        with _guard:
            lock, owner = _held.get((str(self.folder), key), (None, None))
            if lock is None or owner != holder:
                raise ValueError(f"{holder} does not hold the lock of {key}")
            del _held[(str(self.folder), key)]
        lock.release()

    def is_locked(self, key: str) -> bool:
        """Whether any process holds the lock."""
        if not self._file(key).exists():
            return False
        try:
            with self._lock(key).acquire(blocking=False):
                return False
        except Timeout:
            return True

    def is_lock_holder(self, key: str, holder: str) -> bool:
        """Whether ``holder`` holds the lock, in this process."""
        with _guard:
            held = _held.get((str(self.folder), key))
            return held is not None and held[1] == holder

    def wait_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """Wait until nobody holds the lock; False if that takes longer than ``timeout`` seconds."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.is_locked(key):
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(POLL_SECONDS)
        return True

    async def await_for_lock(self, key: str, timeout: float | None = None) -> bool:
        """``wait_for_lock`` off the event loop."""
        return await asyncio.to_thread(self.wait_for_lock, key, timeout)


class LeasedLockManager(FlockManager):
    """The same across machines: behind the ``flock``, a global concurrency limit of the Prefect server.

    The slot is leased and renewed while its holder lives, so that a machine that vanishes frees it after
    ``LEASE_SECONDS``. The server needs its lease storage on disk: leases in memory leak slots at a restart.

    A limit serves all keys that begin alike: two of them wait for each other now and then, but the server
    does not fill up with limits. No step holds two locks, so they cannot block each other for ever.
    """

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """See ``FlockManager``."""
        if self.is_lock_holder(key, holder):
            return True
        if not super().acquire_lock(key, holder, acquire_timeout):
            return False
        from prefect.client.orchestration import get_client
        from prefect.concurrency.sync import concurrency

        limit = f"chapter-step-{hashlib.sha256(key.encode()).hexdigest()[:2]}"
        lease = ExitStack()
        try:
            with get_client(sync_client=True) as client:
                client.upsert_global_concurrency_limit_by_name(limit, 1)
            lease.enter_context(
                concurrency(limit, timeout_seconds=acquire_timeout, lease_duration=LEASE_SECONDS, strict=True)
            )
        except TimeoutError:
            super().release_lock(key, holder)
            return False
        except BaseException:
            super().release_lock(key, holder)
            raise
        with _guard:
            _leases[(str(self.folder), key)] = lease
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """See ``FlockManager``."""
        if self.is_lock_holder(key, holder):
            with _guard:
                lease = _leases.pop((str(self.folder), key))
            lease.close()
        super().release_lock(key, holder)
