"""The README's sequence with workers, command by command: server, pools, deployments, workers, runs."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.shared_server import free_port
from tests.flows.conftest import ROOT, prefect, worker

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(1200)]

WITHOUT_MODELS, WITH_MODELS = "21.11", "21.15"  # inline in the parent; on the pool "gpu", with trainings


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("outputs")


@pytest.fixture(scope="module")
def servers(outputs: Path) -> Iterator[None]:
    """``chapter ui``, and what it says is to be exported."""
    command = [sys.executable, "-m", "flows", "ui"]
    command += ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
    before = dict(os.environ)
    os.environ["CHAPTER_OUTPUTS"] = str(outputs)
    os.environ["PREFECT_HOME"] = str(outputs / "home")  # a new user has no profiles
    os.environ.pop("PREFECT_PLUGINS_ENABLED", None)
    ui = subprocess.Popen(
        command,
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        start_new_session=True,
        # As in a terminal; where the tests run in the background of a shell script, SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        assert ui.stdout is not None
        said = "".join(iter(ui.stdout.readline, "Ctrl-C stops both.\n"))
        pages = re.findall(r"^(?:Prefect|MLflow) +(\S+)$", said, re.MULTILINE)
        for page in pages:
            with urllib.request.urlopen(page, timeout=30) as response:
                assert b"<html" in response.read()
        exports = re.findall(r"\b([A-Z_]+)=(\S+)", said)
        assert exports == [("PREFECT_API_URL", f"{pages[0]}/api"), ("MLFLOW_TRACKING_URI", pages[1].partition("/#")[0])]
        os.environ.update(exports)
        yield
        ui.send_signal(signal.SIGINT)
        assert ui.wait(30) == 0
        for page in pages:
            with pytest.raises(OSError, match="refused"):
                urllib.request.urlopen(page, timeout=2)
    finally:
        ui.kill()
        os.environ.clear()
        os.environ.update(before)


def test_the_sequence(servers: None, outputs: Path) -> None:
    set_up = subprocess.run([sys.executable, "-m", "flows.pools"], cwd=ROOT, capture_output=True, text=True)
    assert set_up.returncode == 0, set_up.stderr

    deployed = prefect("--no-prompt", "deploy", "--all")
    assert deployed.returncode == 0, deployed.stdout + deployed.stderr
    assert deployed.stdout.count("successfully created") == (ROOT / "prefect.yaml").read_text().count("entrypoint:")

    assert "ensure_crash_detection" in deployed.stdout
    schedules = prefect("deployment", "schedule", "ls", "full-chapter/full-chapter")
    assert schedules.returncode == 0, schedules.stdout + schedules.stderr

    # Not in the repository: a worker needs the package, not the folder.
    with worker("cpu", outputs), worker("gpu", outputs):
        only = json.dumps([WITHOUT_MODELS, WITH_MODELS])
        options = ["--param", "profile=smoke", "--param", "sources=embedded", "--param", f"only={only}", "--watch"]
        run = prefect("deployment", "run", "full-chapter", *options)
        assert run.returncode == 0, run.stdout + run.stderr
        assert "finished successfully" in run.stdout

        latest = outputs / "latest"
        assert (latest / "report.html").stat().st_size > 10_000
        for id in (WITHOUT_MODELS, WITH_MODELS):
            result = json.loads((latest / "results" / f"{id}.json").read_text())
            assert result["status"] == "ok"
            assert result["provenance"]["mlflow_run_id"]

        again = prefect("deployment", "run", "exercise/21-15", *options[:4], "--watch")
        assert again.returncode == 0, again.stdout + again.stderr
    assert_tracked()
    assert_shown_by_prefect()

    one = prefect("deployment", "run", "train-model", "-p", "recipe=small", "-p", "seed=1")
    assert one.returncode == 0, one.stdout + one.stderr
    assert_waits_for_a_worker("train-model", recipe="small", seed=1)


def assert_waits_for_a_worker(deployment: str, **parameters: Any) -> None:
    """The newest flow run of a deployment has these parameters, and nobody has begun with it."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterName
    from prefect.client.schemas.sorting import FlowRunSort

    named = DeploymentFilter(name=DeploymentFilterName(any_=[deployment]))
    with SyncPrefectClient(api=os.environ["PREFECT_API_URL"]) as client:
        newest, *_ = client.read_flow_runs(deployment_filter=named, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    assert newest.parameters.items() >= parameters.items()
    assert newest.start_time is None


def assert_shown_by_prefect() -> None:
    """Names, tags, descriptions, artifacts and log lines of flow runs on the Prefect server."""
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId, LogFilter, LogFilterFlowRunId

    # By its address: get_client would ask the server of a test before, whose settings this process has read.
    with SyncPrefectClient(api=os.environ["PREFECT_API_URL"]) as client:
        flows = {flow.id: flow.name for flow in client.read_flows()}
        deployments = client.read_deployments(limit=200)
        ours = re.findall(r'^  - name: "?([^"\s]+)', (ROOT / "prefect.yaml").read_text(), re.MULTILINE)
        assert sorted(found.name for found in deployments) == sorted(ours)
        for deployment in deployments:
            assert deployment.description, f"{deployment.name} says nothing of itself"
            for name, parameter in deployment.parameter_openapi_schema["properties"].items():
                assert parameter.get("description"), f"{deployment.name}: nothing is said of {name}"
        assert {tuple(one.tags) for one in deployments if one.name == "21-11"} == {("exercise:21.11",)}

        runs = client.read_flow_runs()
        [whole] = [run for run in runs if flows[run.flow_id] == "full-chapter"]
        alone = [run for run in runs if run.name == f"exercise {WITH_MODELS}, smoke"]
        assert whole.name == f"exercises {WITHOUT_MODELS}, {WITH_MODELS}, smoke"
        assert len(alone) == 2, "the chapter's, and the one that was started by itself"
        [training] = [run for run in runs if "recipe:small-long" in run.tags]
        assert set(whole.tags) == {"profile:smoke", f"exercise:{WITHOUT_MODELS}", f"exercise:{WITH_MODELS}"}
        assert all(set(run.tags) == {"profile:smoke", f"exercise:{WITH_MODELS}"} for run in alone)
        assert set(training.tags) == {"profile:smoke", "recipe:small-long"}

        def left(run: Any) -> dict[str, Any]:
            of_run = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run.id]))
            return {found.key: found.data for found in client.read_artifacts(artifact_filter=of_run)}

        of_whole = left(whole)
        assert {row["exercise"] for row in json.loads(of_whole["chapter-table"])} == {WITHOUT_MODELS, WITH_MODELS}
        assert "2 of 2 exercises answered" in of_whole["chapter-verdict"]
        assert os.environ["MLFLOW_TRACKING_URI"] in of_whole["chapter-mlflow"]
        assert "report.html" in of_whole["chapter-report"]
        assert [("exercise-report" in left(run)) for run in sorted(alone, key=lambda run: run.start_time)] == [
            False,
            True,
        ]
        assert all({"exercise-verdict", "exercise-table", "exercise-mlflow"} <= left(run).keys() for run in alone)
        assert {"model-verdict", "model-table", "model-mlflow"} <= left(training).keys()

        lines = client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[training.id])))
        said = [line.message for line in lines]
        assert any(line.startswith("train small-long, seed 0: begins") for line in said)
        assert any(line.startswith("train small-long, seed 0: done in") for line in said)


def assert_tracked() -> None:
    """Models, exercises and the chapter are on the MLflow server."""
    from mlflow import MlflowClient

    client = MlflowClient(os.environ["MLFLOW_TRACKING_URI"])
    runs = [run for found in client.search_experiments() for run in client.search_runs([found.experiment_id])]
    assert all(run.info.status == "FINISHED" for run in runs)
    by_kind = {
        kind: [run for run in runs if run.data.tags["kind"] == kind] for kind in ("chapter", "model", "exercise")
    }
    # full-chapter, and exercise/21-15 run by itself; the flow runs on the pool "gpu" are no chapters of their own.
    whole, alone = sorted(by_kind["chapter"], key=lambda run: run.info.start_time)
    nested = by_kind["model"] + by_kind["exercise"]
    assert len(by_kind["exercise"]) == 2
    assert by_kind["model"]
    assert {run.data.tags["mlflow.parentRunId"] for run in nested} == {whole.info.run_id}
    assert all(run.data.tags["hardware.cores"] for run in nested)
    flow_runs = {run.data.tags["exercise"]: run.data.tags["prefect_flow_run"] for run in by_kind["exercise"]}
    assert flow_runs[WITHOUT_MODELS] == whole.data.tags["prefect_flow_run"]
    assert flow_runs[WITH_MODELS] not in {run.data.tags["prefect_flow_run"] for run in (whole, alone)}
