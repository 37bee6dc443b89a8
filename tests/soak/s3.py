"""A whole chapter at ``smoke`` on hosts that share two servers and an S3 store and no disk, beside a local run of it.

    pip install 'moto[server]' s3fs          # into an environment of its own: neither is a dependency of the chapter
    python -m tests.soak.s3

One host has the chapter's worker, two have a worker of the pool ``gpu`` each; where namespaces may be made, each has a
network of its own. Prints the minutes, and what of the results is the same to the bit.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flows import servers
from flows.surroundings import without
from tasks.cache.store import Store
from tasks.exercises import modules
from tests.flows.conftest import ROOT, wait_until
from tests.soak.chapters import Chapter, Prefect
from tests.soak.machines import MARK, RETRIES, Host, MLflowServer, PrefectServer, Service, marked
from tests.soak.network import Network, may_have_networks

BUCKET = "chapter"
PATIENCE = 3_600.0  # seconds


class S3Server(Service):
    """moto: it holds everything in memory, and knows conditional writes."""

    def __init__(self, folder: Path, mark: str) -> None:
        super().__init__("s3", folder, mark, "/moto-api/data.json")

    def command(self) -> Sequence[str]:
        """See ``Service``."""
        return [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]

    def environment(self) -> Mapping[str, str]:
        """See ``Service``."""
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))}

    def client_environment(self) -> dict[str, str]:
        """What who uses it needs."""
        return {
            "AWS_ACCESS_KEY_ID": "soak",
            "AWS_SECRET_ACCESS_KEY": "soak",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.root,
            "CHAPTER_STORE": f"s3://{BUCKET}/store",
        }


@contextmanager
def cluster(folder: Path, only: Sequence[str]) -> Iterator[tuple[Prefect, S3Server]]:
    """The servers and the hosts."""
    mark = f"s3-{os.getpid()}"
    prefect, mlflow = PrefectServer(folder / "prefect", mark), MLflowServer(folder / "mlflow", mark)
    s3, asked = S3Server(folder / "s3", mark), Prefect(prefect.url)
    services: list[Service] = [prefect, mlflow, s3]
    pythonpath = s3.environment()["PYTHONPATH"]
    shared = {
        "PYTHONPATH": pythonpath,
        "PREFECT_API_URL": prefect.url,
        "MLFLOW_TRACKING_URI": mlflow.root,
        **s3.client_environment(),
    }
    hosts = [Host(pool, folder / name, shared, mark) for name, pool in [("c", "cpu"), ("g0", "gpu"), ("g1", "gpu")]]
    with ExitStack() as undo:
        undo.callback(lambda: [process.kill() for process in marked(mark)])
        for service in services:
            service.start()
        for service in services:
            service.wait()
        ours = {"PREFECT_API_URL": prefect.url, "PREFECT_HOME": str(folder / "client"), **RETRIES}
        undo.enter_context(servers._environment({**without(os.environ, "PREFECT_"), **ours, **s3.client_environment()}))
        import s3fs

        s3fs.S3FileSystem().mkdir(BUCKET)
        asked.set_up(only)
        for host in hosts:
            if may_have_networks(ROOT):
                ports = [service.port for service in services]
                host.network = Network(ports, {**os.environ, "PYTHONPATH": pythonpath, MARK: mark}, folder)
            host.start()
        yield asked, s3
        for host in hosts:
            host.stop()


def local(folder: Path) -> Store:
    """The same chapter in processes of this machine; its store."""
    environment = {
        **{
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PREFECT_", "MLFLOW_", "CHAPTER_"))
        },
        "CHAPTER_OUTPUTS": str(folder),
    }
    command = [sys.executable, "-m", "flows", "run", "--profile", "smoke", "--sources", "embedded"]
    subprocess.run([*command, "--precision", "fp32"], env=environment, cwd=ROOT, check=True)
    return Store(str(folder / "store"))


def compared(ours: Store, theirs: Store) -> Iterator[str]:
    """What is the same of each kind of step, and the names of what is not."""
    same, all_, other = Counter[str](), Counter[str](), []
    for key in ours.record_keys():
        record = ours.record(key)
        assert record is not None
        lineage = record["data"]["lineage"]
        all_[lineage["kind"]] += 1
        found: Any = theirs.record(key)
        if found and _files(found) == _files(record):
            same[lineage["kind"]] += 1
        else:
            other.append(f"{lineage['name']}{'' if found else ' (under another key)'}")
    yield from (f"{kind}: {same[kind]} of {count} the same, bit by bit" for kind, count in sorted(all_.items()))
    yield f"not the same: {', '.join(sorted(other)) or 'none'}"


def _files(record: Mapping[str, Any]) -> dict[str, str]:
    return {name: artifact["sha256"] for name, artifact in record["artifacts"].items()}


def main() -> int:
    """Run both; returns the exit status."""
    options = argparse.ArgumentParser(prog="python -m tests.soak.s3", description=__doc__)
    options.add_argument("--folder", type=Path, default=None, help="for everything; by default a temporary one")
    told = options.parse_args()
    folder = (told.folder or Path(tempfile.mkdtemp(prefix="s3-"))).resolve()
    only = tuple(modules())
    begun = time.monotonic()
    mine = local(folder / "local")
    print(f"local: {(time.monotonic() - begun) / 60:.1f} minutes", flush=True)
    with cluster(folder, only) as (asked, s3):
        chapter, begun = Chapter(only, 1.0), time.monotonic()
        asked.start(chapter)
        wait_until(lambda: asked.standing(chapter)[0] != "open", PATIENCE, "the chapter ends")
        standing, said = asked.standing(chapter)
        runs = asked.of_all()
        print(f"three workers, S3: {standing}, {(time.monotonic() - begun) / 60:.1f} minutes; {said}")
        print(f"flow runs: {', '.join(f'{count} {name}' for name, count in sorted(runs.items()))}")
        print("\n".join(compared(mine, Store(s3.client_environment()["CHAPTER_STORE"]))))
    return 0 if standing == "completed" else 1


if __name__ == "__main__":
    sys.exit(main())
