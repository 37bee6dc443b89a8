"""Flows for tests of pools and workers, under the names that the crash detection knows."""

import os
import signal
import time
from pathlib import Path

from prefect import flow
from prefect.runtime import flow_run

from flows.pools import run_on_pool


def _note(folder: str, line: str) -> list[str]:
    """Write a line down; returns all lines so far."""
    path = Path(folder) / "notes"
    with path.open("a") as file:
        file.write(line + "\n")
    return path.read_text().splitlines()


@flow(name="train-model", persist_result=False)
def child(folder: str, kills: int = 0, fails: bool = False) -> None:
    """Dies of SIGKILL as often as ``kills`` says, then completes."""
    lines = _note(folder, f"child {flow_run.get_id()}")
    if fails:
        raise ValueError("the child's own mistake")
    if len(lines) <= kills:
        os.kill(os.getpid(), signal.SIGKILL)


@flow(name="full-chapter", persist_result=False)
def parent(folder: str, kills: int = 0, fails: bool = False, children: int = 1) -> None:
    """Runs children on the other pool."""
    parameters = [{"folder": f"{folder}/{number}", "kills": kills, "fails": fails} for number in range(children)]
    futures = [run_on_pool("train-model/child", each, retry_delay_seconds=0.5) for each in parameters]
    (Path(folder) / "ids").write_text("\n".join(future.result() for future in futures))


@flow(name="exercise", persist_result=False)
def sleeper(folder: str) -> None:
    """Sleeps until it is killed; completes when it is run again."""
    if len(_note(folder, f"{flow_run.get_id()} {flow_run.get_run_count()}")) == 1:
        time.sleep(600)


@flow(name="train-model", persist_result=False)
def outliving(folder: str) -> None:
    """Works until a file called ``go`` is there, which a test makes while the server is away."""
    _note(folder, f"{flow_run.get_id()} {os.getpid()}")
    while not (Path(folder) / "go").exists():
        time.sleep(0.05)
    _note(folder, "done")
