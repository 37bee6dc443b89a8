"""MLflow: what is logged where, once, and what happens when the server is not there."""

import contextlib
import json
import math
import pickle
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.tracking import runs
from tasks.tracking import tracker as tracking
from tasks.tracking.client import connect, origin
from tasks.tracking.pages import comparison_page, run_page
from tasks.tracking.runs import STEP_KEY
from tasks.tracking.tracker import Tracker

RECIPE = {"name": "small", "seed": 1, "model": {"n_layer": 2, "window": None}, "train": {"objective_args": [["a", 1]]}}
RECORD = {
    "config": {"n_layer": 2},
    "history": {
        "step": [10, 20, 30],
        "tokens": [100, 200, 300],
        "train_loss": [3.0, 2.5, 2.0],
        "learning_rate": [1e-3, 5e-4, 0.0],
        "seconds": [1.0, 2.0, 3.0],
    },
    "evaluations": {"step": [0, 30], "tokens": [0, 300], "validation_loss": [4.0, 2.25], "seconds": [0.0, 3.0]},
    "parameters": 12_345,
    "training_seconds": 3.5,
    "tokens_per_second": 100.0,
    "validation_tokens": 400,
    "validation_bytes": 500,
}
RESULT = {
    "id": "21.22",
    "title": "Model Size Experiment",
    "status": "ok",
    "summary": "Larger is better here.",
    "checks": [
        {"claim": "a", "kind": "exact", "passed": True},
        {"claim": "b", "kind": "empirical", "passed": False},
    ],
    "metrics": {"perplexity (small)": 5.5, "undefined": "NaN"},
    "parts": [
        {"letter": "a", "blocks": [{"type": "prose", "text": "…"}]},
        {
            "letter": "b",
            "blocks": [{"type": "table", "columns": ["size", "note"], "rows": [["small", 'a, "b"']], "name": ""}],
        },
    ],
    "provenance": {"seconds": 2.0, "sources": {"main": "King James Bible"}},
}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose database is made once for all tests of this file."""
    folder = tmp_path_factory.mktemp("tracking")
    assert Tracker(folder, _sqlite(folder)).flush() == 0
    Tracker(folder, _sqlite(folder))._connection()
    return folder


def _sqlite(folder: Path) -> str:
    return f"sqlite:///{folder.resolve() / 'mlflow' / 'mlflow.db'}"


@pytest.fixture
def tracker(place: Path) -> Tracker:
    return Tracker(place, _sqlite(place))


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "5f3a").write_bytes(b"weights")
    (tmp_path / "77cc").write_text('{"name": "char"}')
    return {"model": tmp_path / "5f3a", "tokenizer": tmp_path / "77cc"}


def run_of(tracker: Tracker, key: str) -> Any:
    run_id = tracker.run_of(key)
    assert run_id is not None
    return tracker._connection()[0].get_run(run_id)


def artifact(tracker: Tracker, run: Any, name: str) -> bytes:
    return (tracker.folder / "artifacts" / run.info.run_id / "artifacts" / name).read_bytes()


def test_a_training_run_holds_everything(tracker: Tracker, files: dict[str, Path]) -> None:
    with tracker.chapter(profile="smoke") as chapter:
        run_id = tracker.log_training(chapter, "k-train", RECIPE, RECORD, files, {"profile": "smoke"})
    run = run_of(tracker, "k-train")
    assert run.info.run_id == run_id
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "small (seed 1)"
    assert run.data.tags["mlflow.parentRunId"] == tracker.run_of(chapter)
    assert {name: run.data.tags[name] for name in ("kind", "recipe", "seed", "profile", STEP_KEY)} == {
        "kind": "model",
        "recipe": "small",
        "seed": "1",
        "profile": "smoke",
        STEP_KEY: "k-train",
    }
    assert run.data.params["model.n_layer"] == "2"
    assert "model.window" not in run.data.params
    assert run.data.metrics["final_validation_loss"] == 2.25
    assert run.data.metrics["perplexity"] == pytest.approx(math.exp(2.25))
    assert run.data.metrics["bits_per_byte"] == pytest.approx(2.25 * 400 / (500 * math.log(2)))
    assert run.data.metrics["tokens_per_second"] == 100.0
    client = tracker._connection()[0]
    curve = client.get_metric_history(run_id, "train_loss")
    assert [(point.step, point.value) for point in curve] == [(10, 3.0), (20, 2.5), (30, 2.0)]
    assert [point.timestamp - curve[0].timestamp for point in curve] == [0, 1000, 2000]
    assert artifact(tracker, run, "model/model.safetensors") == b"weights"
    assert json.loads(artifact(tracker, run, "model/tokenizer.json")) == {"name": "char"}
    assert json.loads(artifact(tracker, run, "curves.json"))["history"] == RECORD["history"]


def test_a_trained_model_is_in_the_models_tab(tracker: Tracker, files: dict[str, Path]) -> None:
    run_id = tracker.log_training(None, "k-model", RECIPE, RECORD, files)
    client, experiment = tracker._connection()
    (model,) = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    assert str(model.status) == "READY"
    assert {metric.key: metric.value for metric in model.metrics}["final_validation_loss"] == 2.25
    assert model.tags["artifacts"] == f"runs:/{run_id}/model"


def test_a_model_says_what_it_is_and_what_it_was_trained_on(tracker: Tracker, files: dict[str, Path]) -> None:
    """Its vocabulary is the one that was trained, not the recipe's default; its name is fit for a link."""
    record = {**RECORD, "config": {"n_layer": 2, "vocab_size": 63}}
    recipe = {**RECIPE, "model": {"n_layer": 2, "vocab_size": 256}}
    text = {"name": "King James Bible, char tokens", "digest": "ab" * 32, "source": "verses"}
    run_id = tracker.log_training(None, "k-described", recipe, record, files, data=text)
    client, experiment = tracker._connection()
    run = client.get_run(run_id)
    assert run.data.params["model.vocab_size"] == "63"
    note = run.data.tags["mlflow.note.content"]
    assert all(part in note for part in ("`small`, seed 1", "12,345 parameters", "King James Bible", "2.2500 nats"))
    (data,) = run.inputs.dataset_inputs
    assert (data.dataset.name, data.dataset.digest) == ("King James Bible, char tokens", ("ab" * 32)[:36])
    assert {tag.key: tag.value for tag in data.tags} == {"mlflow.data.context": "training"}
    (model,) = client.search_logged_models([experiment], f"source_run_id = '{run_id}'")
    assert model.name == "small-seed-1"
    assert [made.model_id for made in run.outputs.model_outputs] == [model.model_id]
    assert {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics} == {
        (data.dataset.name, data.dataset.digest)
    }, "which is how its page knows what it was trained on"


def test_an_exercise_is_linked_to_the_models_it_used(tracker: Tracker, files: dict[str, Path]) -> None:
    made = tracker.log_training(None, "k-used", RECIPE, RECORD, files)
    run_id = tracker.log_exercise(None, "k-user", RESULT, models=["k-used", "k-of-another-store"])
    client = tracker._connection()[0]
    (used,) = client.get_run(run_id).inputs.model_inputs
    assert used.model_id == client.get_run(made).outputs.model_outputs[0].model_id


def test_lines_over_whole_numbers_are_curves(tracker: Tracker) -> None:
    """Steps, tokens, positions; not what is drawn over fractions, categories, or a point or two."""

    def figure(y_label: str, **series: tuple[list[Any], list[Any]]) -> dict[str, Any]:
        lines = [{"name": name, "x": x, "y": y, "error": []} for name, (x, y) in series.items()]
        return {"type": "figure", "kind": "line", "y_label": y_label, "series": lines}

    fold = {"type": "details", "blocks": [figure("loss", large=([0, 50, 100], [4.0, 2.0, 1.5]))]}
    blocks = [
        fold,
        figure("entropy", tau=([0.5, 1.0, 1.5], [1, 2, 3])),
        figure("loss", small=([0, 50, 100], [4.0, "NaN", 2.5]), pair=([1, 2], [1, 2])),
    ]
    result = {**RESULT, "parts": [{"letter": "a", "blocks": blocks}]}
    run_id = tracker.log_exercise(None, "k-curves", result)
    assert run_id is not None
    client = tracker._connection()[0]
    points = {
        name: [(point.step, point.value) for point in client.get_metric_history(run_id, name)]
        for name in ("loss/large", "loss/small", "loss/pair", "entropy/tau")
    }
    assert points == {
        "loss/large": [(0, 4.0), (50, 2.0), (100, 1.5)],
        "loss/small": [(0, 4.0), (100, 2.5)],
        "loss/pair": [],
        "entropy/tau": [],
    }


def test_a_chapter_says_what_it_came_to(tracker: Tracker, tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text("<html>")
    with tracker.chapter(profile="smoke") as chapter:
        tracker.conclude(
            "35 of 35 exercises answered",
            params={"profile": "smoke", "source.main corpus": "verses"},
            metrics={"answered": 35, "seconds": 12.5},
            files={"report.html": tmp_path / "report.html"},
        )
    run = run_of(tracker, chapter)
    assert run.info.status == "FINISHED"
    assert run.data.tags["mlflow.note.content"].startswith("**35 of 35 exercises answered.**")
    assert (run.data.metrics["answered"], run.data.metrics["seconds"]) == (35, 12.5)
    assert run.data.params == {"profile": "smoke", "source.main corpus": "verses"}
    assert artifact(tracker, run, "report.html") == b"<html>"


def test_a_chapter_leads_to_its_three_sizes_beside_each_other(tracker: Tracker, place: Path) -> None:
    """Those that it trained or took from the store, in their order; without all three there is nothing to lead to."""

    def train(size: str, key: str) -> str:
        made = tracker.log_training(None, key, {**RECIPE, "name": size, "seed": 0}, RECORD, tags={"profile": "smoke"})
        assert made is not None
        return made

    train("large", "k-large-of-another-chapter")
    with tracker.chapter(profile="smoke") as first:
        medium = train("medium", "k-medium")
        small = train("small", "k-small")
    assert "compare-runs" not in run_of(tracker, first).data.tags["mlflow.note.content"]
    with tracker.chapter(profile="smoke") as second:
        large = train("large", "k-large")
        tracker.link(second, "k-small", "train small, seed 0")
        tracker.link(second, "k-medium", "train medium, seed 0")
    note = run_of(tracker, second).data.tags["mlflow.note.content"]
    assert f"]({comparison_page(tracker.ui, tracker._connection()[1], [small, medium, large])})" in note


def test_a_chapter_names_what_was_stored_by_its_numbers_and_not_without_end(tracker: Tracker) -> None:
    made = tracker.log_exercise(None, "k-shared", RESULT)
    titles = [f"exercise 21.{n}" for n in range(35, 0, -1)]
    with tracker.chapter(profile="smoke") as chapter:
        for title in titles:
            tracker.link(chapter, "k-shared", title)
    tags = run_of(tracker, chapter).data.tags
    lines = [line for line in tags["mlflow.note.content"].splitlines() if line.startswith("- ")]
    assert lines[:20] == [f"- [exercise 21.{n}]({tracker.url(made)})" for n in range(1, 21)]
    assert lines[20:] == ["- and 15 more, among the tags"]
    assert {f"cached/{title}" for title in titles} <= tags.keys()


def test_the_experiment_opens_on_runs(tracker: Tracker) -> None:
    client, experiment = tracker._connection()
    assert client.get_experiment(experiment).tags["mlflow.experimentKind"] == "custom_model_development"


def test_an_exercise_run_holds_metrics_and_files(tracker: Tracker) -> None:
    with tracker.chapter(profile="smoke") as chapter:
        tracker.log_exercise(chapter, "k-exercise", RESULT, {"profile": "smoke"}, {"figures/a-1.svg": "<svg/>"})
    run = run_of(tracker, "k-exercise")
    assert run.data.tags["mlflow.parentRunId"] == tracker.run_of(chapter)
    assert run.data.metrics["perplexity small"] == 5.5
    assert "undefined" not in run.data.metrics
    assert (run.data.metrics["checks_passed"], run.data.metrics["checks_failed"]) == (1, 1)
    assert run.data.metrics["exact_checks_failed"] == 0
    assert artifact(tracker, run, "figures/a-1.svg") == b"<svg/>"
    assert json.loads(artifact(tracker, run, "result.json")) == RESULT


def test_a_step_is_logged_once_and_then_linked(tracker: Tracker, place: Path, files: dict[str, Path]) -> None:
    first = tracker.log_training(None, "k-once", RECIPE, RECORD, files)
    again = Tracker(place, _sqlite(place))
    assert again.run_of("k-once") == first
    with again.chapter(profile="smoke") as chapter:
        assert again.log_training(chapter, "k-once", RECIPE, RECORD, files) == first
        again.link(chapter, "k-once", "small (seed 1)")
        again.link(chapter, "k-unheard-of", "never logged")
    run = run_of(again, chapter)
    assert run.data.tags["cached_steps"] == "1"
    assert run.data.tags["cached/small seed 1"] == first
    assert str(first) in run.data.tags["mlflow.note.content"]
    client, experiment = again._connection()
    assert len(client.search_runs([experiment], f"tags.{STEP_KEY} = 'k-once'")) == 1


def test_a_run_that_broke_off_is_made_again(tracker: Tracker, files: dict[str, Path]) -> None:
    client, experiment = tracker._connection()
    tags = {STEP_KEY: "k-broken", "host": origin()["host"]}
    broken = client.create_run(experiment, tags=tags).info.run_id
    elsewhere = client.create_run(experiment, tags={**tags, "host": "another machine"}).info.run_id
    made = tracker.log_training(None, "k-broken", RECIPE, RECORD, files)
    assert made not in (None, broken)
    assert client.get_run(broken).info.lifecycle_stage == "deleted"
    assert client.get_run(elsewhere).info.lifecycle_stage == "active"  # it may be at work this moment


def test_a_failed_chapter_is_marked(tracker: Tracker) -> None:
    with pytest.raises(ZeroDivisionError), tracker.chapter(profile="smoke") as chapter:
        raise ZeroDivisionError
    run = run_of(tracker, chapter)
    assert run.info.status == "FAILED"
    assert run.data.tags["mlflow.note.content"].startswith("**Stopped before there was a report.**")


def test_a_chapter_with_a_failed_step_is_marked_and_says_which(tracker: Tracker) -> None:
    with tracker.chapter(profile="smoke") as chapter:
        tracker.fail("exercise 21.7", "ValueError: no such token\nand more")
    run = run_of(tracker, chapter)
    assert run.info.status == "FAILED"
    assert run.data.tags["failed_steps"] == "1"
    assert run.data.tags["failed/exercise 21.7"] == "ValueError: no such token\nand more"
    assert "exercise 21.7: `ValueError: no such token`" in run.data.tags["mlflow.note.content"]


def test_a_chapter_that_is_taken_up_again_is_the_same_run(tracker: Tracker, place: Path) -> None:
    with tracker.chapter(profile="smoke", name="chapter-of-flow-run-1") as chapter:
        assert chapter == "chapter-of-flow-run-1"
        tracker.fail("train small", "killed")
    first = tracker.run_of(chapter)
    again = Tracker(place, _sqlite(place))
    with again.chapter(profile="smoke", name="chapter-of-flow-run-1") as chapter:
        made = again.log_exercise(chapter, "k-taken-up", RESULT)
        assert run_of(again, chapter).info.status == "RUNNING"
    run = run_of(again, chapter)
    assert (run.info.run_id, run.info.status) == (first, "FINISHED")
    assert run.data.tags["failed_steps"] == "0"
    assert not [name for name in run.data.tags if name.startswith("failed/")], "what failed before has not failed now"
    assert run_of(again, "k-taken-up").data.tags["mlflow.parentRunId"] == first
    assert made is not None


def test_what_another_process_logs_is_nested_under_the_same_chapter(tracker: Tracker, place: Path) -> None:
    worker = Tracker(place, _sqlite(place))
    with tracker.chapter(profile="smoke") as chapter:
        tracker.log_exercise(chapter, "k-of-parent", RESULT)  # by now the chapter is there
        made = worker.log_exercise(chapter, "k-on-worker", RESULT)
        assert tracker.log_exercise(chapter, "k-on-worker", RESULT) == made, "its parent hears of it as well"
    parent = tracker.run_of(chapter)
    for key in ("k-of-parent", "k-on-worker"):
        assert run_of(tracker, key).data.tags["mlflow.parentRunId"] == parent


def test_what_a_worker_logged_before_the_chapter_was_known_is_nested_by_the_chapter(
    tracker: Tracker, place: Path
) -> None:
    worker = Tracker(place, _sqlite(place))
    made = worker.log_exercise("chapter-not-there-yet", "k-early", RESULT)
    assert "mlflow.parentRunId" not in run_of(worker, "k-early").data.tags
    with tracker.chapter(profile="smoke", name="chapter-not-there-yet") as chapter:
        assert tracker.log_exercise(chapter, "k-early", RESULT) == made
    assert run_of(tracker, "k-early").data.tags["mlflow.parentRunId"] == tracker.run_of(chapter)


def test_the_index_answers_without_importing_mlflow(tracker: Tracker, place: Path, files: dict[str, Path]) -> None:
    run_id = tracker.log_training(None, "k-index", RECIPE, RECORD, files)
    code = (
        "import sys; from pathlib import Path; from tasks.tracking.tracker import Tracker\n"
        f"t = Tracker(Path({str(place)!r}), {_sqlite(place)!r})\n"
        "print(t.run_of('k-index'), t.url(t.run_of('k-index')), 'mlflow' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert out[0] == run_id
    assert out[1] == run_page("http://127.0.0.1:5000", tracker._connection()[1], run_id)
    assert out[2] == "False"


def test_runs_deleted_by_people_are_logged_again(tracker: Tracker, place: Path, files: dict[str, Path]) -> None:
    first = tracker.log_training(None, "k-deleted", RECIPE, RECORD, files)
    tracker._connection()[0].delete_run(first)
    again = Tracker(place, _sqlite(place))
    again._connection()
    assert again.run_of("k-deleted") is None
    assert again.log_training(None, "k-deleted", RECIPE, RECORD, files) not in (None, first)


def test_opening_a_tracker_again_lists_what_is_new(tracker: Tracker, place: Path) -> None:
    """Not everything: a thousand runs take two seconds, each time a worker begins."""
    old = {number: tracker.log_exercise(None, f"k-old-{number}", RESULT) for number in range(3)}
    client = tracker._connection()[0]
    for run in old.values():
        client.set_terminated(run, "FINISHED", end_time=1_000_000)
    Tracker(place, _sqlite(place))._connection()  # the index has seen them
    other = Tracker(place, _sqlite(place))
    made = other.log_exercise(None, "k-elsewhere", RESULT)
    client.delete_run(old[1])
    index = json.loads(tracker._index_file.read_text())
    del index["runs"]["k-elsewhere"]  # another machine has logged it
    tracker._index_file.write_text(json.dumps(index))
    listed: list[str] = []
    every = runs._all

    def noted(*arguments: Any) -> Iterator[Any]:
        for run in every(*arguments):
            listed.append(run.info.run_id)
            yield run

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "_all", noted)
        again = Tracker(place, _sqlite(place))
        again._connection()
        assert not {old[0], old[2]} & set(listed)
        assert [again.run_of(f"k-old-{number}") for number in range(3)] == [old[0], None, old[2]]
        assert again.run_of("k-elsewhere") == made
        tracker._index_file.write_text(json.dumps({**index, "listed": time.time() - 8 * 86_400}))
        Tracker(place, _sqlite(place))._connection()
        assert {old[0], old[2]} <= set(listed), "all of them now and then"


def test_a_tracker_travels_between_processes(tracker: Tracker) -> None:
    tracker._connection()
    copy = pickle.loads(pickle.dumps(tracker))
    assert copy._client is None
    assert copy.uri == tracker.uri


def test_a_database_of_an_older_mlflow_is_brought_up_to_date(
    tracker: Tracker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.store.db import utils

    tracker._connection()
    shutil.copy(tracker.database, tmp_path / "old.db")
    uri = f"sqlite:///{tmp_path / 'old.db'}"

    def age(version: str) -> None:
        with contextlib.closing(sqlite3.connect(tmp_path / "old.db")) as database:
            database.execute("UPDATE alembic_version SET version_num = ?", [version])
            database.commit()

    age("an older one")
    monkeypatch.setattr(utils, "_upgrade_db", lambda engine: age(utils._get_latest_schema_revision()))
    assert connect(uri).get_experiment_by_name(tracking.EXPERIMENT) is not None
    with pytest.raises(MlflowException):
        connect("http://127.0.0.1:1")


# --- A server that is not there -------------------------------------------------------------------------------


def test_what_a_missing_server_did_not_hear_is_told_later(
    place: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(uri: str) -> Any:
        raise ConnectionError("nobody listens")

    with monkeypatch.context() as patch:
        patch.setattr(tracking, "connect", refuse)
        down = Tracker(place, _sqlite(place))
        with down.chapter(profile="smoke") as chapter:
            assert down.log_training(chapter, "k-late", RECIPE, RECORD, files) is None
            assert down.log_exercise(chapter, "k-late-exercise", RESULT) is None
        assert len(down.outbox) == 4
        assert down.flush() == 4
    assert sum("nobody listens" in record.message for record in caplog.records) == 1

    up = Tracker(place, _sqlite(place))
    assert up.flush() == 0
    parent = run_of(up, chapter)
    assert parent.info.status == "FINISHED"
    for key in ("k-late", "k-late-exercise"):
        assert run_of(up, key).data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert artifact(up, run_of(up, "k-late"), "model/model.safetensors") == b"weights"


@pytest.fixture
def hanging() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen(8)
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def test_a_hanging_server_costs_seconds_once(
    tmp_path: Path, hanging: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = Tracker(tmp_path, hanging)
    started = time.monotonic()
    with tracker.chapter(profile="smoke") as chapter:
        for i in range(20):
            assert tracker.log_training(chapter, f"k{i}", RECIPE, RECORD, files) is None
    assert time.monotonic() - started < 10
    assert len(tracker.outbox) == 22


# --- Several processes ----------------------------------------------------------------------------------------

_LOG = """
import sys
from pathlib import Path
from tasks.tracking.tracker import Tracker
tracker = Tracker(Path(sys.argv[1]))
with tracker.chapter(profile="smoke") as chapter:
    for i in range(3):
        tracker.log_training(chapter, f"shared-{i}", {"name": "small", "seed": i}, {"training_seconds": 1.0})
sys.exit(len(tracker.outbox))
"""


@pytest.mark.slow
def test_processes_that_open_a_fresh_database_at_once_share_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    processes = [subprocess.Popen([sys.executable, "-c", _LOG, str(tmp_path)]) for _ in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    client, experiment = Tracker(tmp_path)._connection()
    runs = client.search_runs([experiment], f"tags.{STEP_KEY} LIKE 'shared-%'")
    assert sorted(run.data.tags[STEP_KEY] for run in runs) == ["shared-0", "shared-1", "shared-2"]


@pytest.mark.slow
def test_a_real_server_takes_what_was_logged_while_it_was_down(
    tmp_path: Path, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    tracker = Tracker(tmp_path, f"http://127.0.0.1:{port}")
    assert tracker.log_training(None, "k-down", RECIPE, RECORD, files) is None
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{tmp_path}/server.db",
        "--artifacts-destination",
        str(tmp_path / "kept"),
    ]
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            deadline = time.monotonic() + 100
            while tracker.flush() and time.monotonic() < deadline:
                time.sleep(1)
            run = run_of(tracker, "k-down")
            assert run.data.metrics["final_validation_loss"] == 2.25
            names = {file.path for file in tracker._connection()[0].list_artifacts(run.info.run_id, "model")}
            assert names == {"model/model.safetensors", "model/tokenizer.json", "model/config.json"}
            assert tracker.url(run.info.run_id).startswith(f"http://127.0.0.1:{port}/#/experiments/")
        finally:
            server.terminate()
            server.wait(timeout=20)
