"""Ctrl-C in ``chapter run --where pool``, with a real worker that is busy and a child that nobody has taken."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.flows.conftest import ROOT, prefect, wait_until, worker

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(600)]

DEPLOYMENT = """
pull: []
deployments:
  - name: train-model
    entrypoint: flows.chapter.train_model
    work_pool: {name: gpu, job_variables: {working_dir: ., env: {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: "30"}}}
"""


@pytest.fixture
def outputs(api: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder that parent and worker share."""
    (tmp_path / "prefect.yaml").write_text(DEPLOYMENT)
    done = prefect("--no-prompt", "deploy", "--all", cwd=tmp_path, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path / "outputs"))
    monkeypatch.delenv("CHAPTER_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with worker("gpu", tmp_path):
        yield tmp_path / "outputs"


def children() -> list[Any]:
    """The flow runs of ``train-model/train-model``."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId

    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("train-model/train-model")
        return client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])))


def test_ctrl_c_cancels_the_children_and_waits_for_none(outputs: Path, tmp_path: Path) -> None:
    command = [*(sys.executable, "-m", "flows", "run", "--where", "pool"), *("--profile", "smoke")]
    command += ["--sources", "embedded", "--only", "21.22", "--budget", "500"]  # trainings of minutes
    process = subprocess.Popen(
        command,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # As in a terminal; where the tests run in the background of a shell script, SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until(lambda: list((outputs / "progress").glob("*/*.json")), 120, "a training begins")
        wait_until(lambda: len(children()) >= 2, 20, "another one waits for the worker")
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, said = process.communicate(timeout=60)
        assert time.monotonic() - begun < 15
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("chapter: stopped; what was computed is kept")
    assert all(run.state.name in ("Cancelling", "Cancelled") for run in children())
    wait_until(lambda: all(run.state.is_cancelled() for run in children()), 60, "the worker has ended its run")
