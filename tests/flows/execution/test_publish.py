"""The link ``latest``, and what several processes with one folder of outputs do to each other."""

from dataclasses import replace
from pathlib import Path

import pytest

from flows import cli
from flows.execution import publish
from flows.execution.publish import KEPT_RUNS, newest_run, point_latest
from flows.options import Options
from flows.requests import request_of
from reports.run import RunInfo
from reports.types import Provenance, Result
from reports.write import write_outputs
from tasks.folders import named_source

STARTED = "2026-01-02T03:04:05+00:00"


def a_run(outputs: Path, name: str) -> Path:
    folder = outputs / "runs" / name
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text("{}")
    return folder


def test_the_oldest_runs_are_dropped_and_not_what_another_process_is_writing(tmp_path: Path) -> None:
    """``reports.write._appear`` writes beside the runs first, into ``.<name>-…``, for as long as all files take."""
    folders = [a_run(tmp_path, f"20260102-03040{i}.0-smoke-1") for i in range(KEPT_RUNS)]
    writing = tmp_path / "runs" / ".20260102-030500.0-smoke-2-abc"
    (writing / "results").mkdir(parents=True)
    (writing / "results" / "21.01.json").write_text("{}")
    point_latest(tmp_path, folders[-1])
    assert (writing / "results" / "21.01.json").exists()


def test_a_copy_of_the_outputs_in_which_latest_is_a_folder(tmp_path: Path) -> None:
    """As ``scp -r``, ``zip -r``, ``cp -rL`` and ``rsync -L`` make it: they follow links."""
    (tmp_path / "latest").mkdir()
    (tmp_path / "latest" / "summary.json").write_text("{}")
    folder = a_run(tmp_path, "20260102-030405.0-smoke-1")
    point_latest(tmp_path, folder)
    assert (tmp_path / "latest").resolve() == folder


def test_a_run_with_another_budget_says_nothing_of_this_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    asked = Options(profile="smoke", sources="embedded", budget=0.01, precision="fp32", device="cpu")
    request = request_of(asked)
    failed = Result("21.1", "Factorization", "failed", Provenance(profile="smoke"), error="ValueError: diverged")
    info = RunInfo(
        "smoke", request.sources.summary(), started=STARTED, seconds=9.0, asked=publish._asked(request), trainings=7
    )
    write_outputs(tmp_path / "runs" / "20260102-030405.0-smoke-1", [failed], info)
    assert newest_run(request, tmp_path)["seconds"] == 9.0
    assert newest_run(request_of(replace(asked, budget=1.0), request.sources), tmp_path)["started"] is None


def test_a_run_on_another_text_of_the_same_name_and_length_says_nothing_of_this_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    novel = tmp_path / "novel.txt"
    asked = Options(profile="smoke", sources="embedded", corpus=str(novel), precision="fp32", device="cpu")
    novel.write_text("It was a dark and stormy night. " * 100)
    request = request_of(asked)
    failed = Result("21.1", "Factorization", "failed", Provenance(profile="smoke"), error="ValueError: diverged")
    info = RunInfo("smoke", request.sources.summary(), started=STARTED, asked=publish._asked(request))
    write_outputs(tmp_path / "runs" / "20260102-030405.0-smoke-1", [failed], info)
    novel.write_text("It was a fine and sunny morning. "[:32] * 100)
    assert newest_run(request_of(asked), tmp_path)["errors"] == {}


def test_a_text_beside_the_user_is_found_by_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """``chapter run --where pool --corpus novel.txt``: by the time it is sent, the run works in its outputs."""
    (tmp_path / "novel.txt").write_text("It was a dark and stormy night. " * 100)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path / "outputs"))
    options, _ = cli._checked(Options(profile="smoke", sources="embedded", corpus="novel.txt", where="pool"))
    assert options.corpus == str(tmp_path / "novel.txt")
    for name in ("hf:imdb:test:text", "https://example.org/novel.txt", "gpt2", None):
        assert named_source(name) == name
