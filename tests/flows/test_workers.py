"""What happens when processes die on a work pool, with real workers."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.recovery import PAUSE, RESTARTS, SILENCE, automations, ensure_crash_detection
from tests.flows.conftest import ROOT, Worker, prefect, wait_until, worker

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(600)]

DEPLOYMENTS = """
pull: []
definitions:
  variables: &variables {working_dir: ., env: {PREFECT_FLOWS_HEARTBEAT_FREQUENCY: "30"}}
deployments:
  - {name: parent, entrypoint: tests.flows.pool_flows.parent, work_pool: {name: cpu, job_variables: *variables}}
  - {name: child, entrypoint: tests.flows.pool_flows.child, work_pool: {name: gpu, job_variables: *variables}}
  - {name: sleeper, entrypoint: tests.flows.pool_flows.sleeper, work_pool: {name: solo, job_variables: *variables}}
"""


@pytest.fixture(scope="module")
def deployed(api: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "prefect.yaml").write_text(DEPLOYMENTS)
    # A pool for the worker that dies alone: one of the others would take its run over.
    assert prefect("work-pool", "create", "solo", "--type", "process", cwd=folder).returncode == 0
    done = prefect("--no-prompt", "deploy", "--all", cwd=folder, PYTHONPATH=str(ROOT))
    assert done.returncode == 0, done.stdout + done.stderr
    return api


@pytest.fixture(scope="module")
def workers(deployed: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    folder = tmp_path_factory.mktemp("workers")
    with worker("cpu", folder), worker("gpu", folder):
        yield


def start(deployment: str, parameters: dict[str, Any]) -> Any:
    from prefect.deployments import run_deployment

    return run_deployment(deployment, parameters=parameters, timeout=0, as_subflow=False)


def read(run: Any) -> Any:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_flow_run(run.id)


def states(run: Any) -> list[str]:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return [state.name for state in client.read_flow_run_states(run.id)]


def ended(run: Any, seconds: float = 120) -> Any:
    return wait_until(lambda: (now := read(run)).state.is_final() and now, seconds, f"the end of {run.name}")


def test_a_killed_child_is_started_again(workers: None, tmp_path: Path) -> None:
    for number in (0, 1):
        (tmp_path / str(number)).mkdir()
    run = start("full-chapter/parent", {"folder": str(tmp_path), "kills": 1, "children": 2})
    assert ended(run).state.is_completed()
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        for number, good in enumerate((tmp_path / "ids").read_text().split()):
            first, second = (line.split()[1] for line in (tmp_path / str(number) / "notes").read_text().splitlines())
            assert first != second == good
            assert client.read_flow_run(first).state.is_crashed()
            completed = client.read_flow_run(second)
            assert completed.state.is_completed()
            above = client.read_task_run(completed.parent_task_run_id)
            assert above.flow_run_id == run.id, "the child is shown below its parent"


def test_a_failed_child_fails_its_parent_at_once(workers: None, tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    run = ended(start("full-chapter/parent", {"folder": str(tmp_path), "fails": True}))
    assert run.state.is_failed()
    assert "the child's own mistake" in run.state.message
    assert len((tmp_path / "0" / "notes").read_text().splitlines()) == 1


def test_a_run_that_dies_with_its_worker_is_found_and_taken_up(deployed: str, tmp_path: Path) -> None:
    doomed = Worker("solo", tmp_path)
    try:
        run = start("exercise/sleeper", {"folder": str(tmp_path)})
        wait_until((tmp_path / "notes").exists, 90, "the run begins")
    finally:
        doomed.kill()
    begun = time.monotonic()
    assert read(run).state.is_running()
    wait_until(lambda: not read(run).state.is_running(), SILENCE.total_seconds() + 30, "the dead run is noticed")
    seconds = time.monotonic() - begun
    print(f"noticed after {seconds:.1f} s")
    assert seconds <= 90
    wait_until(lambda: "AwaitingRetry" in states(run), PAUSE.total_seconds() + 15, "the run is scheduled again")
    assert "Crashed" in states(run)
    with worker("solo", tmp_path):
        assert ended(run).state.is_completed()
    assert [line.split() for line in (tmp_path / "notes").read_text().splitlines()] == [
        [str(run.id), "1"],
        [str(run.id), "2"],
    ]


def test_a_run_that_crashes_each_time_is_given_up(workers: None, tmp_path: Path) -> None:
    run = start("train-model/child", {"folder": str(tmp_path), "kills": 99})
    lines = lambda: (tmp_path / "notes").read_text().splitlines() if (tmp_path / "notes").exists() else []  # noqa: E731
    wait_until(lambda: len(lines()) == 1 + RESTARTS and read(run).state.is_crashed(), 400, "the last crash")
    time.sleep(PAUSE.total_seconds() + 10)
    assert read(run).state.is_crashed()
    assert len(lines()) == 1 + RESTARTS


def test_automations_are_made_once(api: str) -> None:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        before = [client.read_automations_by_name(wanted.name) for wanted in automations()]
        ensure_crash_detection()
        assert [client.read_automations_by_name(wanted.name) for wanted in automations()] == before
        assert [len(found) for found in before] == [1] * 3
        # One that was changed, by an earlier version say, is brought up to date.
        found = before[0][0]
        client.update_automation(found.id, automations()[0].model_copy(update={"description": "old"}))
        ensure_crash_detection()
        assert client.read_automations_by_name(found.name)[0].description == automations()[0].description
