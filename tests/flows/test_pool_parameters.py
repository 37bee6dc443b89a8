"""What the parent sends to the pools; without a server."""

import threading
from dataclasses import fields, replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest

from flows import chapter, pools
from flows.execution import runners
from flows.execution.graph import Node, Request
from flows.execution.runners import Deployed
from flows.options import Options
from tasks.place import Place
from tasks.recipes.profiles import PROFILES
from tasks.sources.resolve import resolve_sources

MODEL = Node("train/small", "train", "train small", {}, {}, (), 1.0, models=True, subject="small", seed=2)
EXERCISE = Node("exercise/21.7", "exercise", "exercise 21.7", {}, {}, (), 1.0, models=True, subject="21.7")


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(pools, "run_on_pool", lambda name, parameters, **_: calls.append((name, dict(parameters))))
    return calls


def call(options: Options, *nodes: Node) -> None:
    request = Request(PROFILES["smoke"], resolve_sources("embedded"), ())
    caller = chapter._caller(options, request, "chapter-of-parent")
    for node in nodes:
        caller([node], threading.Event())


def test_children_are_told_their_chapter(sent: list[tuple[str, dict[str, Any]]]) -> None:
    call(Options(where="pool"), MODEL, EXERCISE)
    assert [name for name, _ in sent] == ["train-model/train-model", "exercise/21-07"]
    for (_, parameters), flow in zip(sent, (chapter.train_model, chapter.exercise), strict=True):
        assert parameters["chapter"] == "chapter-of-parent"
        flow.validate_parameters(parameters)


def test_models_that_one_process_trains(sent: list[tuple[str, dict[str, Any]]]) -> None:
    request = Request(PROFILES["smoke"], resolve_sources("embedded"), ())
    caller = chapter._caller(Options(where="pool"), request, "chapter-of-parent")
    caller([MODEL, replace(MODEL, subject="large", seed=0), replace(MODEL, subject="study", seed=1)], threading.Event())
    [(name, parameters)] = sent
    assert name == "train-model/train-model"
    assert (parameters["recipe"], parameters["seed"], parameters["also"]) == ("small", 2, ["large/0", "study/1"])
    chapter.train_model.validate_parameters(parameters)


@pytest.mark.parametrize("flow", [chapter.full_chapter, chapter.train_model, chapter.exercise], ids=lambda f: f.name)
def test_flows_take_the_options_by_name_with_the_same_defaults(flow: Any) -> None:
    shared = signature(flow.fn).parameters.keys() & {option.name for option in fields(Options)}
    assert {"profile", "sources", "corpus", "pretrained", "device", "budget"} <= shared
    defaults = {name: signature(flow.fn).parameters[name].default for name in shared}
    options = Options.of(defaults)
    assert options == replace(Options(), where=options.where)
    assert options.where == ("pool" if flow is chapter.full_chapter else "local"), "deployed, it has pools to use"


def test_what_the_command_line_says_reaches_the_flow() -> None:
    options = Options(only=("21.6",), jobs=3, profile="smoke", corpus="a.txt", device="cpu", budget=0.5)
    told = options.told(chapter.parameters_of(chapter.full_chapter))
    assert Options.of(chapter.full_chapter.validate_parameters(told)) == options


def test_paths_are_sent_as_absolute_ones(
    sent: list[tuple[str, dict[str, Any]]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.txt").write_text("text")
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    call(Options(where="pool", corpus="mine.txt", pretrained="./model"), MODEL)
    assert sent[0][1]["corpus"] == str(tmp_path / "mine.txt")
    assert sent[0][1]["pretrained"] == str(tmp_path / "model")


@pytest.mark.parametrize(
    "name", ["hf:imdb:test:text", "https://example.org/a.txt", "openai-community/gpt2", "none", None]
)
def test_names_are_sent_as_they_are(sent: list[tuple[str, dict[str, Any]]], name: str | None) -> None:
    call(Options(where="pool", corpus=name, pretrained=name), MODEL)
    assert sent[0][1]["corpus"] == sent[0][1]["pretrained"] == name


@pytest.mark.parametrize(("jobs", "capacity"), [(None, 256), (3, 3), (1_000, 1_000)])
def test_jobs_say_how_many_runs_are_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jobs: int | None, capacity: int
) -> None:
    monkeypatch.setenv("CHAPTER_OUTPUTS", str(tmp_path))
    monkeypatch.setattr(runners, "save_storage", lambda place: None)
    found: list[int] = []

    def run_request(request: Any, place: Place, runner: Deployed, *_: Any, **__: Any) -> None:
        found.append(runner.capacity())

    monkeypatch.setattr(chapter, "run_request", run_request)
    chapter.run_options(Options(where="pool", profile="smoke", sources="embedded", only=("21.1",), jobs=jobs))
    assert found == [capacity]
