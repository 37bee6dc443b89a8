"""Passwords in addresses stay out of what is shown, logged and linked to."""

import logging
from pathlib import Path

import pytest

from flows.commands.doctor import findings
from flows.execution.publish import prefect_page
from flows.options import UsageError, check_places
from flows.servers import _environment, prefect_server
from flows.shared_server import ServerError
from tasks.cache.urls import without_credentials
from tasks.tracking.tracker import Tracker

SECRET = "http://ann:pw@127.0.0.1:9"  # the port of "discard", where nothing answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://ann:pw@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        ("http://ann:p@w@host/a@b", "http://host/a@b"),
        (
            "request to http://ann:pw@host/api failed, see http://b:c@d",
            "request to http://host/api failed, see http://d",
        ),
        ("postgresql://ann:pw@db/mlflow", "postgresql://db/mlflow"),
        ("http://host/users/ann@host?mail=a@b", "http://host/users/ann@host?mail=a@b"),
        ("http://host?mail=a@b", "http://host?mail=a@b"),
        ("sqlite:////tmp/a@b/mlflow.db", "sqlite:////tmp/a@b/mlflow.db"),
    ],
)
def test_shown(text: str, expected: str) -> None:
    assert without_credentials(text) == expected


def test_a_tracker_keeps_its_password_to_itself(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tracker = Tracker(tmp_path, SECRET)
    assert tracker.uri == SECRET  # MLflow needs it
    assert tracker.ui == "http://127.0.0.1:9"
    with caplog.at_level(logging.WARNING):
        tracker._failed(OSError(f"no answer from {SECRET}/api"))
    assert "pw" not in caplog.text + str(tracker.outbox.path.name) + tracker._index_file.name
    assert "http://127.0.0.1:9/api" in caplog.text


def test_pages_and_messages(tmp_path: Path) -> None:
    with _environment({"PREFECT_API_URL": f"{SECRET}/api", "MLFLOW_TRACKING_URI": SECRET}):
        assert prefect_page(tmp_path) == "http://127.0.0.1:9"
        assert "ann:pw" not in str(findings(tmp_path, "s3://ann:pw@bucket"))
        with pytest.raises(ServerError) as error, prefect_server(tmp_path):
            pass
    assert "http://127.0.0.1:9/api" in str(error.value)


def test_a_store_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAPTER_STORE", "foo://ann:pw@bucket")
    with pytest.raises(UsageError, match="CHAPTER_STORE foo://bucket: ") as error:
        check_places()
    assert "ann:pw" not in str(error.value)
