"""What a flow run leaves on Prefect's page, as plain data."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from markdown_it import MarkdownIt

from flows.execution.artifacts import Left, left_by
from flows.execution.engine import Outcome
from flows.execution.graph import Node, Request
from flows.execution.publish import Published
from flows.names import _named, tags_of
from reports.run import Score
from reports.types import Check, Provenance, Result
from tasks.place import Place
from tasks.recipes.catalogue import recipes
from tasks.recipes.profiles import PROFILES

TRACKER: Any = SimpleNamespace(
    run_of=lambda key: f"run-{key}", url=lambda run: f"http://mlflow/#/{run}" if run else None
)
SOURCES: Any = SimpleNamespace()
CHECKS = (
    Check("sums to 1", "exact", 1.0, "== 1", True),
    Check("is causal", "exact", 1.0, "== 1", True),
    Check("learns", "empirical", 0.0, "> 0", False),
)
ANSWERED = Result(
    "21.1", "Rows | columns", "ok", Provenance("smoke", seconds=1.26, mlflow_url="http://m/1"), checks=CHECKS
)
FAILED = Result("21.2", "Masks", "failed", Provenance("smoke"), error="no")


def request(*ids: str, **more: Any) -> Request:
    exercises: Any = tuple(SimpleNamespace(id=id) for id in ids)
    return Request(PROFILES["smoke"], SOURCES, exercises, **more)


def node_of(id: str) -> Node:
    return Node(f"exercise/{id}", "exercise", f"exercise {id}", {}, {}, (), 1.0, subject=id)


def left(asked: Request, outcome: Outcome, published: Published | None, *nodes: Node, folder: Path) -> Left:
    graph = {node.name: node for node in nodes}
    place = Place(str(folder / "store"), str(folder))
    return left_by("a run", asked, graph, outcome, published, place, TRACKER, "chapter-1", "no steps run")


def cells(markdown: str) -> list[list[str]]:
    """The texts of a Markdown table as a browser gets them: an oracle that is not ours."""
    tokens = MarkdownIt().enable("table").parse(markdown)
    rows: list[list[str]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline" and rows and token.level > 3:
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


def test_a_chapter(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.touch()
    published = Published(page, {}, Score.of([ANSWERED, FAILED], 35), (ANSWERED, FAILED))
    outcome = Outcome(ran=["exercise/21.1"], errors={"exercise/21.2": "ValueError: no\nTraceback"})
    made = left(request("21.1", "21.2"), outcome, published, node_of("21.1"), node_of("21.2"), folder=tmp_path)
    artifacts = {artifact.key: artifact for artifact in made.artifacts()}
    assert {key: artifact.type for key, artifact in artifacts.items()} == {
        "chapter-verdict": "markdown",
        "chapter-table": "table",
        "chapter-mlflow": "markdown",
        "chapter-report": "markdown",
    }
    verdict = artifacts["chapter-verdict"].data
    assert "1 of 2 exercises answered, 1 failed; exact checks 2 of 2 hold; empirical 0 of 1 confirmed" in verdict
    assert f"`{page}`" in verdict
    assert "- exercise 21.2: ValueError: no" in verdict
    table = cells(verdict)
    assert table[0] == ["exercise", "title", "status", "exact", "empirical", "measured", "seconds"]
    assert table[1] == ["21.1", "Rows | columns", "answered", "2 of 2", "0 of 1", "now", "1.3"]
    assert table[2] == ["21.2", "Masks", "failed", "–", "–", "–", "0.0"]
    assert "[21.1](http://m/1)" in verdict
    assert [list(row.values()) for row in json.loads(artifacts["chapter-table"].data)] == [
        ["21.1", "Rows | columns", "answered", "2 of 2", "0 of 1", "now", 1.3],
        ["21.2", "Masks", "failed", "–", "–", "–", 0.0],
    ]
    assert artifacts["chapter-mlflow"].data == "[a run, on MLflow](http://mlflow/#/run-chapter-1)"
    assert artifacts["chapter-report"].data == f"[a run: the report]({page.as_uri()})"


def test_one_exercise(tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    page.touch()
    published = Published(page, {}, Score.of([ANSWERED], 35), (ANSWERED, FAILED))
    made = left(request("21.1"), Outcome(), published, node_of("21.1"), folder=tmp_path)
    assert made.subject == "exercise"
    assert made.verdict.startswith("**Answered; exact checks 2 of 2 hold; empirical 0 of 1 confirmed**")
    assert "confirmed**. No steps run." in made.verdict
    assert [row["measured"] for row in made.rows] == ["earlier"], "and no exercise that was not asked for"
    assert made.mlflow_url == "http://m/1"


@pytest.mark.parametrize(("loss", "shown"), [(1.23456, 1.2346), (float("nan"), "–")])
def test_a_model(tmp_path: Path, loss: float, shown: Any) -> None:
    small = recipes()["small"]
    node = Node("train/small/1", "train", "train small, seed 1", {}, {}, (), 1.0, subject="small", seed=1)
    teacher = Node("train/large/0", "train", "train large, seed 0", {}, {}, (), 1.0, subject="large")
    data = {"parameters": 438_000, "evaluations": {"validation_loss": [9.0, loss], "tokens": [0, 1000]}}
    record = {
        "key": "k",
        "data": {**data, "training_seconds": 2.0},
        "artifacts": {"model": {"url": "/store/blobs/ab"}},
    }
    outcome = Outcome(records={node.name: record, teacher.name: record}, ran=[node.name])
    made = left(request(recipes=((small, 1),)), outcome, None, node, teacher, folder=tmp_path)
    artifacts = {artifact.key: artifact for artifact in made.artifacts()}
    assert list(artifacts) == ["model-verdict", "model-table", "model-mlflow"]
    [row] = json.loads(artifacts["model-table"].data, parse_constant=pytest.fail)
    assert row == {
        "model": "small, seed 1",
        "parameters": 438_000,
        "validation loss": shown,
        "tokens": 1000,
        "trained": "now",
        "seconds": 2.0,
        "weights": "/store/blobs/ab",
    }
    assert "438,000" in artifacts["model-verdict"].data
    assert made.mlflow_url == "http://mlflow/#/run-k"


def test_a_model_that_could_not_be_made(tmp_path: Path) -> None:
    node = Node("train/small/1", "train", "train small, seed 1", {}, {}, (), 1.0, subject="small", seed=1)
    outcome = Outcome(errors={node.name: "CUDA out of memory"})
    made = left(request(recipes=((recipes()["small"], 1),)), outcome, None, node, folder=tmp_path)
    assert [artifact.key for artifact in made.artifacts()] == ["model-verdict"]
    assert "- train small, seed 1: CUDA out of memory" in made.markdown()


@pytest.mark.parametrize(
    ("only", "name"),
    [
        (None, "full-chapter smoke"),
        (["21.22"], "exercise 21.22, smoke"),
        (["21.1", "21.2"], "exercises 21.1, 21.2, smoke"),
        (["21.1", "21.2", "21.3", "21.4"], "4 exercises, smoke"),
    ],
)
def test_a_run_is_called_by_what_it_runs(only: list[str] | None, name: str) -> None:
    assert _named({"only": only, "profile": "smoke"}) == name


def test_tags() -> None:
    small = recipes()["small"]
    assert tags_of(request("21.1", "21.22")) == ["profile:smoke", "exercise:21.1", "exercise:21.22"]
    assert tags_of(request(*(f"21.{n}" for n in range(1, 36)))) == ["profile:smoke"], "all are no choice"
    assert tags_of(request(recipes=((small, 0),))) == ["profile:smoke", "recipe:small"]
