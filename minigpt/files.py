"""Models as files: weights in safetensors, configuration in JSON. Loading them can run no code."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor, nn

from minigpt.atomic import write_atomic
from minigpt.config import GPTConfig
from minigpt.model import GPT

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def model_state(model: nn.Module) -> dict[str, Tensor]:
    """All parameters by name, shared ones once, copied to the CPU."""
    return {name: weight.detach().to("cpu", copy=True).contiguous() for name, weight in model.named_parameters()}


def load_state(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put weights from ``model_state`` into a model of the same configuration.

    Raises:
        ValueError: a name is missing or unknown, or a shape or type differs.
    """
    weights = dict(model.named_parameters())
    if set(weights) != set(state):
        raise ValueError(f"the weights do not fit the model: {sorted(set(weights) ^ set(state))[:5]} differ")
    with torch.no_grad():
        for name, weight in weights.items():
            if weight.shape != state[name].shape or not state[name].is_floating_point():
                raise ValueError(f"{name}: expected {tuple(weight.shape)}, got {tuple(state[name].shape)}")
            weight.copy_(state[name])


def config_to_json(config: GPTConfig) -> dict[str, Any]:
    """The fields of a configuration."""
    return dataclasses.asdict(config)


def config_from_json(data: Any) -> GPTConfig:
    """The configuration that ``config_to_json`` described.

    Raises:
        ValueError: unknown or missing fields, or values that are out of range.
    """
    known = {field.name for field in dataclasses.fields(GPTConfig)}
    if not isinstance(data, dict) or set(data) - known:
        raise ValueError(f"not a model configuration: {str(data)[:80]}")
    try:
        return GPTConfig(**data)
    except TypeError as error:
        raise ValueError(f"not a model configuration: {error}") from error


def save_model(model: GPT, directory: Path | str) -> Path:
    """Write ``model.safetensors`` and ``config.json`` into a directory; return it."""
    directory = Path(directory)
    write_atomic(directory / WEIGHTS, dump_tensors(model_state(model), metadata={"format": "pt"}))
    config = json.dumps(config_to_json(model.config), indent=2)
    write_atomic(directory / CONFIG, config.encode() + b"\n")
    return directory


def load_model(directory: Path | str, device: torch.device | str = "cpu") -> GPT:
    """Read what ``save_model`` wrote; in evaluation mode.

    Raises:
        FileNotFoundError: one of the two files is missing.
        ValueError: they are damaged or do not fit each other.
    """
    directory = Path(directory)
    try:
        config = config_from_json(json.loads((directory / CONFIG).read_text(encoding="utf-8")))
        state = load_tensors((directory / WEIGHTS).read_bytes())
    except (SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{directory} holds no readable model: {error}") from error
    return model_from_state(config, state, device)


def model_from_state(config: GPTConfig, state: Mapping[str, Tensor], device: torch.device | str = "cpu") -> GPT:
    """A model with given weights, in evaluation mode. Leaves the random state as it is."""
    model = blank_model(config).to(device)
    load_state(model, state)
    return model.eval()


def blank_model(config: GPTConfig) -> GPT:
    """A model whose weights are to be overwritten, on the CPU.

    Not built on the device "meta": initialising weights there imports PyTorch's compiler, which takes seconds.
    """
    with torch.random.fork_rng(devices=[]):
        return GPT(config)


def reconfigured(model: GPT, **changes: Any) -> GPT:
    """The same weights under a configuration that differs in fields without parameters: window, rope_scale, …

    Raises:
        ValueError: the weights do not fit the new configuration.
    """
    device = next(model.parameters()).device
    return model_from_state(dataclasses.replace(model.config, **changes), model_state(model), device)
