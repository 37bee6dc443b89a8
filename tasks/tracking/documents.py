"""What is logged about a model or an exercise, as plain JSON: MLflow is told now, or the outbox keeps it for later."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.tracking.names import allowed_name, within_a_group

Document = dict[str, Any]
Files = Mapping[str, Path] | Sequence[Path]

CURVE_POINTS = 200  # per curve: enough for a screen, and a batch of metrics costs 0.2 ms each


def training_document(
    key: str,
    recipe: Mapping[str, Any],
    record: Mapping[str, Any],
    files: Mapping[str, str],
    tags: Mapping[str, str],
    data: Mapping[str, str] | None = None,
) -> Document:
    """A trained model. Curves are thinned to ``CURVE_POINTS``; the artifact ``curves.json`` has them whole.

    ``data`` is what it was trained on: ``name``, ``digest`` and ``source``.
    """
    name, seed = str(recipe.get("name", "model")), recipe.get("seed", 0)
    end = time.time()
    seconds = float(record.get("training_seconds", record.get("seconds", 0.0)))
    curves = {part: record[part] for part in ("history", "evaluations") if record.get(part)}
    artifacts = {_MODEL_FILES.get(file, file): path for file, path in files.items()}
    texts = {"curves.json": json.dumps(curves), "recipe.json": json.dumps(recipe, indent=1)}
    if "config" in record:
        texts["model/config.json"] = json.dumps(record["config"], indent=1)
    if record.get("samples"):
        texts["samples.txt"] = (
            record["samples"] if isinstance(record["samples"], str) else "\n\n".join(record["samples"])
        )
    config = record.get("config", {})
    size = {"model.vocab_size": config["vocab_size"]} if "vocab_size" in config else {}  # a recipe does not know it
    metrics = _final_metrics(record, seconds)
    return {
        "kind": "training",
        "key": key,
        "name": f"{name} (seed {seed})",
        "tags": {
            "kind": "model",
            "recipe": name,
            "seed": str(seed),
            "mlflow.note.content": _model_note(name, seed, metrics, data),
            **tags,
        },
        "params": flatten(recipe) | size,
        "data": dict(data or {}),
        "curves": [row for columns in curves.values() for row in curve_rows(columns)],
        "metrics": metrics,
        "files": artifacts,
        "texts": texts,
        "start": end - seconds,
        "end": end,
    }


_MODEL_FILES = {"model": "model/model.safetensors", "tokenizer": "model/tokenizer.json"}


def _final_metrics(record: Mapping[str, Any], seconds: float) -> dict[str, float]:
    metrics: dict[str, float] = {"training_seconds": seconds}
    for name in ("parameters", "tokens_per_second", "sequences_at_once"):
        if name in record:
            metrics[name] = float(record[name])
    losses = record.get("evaluations", {}).get("validation_loss") or []
    if losses:
        nats = float(losses[-1])
        metrics["final_validation_loss"] = nats
        metrics["best_validation_loss"] = float(min(losses))
        if nats < 700:  # beyond that exp overflows
            metrics["perplexity"] = math.exp(nats)
        if record.get("validation_bytes") and record.get("validation_tokens"):
            metrics["bits_per_byte"] = nats / math.log(2) * record["validation_tokens"] / record["validation_bytes"]
    train = record.get("history", {}).get("train_loss") or []
    if train:
        metrics["final_train_loss"] = float(train[-1])
    return metrics


def _model_note(name: str, seed: int, metrics: Mapping[str, float], data: Mapping[str, str] | None) -> str:
    """What MLflow's page of a model says first."""
    parameters = f" of {metrics['parameters']:,.0f} parameters" if "parameters" in metrics else ""
    seconds = metrics["training_seconds"]
    text = f" on {data['name']}" if data else ""
    loss = (
        f"; validation loss {metrics['final_validation_loss']:.4f} nats per token"
        if "final_validation_loss" in metrics
        else ""
    )
    model = f"The recipe `{name}`, seed {seed}: a model{parameters}"
    return f"{model}, trained for {seconds:.{0 if seconds >= 10 else 1}f} s{text}{loss}."


def figure_curves(result: Mapping[str, Any]) -> list[tuple[str, int, float, float]]:
    """Lines over whole numbers in an exercise's figures, as rows of ``curve_rows``: steps, tokens, positions, ….

    A name is of what is measured, as a group of MLflow's charts, and of the series. The first line of a name has it.
    """
    rows: list[tuple[str, int, float, float]] = []
    used: set[str] = set()
    for figure in _figures(result.get("parts", ())):
        for series in figure["series"]:
            x, y = series["x"], series["y"]
            if not all(is_number(value) and value >= 0 and value == int(value) for value in x) or len(x) < 3:
                continue
            name = "/".join(within_a_group(str(part)) for part in (figure["y_label"], series["name"]) if part)
            if len({*x}) < len(x) or name in used:
                continue
            used.add(name)
            rows += [(name, int(a), float(b), 0.0) for a, b in zip(x, y, strict=True) if is_number(b)]
    return rows


def _figures(blocks: Any) -> Iterator[Mapping[str, Any]]:
    """All line charts among parts and blocks, folded ones too."""
    for block in blocks:
        if block.get("type") == "figure" and block.get("kind") in ("line", "step"):
            yield block
        yield from _figures(block.get("blocks", ()))


def exercise_document(
    key: str,
    result: Mapping[str, Any],
    texts: Mapping[str, str],
    tags: Mapping[str, str],
    models: Sequence[str] = (),
) -> Document:
    """An exercise's result; ``models`` are the keys of the steps that trained those it used."""
    end = time.time()
    provenance = result.get("provenance", {})
    checks = result.get("checks", [])
    exact = [check for check in checks if check["kind"] == "exact"]
    metrics: dict[str, Any] = {
        **result.get("metrics", {}),
        "checks_passed": sum(check["passed"] for check in checks),
        "checks_failed": sum(not check["passed"] for check in checks),
        "exact_checks_failed": sum(not check["passed"] for check in exact),
        "seconds": float(provenance.get("seconds", 0.0)),
    }
    summary = str(result.get("summary", ""))
    return {
        "kind": "exercise",
        "key": key,
        "name": f"{result['id']} {result.get('title', '')}".strip(),
        "tags": {
            "kind": "exercise",
            "exercise": result["id"],
            "status": result.get("status", "ok"),
            "mlflow.note.content": summary,
            **tags,
        },
        "params": {"exercise": result["id"], **{f"source.{k}": v for k, v in provenance.get("sources", {}).items()}},
        "curves": figure_curves(result),
        "models": list(models),
        "metrics": metrics,
        "texts": {"result.json": json.dumps(result), **texts},
        "start": end - metrics["seconds"],
        "end": end,
    }


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """Leaves of nested JSON under dotted names; lists stay whole, and what is None is left out."""
    if isinstance(value, Mapping):
        leaves: dict[str, Any] = {}
        for name, item in value.items():
            leaves |= flatten(item, f"{prefix}.{name}" if prefix else str(name))
        return leaves
    if value is None:
        return {}
    return {prefix: json.dumps(value) if isinstance(value, list | tuple) else value}


def curve_rows(columns: Mapping[str, Sequence[float]]) -> list[tuple[str, int, float, float]]:
    """(name, step, value, seconds since the start) of every curve, thinned evenly, first and last point kept."""
    steps = columns["step"]
    seconds = columns.get("seconds") or [0.0] * len(steps)
    last = len(steps) - 1
    every = max(1, math.ceil(len(steps) / CURVE_POINTS))
    kept = [i for i in range(len(steps)) if i % every == 0 or i == last]
    names = [name for name in columns if name not in ("step", "seconds", "tokens")]
    return [(name, int(steps[i]), float(columns[name][i]), float(seconds[i])) for name in names for i in kept]


def named(files: Files) -> dict[str, str]:
    """Artifact name → path."""
    if isinstance(files, Mapping):
        return {name: str(path) for name, path in files.items()}
    return {path.name: str(path) for path in files}


def texts_of(values: Mapping[str, Any]) -> dict[str, str]:
    """Tags or parameters as MLflow takes them."""
    return {allowed_name(name): str(value)[:5_000] for name, value in values.items()}


def is_number(value: Any) -> bool:
    """Whether MLflow can plot it: finite, and no truth value."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
