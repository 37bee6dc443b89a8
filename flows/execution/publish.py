"""The last step of a run: the result files, the tables, the page, and the link ``outputs/latest``."""

import functools
import json
import os
import platform
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flows.execution.engine import Record
from flows.execution.graph import Node, Request, build, load_exercises
from flows.execution.plan import stored
from flows.machine import cores, gpu
from flows.options import UsageError, exercise_id
from reports.beside.reference import load as load_references
from reports.cache import DirectoryCache
from reports.chapter import QUESTIONS
from reports.plain import from_json
from reports.run import Machine, ModelRow, RunInfo, Score, SizeRow
from reports.story.editions import WHOLE, Edition
from reports.types import Provenance, Result
from reports.write import content_digest, write_outputs
from tasks.answers import result_of, stored_findings, tracking_key
from tasks.cache.keys import digest
from tasks.cache.store import Store
from tasks.cache.urls import without_credentials
from tasks.exercises import modules
from tasks.place import Place
from tasks.recipes.profiles import Profile
from tasks.recipes.sizes import of_run, sizes
from tasks.tracking.tracker import Tracker

KEPT_RUNS = 10
LEFT_SECONDS = 86_400.0  # what nobody has written to for so long was left half written
# What a page says above everything where a profile is there to be quick.
CAUTIONS = {
    "smoke": "This is a rehearsal: every model is trained for a few steps, to try the whole way in minutes. What is "
    "computed exactly holds; what depends on training means nothing here. For numbers that mean something: "
    "`chapter run --profile laptop`.",
}
TOKENIZERS = {"char": "characters", "bpe": "GPT-2's byte pairs", "word": "words"}


@dataclass(frozen=True)
class Published:
    """The page, the results on it, and the exercises with findings of which no answer could be made: why not."""

    page: Path
    faults: Mapping[str, str]
    score: Score
    results: tuple[Result, ...] = ()


def publish(
    request: Request,
    place: Place,
    errors: Mapping[str, str],
    started: float | None,
    tracker: Tracker,
    command: str = "",
    trained: int = 0,
    seconds: float | None = None,
    verified: Mapping[str, Record] | None = None,
    editions: Sequence[Edition] = (),
) -> Published:
    """Write the report on everything that is stored for this profile and these sources, and its other ``editions``.

    An exercise that was not asked for, but whose result is in the store, is in the report as well. ``errors``
    are those of this run, by node. ``started`` is None where nothing is known of a run; ``seconds`` is what it took,
    or None if it ends now. ``verified`` are records, by node, whose blobs this run has looked at already.

    Raises:
        UsageError: there is nothing to report.
    """
    store = place.open_store()
    everything = replace(request, exercises=load_exercises(tuple(modules())))
    graph = build(everything)
    records = stored(graph, store, verified or {})
    outputs = Path(place.outputs)
    results = list(_results(everything, graph, records, errors, store, tracker, outputs))
    name = request.profile.name
    if not results:
        raise UsageError(
            f"profile {name}: nothing is stored for it and these sources; run `chapter run --profile {name}` first"
        )
    if seconds is None:
        seconds = 0.0 if started is None else time.time() - started
    info = RunInfo(
        profile=name,
        sources=request.sources.summary(),
        machine=_machine(request.device, graph),
        started="" if started is None else datetime.fromtimestamp(started, UTC).isoformat(timespec="seconds"),
        seconds=seconds,
        command=command,
        asked=_asked(request),
        trainings=trained,
        models=tuple(_models(graph, records, store, tracker)),
        sizes=tuple(_sizes(request.profile, graph, records)),
        links={"Prefect": prefect_page(outputs), "MLflow": tracker.runs_url()},
        served_by="" if tracker.uri.startswith("http") else "chapter ui",
        caution=CAUTIONS.get(name, ""),
    )
    found = {id: stored_findings(records[f"exercise/{id}"], store) for id in modules() if f"exercise/{id}" in records}
    references = load_references()
    content = content_digest(results, info, findings=found, references=references)
    if not _says(outputs / "latest", content, editions):
        folder = outputs / "runs" / f"{datetime.now(UTC):%Y%m%d-%H%M%S.%f}-{name}-{os.getpid()}"
        write_outputs(
            folder,
            results,
            info,
            findings=found,
            references=references,
            sections_cache=sections_of(outputs),
            editions=editions,
            content=content,
        )
        point_latest(outputs, folder)
    faults = {one.id: one.error for one in results if one.status == "failed" and f"exercise/{one.id}" in records}
    return Published(outputs / "latest" / "report.html", faults, Score.of(results, len(QUESTIONS)), tuple(results))


def _says(folder: Path, content: str, editions: Sequence[Edition]) -> bool:
    """Whether these files of an earlier run say the same, and all that is wanted is among them.

    They are left as they are then: a run that finds everything in the store adds nothing to what the one before said,
    and would only replace its minutes by its own seconds.
    """
    try:
        same = json.loads((folder / "summary.json").read_text())["content"] == content
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return same and all((folder / edition.entry).is_file() for edition in (WHOLE, *editions))


def sections_of(outputs: Path) -> DirectoryCache:
    """Where the parts of the page are kept that have been drawn."""
    return DirectoryCache(outputs / "sections")


@functools.lru_cache(maxsize=4)
def answers_of(outputs: Path) -> DirectoryCache:
    """Where answers are kept that have been made; one object, by which they are remembered within a run, too."""
    return DirectoryCache(outputs / "answers", most=500, suffix=".json")


def newest_run(request: Request, outputs: Path) -> dict[str, Any]:
    """What the newest run of this profile and these sources has said of itself, as arguments of ``publish``."""
    sources = _without_note(request.sources.summary())
    for folder in sorted((outputs / "runs").glob("*"), reverse=True):
        try:
            summary = json.loads((folder / "summary.json").read_text())
            run = summary["run"]
            same = summary["profile"] == request.profile.name and _without_note(run["sources"]) == sources
            same = same and run.get("asked", "") in ("", _asked(request))  # "" says a run of an earlier version
            failed = [exercise["id"] for exercise in summary["exercises"] if exercise["status"] == "failed"]
            results = [json.loads((folder / "results" / f"{id}.json").read_text()) for id in failed]
        except (OSError, ValueError, KeyError):
            continue
        if same:
            return {
                "errors": {f"exercise/{exercise_id(result['id'])}": result["error"] for result in results},
                "started": datetime.fromisoformat(run["started"]).timestamp() if run["started"] else None,
                "seconds": run["seconds"],
                "command": run["command"],
                "trained": run["trainings"],
            }
    return {"errors": {}, "started": None}


def _asked(request: Request) -> str:
    """See ``reports.run.RunInfo``."""
    profile, sources = request.profile, request.sources
    keys = [sources.corpus(name).key() for name in ("main", "domain", "code")]
    pretrained = sources.pretrained.key() if sources.pretrained else None
    return digest([profile.budget, profile.precision, keys, pretrained])[:16]


def _without_note(sources: Mapping[str, str]) -> dict[str, str]:
    """Sources as they are, without the line on how they were chosen."""
    return {what: line for what, line in sources.items() if what != "bundle"}


def point_latest(outputs: Path, folder: Path) -> None:
    """Let ``latest`` be a link to ``folder``, in one step, and drop the oldest runs."""
    link, latest = outputs / f".latest-{os.getpid()}", outputs / "latest"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.relative_to(outputs), target_is_directory=True)
    if latest.is_dir() and not latest.is_symlink():  # a copy of the outputs by what follows links
        latest.rename(outputs / f"latest-before-{folder.name}")
    link.replace(latest)
    runs = sorted(path for path in folder.parent.iterdir() if path.is_dir())
    whole = [path for path in runs if not path.name.startswith(".")]
    half = [path for path in runs if path.name.startswith(".")]
    left = [path for path in half if _age(path) > LEFT_SECONDS]  # the others are being written
    for path in [*whole[:-KEPT_RUNS], *left]:
        if path != folder:
            _remove(path)


def _age(path: Path) -> float:
    """Seconds since something was added to a folder; 0 if it is gone."""
    with suppress(FileNotFoundError):
        return time.time() - path.stat().st_mtime
    return 0.0


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


def _results(
    request: Request,
    graph: Mapping[str, Node],
    records: Mapping[str, Record],
    errors: Mapping[str, str],
    store: Store,
    tracker: Tracker,
    outputs: Path,
) -> Iterator[Result]:
    for exercise in request.exercises:
        name = f"exercise/{exercise.id}"
        title = QUESTIONS[exercise.id].title
        if name in records:
            try:
                yield load_result(exercise.id, records[name], store, tracker, outputs)
            except Exception:  # a slip in one answer's text must not cost the others
                provenance = from_json(Provenance, records[name]["data"]["provenance"])
                yield Result(exercise.id, title, "failed", provenance, error=traceback.format_exc())
        elif name in errors:
            provenance = Provenance(profile=request.profile.name, device=request.device)
            yield Result(exercise.id, title, "failed", provenance, error=errors[name])


def load_result(id: str, record: Record, store: Store, tracker: Tracker, outputs: Path) -> Result:
    """A result with the addresses of its runs on MLflow's page and on Prefect's."""
    result = result_of(id, record, store, answers_of(outputs))
    run = tracker.run_of(tracking_key(record["key"], result))
    task, prefect = result.provenance.prefect_run_id, prefect_page(outputs)
    provenance = replace(
        result.provenance,
        mlflow_run_id=run,
        mlflow_url=tracker.url(run) if run else None,
        prefect_url=f"{prefect}/runs/task-run/{task}" if task else None,
    )
    return replace(result, provenance=provenance)


def _models(
    graph: Mapping[str, Node], records: Mapping[str, Record], store: Store, tracker: Tracker
) -> Iterator[ModelRow]:
    for name, node in graph.items():
        if node.makes_model and name in records:
            data = records[name]["data"]
            run = tracker.run_of(records[name]["key"])
            yield ModelRow(
                name=f"{node.subject}, seed {node.seed}",
                parameters=data["parameters"],
                tokens=int(data["evaluations"]["tokens"][-1]),
                validation_loss=data["evaluations"]["validation_loss"][-1],
                seconds=data["training_seconds"],
                path=records[name]["artifacts"]["model"]["url"],
                mlflow_url=(tracker.url(run) if run else None) or "",
                tokenizer=TOKENIZERS.get(node.inputs["recipe"].get("tokenizer", ""), "the pretrained model's tokens"),
                shape=_shape(node.inputs["recipe"]),
            )


def _shape(recipe: Mapping[str, Any]) -> str:
    """A recipe in a few words: its size, and what is not as in GPT-2."""
    if "model" not in recipe:
        return "the pretrained model, trained further"
    model, objective = recipe["model"], recipe["train"]["objective"]
    positions = {"rope": "RoPE", "sinusoidal": "sinusoids", "none": "no positions"}
    odd = [
        positions.get(model["position"], ""),
        "post-norm" if model["norm"] == "post" else "",
        "" if model["tie_weights"] else "untied",
        f"{model['n_kv_head']} key/value head{'s' * (model['n_kv_head'] != 1)}" if model["n_kv_head"] else "",
        f"window {model['window']}" if model["window"] else "",
        f"{model['n_future']} heads ahead" if model["n_future"] > 1 else "",
        "" if objective == "causal" else str(objective).replace("_", " "),
    ]
    return ", ".join([f"{model['n_layer']} layers × {model['d_model']}", *filter(None, odd)])


def _sizes(profile: Profile, graph: Mapping[str, Node], records: Mapping[str, Record]) -> Iterator[SizeRow]:
    trained = {(node.subject, node.seed) for name, node in graph.items() if node.kind == "train" and name in records}
    for size in sizes(profile):
        yield SizeRow(size.name, size.shape, size.vocabulary, size.parameters, of_run(size, trained))


def _machine(device: str, graph: Mapping[str, Node]) -> Machine:
    recipes = [node.inputs["recipe"] for node in graph.values() if node.makes_model]
    precisions = {recipe.get("train", recipe)["precision"] for recipe in recipes}  # a fine-tuning says it itself
    name = (gpu() if device == "cuda" else None) or device.upper()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Machine(
        device=name,
        cores=cores(),
        memory_gib=memory,
        python=sys.version.split()[0],
        torch=version("torch"),
        system=platform.platform(aliased=True, terse=True),
        precision=" and ".join(sorted(precisions)),
    )


def prefect_page(outputs: Path, ui: str = "http://127.0.0.1:4200") -> str:
    """Where Prefect's page is: at the server in use, or, if that lives only as long as a run, at ``ui``.

    That is where ``chapter ui`` shows the same database.
    """
    page = without_credentials(os.environ.get("PREFECT_API_URL", "")).removesuffix("/api")
    own = outputs / "prefect" / "server" / "url"
    return page if page and not (own.exists() and own.read_text() == page) else ui
