"""Trained models as directories: for ``minigpt``, and for ``transformers`` where the architecture is GPT-2's."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from flows.execution.nodes import Node
from flows.surroundings import keep_prefect_in
from minigpt.atomic import write_atomic
from minigpt.files import config_from_json, save_model
from minigpt.pretrained.export import why_not_gpt2
from tasks.cache.store import Artifact
from tasks.context import load_tokenizer
from tasks.models.finetuning import load_weights
from tasks.models.stand_in import save_for_transformers, save_pretrained
from tasks.models.training import load_model
from tasks.place import Place


def exported(node: Node, records: Mapping[str, Any], place: Place) -> tuple[Path, str]:
    """A directory with the model of a node, and what loads it. Written once, under the weights' digest."""
    record, store = records[node.name], place.open_store()
    artifacts = {name: Artifact(**artifact) for name, artifact in record["artifacts"].items()}
    folder = Path(place.outputs) / "models" / artifacts["model"].sha256[:16]
    if node.kind == "finetune":
        if not folder.exists():
            keep_prefect_in(Path(place.outputs) / "prefect")
            from tasks.job import Job, load_pretrained  # with Prefect, which the other models can do without

            job = Job(node.step(records), node.local, place, progress=lambda *_: None)
            base = load_pretrained(job, torch.device("cpu"))
            load_weights(base.model, store.fetch_bytes(artifacts["model"]))
            save_pretrained(base, folder)
        return folder, "transformers"
    config = config_from_json(record["data"]["config"])
    tokenizer_json = store.fetch_bytes(artifacts["tokenizer"])
    tokenizer = load_tokenizer(tokenizer_json)
    for_transformers = why_not_gpt2(config) is None and tokenizer.name != "word"
    loaders = "transformers, minigpt" if for_transformers else "minigpt"
    if not (folder / "minigpt" / "tokenizer.json").exists():
        model = load_model(store.fetch_bytes(artifacts["model"]), record["data"]["config"])
        if for_transformers:
            save_for_transformers(model, tokenizer, folder)
        save_model(model, folder / "minigpt")
        write_atomic(folder / "minigpt" / "tokenizer.json", tokenizer_json)  # the last file: it says that all are whole
    return (folder if for_transformers else folder / "minigpt"), loaders
