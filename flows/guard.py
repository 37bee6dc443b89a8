"""The guard of a server: runs it until it ends, until SIGTERM, or until nobody uses it. And the locks that say so.

``flows/shared_server.py`` starts this file as a script, beside every server: standard library only. Who uses a server
holds a shared lock, which ``filelock`` has not; hence ``flock`` itself. Over NFS it wants the file open for reading.
"""

import fcntl
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import IO

STOP_SECONDS = 10


def take(file: IO[str], kind: int) -> bool:
    """Take the lock of an open file, ``fcntl.LOCK_SH`` or ``LOCK_EX``, if that is possible at once."""
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_free(path: Path) -> bool:
    """Whether nobody holds a file's lock for itself alone."""
    with path.open("a+") as file:
        return take(file, fcntl.LOCK_SH)


def guard(state: Path, command: Sequence[str]) -> int:
    """Run the server that lives in ``state``; returns its exit status."""
    # A process started in the background of a shell script inherits an ignored SIGINT, and its children from it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    going = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: going.set())
    # Who waits to join has its turn when ``users`` is closed, and looks at ``alive``, which is closed before.
    with (state / "users.lock").open("a+") as users, (state / "alive.lock").open("a+") as alive:
        fcntl.flock(alive, fcntl.LOCK_EX)
        # The server inherits the lock: should the guard be killed, it still counts as alive.
        with subprocess.Popen(command, pass_fds=[alive.fileno()]) as server:
            while server.poll() is None and not going.wait(0.5):
                if take(users, fcntl.LOCK_EX):  # nobody is left, and nobody can join any more
                    break
            server.terminate()
            try:
                server.wait(STOP_SECONDS / 2)
            except subprocess.TimeoutExpired:
                server.kill()
    return server.returncode


if __name__ == "__main__":
    sys.exit(guard(Path(sys.argv[1]), sys.argv[2:]))
