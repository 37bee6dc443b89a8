"""The chapter as a user runs it, in processes of its own: caching, damage, killing, two at once.

All runs share one Prefect server. Each scenario has a store of its own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tasks.cache.locks import LeasedLockManager
from tasks.cache.store import Store
from tests.flows.conftest import wait_until
from tests.tasks.cache.whole import kept

pytestmark = [pytest.mark.slow, pytest.mark.prefect, pytest.mark.timeout(600)]
EXERCISE = "21.22"  # small, medium and large: the models that most others share


class Chapter:
    """The command line over one folder of outputs."""

    def __init__(self, outputs: Path, api: str) -> None:
        self.outputs = outputs
        self.environment = {
            **os.environ,
            "CHAPTER_OUTPUTS": str(outputs),
            "PREFECT_API_URL": api,
            "PREFECT_HOME": str(outputs / "prefect"),
            "MLFLOW_TRACKING_URI": "",
        }

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flows", "run", "--profile", "smoke", "--sources", "embedded", *arguments]
        return subprocess.Popen(
            command,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # As in a terminal; where the tests run in the background of a shell script, SIGINT is ignored.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def run(self, *arguments: str) -> "Output":
        return self.end(self.start(*arguments))

    @staticmethod
    def end(process: subprocess.Popen[str]) -> "Output":
        text, _ = process.communicate(timeout=300)
        return Output(process.returncode, text)

    def plan(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "flows", "plan", "--profile", "smoke", "--sources", "embedded", *arguments]
        done = subprocess.run(
            command, env={**self.environment, "COLUMNS": "200"}, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    @property
    def store(self) -> Store:
        return Store(str(self.outputs / "store"))

    def weights(self) -> dict[str, str]:
        """SHA-256 of the weights of each training."""
        found = {}
        for key in self.store.record_keys():
            record = self.store.record(key, verify=True)
            assert record is not None
            if record["data"]["lineage"]["kind"] == "train":
                found[record["data"]["lineage"]["name"]] = record["artifacts"]["model"]["sha256"]
        return found

    def wait_for_progress(self, name: str, fraction: float) -> dict[str, object]:
        """The progress of a running step, once it is that far."""
        end = time.monotonic() + 120
        while time.monotonic() < end:
            for file in (self.outputs / "progress").glob("*/*.json"):
                try:
                    state = json.loads(file.read_text())
                except (FileNotFoundError, ValueError):
                    continue
                if state["name"] == name and state["fraction"] >= fraction:
                    return {**state, "key": file.stem}
            time.sleep(0.02)
        raise AssertionError(f"{name} never came to {fraction}")


class Output:
    """What a run said."""

    def __init__(self, status: int, text: str) -> None:
        self.status, self.text = status, text
        found = re.search(r"(\d+) models trained, (\d+) steps run, (\d+) cached", text)
        self.trained, self.ran, self.cached = (int(n) for n in found.groups()) if found else (-1, -1, -1)
        self.begun = re.findall(r"^(.*): begins", text, re.MULTILINE)

    def __repr__(self) -> str:
        return f"exit status {self.status}\n{self.text}"


@pytest.fixture
def chapter(tmp_path: Path, api: str) -> Chapter:
    return Chapter(tmp_path / "outputs", api)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, api: str) -> Chapter:
    """An undisturbed run."""
    chapter = Chapter(tmp_path_factory.mktemp("finished"), api)
    output = chapter.run("--only", EXERCISE)
    assert output.status == 0, output
    assert output.trained >= 3
    return chapter


@pytest.fixture
def copy(finished: Chapter, tmp_path: Path, api: str) -> Chapter:
    """A copy of an undisturbed run, to be damaged."""
    subprocess.run(["cp", "-r", str(finished.outputs), str(tmp_path / "copy")], check=True)
    return Chapter(tmp_path / "copy", api)


def test_the_contract_of_a_finished_run(finished: Chapter) -> None:
    latest = finished.outputs / "latest"
    assert latest.is_symlink()
    assert "<html" in (latest / "report.html").read_text()
    result = json.loads((latest / "results" / "21.22.json").read_text())
    assert result["status"] == "ok"
    assert {"a", "b", "c", "d"} <= {part["letter"] for part in result["parts"]}
    assert result["provenance"]["mlflow_run_id"]
    assert json.loads((latest / "summary.json").read_text())
    assert list((latest / "tables").glob("*.csv"))


def test_what_prefect_shows_of_a_run(finished: Chapter) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import (
        ArtifactFilter,
        ArtifactFilterKey,
        FlowRunFilter,
        FlowRunFilterId,
        LogFilter,
        LogFilterFlowRunId,
    )

    page = (finished.outputs / "latest" / "report.html").resolve()
    with get_client(sync_client=True) as client:
        of_reports = ArtifactFilter(key=ArtifactFilterKey(any_=["exercise-report"]))
        [report] = [
            found for found in client.read_artifacts(artifact_filter=of_reports) if str(page) in str(found.data)
        ]
        run = client.read_flow_run(report.flow_run_id)
        mine = FlowRunFilter(id=FlowRunFilterId(any_=[run.id]))
        artifacts = {found.key: found for found in client.read_artifacts(flow_run_filter=mine)}
        said = [line.message for line in client.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id])))]
    assert run.name == "exercise 21.22, smoke"
    assert set(run.tags) == {"profile:smoke", "exercise:21.22"}

    assert artifacts["exercise-report"].data == f"[{run.name}: the report]({page.as_uri()})"
    result = json.loads((page.parent / "results" / "21.22.json").read_text())
    assert artifacts["exercise-mlflow"].data == f"[{run.name}, on MLflow]({result['provenance']['mlflow_url']})"
    held = {
        kind: [check["passed"] for check in result["checks"] if check["kind"] == kind]
        for kind in ("exact", "empirical")
    }
    [row] = json.loads(artifacts["exercise-table"].data)
    assert (row["exercise"], row["status"], row["measured"]) == ("21.22", "answered", "now")
    for kind, passed in held.items():
        assert row[kind] == f"{passed.count(True)} of {len(passed)}"
    verdict = artifacts["exercise-verdict"].data
    assert f"exact checks {held['exact'].count(True)} of {len(held['exact'])} hold" in verdict
    assert str(page) in verdict
    assert f"| [21.22]({result['provenance']['mlflow_url']}) | Model Size Experiment | answered |" in verdict

    for name in ("train large, seed 0", "exercise 21.22"):
        [begins] = [n for n, line in enumerate(said) if line.startswith(f"{name}: begins (")]
        [done] = [n for n, line in enumerate(said) if line.startswith(f"{name}: done in ")]
        assert begins < done
    assert said[0].startswith("begins: 1 exercise")


def test_a_long_training_has_a_bar_on_prefects_page(api: str, tmp_path: Path) -> None:
    from prefect import flow
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
    from prefect.runtime import flow_run

    from flows.execution.graph import Node
    from flows.execution.on_prefect import PrefectListener
    from tasks.cache.keys import Step
    from tasks.cache.progress import ProgressFile
    from tasks.place import Place

    def bars() -> list[tuple[str | None, str | None, float]]:
        with get_client(sync_client=True) as client:
            mine = FlowRunFilter(id=FlowRunFilterId(any_=[flow_run.get_id()]))
            found = client.read_artifacts(flow_run_filter=mine)
        return [(bar.key, bar.description, bar.data) for bar in found if bar.type == "progress"]

    @flow(name="a training")
    def training() -> list[tuple[str | None, str | None, float]]:
        node = Node("train/small", "train", "train small", {}, {}, (), 1.0, models=True, subject="small", seed=3)
        step, place = Step("train", "train small", {}, {}, {}, 1), Place(str(tmp_path), str(tmp_path))
        shown = PrefectListener(place, every=0.1)
        shown.started(node, step, "never run")
        ProgressFile(place.progress, step.key, step.name)._write(0.25, "loss 2.5")
        wait_until(lambda: bars() == [("training", "train small: loss 2.5", 25.0)], 30, "a bar at a quarter")
        shown.finished(node, step, {"data": {"seconds": 7.0}})
        shown.close()
        return bars()

    assert training() == [("training", "train small: done in 7.0 s", 100.0)]


def test_a_second_run_trains_nothing(copy: Chapter) -> None:
    output = copy.run("--only", EXERCISE)
    assert output.status == 0, output
    assert (output.trained, output.ran) == (0, 0)


def test_plan_says_what_then_happens(copy: Chapter) -> None:
    assert "0 to run" in copy.plan("--only", EXERCISE)
    changed = copy.plan("--only", EXERCISE, "--budget", "0.5")
    assert "input recipe/train/steps" in changed


@pytest.mark.parametrize("damage", ["pickle", "json"])
def test_a_foreign_record_is_a_miss(copy: Chapter, damage: str) -> None:
    [key] = [k for k in copy.store.record_keys() if _kind(copy.store, k) == "exercise"]
    file = copy.outputs / "store" / "records" / key
    record = json.loads(file.read_text())
    if damage == "pickle":
        record["metadata"]["serializer"] = {"type": "pickle"}
        record["result"] = "gASVJgAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAt0b3VjaCBvd25lZJSFlFKULg=="  # touch owned
    else:
        record["result"] = '{"some": "json"}'
    file.write_text(json.dumps(record))
    output = copy.run("--only", EXERCISE)
    assert output.status == 0, output
    assert output.begun == ["exercise 21.22"]
    assert not Path("owned").exists()


def test_a_record_of_a_model_that_says_too_little_is_a_miss(copy: Chapter) -> None:
    """As one would write it who knows how, with a checksum that fits: the page and the terminal count on each field."""
    name = "train small, seed 0"
    [record] = [
        record
        for key in copy.store.record_keys()
        if (record := copy.store.record(key)) and record["data"]["lineage"]["name"] == name
    ]
    for field in ("parameters", "evaluations", "training_seconds"):
        del record["data"][field]
    kept(copy.store, record)
    output = copy.run("--only", EXERCISE)
    assert output.status == 0, output
    assert output.begun == [name]
    made = copy.store.record(record["key"])
    assert made is not None
    assert made["artifacts"] == record["artifacts"]
    assert made["data"]["parameters"] > 0


def _kind(store: Store, key: str) -> str:
    record = store.record(key)
    assert record is not None
    return str(record["data"]["lineage"]["kind"])


def test_missing_and_truncated_blobs_are_remade_and_nothing_else(copy: Chapter) -> None:
    before = copy.weights()
    for name, damage in (("train small, seed 0", "delete"), ("train medium, seed 0", "truncate")):
        blob = copy.outputs / "store" / "blobs" / before[name][:2] / before[name]
        blob.unlink() if damage == "delete" else os.truncate(blob, 100)
    output = copy.run("--only", EXERCISE)
    assert output.status == 0, output
    assert sorted(output.begun) == ["train medium, seed 0", "train small, seed 0"]
    assert copy.weights() == before


def test_two_at_once_share_the_work(chapter: Chapter, finished: Chapter) -> None:
    both = [chapter.start("--only", EXERCISE) for _ in range(2)]
    outputs = [Chapter.end(process) for process in both]
    assert [output.status for output in outputs] == [0, 0], outputs
    assert chapter.weights() == finished.weights()
    assert sum(output.trained for output in outputs) == len(finished.weights()), "each model was trained once"


def test_after_sigkill_a_training_continues_to_the_same_bits(chapter: Chapter, finished: Chapter) -> None:
    name = "train large, seed 0"
    process = chapter.start("--only", EXERCISE)
    state = chapter.wait_for_progress(name, 0.1)
    left = chapter.outputs / "store" / "checkpoints" / str(state["key"])
    wait_until(lambda: list(left.glob("step-*.json")), 60, "a checkpoint")
    _kill_session(process)
    assert list(left.glob("step-*.json")), "a checkpoint is there to continue from"
    output = chapter.run("--only", EXERCISE)
    assert output.status == 0, output
    assert chapter.weights() == finished.weights()


def _kill_session(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close() if process.stdout else None


def test_a_killed_pool_child_costs_its_step_alone(chapter: Chapter, finished: Chapter) -> None:
    process = chapter.start("--only", EXERCISE)
    state = chapter.wait_for_progress("train large, seed 0", 0.1)
    os.kill(int(str(state["pid"])), signal.SIGKILL)
    output = Chapter.end(process)
    assert output.status == 0, output
    assert output.begun.count("train large, seed 0") == 2
    assert all(output.begun.count(name) == 1 for name in set(output.begun) - {"train large, seed 0"})
    assert chapter.weights() == finished.weights()


def test_timed_exercises_do_ahead_what_needs_no_quiet_machine(chapter: Chapter) -> None:
    """21.30 times its steps alone; its texts are scored beside the other, and found again under its key."""
    output = chapter.run("--only", "21.25,21.30")
    assert output.status == 0, output
    lines = output.text.splitlines()
    places = [
        next(n for n, line in enumerate(lines) if line.startswith(start))
        for start in ("exercise 21.30, ahead: begins", "exercise 21.30, ahead: done in", "exercise 21.30: begins")
    ]
    assert places == sorted(places)
    [took] = re.findall(r"^exercise 21\.30: done in ([\d.]+) s", output.text, re.MULTILINE)
    result = json.loads((chapter.outputs / "latest" / "results" / "21.30.json").read_text())
    assert result["provenance"]["seconds"] > float(took), "what was done ahead counts, though another step did it"
    assert not list((chapter.outputs / "store" / "checkpoints").glob("*/*.json")), "parts go with the exercise's end"


def test_a_budget_reaches_the_answer(chapter: Chapter) -> None:
    """21.15 counts epochs from its recipe's steps, and has an exact check on them."""
    output = chapter.run("--only", "21.15", "--budget", "0.5")
    assert output.status == 0, output
    result = json.loads((chapter.outputs / "latest" / "results" / "21.15.json").read_text())
    assert [check["claim"] for check in result["checks"] if check["kind"] == "exact" and not check["passed"]] == []


def test_checkpoints_stay_until_the_record_is_there(chapter: Chapter, finished: Chapter) -> None:
    """What Prefect could not store costs no training: the checkpoint of the last step is still there."""
    records = chapter.outputs / "store" / "records"
    process = chapter.start("--only", EXERCISE)
    state = chapter.wait_for_progress("train large, seed 0", 0.5)
    shutil.rmtree(records)
    records.write_text("in the way")
    output = Chapter.end(process)
    assert output.status != 0, output
    assert list((chapter.outputs / "store" / "checkpoints" / str(state["key"])).glob("step-*.json"))
    records.unlink()
    output = chapter.run("--only", EXERCISE)
    assert output.status == 0, output
    assert chapter.weights() == finished.weights()
    assert not list((chapter.outputs / "store" / "checkpoints").iterdir())


@pytest.mark.parametrize("request_to_end", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(chapter: Chapter, request_to_end: int) -> None:
    process = chapter.start("--only", EXERCISE)
    state = chapter.wait_for_progress("train large, seed 0", 0.2)
    process.send_signal(request_to_end)
    begun = time.monotonic()
    output = Chapter.end(process)
    assert output.status == 130, output
    assert time.monotonic() - begun < 15, "it waits for the checkpoint and for nothing else"
    assert not psutil.pid_exists(int(str(state["pid"])))
    assert list((chapter.outputs / "store" / "checkpoints").glob("*/*")), "the training was saved on the way out"


def test_without_its_parent_a_pool_process_ends(chapter: Chapter) -> None:
    process = chapter.start("--only", EXERCISE)
    state = chapter.wait_for_progress("train large, seed 0", 0.1)
    process.kill()
    process.communicate()
    wait_until(lambda: not psutil.pid_exists(int(str(state["pid"]))), 5, "the end of the orphan")


def test_an_own_text(chapter: Chapter, tmp_path: Path, make_text: Callable[[], str]) -> None:
    text = tmp_path / "mine.txt"
    text.write_text(make_text(), encoding="utf-8")
    output = chapter.run("--only", "21.11,21.12", "--corpus", str(text))
    assert output.status == 0, output


@pytest.fixture
def make_text() -> Callable[[], str]:
    return lambda: "Ein Müller hatte drei Söhne, seine Mühle, einen Esel und einen Kater. " * 400


def test_a_leased_lock_excludes_other_machines(tmp_path: Path) -> None:
    store = str(tmp_path / "store")
    here, there = LeasedLockManager(tmp_path / "here", store), LeasedLockManager(tmp_path / "there", store)
    assert here.acquire_lock("key", "a")
    assert not there.acquire_lock("key", "b", acquire_timeout=1)
    here.release_lock("key", "a")
    assert there.acquire_lock("key", "b", acquire_timeout=20)
    there.release_lock("key", "b")
