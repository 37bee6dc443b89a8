"""Comparing trained variants: the same numbers, table, curves and sentences wherever an exercise does it.

A comparison is made twice: after equal steps (every model has read the same tokens in the same order) and at equal
time, which is steps × step time and never the clock of a training that ran beside others.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from minigpt.evaluation.statistics import Comparison, compare, describe, mean_std
from minigpt.evaluation.timing import Timing, measure
from minigpt.objectives import OBJECTIVES
from minigpt.train import make_optimizer
from reports.types import Figure, Series, Table
from tasks.exercise import Context, TrainedModel
from tasks.recipes.recipe import Recipe


@dataclass(frozen=True)
class Variant:
    """One recipe with all its seeds."""

    label: str  # as readers see it
    models: tuple[TrainedModel, ...]
    step: Timing  # of one training step, measured alone

    @property
    def key(self) -> str:
        """The recipe's name as part of a metric's name."""
        return self.models[0].recipe.name.replace("-", "_")

    @property
    def losses(self) -> tuple[float, ...]:
        """Loss over the whole validation split after the last step, nats per token, one per seed."""
        return tuple(model.evaluations["validation_loss"][-1] for model in self.models)

    @property
    def parameters(self) -> int:
        """Parameters, shared ones counted once."""
        return sum(weight.numel() for weight in self.models[0].model.parameters())

    @property
    def steps(self) -> int:
        """Steps of the training."""
        return self.models[0].recipe.train.steps

    @property
    def step_seconds(self) -> float:
        """Seconds of one training step."""
        return self.step.median

    def losses_after(self, step: float) -> tuple[float, ...]:
        """Validation loss after a number of steps, interpolated between evaluations, one per seed."""
        return tuple(
            float(np.interp(step, model.evaluations["step"], model.evaluations["validation_loss"]))
            for model in self.models
        )


def variants(context: Context, recipes: Mapping[str, Recipe], *, repeats: int = 7) -> list[Variant]:
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
    return [Variant(label, models, seconds[label]) for label, models in found.items()]


def _training_step(
    trained: TrainedModel, context: Context, generator: torch.Generator, teacher: Recipe | None
) -> Callable[[], None]:
    """One step of a copy of the model on random tokens, as its training did it, compilation aside."""
    device = context.device
    model, tc = copy.deepcopy(trained.model).train(), trained.recipe.train
    guide = context.model(teacher).model if teacher else None
    optimizer = make_optimizer(model, tc, device)
    shape = (tc.batch_size, model.config.context + 1)
    batch = torch.randint(model.config.vocab_size, shape, generator=generator).to(device)

    def step() -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=tc.precision == "bf16"):
            loss = OBJECTIVES[tc.objective](
                model, batch, teacher=guide, generator=generator, args=dict(tc.objective_args)
            )
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), tc.grad_clip or math.inf)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def at_equal_time(rows: Sequence[Variant]) -> list[tuple[float, ...]]:
    """Losses of each variant at the moment when the first of them had done all its steps, one tuple per variant."""
    budget = min(row.steps * row.step_seconds for row in rows)
    return [row.losses_after(budget / row.step_seconds) for row in rows]


def table(rows: Sequence[Variant], *, name: str, caption: str = "") -> Table:
    """All variants beside the first, which is the baseline."""
    cells = []
    for row, timed in zip(rows, at_equal_time(rows), strict=True):
        several = len(row.models) > 1
        (loss, spread), (late, late_spread) = mean_std(row.losses), mean_std(timed)
        against = None if row is rows[0] else compare(rows[0].losses, row.losses)
        cells.append(
            (
                row.label,
                row.parameters,
                loss,
                spread if several else None,
                against.difference if against else None,
                against.verdict if against else "baseline",
                row.step_seconds * 1000,
                late,
                late_spread if several else None,
            )
        )
    columns = (
        "variant",
        "parameters",
        "loss",
        "± std",
        "difference",
        "verdict",
        "step (ms)",
        "at equal time",
        "± std (time)",
    )
    seeds = " and ".join(map(str, sorted({len(row.models) for row in rows}, reverse=True)))
    note = (
        f"Loss on the whole validation split in nats per token, {seeds} seed{'' if seeds == '1' else 's'}. The verdict "
        "is Welch's 95% interval for the difference from the first row. Steps are timed alone, in turn; equal time is "
        "step time × steps, read off the learning curves, so that the slower ones are caught before the end of their "
        "schedule."
    )
    return Table(columns, tuple(cells), f"{caption} {note}".strip(), name)


def curves(rows: Sequence[Variant], *, caption: str = "") -> Figure:
    """Validation loss over steps, mean ± standard deviation over seeds."""
    series = []
    for row in rows:
        steps = tuple(float(step) for step in row.models[0].evaluations["step"][1:])  # all start at ln V
        points = [mean_std(row.losses_after(step)) for step in steps]
        error = tuple(spread for _, spread in points) if len(row.models) > 1 else ()
        series.append(Series(row.label, steps, tuple(mean for mean, _ in points), error))
    return Figure("line", tuple(series), "training step", "validation loss (nats/token)", caption)


def comparisons(rows: Sequence[Variant]) -> list[Comparison]:
    """Each variant after the first against the first, at equal steps."""
    return [compare(rows[0].losses, row.losses) for row in rows[1:]]


def sentences(rows: Sequence[Variant]) -> str:
    """What the data allow to say of each variant against the first, at equal steps and at equal time.

    Equal time is spoken of where it turns the verdict, and only if the step times differ by more than they vary.
    """
    said = [describe(found, row.label, rows[0].label) for row, found in zip(rows[1:], comparisons(rows), strict=True)]
    base, *timed = at_equal_time(rows)
    for row, losses, before in zip(rows[1:], timed, comparisons(rows), strict=True):
        after = compare(base, losses)
        distinct = row.step.low > rows[0].step.high or row.step.high < rows[0].step.low
        if after.verdict != before.verdict and distinct:
            said.append("At equal time: " + describe(after, row.label, rows[0].label))
    return " ".join(said)


def metrics(rows: Sequence[Variant]) -> dict[str, float | int]:
    """Numbers of the table by name."""
    found: dict[str, float | int] = {}
    for row, timed in zip(rows, at_equal_time(rows), strict=True):
        found[f"parameters_{row.key}"] = row.parameters
        found[f"step_ms_{row.key}"] = row.step_seconds * 1000
        for suffix, losses in (("", row.losses), ("_equal_time", timed)):
            mean, spread = mean_std(losses)
            found[f"validation_loss_nats_{row.key}{suffix}"] = mean
            if len(losses) > 1:
                found[f"validation_loss_nats_{row.key}{suffix}_std"] = spread
    return found
