"""The commands that look and run nothing: they say what a run would do, and name what can be asked for."""

import json
from pathlib import Path

import pytest

from flows import machine
from flows.chapter import train_model
from flows.cli import main
from flows.commands import inspect
from flows.execution.graph import Request
from flows.machine import cores
from flows.options import Options, UsageError
from flows.requests import processes
from tasks.exercises import modules
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


def test_as_many_processes_as_are_asked_for_or_one_per_core() -> None:
    assert processes(Options(), "cpu") == cores()
    assert processes(Options(jobs=3), "cuda") == processes(Options(jobs=3), "cpu") == 3


@pytest.mark.parametrize(
    ("free", "own", "chosen"),
    [
        (79, 26, 7),  # an H100
        (139, 16, 13),  # an H200
        (79, 4, 4),  # as many as there are cores to launch from
        (23, 8, 2),
        (15, 8, 1),
        (3, 8, 1),  # others are on the card: one process may still find room
    ],
)
def test_processes_share_a_gpu_while_there_is_memory_for_each(
    free: int, own: int, chosen: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "gpu", lambda: "NVIDIA H100")
    monkeypatch.setattr(machine, "cores", lambda: own)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free * 2**30, 143 * 2**30))
    assert processes(Options(), "cuda") == chosen


def test_one_process_where_the_gpu_is_a_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "gpu", lambda: None)
    assert processes(Options(), "cuda") == 1


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


def test_models_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--profile", "smoke", "--sources", "embedded", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["profile"] == "smoke"
    assert said["trained"] == []
    assert {*said["not_trained_yet"], *said["not_trained"]} == {*recipes(), *tunings()}
    assert all(
        seeds == list(PROFILES["smoke"].seeds(recipes()[name]))
        for name, seeds in said["not_trained_yet"].items()
        if name in recipes()
    )


def test_paths_of_models_are_whole_where_no_terminal_is(
    outputs: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("/", *["a-folder-with-a-long-name"] * 20)
    data = {"parameters": 438_272, "evaluations": {"validation_loss": [2.0, 1.5]}}
    monkeypatch.setattr(inspect, "stored", lambda graph, _: {"train/small/0": {"data": data}})
    monkeypatch.setattr("flows.commands.models.exported", lambda *_: (path, "transformers, minigpt"))
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["models", "--profile", "smoke", "--sources", "embedded"]) == 0
    [line] = [line for line in capsys.readouterr().out.splitlines() if line.startswith("small, seed 0")]
    assert line.split() == ["small,", "seed", "0", "438,272", "1.5000", "nats", "transformers,", "minigpt", str(path)]
    assert main(["models", "--profile", "smoke", "--sources", "embedded", "--json"]) == 0
    [model] = json.loads(capsys.readouterr().out)["trained"]
    assert model == {
        "recipe": "small",
        "seed": 0,
        "parameters": 438_272,
        "validation_loss": 1.5,
        "loads_with": ["transformers", "minigpt"],
        "path": str(path),
    }


PLAN = ("plan", "--profile", "laptop", "--sources", "embedded", "--precision", "fp32", "--jobs", "2")


def test_a_plan_stands_by_exercise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--only", "21.2,21.25"]) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    [shared, masks, rope] = [n for n, line in enumerate(lines) if line.startswith(("For several", "21.2 ", "21.25 "))]
    assert [n for n, line in enumerate(lines) if line.startswith("train study-bidirectional, seeds 0, 1, 2 ")] > [masks]
    assert shared == 0
    assert lines[masks].startswith("21.2 Causal Mask Properties run never run")
    assert any(line.startswith("train positions-none, seed") for line in lines[rope:])
    assert any(line.startswith("text main run never run") for line in lines[shared:masks])
    assert "unknown" not in "\n".join(lines[:-1])
    assert "unknown" not in lines[-1].replace("0 unknown yet", "")


def test_a_plan_for_programs_adds_up(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PLAN, "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    steps = planned["steps"]
    assert (planned["profile"], planned["device"], planned["processes"]) == ("laptop", "cpu", 2)
    assert {step["exercises"][0] for step in steps if step["kind"] == "exercise"} == set(modules())
    counts = {
        verdict: sum(step["verdict"] == verdict for step in steps) for verdict in ("cached", "run", "unknown", "same")
    }
    assert counts == {"cached": 0, "run": planned["to_run"], "unknown": 0, "same": planned["same"]}
    assert sum(counts.values()) == len(steps)
    assert planned["same"] == 2, "position-table, by its seeds"
    by_name = {step["name"]: step for step in steps}
    assert by_name["train/small-long/0"]["seconds"] > 0
    assert by_name["train/position-table/0"]["seconds"] == 0
    assert "21.20" in by_name["train/position-table/0"]["exercises"]
    total = sum(step["seconds"] for step in steps)
    assert total / 2 <= planned["seconds"] <= total


def test_an_unknown_recipe() -> None:
    with pytest.raises(UsageError, match=r"recipe smal: .*did you mean small\?.*chapter models"):
        train_model.fn("smal", profile="smoke", sources="embedded")


@pytest.mark.parametrize(
    ("also", "said"),
    [("smal/1", r"recipe smal: .*did you mean small\?"), ("small/x", r"also small/x: give RECIPE/SEED")],
)
def test_another_recipe_that_cannot_be(also: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        train_model.fn("small", also=["medium/1", also], profile="smoke", sources="embedded")


def test_show_of_an_unknown_exercise(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "99"]) == 2
    assert capsys.readouterr().err.startswith("chapter: exercise 99: there is no such exercise")


def test_servers_that_are_started_by_hand_send_nothing() -> None:
    text = (ROOT / "docs" / "deploying.md").read_text()
    [line] = [line for line in text.splitlines() if " mlflow server" in line]
    assert "MLFLOW_DISABLE_TELEMETRY=true" in line
