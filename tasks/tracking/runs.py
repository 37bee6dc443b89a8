"""Documents as MLflow's runs: found by the key of their step, made, ended. Each call is given MLflow's client."""

import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from tasks.tracking.artifacts import attach
from tasks.tracking.client import origin
from tasks.tracking.documents import Document, is_number, texts_of
from tasks.tracking.names import allowed_name
from tasks.tracking.pages import comparison_page, run_page

STEP_KEY = "step_key"
PARENT = "mlflow.parentRunId"
BATCH = 1_000  # MLflow's limit of metrics per call
SIZES = ("small", "medium", "large")  # recipes that are to be seen beside each other
LISTED = 20  # steps in the description of a chapter: MLflow's limit is some thousand characters
FAILED = "failed/"  # how the tags of a chapter begin that name failed steps


def find(client: Any, experiment: str, key: str) -> str | None:
    """The finished run of a step. An unfinished one of this machine broke off half-way, since we hold the lock."""
    found = None
    for run in client.search_runs([experiment], f"tags.{STEP_KEY} = '{key}'"):
        if run.info.status == "FINISHED" or key.startswith("chapter-"):
            found = run.info.run_id
        elif run.data.tags.get("host") == platform.node():
            client.delete_run(run.info.run_id)
    return found


def finished_runs(client: Any, experiment: str, since: float = 0.0) -> dict[str, str]:
    """The finished run of each step, by its key; those that ended ``since`` then, in seconds."""
    query = f"attributes.status = 'FINISHED' and attributes.end_time >= {int(since * 1000)}"
    found = _all(client, experiment, query)
    return {run.data.tags[STEP_KEY]: run.info.run_id for run in found if STEP_KEY in run.data.tags}


def deleted_runs(client: Any, experiment: str) -> set[str]:
    """The runs that people have deleted, as long as MLflow keeps them."""
    from mlflow.entities import ViewType

    return {run.info.run_id for run in _all(client, experiment, "", ViewType.DELETED_ONLY)}


def _all(client: Any, experiment: str, query: str, *view: int) -> Iterator[Any]:
    token = None
    while True:
        page = client.search_runs([experiment], query, *view, max_results=1000, page_token=token)
        yield from page
        token = page.token
        if not token:
            return


def create(client: Any, experiment: str, document: Document, parent: str | None) -> str:
    """The run of a document, below the run ``parent``; that of a chapter stays open."""
    tags = {**document["tags"], STEP_KEY: document["key"], **origin()}
    if parent:
        tags[PARENT] = parent
    start = int(document["start"] * 1000)
    run = client.create_run(experiment, start_time=start, tags=texts_of(tags), run_name=document["name"])
    run_id = str(run.info.run_id)
    if document["kind"] == "chapter":
        return run_id
    _log_course(client, run_id, document)
    _log_inputs(client, experiment, run_id, document)
    attach(client, run_id, run.info.artifact_uri, document.get("files", {}), document.get("texts", {}))
    _log_finals(client, experiment, run_id, document)
    client.set_terminated(run_id, "FINISHED", int(document["end"] * 1000))
    return run_id


def _log_course(client: Any, run_id: str, document: Document) -> None:
    """Parameters and curves."""
    from mlflow.entities import Metric, Param

    start = int(document["start"] * 1000)
    params = [Param(name, value) for name, value in texts_of(document.get("params", {})).items()]
    client.log_batch(run_id, params=params[:100])
    curves = [Metric(n, v, start + int(s * 1000), step) for n, step, v, s in document.get("curves", ()) if is_number(v)]
    _log_metrics(client, run_id, curves)


def _log_inputs(client: Any, experiment: str, run_id: str, document: Document) -> None:
    """What it was made from: a model from a text, an exercise's answer from models."""
    from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput

    datasets, models = [], []
    if data := document.get("data"):
        dataset = Dataset(data["name"], data["digest"][:36], "local", data["source"])
        datasets = [DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])]
    for key in document.get("models", ()):
        if found := find(client, experiment, key):
            outputs = client.get_run(found).outputs
            models += [LoggedModelInput(model.model_id) for model in (outputs.model_outputs if outputs else ())]
    if datasets or models:
        client.log_inputs(run_id, datasets or None, models or None)


def _log_finals(client: Any, experiment: str, run_id: str, document: Document) -> None:
    """What came out, also on the entry in the Models tab of what was trained."""
    from mlflow.entities import Metric

    end = int(document["end"] * 1000)
    model = _register(client, experiment, run_id, document) if document["kind"] == "training" else None
    finals = {allowed_name(name): value for name, value in document.get("metrics", {}).items() if is_number(value)}
    data = document.get("data") or {}
    measured = {
        "model_id": model,
        "dataset_name": data.get("name"),
        "dataset_digest": data.get("digest", "")[:36] or None,
    }
    metrics = [Metric(name, float(value), end, 0, **measured) for name, value in finals.items()]
    _log_metrics(client, run_id, metrics)


def _log_metrics(client: Any, run_id: str, metrics: list[Any]) -> None:
    for i in range(0, len(metrics), BATCH):
        client.log_batch(run_id, metrics=metrics[i : i + BATCH])


def _register(client: Any, experiment: str, run_id: str, document: Document) -> str:
    """An entry in the Models tab, as ``mlflow.create_external_model`` makes it, without its global state."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    model = client.create_logged_model(
        experiment,
        name=re.sub(r"[^\w-]+", "-", document["name"]).strip("-"),
        source_run_id=run_id,
        tags=texts_of({**document["tags"], "mlflow.model.isExternal": "true", "artifacts": f"runs:/{run_id}/model"}),
        params=texts_of(document.get("params", {})),
        model_type="minigpt",
    )
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    return str(model.model_id)


def end(client: Any, experiment: str, run_id: str, document: Document, ui: str) -> None:
    """End a chapter's run with what its steps came to; ``ui`` is the web interface that shows it."""
    from mlflow.entities import Metric, Param, RunTag

    links, failures, verdict = document["links"], document.get("failures", {}), document.get("verdict", {})
    tags = {f"cached/{title}": run for title, run in links.items()}
    tags |= {f"{FAILED}{title}": error for title, error in failures.items()}
    tags |= {"cached_steps": str(len(links)), "failed_steps": str(len(failures))}
    sizes = _sizes(client, experiment, run_id, links)
    note = _note(document, comparison_page(ui, experiment, sizes) if sizes else "", partial(run_page, ui, experiment))
    texts = texts_of({**tags, "mlflow.note.content": note})
    for name in client.get_run(run_id).data.tags.keys() - texts.keys():
        if name.startswith(FAILED):  # this time it did not
            client.delete_tag(run_id, name)
    now = int(document["end"] * 1000)
    client.log_batch(
        run_id,
        metrics=[Metric(name, float(value), now, 0) for name, value in verdict.get("metrics", {}).items()],
        params=[Param(name, value) for name, value in texts_of(verdict.get("params", {})).items()],
        tags=[RunTag(name, value) for name, value in texts.items()],
    )
    if verdict:
        attach(client, run_id, client.get_run(run_id).info.artifact_uri, verdict["files"], {})
    client.set_terminated(run_id, document["status"], int(document["end"] * 1000))


def _sizes(client: Any, experiment: str, chapter: str, links: Mapping[str, str]) -> list[str]:
    """The runs of the book's three sizes that a chapter has trained or taken from the store; none if one is missing."""
    found = []
    for size in SIZES:
        runs = client.search_runs([experiment], f"tags.recipe = '{size}' and tags.seed = '0'")
        ours = [run.data.tags.get(PARENT) == chapter or run.info.run_id in links.values() for run in runs]
        found += [run.info.run_id for run, is_ours in zip(runs, ours, strict=True) if is_ours][:1]
    return found if len(found) == len(SIZES) else []


def _note(document: Document, sizes: str, page: Callable[[str], str]) -> str:
    """What the page of a chapter says about it, in Markdown; ``sizes`` is where its three sizes are compared."""
    links, failures, verdict = document["links"], document.get("failures", {}), document.get("verdict", {})
    parts = [f"**{verdict['sentence']}.** The whole report is the artifact `report.html`."] if verdict else []
    if document["status"] != "FINISHED" and not verdict and not failures:
        parts += ["**Stopped before there was a report.** What was finished by then is kept."]
    if sizes:
        parts += [f"[Small, medium and large beside each other]({sizes})"]
    if failures:
        firsts = {title: (error.splitlines() or [""])[0].replace("`", "'") for title, error in failures.items()}
        parts += ["Failed:", _listed(f"- {title}: `{firsts[title]}`" for title in sorted(firsts, key=_numbers))]
    if links:
        lines = (f"- [{title}]({page(links[title])})" for title in sorted(links, key=_numbers))
        parts += ["Taken from the store, made by earlier runs:", _listed(lines)]
    return "\n\n".join(parts)


def _listed(lines: Iterable[str]) -> str:
    """A list that is short enough for a description; the tags have all."""
    every = list(lines)
    more = [f"- and {len(every) - LISTED} more, among the tags"] if len(every) > LISTED else []
    return "\n".join([*every[:LISTED], *more])


def _numbers(title: str) -> list[tuple[int, str]]:
    """A key by which 21.9 comes before 21.10."""
    return [(int(part), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", title)]
