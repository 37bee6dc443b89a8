"""A Prefect server that is killed under a worker's runs and comes back: they end well, and nothing is done by hand.

Compressed: clients try again once instead of for a minute, and silence counts after 35 s instead of 75.
"""

import os
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest
from prefect.client.orchestration import get_client

from flows import servers
from flows.execution.sweep import swept_meanwhile
from flows.pools import ensure_pools
from flows.recovery import ensure_crash_detection
from flows.surroundings import without
from tests.flows.conftest import wait_until, worker
from tests.soak.chapters import silence
from tests.soak.machines import PrefectServer

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(1_800)]


@contextmanager
def kept_up(pool: str, folder: Path) -> Iterator[None]:
    """A worker, and another one when it ends, as systemd has it: one that loses its server at times does."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            with worker(pool, folder) as started:
                while started.process.poll() is None and not over.wait(0.2):
                    pass

    thread = threading.Thread(target=work, name="a worker is kept up")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A server at one address, and a worker."""
    folder = tmp_path_factory.mktemp("away")
    server = PrefectServer(folder / "server", uuid.uuid4().hex)
    ours = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(folder / "client"), "PREFECT_CLIENT_MAX_RETRIES": "1"}
    with ExitStack() as undo:
        undo.callback(server.kill)
        undo.enter_context(silence(35.0))
        undo.enter_context(servers._environment({**without(os.environ, "PREFECT_"), **ours}))
        server.start()
        server.wait()
        ensure_pools()
        ensure_crash_detection()
        undo.enter_context(kept_up("gpu", folder))
        yield server


class Run:
    """A run of ``pool_flows.outliving``."""

    def __init__(self, folder: Path) -> None:
        self.notes, self.go = folder / "notes", folder / "go"
        with get_client(sync_client=True) as client:
            deployment = client.create_deployment(
                flow_id=client.create_flow_from_name("train-model"),
                name=f"outliving-{folder.name}",
                entrypoint="tests.flows.pool_flows.outliving",
                pull_steps=[],
                work_pool_name="gpu",
                job_variables={"working_dir": ".", "env": {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30"}},
            )
            self.id = client.create_flow_run_from_deployment(deployment, parameters={"folder": str(folder)}).id

    def lines(self) -> list[str]:
        return self.notes.read_text().splitlines() if self.notes.exists() else []

    def begins(self) -> int:
        """The number of its process, once it is there."""
        wait_until(self.lines, 300, "the run begins")
        return int(self.lines()[0].split()[1])

    def is_completed(self) -> bool:
        with get_client(sync_client=True) as client:
            state = client.read_flow_run(self.id).state
        return state is not None and state.is_completed()


def test_away_while_it_works(server: PrefectServer, tmp_path: Path) -> None:
    run = Run(tmp_path)
    process = run.begins()
    server.kill()
    server.start()
    server.wait()
    assert psutil.pid_exists(process), "nothing that it does needs the server"
    run.go.touch()
    wait_until(run.is_completed, 300, "it completes")
    assert [line.split()[0] for line in run.lines()] == [str(run.id), "done"]


def test_away_at_its_end_until_it_has_given_up(server: PrefectServer, tmp_path: Path) -> None:
    run = Run(tmp_path)
    process = run.begins()
    server.kill()
    run.go.touch()
    wait_until(lambda: run.lines()[-1] == "done", 60, "the work is done, though nobody hears of it")
    wait_until(lambda: not psutil.pid_exists(process), 300, "its process has given up telling")
    server.start()
    server.wait()
    with swept_meanwhile():  # as ``chapter ui`` does
        wait_until(run.is_completed, 400, "it is taken up again, and completes")
    assert [line.split()[0] for line in run.lines()] == [str(run.id), "done"] * 2


def test_away_before_it_begins(server: PrefectServer, tmp_path: Path) -> None:
    (tmp_path / "go").touch()
    run = Run(tmp_path)
    server.kill()
    server.start()
    server.wait()
    wait_until(run.is_completed, 300, "a worker takes it")
    assert run.lines()[-1] == "done"
