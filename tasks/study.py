"""Measuring trained variants for a comparison; ``tasks.variants`` says what is made of them."""

import copy
import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import nn

from minigpt.evaluation.timing import Timing, measure
from minigpt.objectives import OBJECTIVES
from minigpt.optimizers import make_optimizer
from minigpt.precision import computed_in
from tasks.exercise import Context, TrainedModel
from tasks.recipes.recipe import Recipe
from tasks.variants import LearningCurve, Variant


def variants(context: Context, recipes: Mapping[str, Recipe], *, repeats: int = 21) -> list[Variant]:
    """The trained models of each label's recipe, all seeds of the profile, and the time of their steps.

    For a ``timed`` exercise: the steps are timed here, in turn, and not taken from trainings that ran beside others.
    """
    found = {
        label: tuple(context.model(recipe, seed) for seed in context.seeds(recipe)) for label, recipe in recipes.items()
    }
    steps = {
        label: _training_step(models[0], context, context.generator(f"step of {label}"), recipes[label].teacher)
        for label, models in found.items()
    }
    seconds = measure(steps, repeats=repeats, device=context.device, inference=False)
    return [variant(label, models, seconds[label]) for label, models in found.items()]


def variant(label: str, models: Sequence[TrainedModel], step: Timing) -> Variant:
    """A recipe's trained models, one per seed, and the time of its steps as plain data."""
    recipe = models[0].recipe
    return Variant(
        label=label,
        recipe=recipe.name,
        steps=recipe.train.steps,
        parameters=sum(weight.numel() for weight in models[0].model.parameters()),
        curves=tuple(
            LearningCurve(*_columns(one.evaluations), *_columns(one.finished), one.recipe.seed) for one in models
        ),
        step=step,
        tokens_per_step=recipe.train.batch_size * recipe.model.context,
        train_tokens=models[0].train_tokens,
        baselines=models[0].baselines,
    )


def _columns(curve: Mapping[str, list[float]]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(curve["step"]), tuple(curve["validation_loss"])


def _training_step(
    trained: TrainedModel, context: Context, generator: torch.Generator, teacher: Recipe | None
) -> Callable[[], None]:
    """One step of a copy of the model on random tokens, as its training did it, compilation aside."""
    device = context.device
    model, tc = copy.deepcopy(trained.model).train(), trained.recipe.train
    guide = context.model(teacher).model if teacher else None
    optimizer = make_optimizer(model, tc)
    shape = (tc.batch_size, model.config.context + 1)
    batch = torch.randint(model.config.vocab_size, shape, generator=generator).to(device)

    def step() -> None:
        with computed_in(tc.precision, device):
            loss = OBJECTIVES[tc.objective](
                model, batch, teacher=guide, generator=generator, args=dict(tc.objective_args)
            )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), tc.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
