"""``chapter report``: the page again, from what is stored, with what the run itself has said."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flows.cli import main
from flows.execution import publish
from flows.options import Options
from flows.requests import request_of
from reports.run import RunInfo
from reports.types import Provenance, Result
from reports.write import write_outputs
from tasks.cache.keys import canonical
from tasks.recipes import catalogue

ASKED = ("--profile", "smoke", "--sources", "embedded")
STARTED = "2026-01-02T03:04:05+00:00"
ERROR = "Traceback (most recent call last):\n  …\nValueError: γ must be positive"


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of outputs in whose store nothing is."""
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    monkeypatch.delenv("CHAPTER_STORE", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return tmp_path


def a_run(outputs: Path, profile: str) -> Path:
    """A run in which one exercise failed, at 2026-01-02."""
    sources = request_of(Options(profile=profile, sources="embedded")).sources.summary()
    failed = Result("21.1", "Factorization", "failed", Provenance(profile=profile), error=ERROR)
    run = RunInfo(profile, sources, started=STARTED, seconds=1234.5, command="chapter run --budget 2", trainings=7)
    folder = write_outputs(outputs / "runs" / f"20260102-030405-{profile}-1", [failed], run)
    publish.point_latest(outputs, folder)
    return folder


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[Result]:
    """The results that are found."""
    results = [Result("21.1", "Factorization", "ok", Provenance(profile="smoke"), summary="One.")]
    monkeypatch.setattr(publish, "_results", lambda *_: list(results))
    return results


def summary(outputs: Path) -> Any:
    return json.loads((outputs / "latest" / "summary.json").read_text())


def test_it_says_what_the_run_has_said(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = a_run(outputs, "smoke")
    assert main(["report", *ASKED]) == 0
    assert (outputs / "latest").resolve() != before
    found = summary(outputs)
    assert found["exercises"][0]["status"] == "failed"
    assert found["exercises"][0]["error"] == "ValueError: γ must be positive"
    assert json.loads((outputs / "latest" / "results" / "21.01.json").read_text())["error"] == ERROR
    run = found["run"]
    assert (run["started"], run["seconds"], run["trainings"]) == (STARTED, 1234.5, 7)
    assert run["command"] == "chapter run --budget 2"


def test_a_run_of_another_profile_says_nothing(
    outputs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    a_run(outputs, "laptop")
    answered = Result("21.1", "Factorization", "ok", Provenance(profile="smoke"))
    monkeypatch.setattr(publish, "_results", lambda *_: [answered])
    assert main(["report", *ASKED]) == 0
    found = summary(outputs)
    assert found["score"]["failed"] == 0
    assert (found["run"]["started"], found["run"]["seconds"]) == ("", 0.0)


def test_the_same_answers_are_not_written_again(outputs: Path, told: list[Result]) -> None:
    """Who runs a chapter again finds the page of the run that measured, with its minutes."""
    a_run(outputs, "smoke")
    assert main(["report", *ASKED]) == 0
    first = (outputs / "latest").resolve()
    assert main(["report", *ASKED]) == 0
    assert (outputs / "latest").resolve() == first


@pytest.mark.parametrize("change", ["another answer", "another edition", "drawn otherwise", "a page is lost"])
def test_other_answers_are_written(
    outputs: Path, told: list[Result], monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    a_run(outputs, "smoke")
    assert main(["report", *ASKED]) == 0
    first = (outputs / "latest").resolve()
    if change == "another answer":
        told[0] = replace(told[0], summary="Another.")
    elif change == "drawn otherwise":
        monkeypatch.setattr("reports.cache.renderer_digest", lambda: "another")
    elif change == "a page is lost":
        (first / "report.html").unlink()
    assert main(["report", *ASKED, *(["--share"] if change == "another edition" else [])]) == 0
    latest = (outputs / "latest").resolve()
    assert latest != first
    pages = {"report.html", *(["report-share.html"] if change == "another edition" else [])}
    assert {file.name for file in latest.glob("*.html")} == pages
    assert ("Another." in (latest / "report.html").read_text()) == (change == "another answer")


def test_other_editions_are_written_and_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a_run(outputs, "smoke")
    assert main(["report", *ASKED, "--split", "--answers", "folded", "--share"]) == 0
    *_, whole, edition = capsys.readouterr().out.split()
    assert Path(whole) == outputs / "latest" / "report.html"
    assert Path(edition) == outputs / "latest" / "teaching-share" / "index.html"
    assert (Path(edition).parent / "21.35.html").is_file()
    assert 'href="teaching-share/index.html"' in Path(whole).read_text()


def test_a_way_to_show_answers_that_is_none(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", *ASKED, "--answers", "flded"]) == 2
    assert capsys.readouterr().err == "chapter: --answers flded: there is no such way; did you mean folded?\n"


def test_a_rehearsal_is_called_one(outputs: Path) -> None:
    a_run(outputs, "smoke")
    assert main(["report", *ASKED]) == 0
    assert "This is a rehearsal" in (outputs / "latest" / "report.html").read_text()


def varied(**fields: Any) -> Any:
    """The study's recipe with another model."""
    return replace(catalogue.STUDY, model=replace(catalogue.STUDY.model, **fields))


@pytest.mark.parametrize(
    ("recipe", "shape"),
    [
        (catalogue.STUDY, "2 layers × 64"),
        (varied(tie_weights=False), "2 layers × 64, untied"),
        (varied(n_layer=6, norm="post"), "6 layers × 64, post-norm"),
        (varied(position="rope", n_kv_head=1), "2 layers × 64, RoPE, 1 key/value head"),
        (catalogue.STUDY_BIDIRECTIONAL, "2 layers × 64, bidirectional"),
        (next(iter(catalogue.tunings().values())), "the pretrained model, trained further"),
    ],
)
def test_models_are_described_by_what_is_not_as_in_gpt2(recipe: Any, shape: str) -> None:
    assert publish._shape(canonical(recipe)) == shape


def test_nothing_is_stored(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = a_run(outputs, "laptop")
    assert main(["report", *ASKED]) == 2
    error = capsys.readouterr().err
    assert "nothing is stored" in error
    assert "chapter run --profile smoke" in error
    assert error.count("\n") == 1
    assert (outputs / "latest").resolve() == before.resolve()


@pytest.mark.parametrize("command", ["report", "models"])
@pytest.mark.parametrize("option", [("--only", "21.1"), ("--jobs", "2")], ids=str)
def test_options_without_a_meaning_are_refused(
    outputs: Path, capsys: pytest.CaptureFixture[str], command: str, option: tuple[str, str]
) -> None:
    assert main([command, *option]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"chapter: {option[0]}: `chapter {command}` has no such option")
    assert said.err.count("\n") == 1
    assert not said.out
