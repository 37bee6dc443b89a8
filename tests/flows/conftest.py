"""One Prefect server and as many workers as a session needs, in a home of their own, on loopback ports."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The outputs folder of the session's server."""
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="session")
def api(home: Path) -> Iterator[str]:
    """The URL of the session's Prefect server, with pools and crash detection."""
    from flows.pools import ensure_pools
    from flows.servers import prefect_server

    before = os.environ.pop("PREFECT_API_URL", None)
    with prefect_server(home) as url:
        ensure_pools()
        yield url
    if before:
        os.environ["PREFECT_API_URL"] = before


def prefect(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run Prefect's command line as a user does: in the repository, with its pyproject.toml."""
    env = {name: value for name, value in os.environ.items() if name != "PREFECT_PLUGINS_ENABLED"} | environment
    script = Path(sys.executable).with_name("prefect")
    return subprocess.run([script, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=240)


class Worker:
    """``prefect worker start`` as a process of its own."""

    def __init__(self, pool: str, folder: Path) -> None:
        self.log = folder / f"worker-{pool}-{time.time_ns()}.log"
        script = Path(sys.executable).with_name("prefect")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [script, "worker", "start", "--pool", pool, "--limit", "1", "--name", self.log.stem],
                env=os.environ | {"PYTHONPATH": str(ROOT), "PREFECT_WORKER_QUERY_SECONDS": "1"},
                cwd=folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
                # Where the tests run in the background of a shell script, SIGINT is ignored, also in children.
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )

    def family(self) -> list[psutil.Process]:
        """The worker and the processes of its runs, which are in sessions of their own."""
        worker = psutil.Process(self.process.pid)
        return [worker, *worker.children(recursive=True)]

    def kill(self) -> None:
        """SIGKILL for the worker and its runs at once, like a power cut."""
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait()

    def stop(self) -> None:
        """SIGTERM, which waits for runs; what is left after some seconds is killed."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.kill()


@contextmanager
def worker(pool: str, folder: Path) -> Iterator[Worker]:
    """A worker with ``--limit 1`` for a while; its log is shown when a test fails."""
    started = Worker(pool, folder)
    try:
        yield started
    finally:
        started.stop()
        print(f"--- {started.log.name}\n{started.log.read_text()[-6000:]}")


def wait_until(condition: Callable[[], Any], seconds: float, what: str) -> Any:
    """The first true value of ``condition``; fails after ``seconds``."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.2)
    return value
