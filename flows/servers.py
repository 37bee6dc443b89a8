"""Prefect's and MLflow's servers on this machine: one of each per folder of outputs, shared by all that need it.

They live in ``<outputs>/prefect/server`` and ``<outputs>/mlflow/server``, as ``flows.shared_server`` says.
"""

import contextlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from urllib.parse import quote

from flows import named_server
from flows.guard import STOP_SECONDS
from flows.shared_server import LOOPBACK, nothing, shared_server
from flows.surroundings import (
    QUIET,
    Changes,
    change,
    direct_on_loopback,
    for_a_server,
    is_loopback,
    without,
    work_in,
)

HEARTBEAT_SECONDS = 30  # the least that Prefect takes


@contextmanager
def prefect_server(
    home: Path,
    port: int | None = None,
    meanwhile: Callable[[], object] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """A Prefect API for as long as the context lasts; yields its URL, which ``PREFECT_API_URL`` holds, too.

    Starts or joins the one server of ``home``, on the loopback address. Where ``PREFECT_API_URL`` is set
    already, that server is used and nothing is started. ``port`` is what a new server would like to have
    (None: any). ``meanwhile`` is called while the server starts: the place for slow imports.

    The environment is set before the context begins, so that processes started inside it find the same server. What
    it says of Prefect holds for a server that it names; with a server of ours it gives way to our own settings.
    ``settings`` are further ones of ours, and of a server that is named where the environment does not say otherwise.

    Raises:
        ServerError: the server does not start, or the one in ``PREFECT_API_URL`` cannot be used.
        UsageError: Prefect refuses a setting of the environment.
    """
    ours: Changes = {**QUIET, "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": str(HEARTBEAT_SECONDS)}
    ours |= direct_on_loopback(os.environ)
    given = os.environ.get("PREFECT_API_URL")
    if given:
        ours |= {name: value for name, value in (settings or {}).items() if name not in os.environ}
        if is_loopback(given) and given.startswith("http:"):
            ours["PREFECT_API_SSL_CERT_FILE"] = ""  # it would be read, though nothing is encrypted
        with _environment(ours):
            named_server.check(given)
            named_server.import_prefect()
            (meanwhile or nothing)()
            named_server.check_access(given)
            with _what_an_outage_left_behind():
                yield given
        return

    folder = home.resolve() / "prefect"
    ours = {
        **without(os.environ, "PREFECT_"),
        **ours,
        **(settings or {}),
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),  # looked for at home, unless it is named
        "PREFECT_API_SSL_CERT_FILE": "",  # by default what SSL_CERT_FILE names
        # Start-up plugins have no work to do here, and each process of a pool would look for them.
        "PREFECT_PLUGINS_ENABLED": "false",
    }

    def environment(port: int) -> Mapping[str, str]:
        return {**for_a_server(os.environ), **_settings_of_the_server(folder, port)}

    shared = shared_server(folder / "server", _prefect_command, environment, "/api/health", port, meanwhile)
    with (
        _environment(ours),  # before anything imports Prefect
        shared as (url, started),
        _environment({"PREFECT_API_URL": f"{url}/api"}),
    ):
        if started:
            from flows.recovery import ensure_crash_detection_once

            ensure_crash_detection_once(_database(folder))
        try:
            with _what_an_outage_left_behind():
                yield f"{url}/api"
        finally:
            _send_what_is_queued()


def _what_an_outage_left_behind() -> AbstractContextManager[None]:
    from flows.execution.sweep import swept_meanwhile

    return swept_meanwhile()


# ``prefect``, whose server is imported first, without looking for garbage: a third of its start (docs/performance.md).
PREFECT = (
    "import gc; gc.disable(); import prefect.server.api.server; gc.freeze(); gc.enable(); "
    "from prefect.cli import app; app()"
)


def _prefect_command(port: int) -> Sequence[str]:
    return [sys.executable, "-c", PREFECT, "server", "start", "--host", LOOPBACK, "--port", str(port)]


def _database(folder: Path) -> Path:
    return folder / "prefect.db"


def _settings_of_the_server(folder: Path, port: int) -> dict[str, str]:
    return {
        **QUIET,
        "PREFECT_HOME": str(folder),
        "PREFECT_PROFILES_PATH": str(folder / "profiles.toml"),
        "PREFECT_PLUGINS_ENABLED": "false",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{quote(str(_database(folder)))}",
        "PREFECT_SERVER_UI_API_URL": f"http://{LOOPBACK}:{port}/api",
        # On disk: leases of concurrency limits in memory are lost with the server, and their slots never freed.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }


@contextmanager
def mlflow_server(home: Path, port: int | None = None) -> Iterator[str]:
    """The MLflow server over the tracking database in ``home``, shared like Prefect's; yields its URL.

    Where ``MLFLOW_TRACKING_URI`` names a server, that one is used and nothing is started.

    Raises:
        ServerError: it does not start.
    """
    from filelock import FileLock

    from tasks.tracking.client import connect
    from tasks.tracking.tracker import Tracker

    tracker = Tracker(home)
    if tracker.uri.startswith("http"):
        yield tracker.uri
        return
    tracker.folder.mkdir(parents=True, exist_ok=True)
    with FileLock(tracker.folder / "open.lock"):
        connect(tracker.uri)  # makes the database, or brings it up to date

    def command(port: int) -> Sequence[str]:
        options = [
            f"--host={LOOPBACK}",
            f"--port={port}",
            "--workers=1",
            f"--backend-store-uri={tracker.uri}",
            f"--artifacts-destination={(tracker.folder / 'artifacts').as_uri()}",
        ]
        return [sys.executable, "-m", "mlflow", "server", *options]

    def environment(port: int) -> Mapping[str, str]:
        # Without its job queue for GenAI evaluations the server is one process instead of several.
        return {**for_a_server(os.environ), **QUIET, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}

    with shared_server(tracker.folder / "server", command, environment, "/health", port) as (url, _):
        yield url


def ui(home: Path, *, prefect_port: int = 4200, mlflow_port: int = 5000) -> int:
    """Serve both pages until Ctrl-C; a port that is taken makes way for the next free one. Returns the exit status."""
    for variable in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):  # what an earlier call has printed, perhaps
        os.environ.pop(variable, None)
    work_in(home / "prefect")
    print("starting the servers …", flush=True)
    with prefect_server(home, prefect_port) as api, mlflow_server(home, mlflow_port) as tracking:
        from tasks.tracking.tracker import Tracker

        runs = Tracker(home, ui=tracking).landing()
        print(f"Prefect  {api.removesuffix('/api')}\nMLflow   {runs}\n", flush=True)
        print(
            f"For workers and deployments:\n  export PREFECT_API_URL={api} MLFLOW_TRACKING_URI={tracking}\n", flush=True
        )
        with contextlib.suppress(KeyboardInterrupt):  # also of one who has read the line and is quick
            print("Ctrl-C stops both.", flush=True)
            threading.Event().wait()
    return 0


# --- Prefect's settings in this process -------------------------------------------------------------------------


@contextmanager
def _environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """A changed environment for a while; Prefect, which has read its settings when imported, reads them again.

    Afterwards it does so only if it was there before: to read them is also to make its home, in the user's.
    """
    before, imported = {name: os.environ.get(name) for name in changes}, "prefect" in sys.modules
    change(changes)
    _refresh()
    try:
        yield
    finally:
        change(before)
        if imported:
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
