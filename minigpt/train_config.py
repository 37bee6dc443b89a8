"""How a model is trained: one frozen, validated value, and the learning rate that follows from it."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from minigpt.checks import flag, named, number, share, whole
from minigpt.objectives import OBJECTIVES, check_args
from minigpt.optimizers import OPTIMIZERS, OptimizerName
from minigpt.precision import PRECISIONS, Precision

Schedule = Literal["cosine", "trapezoid"]
Snapshots = Literal["none", "epoch"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained. The defaults suit character models of up to a few million parameters.

    ``objective`` names a function of ``minigpt.objectives``; ``objective_args`` are its numbers, as pairs so that the
    whole stays hashable. ``threads`` is part of the recipe because sums in another order give other weights.

    Raises:
        ValueError: a field is of another type or out of range, or the objective has no such number.
    """

    steps: int
    batch_size: int = 32  # sequences
    learning_rate: float = 6e-3  # after the warm-up; for a width of 64, wider models want less, about as 1 / width
    min_learning_rate_ratio: float = 0.05  # cosine: at the last step, of learning_rate
    warmup_steps: int | None = None  # None: a tenth of the steps
    schedule: Schedule = "cosine"
    warmdown: float = 0.2  # trapezoid: share of a training in which the rate falls to zero
    budgets: tuple[float, ...] = ()  # trapezoid: shares of the steps at which a finished training is branched off
    optimizer: OptimizerName = "adamw"  # muon: for the matrices in the blocks, AdamW for all others
    muon_learning_rate: float = 0.02  # of those matrices; hardly depends on the width, and follows the same schedule
    weight_decay: float = 0.1  # of matrices only
    beta1: float = 0.9
    beta2: float = 0.99
    grad_clip: float = 1.0  # norm of all gradients together; 0 does not clip
    objective: str = "causal"
    objective_args: tuple[tuple[str, Any], ...] = ()
    precision: Precision = "fp32"  # bf16: of the products, see minigpt.precision; weights stay fp32
    compile: bool = False
    threads: int = 1
    eval_every: int | None = None  # steps; None: an eighth of them
    snapshots: Snapshots = "none"

    def __post_init__(self) -> None:
        for field in ("steps", "batch_size", "threads"):
            whole(field, getattr(self, field), 1)
        for field, least in (("warmup_steps", 0), ("eval_every", 1)):
            if getattr(self, field) is not None:
                whole(field, getattr(self, field), least)
        for field in ("learning_rate", "muon_learning_rate", "weight_decay", "grad_clip"):
            number(field, getattr(self, field), lambda x: x >= 0, "a finite number from 0 up")
        for field in ("beta1", "beta2"):
            number(field, getattr(self, field), lambda x: 0 <= x < 1, "in [0, 1)")
        share("min_learning_rate_ratio", self.min_learning_rate_ratio)
        number("warmdown", self.warmdown, lambda x: 0 < x <= 1, "in (0, 1]")
        flag("compile", self.compile)
        for field, known in (("schedule", SCHEDULES), ("objective", OBJECTIVES), ("optimizer", OPTIMIZERS)):
            named(field, getattr(self, field), known)
        for field, names in (("precision", PRECISIONS), ("snapshots", get_args(Snapshots))):
            if getattr(self, field) not in names:
                raise ValueError(f"unknown {field} {getattr(self, field)!r}: {', '.join(names)}")
        if not isinstance(self.budgets, tuple):
            raise ValueError(f"budgets must be a tuple of shares of the steps, got {self.budgets!r}")
        if self.budgets and self.schedule != "trapezoid":
            raise ValueError(f"budgets {self.budgets} need schedule='trapezoid': a {self.schedule} ends once")
        for budget in self.budgets:
            number("budgets", budget, lambda x: 0 < x < 1, "shares of the steps between 0 and 1")
        check_args(self.objective_args)

    def learning_rate_at(self, step: int, budget: int | None = None) -> float:
        """The rate of one update; ``step`` counts from 0, the first.

        A cosine falls from the warm-up's end to the minimum (Loshchilov & Hutter, 2017, equation 5). A trapezoid stays
        until the last ``warmdown`` of the steps and falls in a straight line, the step after the last would be at zero
        (Zhai et al., 2022, "Scaling Vision Transformers", section 3.5; Hägele et al., 2024, section 3). ``budget`` is
        the length of a training that is branched off a trapezoid; the training's own steps unless given.
        """
        steps = budget or self.steps
        warmup = self.steps // 10 if self.warmup_steps is None else self.warmup_steps
        if self.schedule == "trapezoid":
            up = (step + 1) / warmup if warmup else 1.0
            return self.learning_rate * min(1.0, up, (steps - step) / self.warmdown_steps(steps))
        if step < warmup:
            return self.learning_rate * (step + 1) / warmup
        progress = (step - warmup) / max(1, steps - 1 - warmup)
        low = self.min_learning_rate_ratio
        return self.learning_rate * (low + (1 - low) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress))))

    def warmdown_steps(self, steps: int) -> int:
        """How many of the last steps of a trapezoid of so many have a falling rate."""
        return max(1, round(self.warmdown * steps))

    @property
    def early_budgets(self) -> tuple[int, ...]:
        """Steps of the finished trainings that are branched off, in order."""
        found = {max(1, round(share * self.steps)) for share in self.budgets}
        return tuple(sorted(found - {self.steps}))

    @property
    def updates(self) -> int:
        """All updates of the weights that a training costs, those of the branches with them."""
        return self.steps + sum(map(self.warmdown_steps, self.early_budgets))


@dataclass(frozen=True)
class Shape:
    """What training needs to know of a model that it is given: see ``GPTConfig`` for the fields."""

    vocab_size: int
    context: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        whole("vocab_size", self.vocab_size, 1)
        whole("context", self.context, 1)
        number("dropout", self.dropout, lambda p: 0 <= p <= 1, "in [0, 1]")
