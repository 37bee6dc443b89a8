"""The processes of a pool, each killed and started again as the soak wants: servers, and hosts with a worker each.

Hosts share nothing but the network: home, outputs, temporary files and Prefect's own folder are each host's own; where
that can be had, so are its network, in which it reaches the servers and no other host, and its clock.
"""

import os
import shutil
import signal
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from flows import servers
from flows.shared_server import answers, free_port
from flows.surroundings import QUIET, for_a_server
from tests.flows.conftest import ROOT, wait_until
from tests.soak.clock import Clock
from tests.soak.network import Network

MARK = "CHAPTER_SOAK"  # the variable by which processes of a soak are known
START_SECONDS = 400.0  # of a server, on a machine that does much else
# Prefect's clients try a request again for a minute; here for six seconds, so that an outage of one minute is to them
# what one of ten minutes is to a user's.
RETRIES = {"PREFECT_CLIENT_MAX_RETRIES": "2"}


class Service(ABC):
    """A server in a process group of its own, always at one address."""

    def __init__(self, name: str, folder: Path, mark: str, health: str) -> None:
        self.name, self.folder, self.mark, self.port = name, folder, mark, free_port()
        self.root = f"http://127.0.0.1:{self.port}"
        self._health = f"{self.root}{health}"
        self.process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    @abstractmethod
    def command(self) -> Sequence[str]:
        """What starts it."""

    def environment(self) -> Mapping[str, str]:
        """Beside what every server of ours is given."""
        return {}

    def start(self) -> None:
        """Start it; ``answers`` says when it is there."""
        environment = {**for_a_server(os.environ), **QUIET, "PYTHONPATH": str(ROOT), **self.environment()}
        with (self.folder / "server.log").open("a") as log:
            self.process = subprocess.Popen(
                self.command(),
                env={**environment, MARK: self.mark},
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def answers(self) -> bool:
        """Whether it is up."""
        return answers(self._health)

    def wait(self) -> None:
        """Wait until it is up."""
        wait_until(self.answers, START_SECONDS, f"{self.name} answers; its log is {self.folder / 'server.log'}")

    def kill(self) -> None:
        """SIGKILL for the server and all its processes."""
        if self.process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


class PrefectServer(Service):
    """As ``chapter ui`` starts it."""

    def __init__(self, folder: Path, mark: str) -> None:
        super().__init__("prefect", folder, mark, "/api/health")
        self.url = f"{self.root}/api"

    def command(self) -> Sequence[str]:
        """See ``Service``."""
        return servers._prefect_command(self.port)

    def environment(self) -> Mapping[str, str]:
        """See ``Service``."""
        return servers._settings_of_the_server(self.folder, self.port)


class MLflowServer(Service):
    """As docs/deploying.md starts it."""

    def __init__(self, folder: Path, mark: str) -> None:
        super().__init__("mlflow", folder, mark, "/health")

    def command(self) -> Sequence[str]:
        """See ``Service``."""
        server = [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={self.port}", "--workers=1"]
        return [*server, "--backend-store-uri=sqlite:///mlflow.db", "--artifacts-destination=./artifacts"]

    def environment(self) -> Mapping[str, str]:
        """See ``Service``."""
        return {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}


class ObjectServer(Service):
    """``tests.soak.objects``; it can be busy as well as away."""

    def __init__(self, folder: Path, mark: str) -> None:
        super().__init__("store", folder, mark, "/health")
        self.url = f"soak://127.0.0.1:{self.port}"
        self.objects, self.journal = folder / "objects", folder / "journal.jsonl"

    def command(self) -> Sequence[str]:
        """See ``Service``."""
        return [sys.executable, "-m", "tests.soak.objects", str(self.folder), str(self.port)]

    def work_done(self) -> int:
        """How many records and checkpoints were ever written."""
        lines = self.journal.read_text().splitlines() if self.journal.exists() else []
        return sum('"name": "records/' in line or '"name": "checkpoints/' in line for line in lines)

    def busy(self, busy: bool) -> None:
        """Answer every request by 503, or no longer."""
        place = self.folder / "busy"
        place.touch() if busy else place.unlink(missing_ok=True)

    @property
    def is_busy(self) -> bool:
        """Whether it does so now."""
        return (self.folder / "busy").exists()

    @property
    def refused(self) -> int:
        """Requests that met it busy."""
        place = self.folder / "refused"
        return place.stat().st_size if place.exists() else 0


@dataclass
class Host:
    """A machine with one worker, ``--limit 1``."""

    pool: str
    folder: Path
    shared: Mapping[str, str]  # the addresses that all hosts know
    mark: str
    network: Network | None = None  # of its own
    clock: Clock | None = None
    started: int = 0
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def outputs(self) -> Path:
        """Where its runs write."""
        return self.folder / "outputs"

    def start(self) -> None:
        """Start the worker, under a new name."""
        self.started += 1
        own = {name: self.folder / name for name in ("home", "outputs", "prefect", "tmp", "work")}
        for folder in own.values():
            folder.mkdir(parents=True, exist_ok=True)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.upper().startswith(("PREFECT_", "MLFLOW_", "CHAPTER_"))
        }
        environment = {
            **kept,
            **QUIET,
            **RETRIES,
            **self.shared,
            **(self.clock.environment() if self.clock else {}),
            MARK: self.mark,
            "HOME": str(own["home"]),
            "TMPDIR": str(own["tmp"]),
            "CHAPTER_OUTPUTS": str(own["outputs"]),
            "PREFECT_HOME": str(own["prefect"]),
            "PREFECT_PLUGINS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
            "OMP_NUM_THREADS": "1",
        }
        script = Path(sys.executable).with_name("prefect")
        prefix = self.network.prefix if self.network else []
        name = f"{self.folder.name}-{self.started}"
        with (self.folder / "worker.log").open("a") as log:
            self.process = subprocess.Popen(
                [*prefix, script, "worker", "start", "--pool", self.pool, "--limit", "1", "--name", name],
                env=environment,
                cwd=own["work"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def is_alive(self) -> bool:
        """Whether the worker is."""
        return self.process is not None and self.process.poll() is None

    def runs(self) -> list[psutil.Process]:
        """The processes of its runs, but for those whose worker has died."""
        try:
            return psutil.Process(self.process.pid).children(recursive=True) if self.process else []
        except psutil.NoSuchProcess:
            return []

    def kill(self, *, with_runs: bool) -> None:
        """SIGKILL for the worker, first, and with its runs for the whole machine."""
        assert self.process is not None
        runs = self.runs() if with_runs else []
        self.process.kill()
        for run in runs:
            with suppress(psutil.NoSuchProcess):
                run.kill()
        self.process.wait()

    def wipe(self) -> None:
        """A new machine, or container, in the place of the old one: nothing is left of that but the worker's log."""
        for name in ("home", "outputs", "prefect", "tmp", "work"):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def stop(self, seconds: float = 60.0) -> None:
        """SIGTERM, which waits for runs; SIGKILL for what is left then."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                self.kill(with_runs=True)


def marked(mark: str) -> list[psutil.Process]:
    """All living processes of a soak."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
    return found
