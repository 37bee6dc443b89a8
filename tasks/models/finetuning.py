"""The run's pretrained model to one trained further: a step of its own, since it takes minutes.

A pure function of its arguments, as ``tasks.models.training`` is. Its module is the root of the code digest in the
step's key.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from minigpt.evaluation.overlap import without_shared_lines
from minigpt.files import load_state, model_state
from minigpt.pretrained.finetune import Wrapped, steps_for
from minigpt.pretrained.limits import context_of
from minigpt.train import TrainConfig, train


def fine_tune(
    recipe: Mapping[str, Any],
    model: Any,
    tokenizer: Any,
    texts: Mapping[str, str],
    *,
    device: torch.device,
    checkpoint_dir: Path | None = None,
    progress: Callable[[float, str], None] | None = None,
) -> tuple[dict[str, bytes], dict[str, Any]]:
    """Train ``model`` further, in place, as ``recipe`` says, a ``FineTune`` as plain JSON.

    Args:
        recipe: budgets beyond what the texts hold are cut down to it.
        model: a causal language model of Transformers.
        tokenizer: its tokenizer.
        texts: ``train`` and ``validation``; lines of the former that stand in the latter are left out.
        device: where to train.
        checkpoint_dir: see ``minigpt.train.train``, as for ``progress``.
        progress: told the fraction done and a note.

    Returns:
        The files (``model``: its weights as safetensors), and the data of the record: curves, seconds, steps.
    """
    texts = {**texts, "train": without_shared_lines(texts["train"], texts["validation"])}
    tokens = {
        split: torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])[: recipe[f"{split}_tokens"]]
        for split, text in texts.items()
    }
    block = min(recipe["block"], context_of(model), len(tokens["train"]) - 1)
    wrapped = Wrapped(model, block, recipe["precision"])
    tc = TrainConfig(
        steps=steps_for(recipe["epochs"], len(tokens["train"]), block, recipe["batch_size"]),
        batch_size=recipe["batch_size"],
        learning_rate=recipe["learning_rate"],
        weight_decay=0.0,  # it would pull the pretrained weights to 0, for the few steps there are
        beta2=0.999,
        precision=recipe["precision"],
        threads=recipe["threads"],
        eval_every=steps_for(1, len(tokens["train"]), block, recipe["batch_size"]),  # once per epoch
    )
    result = train(
        wrapped.config,
        tc,
        tokens["train"],
        tokens["validation"],
        seed=recipe["seed"],
        device=device,
        start=wrapped,
        checkpoint_dir=checkpoint_dir,
        progress=progress,
    )
    state = model_state(model)
    data = {
        "recipe": dict(recipe),
        "parameters": sum(weight.numel() for weight in state.values()),
        "steps": tc.steps,
        "block": block,
        "tokens": {split: len(ids) for split, ids in tokens.items()},
        "validation_tokens": len(tokens["validation"]),
        "validation_bytes": len(tokenizer.decode(tokens["validation"]).encode()),
        "history": result.history,
        "evaluations": result.evaluations,
        "training_seconds": result.seconds,
        "tokens_per_second": result.tokens_per_second,
        "sequences_at_once": result.at_once,
    }
    return {"model": weights_bytes(state)}, data


def weights_bytes(state: Mapping[str, Tensor]) -> bytes:
    """Weights by parameter name as safetensors; equal bytes for equal weights."""
    return save(dict(state))


def load_weights(model: Any, content: bytes) -> Any:
    """Put weights that ``fine_tune`` stored into a model of the same architecture; returns it, in evaluation mode.

    Raises:
        ValueError: they do not fit.
    """
    load_state(model, load(content))
    return model.eval()
