"""One recipe and its tokens to one trained model: the step that costs the time.

A pure function of its arguments: no store, no Prefect, no MLflow. Its module is the root of the code digest
in a training's cache key, so it imports no more than training needs.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.files import config_from_json, config_to_json, model_from_state, model_state
from minigpt.model import GPT
from minigpt.train import train
from minigpt.train_config import TrainConfig


def train_recipe(
    recipe: Mapping[str, Any],
    tokens: Mapping[str, Tensor],
    vocab_size: int,
    *,
    device: torch.device,
    teacher: GPT | None = None,
    checkpoint_dir: Path | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Train as ``recipe`` says, a ``Recipe`` as plain JSON; ``tokens`` holds ``train`` and ``validation``, (N,) int64.

    Returns the files (``model``, and ``snapshot-<step>`` for each snapshot, all safetensors) and the data of
    the record: curves, seconds, the final configuration.
    """
    config = replace(GPTConfig(**recipe["model"]), vocab_size=vocab_size)
    result = train(
        config,
        TrainConfig(**as_tuples(recipe["train"])),
        tokens["train"],
        tokens["validation"],
        seed=recipe["seed"],
        device=device,
        teacher=teacher,
        checkpoint_dir=checkpoint_dir,
        progress=progress,
    )
    files = {"model": model_bytes(config, model_state(result.model))}
    files |= {f"snapshot-{step}": model_bytes(config, state) for step, state in result.snapshots.items()}
    data = {
        "recipe": dict(recipe),
        "config": config_to_json(config),
        "parameters": sum(weight.numel() for weight in result.model.parameters()),
        "history": result.history,
        "evaluations": result.evaluations,
        "finished": result.finished,
        "training_seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "snapshots": sorted(result.snapshots),
        "sequences_at_once": result.at_once,
    }
    return files, data


def as_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON's lists as the tuples that frozen configurations hold, at every depth."""

    def convert(value: Any) -> Any:
        return tuple(convert(item) for item in value) if isinstance(value, list | tuple) else value

    return {name: convert(value) for name, value in fields.items()}


def model_bytes(config: GPTConfig, state: Mapping[str, Tensor]) -> bytes:
    """Weights by parameter name as safetensors, with the configuration in the header: equal bytes for equal weights.

    One entry of metadata only: safetensors writes several in an order that changes from call to call.
    """
    return save(dict(state), metadata={"config": json.dumps(config_to_json(config), sort_keys=True)})


def load_model(content: bytes, config: Mapping[str, Any], device: torch.device | str = "cpu") -> GPT:
    """The model that ``model_bytes`` stored, in evaluation mode.

    Raises:
        ValueError: the weights do not fit the configuration.
    """
    return model_from_state(config_from_json(dict(config)), load(content), device)
