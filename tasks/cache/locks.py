"""Single flight: of several processes that want the same step, one does it and the others wait.

Prefect's own file lock hangs for ever once its holder was killed. ``filelock`` asks the kernel for a ``flock``, which
is released with the process that holds it, however it ends.
"""

import asyncio
import hashlib
import logging
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

from tasks.cache.leases import BEATS, SECONDS, Lease
from tasks.cache.objects import Objects

logger = logging.getLogger("chapter")

_held: dict[tuple[str, str], tuple[FileLock, str]] = {}  # (folder, key) -> (lock, holder), of this process
_leases: "dict[tuple[str, str], _Renewed]" = {}
_guard = threading.Lock()
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
    """The same across machines: behind the ``flock``, a lease in the store, one per key, removed afterwards.

    It is renewed by a thread while its holder lives; see ``tasks.cache.leases``.
    """

    def __init__(self, folder: Path, store: str, lease_seconds: float = SECONDS) -> None:
        super().__init__(folder)
        self.store, self.lease_seconds = store, lease_seconds

    def acquire_lock(
        self, key: str, holder: str, acquire_timeout: float | None = None, hold_timeout: float | None = None
    ) -> bool:
        """See ``FlockManager``."""
        if self.is_lock_holder(key, holder):
            return True
        begun = time.monotonic()
        if not super().acquire_lock(key, holder, acquire_timeout):
            return False
        lease = Lease(Objects(self.store), key, self.lease_seconds)
        try:
            left = None if acquire_timeout is None else max(0.0, begun + acquire_timeout - time.monotonic())
            taken = lease.acquire(left)
        except BaseException:
            super().release_lock(key, holder)
            raise
        if not taken:
            super().release_lock(key, holder)
            return False
        with _guard:
            _leases[(str(self.folder), key)] = _Renewed(lease)
        return True

    def release_lock(self, key: str, holder: str) -> None:
        """See ``FlockManager``."""
        lease = None
        if self.is_lock_holder(key, holder):
            with _guard:
                lease = _leases.pop((str(self.folder), key), None)
        try:
            if lease is not None:
                lease.close()
        except Exception as error:  # what was done is done; the lease runs out by itself
            logger.warning("the lease of step %s is not removed: %s", key[:12], error)
        finally:
            super().release_lock(key, holder)


class _Renewed:
    """A lease that is held, and the thread that renews it."""

    def __init__(self, lease: Lease) -> None:
        self._lease, self._over = lease, threading.Event()
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def _renew(self) -> None:
        while not self._over.wait(self._lease.seconds / BEATS):
            try:
                if not self._lease.renew():
                    logger.warning("step %s is at work elsewhere, too: its lease had run out", self._lease.key[:12])
                    return
            except Exception as error:  # minutes without the store: nobody else gets the key meanwhile
                logger.warning("the lease of step %s is not renewed: %s", self._lease.key[:12], error)

    def close(self) -> None:
        self._over.set()
        self._thread.join()
        self._lease.release()
