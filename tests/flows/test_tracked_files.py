"""What MLflow keeps of an exercise are the files that lie in the outputs, under the same names."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from flows.execution import watch
from flows.execution.graph import Node, Request
from flows.execution.watch import TrackingListener
from reports import page
from reports.cache import DirectoryCache
from reports.run import RunInfo
from reports.types import Figure, Part, Provenance, Result, Series, Table
from reports.write import write_outputs
from tasks.answers import tracking_key
from tasks.cache.keys import Step
from tasks.cache.store import Store
from tasks.recipes.profiles import PROFILES
from tasks.tracking.documents import exercise_document

TABLE = Table(("size", "note"), (("small", 'a, "b"'), ("\ud800", None)))
CHART = Figure("line", (Series("s", (1, 2), (1.0, 2.0)),), "x", "y")
RESULT = Result(
    "21.1", "t", "ok", Provenance("smoke"), parts=(Part("a", (TABLE, CHART)), Part("b", (CHART, TABLE, CHART)))
)


class Told:
    """A tracker that makes the document and keeps it."""

    def run_of(self, key: str) -> None: ...

    def log_exercise(
        self, parent: Any, key: str, result: Any, tags: Any, texts: dict[str, str], models: list[str]
    ) -> None:
        self.texts: dict[str, str] = exercise_document(key, result, texts, tags, models)["texts"]


def test_tables_and_charts_are_those_of_the_outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "result_of", lambda *_: RESULT)
    told: Any = Told()
    store = Store(str(tmp_path / "store"))
    record = {"key": "k", "artifacts": {"findings": asdict(store.put(b"{}"))}, "data": {}}
    sources: Any = None
    tracking = TrackingListener(told, "chapter-1", store, Request(PROFILES["smoke"], sources, ()), "run", here=True)
    node = Node("exercise/21.1", "exercise", "exercise 21.1", {}, {}, (), 1.0, subject="21.1")
    tracking.cached(node, Step("exercise", "exercise 21.1", {}, {}, {}, 1), record)
    tracking.close()
    outputs = write_outputs(tmp_path / "run", [RESULT], RunInfo("smoke"))
    files = {f"tables/{path.name}": path.read_text() for path in (outputs / "tables").iterdir()}
    assert len(files) == 2
    assert {name: text for name, text in told.texts.items() if name.startswith("tables/")} == files
    charts = {name for name in told.texts if name.startswith("figures/")}
    assert charts == {f"figures/21.01{letter}-figure-{place}.svg" for letter, place in (("a", 2), ("b", 1), ("b", 3))}
    for text in told.texts.values():
        text.encode()


def test_what_is_drawn_for_mlflow_is_drawn_for_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the page is wanted nothing has to be drawn any more: everybody would wait for it."""
    monkeypatch.setattr(watch, "result_of", lambda *_: RESULT)
    told: Any = Told()
    sources: Any = None
    sections = DirectoryCache(tmp_path / "sections")
    request = Request(PROFILES["smoke"], sources, ())
    tracking = TrackingListener(told, "chapter-1", Store(str(tmp_path / "store")), request, sections=sections)
    node = Node("exercise/21.1", "exercise", "exercise 21.1", {}, {}, (), 1.0, subject="21.1")
    tracking.finished(node, Step("exercise", "exercise 21.1", {}, {}, {}, 1), {"key": "k", "artifacts": {}, "data": {}})
    tracking.close()
    expected = page.render(results=[RESULT])
    monkeypatch.setattr("reports.charts.to_svg", None)
    assert page.render(results=[RESULT], sections_cache=sections) == expected
    assert page.render(results=[RESULT]) != expected  # without the cache it would have to be drawn


def test_an_edited_answer_is_tracked_as_a_run_of_its_own() -> None:
    edited = replace(RESULT, summary="edited")
    elsewhere = replace(RESULT, provenance=replace(RESULT.provenance, seconds=9.0))
    assert tracking_key("k", edited) != tracking_key("k", RESULT) == tracking_key("k", elsewhere)
    assert tracking_key("other", RESULT) != tracking_key("k", RESULT)
