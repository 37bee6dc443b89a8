"""Records as steps of each kind leave them, with next to nothing in them."""

import json
from typing import Any

from tasks.cache.keys import Step
from tasks.cache.results import RecordSerializer, RecordStorage
from tasks.cache.store import Store, as_record

CURVES: Any = {"evaluations": {"tokens": [0, 64], "validation_loss": [3.0, 2.5]}, "history": {"train_loss": [2.75]}}
MODEL: Any = {"recipe": {}, "parameters": 10, "training_seconds": 1.0, "tokens_per_second": 64.0, **CURVES}
KINDS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "text": (("train", "validation"), {}),
    "tokens": (("tokenizer", "tokens"), {"vocab_size": 3, "tokens": {"train": 64}, "bytes": {"train": 64}}),
    "baselines": (("baselines",), {}),
    "train": (("model", "tokenizer"), {**MODEL, "config": {}, "finished": {}, "snapshots": []}),
    "finetune": (("model",), {**MODEL, "steps": 1, "block": 8, "tokens": {"train": 64}}),
    "exercise": (("findings",), {"provenance": {"profile": "smoke"}}),
}


def record_of(store: Store, kind: str, key: str, content: bytes = b"content") -> dict[str, Any]:
    """What a step of a kind returns; all its files have the same content."""
    files, data = KINDS[kind]
    return as_record(key, {name: store.put(content) for name in files}, {"seconds": 1.0, **data})


def kept(store: Store, record: dict[str, Any]) -> None:
    """Keep a record as Prefect does, in the place of the one that is there."""
    store.delete(f"records/{record['key']}")
    metadata = {"serializer": {"type": "chapter-record", "url": store.url}, "storage_key": record["key"]}
    body = {"metadata": metadata, "result": RecordSerializer(url=store.url).dumps(record).decode()}
    RecordStorage(url=store.url).write_path(record["key"], json.dumps(body).encode())


def persist_step(store: Store, step: Step, content: bytes) -> None:
    """The record of a step that is done."""
    kept(store, record_of(store, step.kind, step.key, content))
