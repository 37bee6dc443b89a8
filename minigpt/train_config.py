"""How a model is trained: one frozen, validated value, and the learning rate that follows from it."""

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from minigpt.objectives import OBJECTIVES
from minigpt.optimizers import OPTIMIZERS, OptimizerName
from minigpt.precision import PRECISIONS, Precision

Schedule = Literal["cosine", "trapezoid"]
SCHEDULES: tuple[Schedule, ...] = get_args(Schedule)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How a model is trained. The defaults suit character models of up to a few million parameters.

    ``objective`` names a function of ``minigpt.objectives``; ``objective_args`` are its numbers, as pairs so that the
    whole stays hashable. ``threads`` is part of the recipe because sums in another order give other weights.

    Raises:
        ValueError: a field is out of range.
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
    snapshots: Literal["none", "epoch"] = "none"

    def __post_init__(self) -> None:
        for field in ("steps", "batch_size", "threads"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        for field in ("learning_rate", "muon_learning_rate", "weight_decay", "grad_clip"):
            if not 0 <= getattr(self, field) < math.inf:
                raise ValueError(f"{field} must be a finite number from 0 up, got {getattr(self, field)}")
        for field in ("beta1", "beta2"):
            if not 0 <= getattr(self, field) < 1:
                raise ValueError(f"{field} must be in [0, 1), got {getattr(self, field)}")
        if not 0 <= self.min_learning_rate_ratio <= 1:
            raise ValueError(f"min_learning_rate_ratio must be in [0, 1], got {self.min_learning_rate_ratio}")
        if self.warmup_steps is not None and self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must not be negative, got {self.warmup_steps}")
        if self.eval_every is not None and self.eval_every < 1:
            raise ValueError(f"eval_every must be at least 1, got {self.eval_every}")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"no schedule is called {self.schedule!r}: {', '.join(SCHEDULES)}")
        if not 0 < self.warmdown <= 1:
            raise ValueError(f"warmdown must be in (0, 1], got {self.warmdown}")
        if self.budgets and self.schedule != "trapezoid":
            raise ValueError(f"budgets {self.budgets} need schedule='trapezoid': a {self.schedule} ends once")
        if any(not 0 < share < 1 for share in self.budgets):
            raise ValueError(f"budgets are shares of the steps between 0 and 1, got {self.budgets}")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"no objective is called {self.objective!r}: {', '.join(OBJECTIVES)}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"no optimizer is called {self.optimizer!r}: {', '.join(OPTIMIZERS)}")
        if self.precision not in PRECISIONS or self.snapshots not in ("none", "epoch"):
            raise ValueError(f"unknown precision {self.precision!r} or snapshots {self.snapshots!r}")

    def learning_rate_at(self, step: int, budget: int | None = None) -> float:
        """The rate of one update; ``step`` counts from 0, the first.

        A cosine falls from the warm-up's end to the minimum (Loshchilov & Hutter, 2017, equation 5). A trapezoid stays
        until the last ``warmdown`` of the steps and falls in a straight line, the step after the last would be at zero
        (Zhai et al., 2022, "Scaling Vision Transformers", section 3.4; Hägele et al., 2024, section 3). ``budget`` is
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
