"""Ctrl-C in ``chapter run --where pool``, with a real worker that is busy and a child that nobody has taken."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.pools import _cancel
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
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name("train-model/train-model")
        return client.read_flow_runs(deployment_filter=DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])))


def test_ctrl_c_cancels_the_children_and_waits_for_none(outputs: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flows", "run", "--where", "pool", "--profile", "smoke"]
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
        _, said = process.communicate(timeout=120)  # the trainings would take longer, and none of them ends below
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert "Traceback" not in said
    assert said.strip().splitlines()[-1].startswith("chapter: stopped; what was computed is kept")
    assert all(run.state.name in ("Cancelling", "Cancelled") for run in children())
    wait_until(lambda: all(run.state.is_cancelled() for run in children()), 120, "the worker has ended its run")


def test_a_child_that_is_just_being_started_does_not_begin_and_ends(outputs: Path) -> None:
    """Prefect alone leaves it as Cancelling for ever, its process refused and gone."""
    child = run_deployment("train-model/train-model", parameters={"recipe": "small", "profile": "smoke"}, timeout=0)
    assert isinstance(child, FlowRun)
    with get_client(sync_client=True) as client:

        def now() -> FlowRun:
            return client.read_flow_run(child.id)

        wait_until(lambda: now().state_name in ("Pending", "Submitting"), 60, "a worker has taken it")
        _cancel(child)
        assert now().state_name == "Cancelling"
        wait_until(lambda: now().state_name == "Cancelled", 120, "the automation has ended it")
        assert "Running" not in {state.name for state in client.read_flow_run_states(child.id)}
    assert not list((outputs / "progress").glob("*/*.json"))
