"""MLflow: what is delivered twice, what has moved, what was deleted, what two processes log at once."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.tracking.tracker import Tracker

VERDICT: dict[str, Any] = {"params": {}, "metrics": {"answered": 1}}
RESULT = {"id": "21.22", "status": "ok", "metrics": {}, "checks": [], "parts": [], "provenance": {}}


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Outputs with a database without runs, to be copied: it takes seconds to make."""
    folder = tmp_path_factory.mktemp("empty")
    (folder / "outputs").mkdir()
    from tasks.tracking.client import connect

    tracker = Tracker(folder / "outputs")
    tracker.folder.mkdir()
    connect(tracker.uri)
    return folder / "outputs"


@pytest.fixture
def outputs(empty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return Path(shutil.copytree(empty, tmp_path / "outputs"))


def page(outputs: Path, run: str, text: str) -> dict[str, Path]:
    file = outputs / "runs" / run / "report.html"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return {"report.html": file}


def conclude(tracker: Tracker, files: dict[str, Path]) -> None:
    with tracker.chapter(profile="smoke", name="chapter-of-a-flow-run"):
        tracker.conclude("1 of 1 exercises answered", **VERDICT, files=files)


def test_a_chapter_that_is_taken_up_again_and_says_the_same(outputs: Path) -> None:
    """Prefect's Retry, or a worker that was killed in its last second: ``publish._says`` leaves the page as it is."""
    files = page(outputs, "1", "one")
    conclude(Tracker(outputs), files)
    conclude(Tracker(outputs), files)
    later = Tracker(outputs)
    later._retry_at = 0.0
    later.log_exercise(None, "k-later", RESULT)
    assert len(later.outbox) == 0, "nothing is delivered to MLflow any more, by no run"


def test_an_end_that_was_not_told_to_its_end(outputs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server goes (or its database is locked) between the report and the state of the chapter."""
    tracker = Tracker(outputs)
    client, _ = tracker._connection()
    real, broken = client.set_terminated, [True]

    def set_terminated(*arguments: Any) -> None:
        if broken.pop() if broken else False:
            raise ConnectionError("the server has gone")
        real(*arguments)

    monkeypatch.setattr(client, "set_terminated", set_terminated)
    conclude(tracker, page(outputs, "1", "one"))
    assert len(tracker.outbox) == 1
    assert Tracker(outputs).flush() == 0


def test_a_chapter_that_is_taken_up_again_leaves_the_page_of_the_first_try(outputs: Path) -> None:
    first, second = page(outputs, "1", "one"), page(outputs, "2", "two")
    conclude(Tracker(outputs), first)
    conclude(Tracker(outputs), second)
    assert first["report.html"].read_text() == "one"


def test_outputs_that_have_moved_write_where_they_are(outputs: Path) -> None:
    Tracker(outputs)._connection()
    moved = outputs.rename(outputs.parent / "elsewhere")
    Tracker(moved).log_exercise(None, "k-moved", RESULT)
    assert not outputs.exists(), sorted(map(str, outputs.rglob("*.json")))


def test_a_database_that_was_deleted_takes_its_index_with_it(outputs: Path) -> None:
    """By hand what an earlier process left: MLflow, within one, keeps the deleted database open."""
    again, now = Tracker(outputs), time.time()
    known = {"experiment": "1", "runs": {"k": "0" * 32}, "listed": now, "seen": now}
    again._index_file.write_text(json.dumps(known))  # the database is new: made by this run, or by `chapter ui`
    with again.chapter(profile="smoke"):
        pass
    assert again._connection()[1] == "1", "a new database counts from 1 again"
    assert again.run_of("k") is None, "the page links to a run that is nowhere, and nothing is logged again"


def test_two_processes_keep_one_index(outputs: Path) -> None:
    one, other = Tracker(outputs), Tracker(outputs)
    assert one._connection()[1] == other._connection()[1]
    one.log_exercise(None, "k1", RESULT)
    other.log_exercise(None, "k2", RESULT)
    reader = Tracker(outputs)  # of ``publish_task``: it asks the index alone
    assert [key for key in ("k1", "k2") if reader.run_of(key) is None] == []
