"""Computes 21.3: every published model is counted in closed form and built, ours and Transformers', without memory."""

from typing import Any

import torch

from minigpt.config import GPTConfig
from minigpt.cost.published import GPT1, GPT2, GPT3, MODELS, PublishedModel
from minigpt.model import GPT
from tasks.exercise import Context, Exercise
from tasks.exercises.ex03_architectures.arithmetic import (
    LAWS,
    PAIRS,
    STEPS,
    count,
    count_as_printed,
    count_in_old_vocabulary,
    factor_between,
    lambada_drop,
    mix_tokens,
    shares,
    tokens_of,
    training_flops,
)
from tasks.exercises.ex03_architectures.findings import Counted, Findings, Pair, Share


def measure(ctx: Context) -> Findings:
    """All numbers of the answer."""
    counts = {}
    for i, model in enumerate(MODELS):
        ctx.progress(i / len(MODELS), f"building {model.name} without memory")
        counts[model.name] = Counted(
            name=model.name,
            formula=count(model.consistent_config()),
            as_printed=count_as_printed(model),
            in_old_vocabulary=count_in_old_vocabulary(model) if model in GPT2 else None,
            built=instantiated(model.consistent_config()),
            transformers=transformers_count(model) if model in (GPT1, *GPT2) else None,
        )
    return Findings(
        counts=counts,
        shares=tuple(
            Share(law, before.name, after.name, factor, by_size, by_data)
            for law, function in LAWS.items()
            for factor in (0.5, 1.0, 2.0)
            for (before, after), (by_size, by_data) in zip(STEPS, shares(function, factor), strict=True)
        ),
        pairs=tuple(
            Pair(what, before.name, after.name, factor_between(what, before, after), lambada_drop(before, after))
            for what, before, after in PAIRS
        ),
        tokens={family: tokens_of(family) for family in ("GPT-1", "GPT-2", "GPT-3")},
        mix_tokens=mix_tokens(),
        training_flops={model.name: training_flops(model) for model in (GPT1, GPT3[-1])},
    )


def instantiated(config: GPTConfig) -> int:
    """Parameters of a real model of this architecture, built without memory; shared ones count once."""
    with torch.device("meta"):
        return sum(p.numel() for p in GPT(config).parameters())


def transformers_count(model: PublishedModel) -> int:
    """Parameters of the Transformers implementation of a model, built without memory."""
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    shape: dict[str, Any] = {"vocab_size": model.vocab_size, "n_positions": model.context}
    shape |= {"n_embd": model.d_model, "n_layer": model.n_layer, "n_head": model.n_head}
    with torch.device("meta"):
        if model.family == "GPT-1":
            return sum(p.numel() for p in OpenAIGPTLMHeadModel(OpenAIGPTConfig(**shape)).parameters())
        return sum(p.numel() for p in GPT2LMHeadModel(GPT2Config(**shape)).parameters())


EXERCISE = Exercise(
    measure=measure,
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    seconds={"smoke": 4, "laptop": 3, "gpu": 4},
)
