"""Prefect's and MLflow's servers on this machine: one of each per folder of outputs, shared by all that need it.

The first to come starts the server, the last to leave stops it. In ``<outputs>/prefect/server`` and
``<outputs>/mlflow/server`` lie

    start.lock    held while a server is being started, joined or stopped
    users.lock    shared by every process that uses the server; taken exclusively, it says: the server is going
    alive.lock    held by the server for as long as it lives
    url, pid      where the server listens, its process group
    server.log

The kernel drops a lock with the process that holds it, so neither a killed user nor a killed server leaves
anything in the way of the next. The server runs under a small guard, which is this file run as a
script (standard library only): it stops the server as soon as nobody uses it any more, however they went.
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
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

START_SECONDS = 180  # a first start migrates the database: 10 s of processor time, more on a busy machine
STOP_SECONDS = 10
HEARTBEAT_SECONDS = 30  # the least that Prefect takes
LOOPBACK = "127.0.0.1"

# Telemetry: https://docs.prefect.io/v3/concepts/telemetry, https://mlflow.org/docs/latest/community/usage-tracking
QUIET = {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
}


class ServerError(RuntimeError):
    """A server cannot be started or reached; the text says why, with the end of its log."""


@contextmanager
def prefect_server(home: Path, port: int | None = None, meanwhile: Callable[[], object] | None = None) -> Iterator[str]:
    """A Prefect API for as long as the context lasts; yields its URL, which ``PREFECT_API_URL`` holds, too.

    Starts or joins the one server of ``home``, on the loopback address. Where ``PREFECT_API_URL`` is set
    already, that server is used and nothing is started. ``port`` is what a new server would like to have
    (None: any). ``meanwhile`` is called while the server starts: the place for slow imports.

    The environment is set before the context begins, so that processes started inside it find the same server.

    Raises:
        ServerError: the server does not start, or the one in ``PREFECT_API_URL`` does not answer.
    """
    settings = {**QUIET, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}
    given = os.environ.get("PREFECT_API_URL")
    if given:
        with _environment(settings):
            (meanwhile or _nothing)()
            if not _answers(f"{given}/health", ours=False):
                from tasks.cache.urls import without_credentials

                raise ServerError(
                    f"PREFECT_API_URL is {without_credentials(given)}, where nothing answers; unset it to use a local "
                    "server"
                )
            yield given
        return

    folder = home.resolve() / "prefect"
    settings |= {
        "PREFECT_HOME": str(folder),
        # Start-up plugins have no work to do here, and each process of a pool would look for them.
        "PREFECT_PLUGINS_ENABLED": "false",
        "NO_PROXY": ",".join(filter(None, (os.environ.get("NO_PROXY") or os.environ.get("no_proxy"), LOOPBACK))),
    }

    def command(port: int) -> Sequence[str]:
        return [sys.executable, "-m", "prefect", "server", "start", "--host", LOOPBACK, "--port", str(port)]

    def environment(port: int) -> Mapping[str, str]:
        return {
            **os.environ,
            "PREFECT_SERVER_UI_API_URL": f"http://{LOOPBACK}:{port}/api",
            # On disk: leases of concurrency limits in memory are lost with the server, and their slots never freed.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        }

    with (
        _environment(settings),  # before anything imports Prefect
        shared_server(folder / "server", command, environment, "/api/health", port, meanwhile) as (url, started),
        _environment({"PREFECT_API_URL": f"{url}/api"}),
    ):
        if started:
            from flows.recovery import ensure_crash_detection

            ensure_crash_detection()
        try:
            yield f"{url}/api"
        finally:
            _send_what_is_queued()


@contextmanager
def mlflow_server(home: Path, port: int | None = None) -> Iterator[str]:
    """The MLflow server over the tracking database in ``home``, shared like Prefect's; yields its URL.

    Where ``MLFLOW_TRACKING_URI`` names a server, that one is used and nothing is started.

    Raises:
        ServerError: it does not start.
    """
    from tasks.tracking.client import connect
    from tasks.tracking.outbox import locked
    from tasks.tracking.tracker import Tracker

    tracker = Tracker(home)
    if tracker.uri.startswith("http"):
        yield tracker.uri
        return
    tracker.folder.mkdir(parents=True, exist_ok=True)
    with locked(tracker.folder / "open.lock"):
        connect(tracker.uri)  # makes the database, or brings it up to date

    def command(port: int) -> Sequence[str]:
        artifacts = str(tracker.folder / "artifacts")
        return [
            *(sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port), "--workers", "1"),
            *("--backend-store-uri", tracker.uri, "--artifacts-destination", artifacts),
        ]

    def environment(port: int) -> Mapping[str, str]:
        # Without its job queue for GenAI evaluations the server is one process instead of several.
        return {**os.environ, **QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    with shared_server(tracker.folder / "server", command, environment, "/health", port) as (url, _):
        yield url


def ui(home: Path, *, prefect_port: int = 4200, mlflow_port: int = 5000) -> int:
    """Serve both pages until Ctrl-C; a port that is taken makes way for the next free one. Returns the exit status."""
    for variable in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):  # what an earlier call has printed, perhaps
        os.environ.pop(variable, None)
    print("starting the servers …", flush=True)
    with prefect_server(home, prefect_port) as api, mlflow_server(home, mlflow_port) as tracking:
        print(f"Prefect  {api.removesuffix('/api')}\nMLflow   {tracking}\n", flush=True)
        print(
            f"For workers and deployments:\n  export PREFECT_API_URL={api} MLFLOW_TRACKING_URI={tracking}\n", flush=True
        )
        print("Ctrl-C stops both.", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    return 0


# --- One server, many users -------------------------------------------------------------------------------------


@contextmanager
def shared_server(
    state: Path,
    command: Callable[[int], Sequence[str]],
    environment: Callable[[int], Mapping[str, str]],
    health: str,
    port: int | None,
    meanwhile: Callable[[], object] | None = None,
) -> Iterator[tuple[str, bool]]:
    """The URL of the server that lives in ``state``, and whether this call has started it."""
    state.mkdir(parents=True, exist_ok=True)
    with (state / "users.lock").open("a") as users:
        try:
            with _locked(state / "start.lock"):
                fcntl.flock(users, fcntl.LOCK_SH)  # waits for a server that is on its way out
                started = _is_free(state / "alive.lock")
                if started:
                    _start(state, command, environment, port)
                (meanwhile or _nothing)()
                url = (state / "url").read_text()
                _wait_for(state, url + health)
            yield url, started
        finally:
            with _locked(state / "start.lock"):
                fcntl.flock(users, fcntl.LOCK_UN)
                if _take(users, fcntl.LOCK_EX):
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
        guard = subprocess.Popen(
            [sys.executable, "-I", "-S", __file__, str(state), *command(port)],
            env=dict(environment(port)),
            cwd=state,  # not the user's: Prefect reads settings from the pyproject.toml of its working directory
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C in the terminal is for the users of the server
        )
    (state / "pid").write_text(str(guard.pid))
    while _is_free(state / "alive.lock") and guard.poll() is None:
        time.sleep(0.01)
    threading.Thread(target=guard.wait, daemon=True).start()  # leaves no zombie in a process that lives on


def _wait_for(state: Path, health: str) -> None:
    end = time.monotonic() + START_SECONDS
    while not _answers(health):
        dead = _is_free(state / "alive.lock")
        if dead or time.monotonic() > end:
            what = "ended at its start" if dead else f"does not answer after {START_SECONDS} s at {health}"
            log = (state / "server.log").read_text(errors="replace").strip().splitlines()[-15:]
            raise ServerError("\n  ".join([f"the server {what}. The end of {state / 'server.log'}:", *log]))
        time.sleep(0.05)


def _stop(state: Path) -> None:
    end = time.monotonic() + STOP_SECONDS
    while not _is_free(state / "alive.lock"):
        late = time.monotonic() > end
        with contextlib.suppress(ProcessLookupError, FileNotFoundError, ValueError):
            os.killpg(int((state / "pid").read_text()), signal.SIGKILL if late else signal.SIGTERM)
        for _ in range(100):
            if _is_free(state / "alive.lock"):
                break
            time.sleep(0.02)


def free_port(wish: int | None = None) -> int:
    """A port of the loopback address that nobody listens on: the wished one or the next free after it; None: any."""
    for port in [0] if wish is None else range(wish, 65536):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((LOOPBACK, port))
                return int(probe.getsockname()[1])
    raise ServerError(f"no port is free from {wish} on")


def _answers(url: str, *, ours: bool = True) -> bool:
    # The loopback address is not for the proxies of the environment. A server of somebody else's may want a password.
    handlers = [urllib.request.ProxyHandler({})] if ours else []
    try:
        with urllib.request.build_opener(*handlers).open(url, timeout=5) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError:
        return not ours
    except OSError:
        return False


def _nothing() -> None:
    pass


# --- Prefect's settings in this process -------------------------------------------------------------------------


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for a while; Prefect, which has read its settings when imported, reads them again."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    _refresh()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
        _refresh()


def _refresh() -> None:
    if "prefect" not in sys.modules:
        return
    from prefect.context import refresh_global_settings_context

    refresh_global_settings_context()


def _send_what_is_queued() -> None:
    """Logs and events (task runs are events, too) leave Prefect's client in the background: wait until they have."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogWorker

    for worker in (EventsWorker, APILogWorker):
        worker.drain_all(timeout=STOP_SECONDS, at_exit=False)


# --- Locks ------------------------------------------------------------------------------------------------------


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _take(file: IO[str], kind: int) -> bool:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_free(path: Path) -> bool:
    with path.open("a") as file:
        return _take(file, fcntl.LOCK_SH)


# --- The guard: this file as a script ---------------------------------------------------------------------------


def _guard(state: Path, command: Sequence[str]) -> int:
    """Run the server until it ends, until SIGTERM, or until nobody uses it."""
    # A process started in the background of a shell script inherits an ignored SIGINT, and its children from it.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    going = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: going.set())
    with (state / "alive.lock").open("a") as alive, (state / "users.lock").open("a") as users:
        fcntl.flock(alive, fcntl.LOCK_EX)
        # The server inherits the lock: should the guard be killed, it still counts as alive.
        with subprocess.Popen(command, pass_fds=[alive.fileno()]) as server:
            while server.poll() is None and not going.wait(0.5):
                if _take(users, fcntl.LOCK_EX):  # nobody is left, and nobody can join any more
                    break
            server.terminate()
            try:
                server.wait(STOP_SECONDS / 2)
            except subprocess.TimeoutExpired:
                server.kill()
    return server.returncode


if __name__ == "__main__":
    sys.exit(_guard(Path(sys.argv[1]), sys.argv[2:]))
