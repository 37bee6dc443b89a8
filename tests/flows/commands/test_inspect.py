"""The commands that look and run nothing: they say what a run would do, and name what can be asked for."""

from pathlib import Path

import pytest

from flows.chapter import train_model
from flows.cli import main
from flows.commands import inspect
from flows.execution.graph import Request
from flows.machine import cores
from flows.options import Options, UsageError
from flows.requests import processes
from tasks.recipes.catalogue import recipes, tunings
from tasks.recipes.profiles import PROFILES
from tasks.sources.resolve import resolve_sources

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of outputs in whose store nothing is."""
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    monkeypatch.delenv("CHAPTER_STORE", raising=False)
    return tmp_path


def test_one_process_on_a_gpu_and_one_per_core_elsewhere() -> None:
    assert processes(Options(), "cuda") == 1
    assert processes(Options(), "cpu") == cores()
    assert processes(Options(jobs=3), "cuda") == processes(Options(jobs=3), "cpu") == 3


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_plan_reckons_with_the_processes_of_the_run(
    device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sources = resolve_sources("embedded")
    monkeypatch.setattr(inspect, "request_of", lambda *_: Request(PROFILES["smoke"], sources, (), device))
    assert inspect.print_plan(Options(profile="smoke"), sources) == 0
    assert f" in {processes(Options(), device)} process" in capsys.readouterr().out


def test_models_names_what_can_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--profile", "smoke", "--sources", "embedded"]) == 0
    said = capsys.readouterr().out.replace("\n", " ").replace(",", " ").split()
    assert {*recipes(), *tunings()} <= set(said)


def test_an_unknown_recipe() -> None:
    with pytest.raises(UsageError, match=r"recipe smal: .*did you mean small\?.*chapter models"):
        train_model.fn("smal", profile="smoke", sources="embedded")


def test_show_of_an_unknown_exercise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "99"]) == 2
    assert capsys.readouterr().err.startswith("chapter: exercise 99: there is no such exercise")


def test_servers_that_are_started_by_hand_send_nothing() -> None:
    text = (ROOT / "docs" / "deploying.md").read_text()
    [line] = [line for line in text.splitlines() if " mlflow server" in line]
    assert "MLFLOW_DISABLE_TELEMETRY=true" in line
