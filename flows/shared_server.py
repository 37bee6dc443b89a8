"""One server per folder, shared by all processes that need it: the first to come starts it, the last to leave stops it.

In the server's folder lie

    start.lock    held while a server is being started, joined or stopped
    users.lock    shared by every process that uses the server; taken exclusively, it says: the server is going
    alive.lock    held by the server for as long as it lives
    url, pid      where the server listens, its process group
    server.log

The kernel drops a lock with the process that holds it, so neither a killed user nor a killed server leaves
anything in the way of the next. The server runs under a small guard, ``flows/guard.py``, which stops it as soon as
nobody uses it any more, however they went.
"""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from flows import guard
from flows.guard import STOP_SECONDS, is_free, take

START_SECONDS = 180  # a first start migrates the database: 10 s of processor time, more on a busy machine
LOOPBACK = "127.0.0.1"


class ServerError(RuntimeError):
    """A server cannot be started or reached; the text says why, with the end of its log."""


@contextmanager
def shared_server(
    state: Path,
    command: Callable[[int], Sequence[str]],
    environment: Callable[[int], Mapping[str, str]],
    health: str,
    port: int | None,
    meanwhile: Callable[[], object] | None = None,
) -> Iterator[tuple[str, bool]]:
    """The URL of the server that lives in ``state``, and whether this call has started it.

    ``command`` and ``environment`` are those of a new server, by its port; ``health`` is the path that answers once it
    is up. ``port`` and ``meanwhile``: see ``flows.servers.prefect_server``.

    Raises:
        ServerError: it does not start.
    """
    from filelock import FileLock  # slower to import than bad input is answered

    state.mkdir(parents=True, exist_ok=True)
    with (state / "users.lock").open("a+") as users:
        try:
            with FileLock(state / "start.lock"):
                fcntl.flock(users, fcntl.LOCK_SH)  # waits for a server that is on its way out
                started = is_free(state / "alive.lock")
                if started:
                    _start(state, command, environment, port)
                (meanwhile or nothing)()
                url = (state / "url").read_text()
                _wait_for(state, url + health)
            yield url, started
        finally:
            with FileLock(state / "start.lock"):
                fcntl.flock(users, fcntl.LOCK_UN)
                if take(users, fcntl.LOCK_EX):
                    _stop(state)


def _start(
    state: Path,
    command: Callable[[int], Sequence[str]],
    environment: Callable[[int], Mapping[str, str]],
    port: int | None,
) -> None:
    port = free_port(port)
    (state / "url").write_text(f"http://{LOOPBACK}:{port}")
    with (state / "server.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(state), *command(port)],
            env=dict(environment(port)),
            cwd=state,  # not the user's: Prefect reads settings from the pyproject.toml of its working directory
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is for the users of the server
        )
    (state / "pid").write_text(str(process.pid))
    while is_free(state / "alive.lock") and process.poll() is None:
        time.sleep(0.01)
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie in a process that lives on


def _wait_for(state: Path, health: str) -> None:
    end = time.monotonic() + START_SECONDS
    while not answers(health):
        dead = is_free(state / "alive.lock")
        if dead or time.monotonic() > end:
            what = "ended at its start" if dead else f"does not answer after {START_SECONDS} s at {health}"
            log = (state / "server.log").read_text(errors="replace").strip().splitlines()[-15:]
            raise ServerError("\n  ".join([f"the server {what}. The end of {state / 'server.log'}:", *log]))
        time.sleep(0.05)


def _stop(state: Path) -> None:
    end = time.monotonic() + STOP_SECONDS
    while not is_free(state / "alive.lock"):
        late = time.monotonic() > end
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.killpg(int((state / "pid").read_text()), signal.SIGKILL if late else signal.SIGTERM)
        for _ in range(100):
            if is_free(state / "alive.lock"):
                break
            time.sleep(0.02)


def free_port(wish: int | None = None) -> int:
    """A port of the loopback address that nobody listens on: the wished one or the next free after it; None: any.

    Raises:
        ServerError: there is none.
    """
    for port in [0] if wish is None else range(wish, 65536):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                return int(probe.getsockname()[1])
    raise ServerError(f"no port is free from {wish} on")


def answers(url: str) -> bool:
    """Whether a server of ours answers at an address that it is well."""
    direct = urllib.request.ProxyHandler({})  # the loopback address is not for the proxies of the environment
    try:
        with urllib.request.build_opener(direct).open(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:  # an HTTPError is one, too
        return False


def nothing() -> None:
    """Does nothing: what there is to do ``meanwhile`` where nothing is given."""
