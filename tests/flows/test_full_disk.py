"""A disk that fills up: the run says which one, keeps what is finished, and goes on when it is started again."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.cache.store import Store
from tests.flows.conftest import ROOT, wait_until
from tests.soak.disk import NoMount, fill, small_disk

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(600)]


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of its own, with little room."""
    try:
        with small_disk(tmp_path / "small") as folder:
            yield folder
    except NoMount as error:
        pytest.skip(str(error))


def start(outputs: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "flows", "run", "--profile", "smoke", "--sources", "embedded", *arguments]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "MLFLOW_"))}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    environment = {**kept, "CHAPTER_OUTPUTS": str(outputs), "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=environment, cwd=outputs.parent, text=True, **pipes)  # type: ignore[call-overload,no-any-return]


def test_before_it_starts(small: Path) -> None:
    filler = fill(small)
    process = start(small / "outputs", "--only", "21.11")
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout) == (2, "")
    assert stderr.startswith(f"chapter: {small}/outputs: its disk is full (0.0 MiB are left")
    assert stderr.count("\n") == 1
    filler.unlink()


def test_half_way(small: Path) -> None:
    outputs = small / "outputs"
    process = start(outputs, "--only", "21.22", "--jobs", "1")
    records = outputs / "store" / "records"
    wait_until(lambda: list(records.glob("[0-9a-f]*")) or process.poll() is not None, 240, "the first finished step")
    assert process.poll() is None, process.communicate()
    finished = list(records.glob("[0-9a-f]*"))
    filler = fill(small)
    stdout, stderr = process.communicate(timeout=120)
    assert "Traceback" not in stdout + stderr, stderr
    assert (process.returncode, stdout) == (2, ""), stderr
    last = stderr.splitlines()[-1]
    assert last.startswith(f"chapter: {outputs}: its disk is full ("), stderr
    assert last.endswith("the same command goes on from there")
    filler.unlink()

    store = Store(str(outputs / "store"))
    whole = filter(None, (store.record(path.name, verify=True) for path in finished))
    kept = {record["data"]["lineage"]["name"] for record in whole}
    assert kept
    again = start(outputs, "--only", "21.22", "--jobs", "1")
    stdout, stderr = again.communicate(timeout=240)
    assert again.returncode == 0, stderr
    begun = set(re.findall(r"^(.*): begins", stderr, re.MULTILINE))
    assert begun
    assert not begun & kept
