"""``chapter report --reference``: what is kept of a run, and what a reference must be able to name."""

import json
import subprocess
from pathlib import Path

import pytest

from flows.cli import main
from flows.commands import reference
from flows.commands.reference import commit_of, write_references
from flows.execution import publish
from flows.options import UsageError
from reports.beside.reference import Reference, load, parse
from reports.run import Machine, RunInfo
from reports.types import Check, Provenance, Result
from reports.write import write_outputs

STARTED = "2026-01-02T03:04:05+00:00"
MACHINE = Machine("CPU", 2, 23.54, torch="2.13.0", precision="bf16 and fp32")
ANSWERED = Result(
    "21.8",
    "t",
    "ok",
    Provenance("overnight", {"main corpus": "Novel: by somebody"}, (0, 1), code_version="c0de"),
    checks=(Check.at_most("small", 1e-7, 1e-5),),
    metrics={"loss_nats": 1.2345678901234567, "infinite": float("inf"), "count": 3},
)
FAILED = Result("21.9", "t", "failed", Provenance("overnight"), error="ValueError: no")


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a run with an answered exercise and a failed one."""
    monkeypatch.setattr(reference, "commit_of", lambda folder: "0123abc")
    info = RunInfo("overnight", machine=MACHINE, started=STARTED)
    return write_outputs(tmp_path / "run", [ANSWERED, FAILED], info)


def test_what_was_answered_is_kept_at_full_precision_and_marked(run: Path, tmp_path: Path) -> None:
    [file] = write_references(run, tmp_path / "new" / "kept", budget=0.5)
    found = parse(file)
    assert (found.id, found.metrics, found.checks) == ("21.08", ANSWERED.metrics, ANSWERED.checks)
    assert (found.profile, found.budget, found.commit, found.date) == ("overnight", 0.5, "0123abc", STARTED)
    assert found.machine.endswith(", 2 cores, 23.5 GiB memory, PyTorch 2.13.0, trainings in bf16 and fp32")
    assert (found.sources, found.seeds, found.code_version) == ({"main corpus": "Novel"}, (0, 1), "c0de")


def test_other_exercises_keep_what_they_have(run: Path, tmp_path: Path) -> None:
    for name in ("21.07.json", "21.08.json"):
        (tmp_path / name).write_text("old")
    write_references(run, tmp_path)
    assert (tmp_path / "21.07.json").read_text() == "old"
    assert isinstance(load(tmp_path)["21.08"], Reference)
    assert "21.09" not in load(tmp_path), "it failed"


def test_a_run_of_which_nothing_is_known_is_no_reference(run: Path, tmp_path: Path) -> None:
    summary = json.loads((run / "summary.json").read_text())
    summary["run"]["started"] = ""
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UsageError, match="chapter run --profile overnight"):
        write_references(run, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_file_is_no_folder(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file: this is a file; name a folder"):
        write_references(run, tmp_path / "file")


def test_the_command_reports_and_keeps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    monkeypatch.delenv("CHAPTER_STORE", raising=False)
    monkeypatch.setattr(reference, "commit_of", lambda folder: "0123abc")
    monkeypatch.setattr(publish, "_results", lambda *_: [ANSWERED])
    known = {"errors": {}, "started": 1_767_323_045.0, "seconds": 5.0}
    monkeypatch.setattr(publish, "newest_run", lambda *_: known)
    kept = tmp_path / "kept"
    assert main(["report", "--profile", "smoke", "--sources", "embedded", "--reference", str(kept)]) == 0
    assert capsys.readouterr().out.endswith(f"report.html\n1 references in {kept}\n")
    assert parse(kept / "21.08.json").date == STARTED


# --- The commit --------------------------------------------------------------------------------------------------


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@x")
    done = subprocess.run(["git", "-C", folder, *identity, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with one commit of code."""
    git(tmp_path, "init", "--quiet")
    (tmp_path / "code.py").write_text("x = 1\n")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "--quiet", "-m", "one")
    return tmp_path


def test_the_commit_is_the_one_that_is_checked_out(repository: Path) -> None:
    assert git(repository, "rev-parse", "HEAD").startswith(commit_of(repository))
    (repository / "21.08.json").write_text("{}")  # references themselves may be new
    assert len(commit_of(repository)) >= 7


def test_code_that_no_commit_holds_is_refused(repository: Path) -> None:
    (repository / "code.py").write_text("x = 2\n")
    with pytest.raises(UsageError, match=r"code\.py differs from the commit; commit it first"):
        commit_of(repository)


def test_a_folder_without_history_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="git knows no commit of"):
        commit_of(tmp_path)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UsageError, match="git knows no commit of"):
        commit_of(tmp_path)
