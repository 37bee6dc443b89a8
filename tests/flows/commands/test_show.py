"""``chapter list``, ``show`` and ``open``: what the latest report says, for people and for programs."""

import json
from pathlib import Path

import pytest

from flows.cli import main
from flows.commands.show import print_json
from reports.chapter import CHAPTER
from reports.plain import from_json, to_json
from reports.run import RunInfo
from reports.types import Check, Part, Prose, Provenance, Result
from reports.write import write_outputs

CHECKS = (
    Check("it holds", "exact", 1, "== 1", True),
    Check("it was predicted", "empirical", 0.5, "> 1", False),
    Check("this, too", "empirical", 2.0, "> 1", True),
)
SAID = (Part("a", (Prose("Measured and said."),)),)


def a_run(outputs: Path, time: str, profile: str, summary: str) -> Path:
    """A run with one answer and one failure."""
    answered = Result("21.22", "Sizes", "ok", Provenance(profile), summary=summary, parts=SAID, checks=CHECKS)
    failed = Result("21.3", "Shapes", "failed", Provenance(profile), error="ValueError: no")
    return write_outputs(outputs / "runs" / f"{time}-{profile}-1", [answered, failed], RunInfo(profile))


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three runs, of which the one of the profile smoke is the latest."""
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    a_run(tmp_path, "20260101-000000", "laptop", "An old run.")
    a_run(tmp_path, "20260102-000000", "laptop", "The run at laptop.")
    (tmp_path / "latest").symlink_to(a_run(tmp_path, "20260103-000000", "smoke", "The latest run."))
    return tmp_path


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> object:
    assert main(arguments) == 0
    return json.loads(capsys.readouterr().out)


# --- list ------------------------------------------------------------------------------------------------------


def test_all_exercises_with_titles_and_what_became_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    for question in CHAPTER.questions.values():
        assert sum(line.startswith(f"{question.number} {question.title}") for line in lines) == 1
    assert "21.22 Model Size Experiment ok exact 1/1, empirical 1/2" in lines
    assert "21.3 GPT Architecture Comparison failed" in lines
    assert "21.8 KV Cache Computation not run" in lines
    assert lines[-1].startswith("profile smoke: 1 of 35 exercises answered, 1 failed")


def test_a_list_without_a_report(capsys: pytest.CaptureFixture[str], outputs: Path) -> None:
    (outputs / "latest").unlink()
    assert main(["list"]) == 0
    said = capsys.readouterr().out
    assert said.count("not run") == 35
    assert said.endswith("no report yet: `chapter run` writes one\n")


def test_a_list_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    listed = as_json(capsys, "list", "--json")
    assert isinstance(listed, dict)
    assert listed["profile"] == "smoke"
    assert [row["id"] for row in listed["exercises"]] == [question.number for question in CHAPTER.questions.values()]
    by_id = {row["id"]: row for row in listed["exercises"]}
    assert by_id["21.22"]["status"] == "ok"
    assert by_id["21.22"]["empirical_checks"] == {"confirmed": 1, "total": 2}
    assert by_id["21.1"]["status"] == "not run"


# --- show ------------------------------------------------------------------------------------------------------


def test_show_takes_the_latest_run_or_the_newest_of_a_profile(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "21.22"]) == 0
    assert "The latest run." in capsys.readouterr().out
    assert main(["show", "21.22", "--profile", "laptop"]) == 0
    said = capsys.readouterr().out
    assert "The run at laptop." in said
    assert "profile laptop" in said


def test_show_of_a_profile_without_a_run(capsys: pytest.CaptureFixture[str], outputs: Path) -> None:
    assert main(["show", "21.22", "--profile", "gpu"]) == 1
    assert capsys.readouterr().err == (
        f"chapter: 21.22 has no result of profile gpu in {outputs / 'runs'}; "
        "run `chapter run --profile gpu --only 21.22`\n"
    )


def test_show_the_checks_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "21.22", "--checks"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for check in CHECKS:
        assert check.claim in said
    assert "exact 1/1, empirical 1/2" in said
    assert "The latest run." not in said
    assert "Measured and said." not in said


def test_show_for_programs(capsys: pytest.CaptureFixture[str], outputs: Path) -> None:
    shown = as_json(capsys, "show", "21.22", "--json")
    file = outputs / "latest" / "results" / "21.22.json"
    assert shown == json.loads(file.read_text())
    checks = as_json(capsys, "show", "21.22", "--json", "--checks")
    assert isinstance(checks, list)
    assert tuple(from_json(Check, check) for check in checks) == CHECKS


def test_a_failed_answer_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "21.3", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["error"] == "ValueError: no"


# --- open ------------------------------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open."""
    asked: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda address: asked.append(address) or True)
    return asked


def test_open_shows_the_latest_report(capsys: pytest.CaptureFixture[str], outputs: Path, opened: list[str]) -> None:
    assert main(["open"]) == 0
    page = outputs / "latest" / "report.html"
    assert opened == [page.as_uri()]
    assert capsys.readouterr() == (f"{page.as_uri()}\n", "")


def test_open_shows_an_exercise(capsys: pytest.CaptureFixture[str], outputs: Path, opened: list[str]) -> None:
    assert main(["open", "8"]) == 0
    [address] = opened
    page, _, place = address.partition("#")
    assert page == (outputs / "latest" / "report.html").as_uri()
    assert f'id="{place}"' in (outputs / "latest" / "report.html").read_text()
    assert capsys.readouterr().out == f"{address}\n"


def test_open_only_prints(capsys: pytest.CaptureFixture[str], opened: list[str]) -> None:
    assert main(["open", "21.22", "--print"]) == 0
    assert capsys.readouterr().out.endswith("/latest/report.html#ex-21-22\n")
    assert not opened


def test_open_without_a_browser(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("webbrowser.open", lambda _: False)
    assert main(["open"]) == 1
    assert capsys.readouterr().err == "chapter: no browser can be started here; open the address above in one\n"


def test_open_without_a_report(capsys: pytest.CaptureFixture[str], outputs: Path, opened: list[str]) -> None:
    (outputs / "latest").unlink()
    assert main(["open"]) == 1
    assert capsys.readouterr() == (
        "",
        f"chapter: there is no report in {outputs / 'latest'}; `chapter run` writes one\n",
    )
    assert not opened


def test_open_an_exercise_that_is_not_there(capsys: pytest.CaptureFixture[str], opened: list[str]) -> None:
    assert main(["open", "21.99"]) == 2
    assert capsys.readouterr().err.startswith("chapter: exercise 21.99: there is no such exercise")
    assert not opened


@pytest.mark.parametrize("change", ["a field more", "a field less"])
def test_a_result_of_another_version_is_told_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], change: str
) -> None:
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    data = to_json(Result("21.1", "Factorization", "ok", Provenance(profile="smoke"), summary="One."))
    if change == "a field more":
        data["provenance"]["colour"] = "red"
    else:
        del data["title"]
    (tmp_path / "latest" / "results").mkdir(parents=True, exist_ok=True)
    (tmp_path / "latest" / "results" / "21.01.json").write_text(json.dumps(data))
    assert main(["show", "21.01"]) in (1, 2)
    assert "chapter: " in capsys.readouterr().err


def test_json_for_programs_is_json(capsys: pytest.CaptureFixture[str]) -> None:
    """``chapter models --json`` where a training has diverged: ``validation_loss`` is NaN."""
    print_json({"validation_loss": float("nan")})

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is no JSON")

    json.loads(capsys.readouterr().out, parse_constant=refuse)
