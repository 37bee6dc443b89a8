"""The three profiles: the same chapter with other numbers. Nothing else in the project asks which one it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from minigpt.precision import Precision
from tasks.recipes.recipe import FineTune, Recipe

# From this width on a step in bf16 is faster, where a processor has instructions for it: 0.9 to 1.05 times at width 64,
# 1.1 to 1.3 at 128, 1.5 to 1.9 at 256, 1.7 to 2.1 at 384 (docs/performance.md).
BF16_WIDTH = 128

# Groups of which a profile may say nothing: it then trains them as it does another one, and so but once.
LIKE = {"positions": "small-long"}


@dataclass(frozen=True)
class Scale:
    """What a profile changes in the recipes of one group.

    ``model`` and ``train`` replace fields of the same name; ``bf16`` replaces fields of ``train`` once more where the
    run computes in bf16: equal time is then another number of steps. ``seeds`` are the seeds that are trained.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    bf16: Mapping[str, Any] = field(default_factory=dict)
    seeds: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Profile:
    """One set of budgets. Sizes of the corpus are in characters, taken from its start."""

    name: str
    train_characters: int
    validation_characters: int
    scales: Mapping[str, Scale]
    finetune: Mapping[str, Any] = field(default_factory=dict)  # fields of ``FineTune``
    budget: float = 1.0  # what ``scaled`` has multiplied the steps by
    cuda: bool = False  # its workers have a GPU
    precision: Precision | None = None  # see ``computed_in``; None: as recipes and scales say
    stand_in: bool = False  # a model of this run's own takes the pretrained one's place, unless one is asked for

    def resolve(self, recipe: Recipe) -> Recipe:
        """The recipe as this profile trains it; its teacher too.

        Raises:
            KeyError: the recipe's group has no scale here.
        """
        scale = self._scale(recipe.group)
        model, train = replace(recipe.model, **scale.model), replace(recipe.train, **scale.train)
        precision = self._precision(train.precision, pays=model.d_model >= BF16_WIDTH)
        if precision == "bf16":
            train = replace(train, **scale.bf16)
        return replace(
            recipe,
            model=model,
            train=replace(train, precision=precision),
            teacher=self.resolve(recipe.teacher) if recipe.teacher else None,
        )

    def resolve_tuning(self, tuning: FineTune) -> FineTune:
        """The fine-tuning as this profile does it."""
        tuning = replace(tuning, **self.finetune)
        return replace(tuning, precision=self._precision(tuning.precision, pays=not self.stand_in))

    def computed_in(self, precision: Precision | None) -> "Profile":
        """The same profile in fp32 throughout, in bf16 where a model is large enough to gain by it, or as stated."""
        return replace(self, precision=precision)

    @property
    def pretrained_precision(self) -> Precision:
        """What the pretrained model computes in where exercises use it; models of this chapter are read in fp32."""
        return self._precision("fp32", pays=not self.stand_in)

    def _precision(self, stated: Precision, *, pays: bool) -> Precision:
        if self.precision is None or (self.precision == "bf16" and not pays):
            return stated
        return self.precision

    def scaled(self, budget: float) -> "Profile":
        """The same profile with ``budget`` times the steps of every training, at least one.

        Warm-ups and the steps between evaluations go with them. Fine-tuning keeps its epochs and takes ``budget`` times
        the text, at least one block.
        """
        if budget == 1.0:
            return self

        def times(train: Mapping[str, Any]) -> dict[str, Any]:
            counts = {name: train[name] for name in ("steps", "warmup_steps", "eval_every") if train.get(name)}
            return {**train, **{name: max(1, round(count * budget)) for name, count in counts.items()}}

        scales = {
            group: replace(scale, train=times(scale.train), bf16=times(scale.bf16))
            for group, scale in self.scales.items()
        }
        tuning = self.resolve_tuning(FineTune(name="any"))
        tokens = max(2 * tuning.block, round(tuning.train_tokens * budget))
        tuning_fields = {**self.finetune, "train_tokens": tokens}
        return replace(self, scales=scales, finetune=tuning_fields, budget=self.budget * budget)

    def seeds(self, recipe: Recipe) -> tuple[int, ...]:
        """The seeds with which this profile trains a recipe."""
        return self._scale(recipe.group).seeds

    def _scale(self, group: str) -> Scale:
        return self.scales[group if group in self.scales else LIKE.get(group, group)]


SMOKE = Profile(
    name="smoke",
    stand_in=True,
    finetune={"block": 32, "batch_size": 8, "train_tokens": 6_000, "validation_tokens": 1_000},
    train_characters=60_000,
    validation_characters=8_000,
    scales={
        # The book's three sizes keep their depth and give up their width and length.
        "small": Scale(model={"d_model": 32, "context": 64}, train={"steps": 60, "batch_size": 8}),
        "medium": Scale(model={"d_model": 48, "context": 64}, train={"steps": 60, "batch_size": 8}),
        "large": Scale(model={"d_model": 72, "context": 64}, train={"steps": 60, "batch_size": 8}),
        "small-long": Scale(model={"d_model": 32, "context": 64}, train={"steps": 240, "batch_size": 8}),
        "medium-long": Scale(model={"d_model": 48, "context": 64}, train={"steps": 120, "batch_size": 8}),
        "timing": Scale(model={"n_layer": 2, "d_model": 64}, train={"steps": 8, "batch_size": 2}),
        "study": Scale(model={"d_model": 32, "context": 32}, train={"steps": 40, "batch_size": 16}),
        "study-once": Scale(model={"d_model": 32, "context": 32}, train={"steps": 40, "batch_size": 16}),
        "study-mqa-wide": Scale(
            model={"d_model": 32, "context": 32, "d_ff": 152}, train={"steps": 40, "batch_size": 16}
        ),
        # Twins with and without warm-up, for where the norm stands.
        "deep-warm": Scale(
            model={"d_model": 32, "context": 32}, train={"steps": 20, "batch_size": 8, "warmup_steps": 4}
        ),
        "deep-cold": Scale(
            model={"d_model": 32, "context": 32}, train={"steps": 20, "batch_size": 8, "warmup_steps": 0}
        ),
        # Other tokenizers, for about the time of a study on characters: a large vocabulary makes dear steps.
        "study-word": Scale(model={"d_model": 32, "context": 32}, train={"steps": 40, "batch_size": 8}),
        "study-bpe": Scale(model={"d_model": 32, "context": 32}, train={"steps": 8, "batch_size": 2, "eval_every": 4}),
        # The teacher and its students; "student-long" takes the time that a distilled student takes.
        "teacher": Scale(model={"d_model": 48, "context": 32}, train={"steps": 60, "batch_size": 16}),
        "student": Scale(model={"d_model": 32, "context": 32}, train={"steps": 40, "batch_size": 8}),
        "student-long": Scale(model={"d_model": 32, "context": 32}, train={"steps": 70, "batch_size": 8}),
    },
)

LAPTOP = Profile(
    name="laptop",
    # 135 M parameters learn from 65 tokens a second on a core.
    finetune={"block": 128, "batch_size": 4, "train_tokens": 10_000, "validation_tokens": 2_048},
    train_characters=300_000,
    validation_characters=32_000,
    scales={
        # 512 characters a step: at these budgets more steps are worth more than larger ones; and learned positions
        # learn what attention is for much sooner with 64 of them than with 128. The two long trainings have the
        # steps that fit into large's time by the step times measured alone on one thread.
        "small": Scale(model={"context": 64}, train={"steps": 250, "batch_size": 8, "eval_every": 50}),
        "medium": Scale(model={"context": 64}, train={"steps": 250, "batch_size": 8, "eval_every": 50}),
        "large": Scale(model={"context": 64}, train={"steps": 250, "batch_size": 8, "eval_every": 50}),
        "small-long": Scale(model={"context": 64}, train={"steps": 4_250, "batch_size": 8}, bf16={"steps": 3_050}),
        "medium-long": Scale(
            model={"context": 64},
            train={"steps": 800, "batch_size": 8, "eval_every": 160},
            bf16={"steps": 690, "eval_every": 138},
        ),
        "timing": Scale(train={"steps": 60, "batch_size": 2, "eval_every": 60}),
        "study": Scale(train={"steps": 500, "batch_size": 8, "eval_every": 100}, seeds=(0, 1, 2)),
        "study-once": Scale(train={"steps": 500, "batch_size": 8, "eval_every": 100}),  # side questions, one seed
        "study-mqa-wide": Scale(train={"steps": 500, "batch_size": 8, "eval_every": 100}, seeds=(0, 1, 2)),
        "deep-warm": Scale(
            train={"steps": 100, "batch_size": 16, "warmup_steps": 20, "eval_every": 25}, seeds=(0, 1, 2)
        ),
        "deep-cold": Scale(
            train={"steps": 100, "batch_size": 16, "warmup_steps": 0, "eval_every": 25}, seeds=(0, 1, 2)
        ),
        # Steps for about the time of a study on characters, by step times measured alone on one thread.
        "study-word": Scale(train={"steps": 250, "batch_size": 8, "eval_every": 50}, seeds=(0, 1, 2)),
        "study-bpe": Scale(train={"steps": 60, "batch_size": 2, "eval_every": 30}, seeds=(0, 1, 2)),
        "teacher": Scale(train={"steps": 500, "batch_size": 16, "eval_every": 100}),
        "student": Scale(train={"steps": 500, "batch_size": 8, "eval_every": 100}, seeds=(0, 1, 2)),
        "student-long": Scale(train={"steps": 960, "batch_size": 8, "eval_every": 120}, seeds=(0, 1, 2)),
    },
)

GPU = Profile(
    name="gpu",
    cuda=True,
    finetune={
        "block": 512,
        "batch_size": 16,
        "train_tokens": 1_000_000,
        "validation_tokens": 32_768,
        "precision": "bf16",
    },
    train_characters=3_700_000,
    validation_characters=200_000,
    scales={
        name: Scale(
            train={"steps": 3_000, "batch_size": 64, "precision": "bf16", "compile": True},
            seeds=(0, 1, 2),
        )
        for name in ("small", "medium", "large", "study", "study-once", "study-mqa-wide", "student")
    }
    | {
        f"{name}-long": Scale(
            train={"steps": steps, "batch_size": 64, "precision": "bf16", "compile": True}, seeds=(0, 1, 2)
        )
        for name, steps in (("small", 9_000), ("medium", 4_500), ("student", 6_000))
    }
    | {
        # One seed: what is looked at is the geometry of one table, of 1,024 rows as GPT-2's.
        "positions": Scale(
            model={"context": 1024}, train={"steps": 9_000, "batch_size": 16, "precision": "bf16", "compile": True}
        ),
        "teacher": Scale(train={"steps": 3_000, "batch_size": 64, "precision": "bf16", "compile": True}),
        "study-word": Scale(
            train={"steps": 2_000, "batch_size": 64, "precision": "bf16", "compile": True}, seeds=(0, 1, 2)
        ),
        "study-bpe": Scale(
            train={"steps": 800, "batch_size": 64, "precision": "bf16", "compile": True}, seeds=(0, 1, 2)
        ),
        "timing": Scale(
            model={"n_layer": 12, "n_head": 12, "d_model": 768, "context": 1024},
            train={"steps": 200, "batch_size": 16, "learning_rate": 6e-4, "precision": "bf16"},
        ),
    }
    | {
        f"deep-{name}": Scale(
            train={"steps": 1_000, "batch_size": 64, "warmup_steps": warmup, "precision": "bf16", "compile": True},
            seeds=(0, 1, 2),
        )
        for name, warmup in (("warm", 200), ("cold", 0))
    },
)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (SMOKE, LAPTOP, GPU)}
