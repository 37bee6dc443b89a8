"""What a flow run leaves on Prefect's page: its verdict in Markdown, a table, links to MLflow and to the report.

The keys are few (chapter, exercise or model, and what it is), so that Prefect's page of artifacts stays short: each
run adds a version to the history of its key.
"""

import json
import math
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect.client.schemas.actions import ArtifactCreate

from flows.execution.engine import Outcome, Record
from flows.execution.graph import Node, Request
from flows.execution.publish import Published, load_result
from reports.chapter import QUESTIONS
from reports.run import Score
from reports.types import Provenance, Result
from reports.words import plural, upper_first
from tasks.cache.store import Store
from tasks.place import Place
from tasks.tracking.tracker import Tracker

Row = dict[str, Any]


@dataclass(frozen=True)
class Left:
    """What a flow run has to show, as plain data. The first column of the table is linked to ``urls``."""

    subject: Literal["chapter", "exercise", "model"]
    title: str  # "full-chapter smoke"
    verdict: str  # a sentence
    rows: Sequence[Row] = ()
    urls: Sequence[str | None] = ()  # on MLflow, by row
    failures: Sequence[str] = ()  # "train small, seed 0: why"
    report: Path | None = None
    mlflow_url: str | None = None

    def artifacts(self) -> Iterator[ArtifactCreate]:
        """The artifacts, each with a key. A link artifact is, with Prefect, Markdown that holds nothing but a link."""
        yield self._artifact("markdown", "verdict", "the verdict", self.markdown())
        if self.rows:
            what = "model" if self.subject == "model" else "exercise"
            yield self._artifact("table", "table", plural(len(self.rows), what), json.dumps(self.rows))
        if self.mlflow_url:
            about = "parameters, metrics, curves and models"
            yield self._artifact("markdown", "mlflow", about, f"[{self.title}, on MLflow]({self.mlflow_url})")
        if self.report:
            about = f"all answers; open `{self.report}` (browsers follow no link from a server's page to a file)"
            yield self._artifact("markdown", "report", about, f"[{self.title}: the report]({self.report.as_uri()})")

    def _artifact(self, kind: str, name: str, about: str, data: str) -> ArtifactCreate:
        return ArtifactCreate(type=kind, key=f"{self.subject}-{name}", description=f"{self.title}: {about}", data=data)

    def markdown(self) -> str:
        """The verdict, what failed, all exercises or models, and where the report lies."""
        lines = [self.verdict, ""]
        if self.report:
            lines += [f"The report, with tables, results and findings beside it: `{self.report}`", ""]
        if self.failures:
            lines += ["## What failed", "", *(f"- {_cell(text)}" for text in self.failures), ""]
        return "\n".join([*lines, *_table(self.rows, self.urls)])


def left_by(
    title: str,
    request: Request,
    graph: Mapping[str, Node],
    outcome: Outcome,
    published: Published | None,
    place: Place,
    tracker: Tracker,
    chapter: str,
    done: str,
) -> Left:
    """What a run leaves that has ended.

    Args:
        title: the flow run's name.
        request: what was asked for.
        graph: what that came to.
        outcome: what became of it.
        published: the report, if one was written.
        place: where results are.
        tracker: where MLflow's runs are.
        chapter: the chapter on MLflow, as ``Tracker.chapter`` names it.
        done: how much was done, such as "3 models trained, 9 steps run".
    """
    done = upper_first(done)
    failures = tuple(f"{graph[name].title}: {_first_line(error)}" for name, error in outcome.errors.items())
    report = published.page.resolve() if published else None
    if not request.exercises:
        asked = {(recipe.name, seed) for recipe, seed in request.recipes} | {(t.name, 0) for t in request.tunings}
        nodes = [node for node in graph.values() if node.makes_model and (node.subject, node.seed) in asked]
        rows = [_model(node, outcome) for node in nodes if node.name in outcome.records]
        urls = [_url(tracker, outcome.records[node.name]) for node in nodes if node.name in outcome.records]
        said = [f"**{row['model']}**: validation loss {row['validation loss']} nats per token" for row in rows]
        verdict = f"{'; '.join(said) or 'No model was made'}. {done}."
        return Left("model", title, verdict, rows, urls, failures, report, next(iter(urls), None))

    results = list(_results(request, outcome, published, place, tracker))
    measured = {graph[name].subject for name in outcome.ran if graph[name].kind == "exercise"}
    rows = [_exercise(result, result.id in measured) for result in results]
    urls = [result.provenance.mlflow_url for result in results]
    score = Score.of(results, len(request.exercises)).sentence
    if len(request.exercises) > 1:
        chapter_url = tracker.url(tracker.run_of(chapter))
        return Left("chapter", title, f"**{score}**. {done}.", rows, urls, failures, report, chapter_url)
    answered = all(result.status == "ok" for result in results) and results
    checks = score.partition("; ")[2]
    verdict = f"**{'Answered' if answered else 'Not answered'}; {checks}**. {done}."
    verdict += "".join(f"\n\n> {_cell(result.summary)}" for result in results if result.summary)
    return Left("exercise", title, verdict, rows, urls, failures, report, next(iter(urls), None))


def _results(
    request: Request, outcome: Outcome, published: Published | None, place: Place, tracker: Tracker
) -> Iterator[Result]:
    """The results of the exercises that were asked for; those that the report has are not made again."""
    known = {result.id: result for result in published.results} if published else {}
    store = place.open_store()
    for exercise in request.exercises:
        if exercise.id in known:
            yield known[exercise.id]
        elif f"exercise/{exercise.id}" in outcome.records:
            yield _result(exercise.id, outcome.records[f"exercise/{exercise.id}"], store, place, tracker)


def _result(id: str, record: Record, store: Store, place: Place, tracker: Tracker) -> Result:
    try:
        return load_result(id, record, store, tracker, Path(place.outputs))
    except Exception:  # a slip in an answer's text; the report says more
        provenance = Provenance(record["data"]["provenance"]["profile"])
        return Result(id, QUESTIONS[id].title, "failed", provenance, error=traceback.format_exc())


def _exercise(result: Result, measured: bool) -> Row:
    answered = result.status == "ok"
    return {
        "exercise": result.id,
        "title": result.title,
        "status": "answered" if answered else result.status,
        "exact": _held(result, "exact"),
        "empirical": _held(result, "empirical"),
        "measured": "now" if measured else "earlier" if answered else "–",
        "seconds": round(result.provenance.seconds, 1),
    }


def _held(result: Result, kind: str) -> str:
    passed = [check.passed for check in result.checks if check.kind == kind]
    return f"{sum(passed)} of {len(passed)}" if passed else "–"


def _model(node: Node, outcome: Outcome) -> Row:
    record = outcome.records[node.name]
    data, loss = record["data"], record["data"]["evaluations"]["validation_loss"][-1]
    return {
        "model": f"{node.subject}, seed {node.seed}",
        "parameters": data["parameters"],
        "validation loss": round(loss, 4) if math.isfinite(loss) else "–",  # JSON has no NaN
        "tokens": int(data["evaluations"]["tokens"][-1]),
        "trained": "now" if node.name in outcome.ran else "earlier",
        "seconds": round(data["training_seconds"], 1),
        "weights": record["artifacts"]["model"]["url"],
    }


def _url(tracker: Tracker, record: Record) -> str | None:
    return tracker.url(tracker.run_of(record["key"]))


def _first_line(text: str) -> str:
    return text.splitlines()[0] if text else ""


def _cell(value: Any) -> str:
    """A value on one line of Markdown, in which nothing is taken for the markup of a table or for HTML."""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def _table(rows: Sequence[Row], urls: Sequence[str | None]) -> Iterator[str]:
    if not rows:
        return
    yield f"| {' | '.join(rows[0])} |"
    yield f"| {' | '.join('---:' if isinstance(value, int | float) else '---' for value in rows[0].values())} |"
    for row, url in zip(rows, urls, strict=True):
        first, *others = map(_cell, row.values())
        yield f"| {' | '.join([f'[{first}]({url})' if url else first, *others])} |"
