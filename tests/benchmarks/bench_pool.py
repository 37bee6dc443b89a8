"""A chapter of many steps on many workers: Prefect's real API and our real parent run, workers that only pretend.

    python -m tests.benchmarks.bench_pool STEPS WORKERS [--trainings SECONDS] [--database URL]

What a step costs besides its work: the parent's look-ups and its waiting, the server's bookkeeping of a flow run, and
what a worker tells the server. The workers are coroutines of another process that take runs, say Pending, Running and
Completed, and do nothing between. The server is a new one on SQLite, or on the empty database that is named,
``postgresql+asyncpg://…``.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil

from flows.execution.engine import Record
from flows.execution.graph import Node
from flows.servers import _environment
from flows.surroundings import without
from tasks.cache.keys import Step
from tasks.cache.store import Store
from tasks.place import Place
from tests.benchmarks.growth import Nobody, chapter_graph
from tests.soak.machines import PrefectServer
from tests.tasks.cache.whole import persist_step

POOL, DEPLOYMENT = "pretending", "train-model/pretending"
QUERY_SECONDS = 0.5  # between two questions for work
STEPS_EACH = 4  # of a synthetic exercise: three trainings and what compares them


@dataclass(frozen=True)
class Dispatched:
    """What a chapter took: seconds by the clock, and processor seconds of the parent and of the server, a step."""

    steps: int
    workers: int
    wall: float
    parent: float
    server: float


class Recorded(Nobody):
    """Writes each step's record as it begins: the pretending workers have no store."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.failures: list[str] = []

    def started(self, node: Node, step: Step, why: str) -> None:
        persist_step(self.store, step, node.name.encode())

    def cached(self, node: Node, step: Step, record: Record) -> None: ...


class Server(PrefectServer):
    """A server on a database of one's own, if one is named."""

    database = ""

    def environment(self) -> Mapping[str, str]:
        """See ``PrefectServer``."""
        own = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database} if self.database else {}
        return {**super().environment(), **own}

    def cpu(self) -> float:
        """Processor seconds of it so far."""
        assert self.process is not None
        root = psutil.Process(self.process.pid)
        return sum(map(_cpu, [root, *root.children(recursive=True)]))


def dispatched(steps: int, workers: int, trainings: float = 60.0, database: str = "") -> Dispatched:
    """Run a synthetic chapter of about so many steps on so many pretending workers.

    ``trainings`` is how long each is estimated to take; short ones share a run.

    Raises:
        RuntimeError: a step failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        server = Server(folder / "prefect", "bench")
        server.database = database
        try:
            server.start()
            server.wait()
            ours = {"PREFECT_API_URL": server.url, "PREFECT_HOME": str(folder / "client")}
            with _environment({**without(os.environ, "PREFECT_"), **ours}), pretending(workers):
                return _chapter(folder, server, steps, workers, trainings)
        finally:
            server.kill()


def _chapter(folder: Path, server: Server, steps: int, workers: int, trainings: float) -> Dispatched:
    from prefect import flow

    from flows.execution.engine import execute
    from flows.execution.runners import Deployed
    from flows.pools import run_on_pool

    graph = {
        name: replace(node, models=True, seconds=trainings if node.makes_model else node.seconds)
        for name, node in chapter_graph(max(1, (steps - 2) // STEPS_EACH)).items()
    }
    store = Store(str(folder / "store"))

    def call(nodes: Sequence[Node], stop: threading.Event) -> Any:
        return run_on_pool(DEPLOYMENT, {"name": nodes[0].name}, stop=stop)

    @flow(name="full-chapter", persist_result=False)
    def chapter() -> Dispatched:
        me = psutil.Process()
        before, begun = (_cpu(me), server.cpu()), time.perf_counter()
        with Deployed(Place(store.url, str(folder)), call) as runner:
            outcome = execute(graph, store, runner, Recorded(store))
        wall, after = time.perf_counter() - begun, (_cpu(me), server.cpu())
        if outcome.errors or len(outcome.ran) != len(graph):
            raise RuntimeError(f"{len(outcome.ran)} of {len(graph)} steps ran: {list(outcome.errors.values())[:3]}")
        count = len(graph)
        parent, server_seconds = ((b - a) / count for a, b in zip(before, after, strict=True))
        return Dispatched(count, workers, wall / count, parent, server_seconds)

    return chapter()


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


# --- Workers -----------------------------------------------------------------------------------------------------


@contextmanager
def pretending(workers: int) -> Iterator[None]:
    """A pool with a deployment, and workers of another process that take its runs."""
    _deploy()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    process = context.Process(target=_work, args=(workers, stop), daemon=True)
    process.start()
    try:
        yield
    finally:
        stop.set()
        process.join(10)
        process.kill()


def _deploy() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate

    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        flow = client.create_flow_from_name(DEPLOYMENT.partition("/")[0])
        client.create_deployment(flow, DEPLOYMENT.partition("/")[2], work_pool_name=POOL)


def _work(workers: int, stop: Event) -> None:
    asyncio.run(_take(workers, stop))


async def _take(workers: int, stop: Event) -> None:
    from prefect.client.orchestration import get_client

    free = asyncio.Semaphore(workers)
    taken: set[UUID] = set()
    async with get_client() as client, asyncio.TaskGroup() as group:

        async def run(id: UUID) -> None:
            from prefect.states import Completed, Pending, Running

            try:
                for state in (Pending(), Running(), Completed()):
                    await client.set_flow_run_state(id, state)
            finally:
                free.release()

        while not stop.is_set():
            for response in await client.get_scheduled_flow_runs_for_work_pool(POOL):
                if response.flow_run.id not in taken and not free.locked():
                    await free.acquire()
                    taken.add(response.flow_run.id)
                    group.create_task(run(response.flow_run.id))
            await asyncio.sleep(QUERY_SECONDS)


def main() -> None:
    """Print what it took as JSON."""
    options = argparse.ArgumentParser(prog="python -m tests.benchmarks.bench_pool", description=__doc__)
    options.add_argument("steps", type=int)
    options.add_argument("workers", type=int)
    options.add_argument("--trainings", type=float, default=60.0, help="seconds that each is estimated to take")
    options.add_argument("--database", default="")
    print(json.dumps(vars(dispatched(**vars(options.parse_args())))))


if __name__ == "__main__":
    main()
