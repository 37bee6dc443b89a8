"""``chapter pack`` and ``chapter unpack`` as a user runs them: a chapter completed in pieces, here and there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import main
from tasks.tracking.tracker import Tracker
from tests.flows.conftest import wait_until
from tests.flows.test_chapter_run import EXERCISE, Chapter, _kill_session
from tests.flows.test_cli import refused
from tests.tasks.cache.test_carry import Store, checkpoint, key_of, persist, tree


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Outputs with two finished steps and one that was interrupted."""
    monkeypatch.delenv("CHAPTER_STORE", raising=False)
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path / "outputs"))
    store = Store(str(tmp_path / "outputs" / "store"))
    persist(store, "a", b"weights" * 400_000)
    persist(store, "b", b"tokenizer")
    checkpoint(tmp_path / "outputs" / "store", "c", 30)
    return tmp_path / "outputs"


def elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Path:
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(folder))
    return folder


def test_all_of_it_there_and_only_what_is_new_back(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", "--to", str(tmp_path / "out"), "--part-size", "1"]) == 0
    assert "packed 2 records, 2 blobs and the checkpoints of 1 unfinished steps" in capsys.readouterr().out
    parts = sorted((tmp_path / "out").glob("*.tar"))
    assert len(parts) == 3
    assert max(part.stat().st_size for part in parts) <= 2**20
    there = elsewhere(monkeypatch, tmp_path / "there")
    assert main(["unpack", str(tmp_path / "out")]) == 0
    assert "unpacked 2 records, 2 blobs and 2 files of checkpoints" in capsys.readouterr().out
    persist(Store(str(there / "store")), "c", b"finished there")
    manifest = str(tmp_path / "out" / "manifest.json")
    assert main(["pack", "--to", str(tmp_path / "back"), "--only-new-since", manifest]) == 0
    assert "packed 1 records, 1 blobs and the checkpoints of 0 unfinished steps" in capsys.readouterr().out
    elsewhere(monkeypatch, outputs)
    assert main(["unpack", str(tmp_path / "back")]) == 0
    record = Store(str(outputs / "store")).record(key_of("c"), verify=True)
    assert record is not None


def test_what_a_profile_does_not_name_stays_behind(
    outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", "--to", str(tmp_path / "out"), "--profile", "smoke", "--sources", "embedded"]) == 0
    assert "packed 0 records, 0 blobs and the checkpoints of 0 unfinished steps" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["members"] == []


def test_what_cannot_be_packed(outputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = tree(outputs)
    assert "--part-size 0" in refused(capsys, "pack", "--to", str(tmp_path / "out"), "--part-size", "0")
    assert "is not an empty folder" in refused(capsys, "pack", "--to", str(outputs))
    missing = str(tmp_path / "manifest.json")
    error = refused(capsys, "pack", "--to", str(tmp_path / "out"), "--only-new-since", missing)
    assert f"{missing} is not there" in error
    (tmp_path / "file").write_text("x")
    assert "is not an empty folder" in refused(capsys, "pack", "--to", str(tmp_path / "file"))
    assert "there is no such profile" in refused(capsys, "pack", "--to", str(tmp_path / "out"), "--profile", "labtop")
    assert not (tmp_path / "out").exists()
    assert tree(outputs) == before


@pytest.mark.parametrize("damage", ["missing", "truncated", "altered", "mixed", "elsewhere"])
def test_what_cannot_be_unpacked_changes_nothing(
    outputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    out = tmp_path / "out"
    assert main(["pack", "--to", str(out), "--part-size", "1"]) == 0
    part = out / "chapter-0002.tar"
    content = part.read_bytes()
    if damage == "missing":
        part.unlink()
    elif damage == "truncated":
        part.write_bytes(content[:-1])
    elif damage == "altered":
        part.write_bytes(content.replace(b"weights", b"WEIGHTS", 1))
    elif damage == "mixed":
        shutil.copy(out / "chapter-0001.tar", part)
    else:
        out = tmp_path / "nowhere"
    there = elsewhere(monkeypatch, tmp_path / "there")
    capsys.readouterr()
    assert str(out) in refused(capsys, "unpack", str(out))
    assert not there.exists()


# --- With real runs -----------------------------------------------------------------------------------------------


def command(chapter: Chapter, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "flows", *arguments],
        env=chapter.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def packed_whole(chapter: Chapter, to: Path) -> bytes:
    command(chapter, "pack", "--to", str(to))
    return (to / "manifest.json").read_bytes()


@pytest.mark.slow
@pytest.mark.prefect
@pytest.mark.timeout(900)
def test_a_chapter_in_pieces(tmp_path: Path, api: str) -> None:
    """Interrupted here, completed there to the bits of an undisturbed run, and all of it a hit when it is back."""
    here, there, whole = (Chapter(tmp_path / name, api) for name in ("here", "there", "whole"))
    process = here.start("--only", EXERCISE)
    state = here.wait_for_progress("train large, seed 0", 0.2)
    left = here.outputs / "store" / "checkpoints" / str(state["key"])
    wait_until(lambda: list(left.glob("step-*.json")), 60, "a checkpoint")
    _kill_session(process)
    command(here, "pack", "--to", str(tmp_path / "out"))
    command(there, "unpack", str(tmp_path / "out"))
    assert list((there.outputs / "store" / "checkpoints" / str(state["key"])).glob("step-*.json"))
    carried = len(there.store.record_keys())
    output = there.run("--only", EXERCISE)
    assert output.status == 0, output
    assert output.cached == carried > 0, "what was finished here need not run there"
    assert "train large, seed 0" in output.begun

    manifest = str(tmp_path / "out" / "manifest.json")
    command(there, "pack", "--to", str(tmp_path / "back"), "--only-new-since", manifest)
    brought = json.loads((tmp_path / "back" / "manifest.json").read_text())["members"]
    assert sum(member["path"].startswith("records/") for member in brought) == output.ran
    command(here, "unpack", str(tmp_path / "back"))
    output = here.run("--only", EXERCISE)
    assert (output.status, output.trained, output.ran) == (0, 0, 0), output
    assert "<html" in (here.outputs / "latest" / "report.html").read_text()

    named = ("--profile", "smoke", "--sources", "embedded")
    command(here, "pack", "--to", str(tmp_path / "named"), *named)
    assert (tmp_path / "named" / "manifest.json").read_bytes() == packed_whole(here, tmp_path / "all")

    undisturbed = whole.run("--only", EXERCISE)
    assert undisturbed.status == 0, undisturbed
    assert here.weights() == there.weights() == whole.weights()
    # MLflow needs nothing carried: it hears of a model that was trained elsewhere from its record.
    tracker = Tracker(here.outputs, f"sqlite:///{here.outputs / 'mlflow' / 'mlflow.db'}")
    trained = [key for key in here.store.record_keys() if _kind(here.store, key) == "train"]
    for key in trained:
        run_id = tracker.run_of(key)
        assert run_id is not None
        artifact = here.outputs / "mlflow" / "artifacts" / run_id / "artifacts" / "model" / "model.safetensors"
        assert artifact.stat().st_nlink >= 2, "one file with the store's blob"


def _kind(store: Store, key: str) -> str:
    record = store.record(key)
    assert record is not None
    return str(record["data"]["lineage"]["kind"])
