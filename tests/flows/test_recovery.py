"""The automations of a server of ours are asked for once a database."""

from pathlib import Path

import pytest

from flows import recovery


def test_a_database_is_set_up_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[None] = []
    monkeypatch.setattr(recovery, "ensure_crash_detection", lambda: asked.append(None))
    database = tmp_path / "prefect.db"
    database.touch()
    for _ in range(3):
        recovery.ensure_crash_detection_once(database)
    assert len(asked) == 1
    (tmp_path / "another.db").touch()
    (tmp_path / "another.db").rename(database)
    recovery.ensure_crash_detection_once(database)
    assert len(asked) == 2, "a new database knows nothing of them"
    monkeypatch.setattr(recovery, "version", lambda name: "another")
    recovery.ensure_crash_detection_once(database)
    assert len(asked) == 3
