"""The four profiles: the same chapter with other numbers. Nothing else in the project asks which one it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from minigpt.precision import Precision
from tasks.recipes.recipe import FineTune, Recipe, TokenizerName

# From this width on a step in bf16 is faster, where a processor has instructions for it: 0.9 to 1.05 times at width 64,
# 1.1 to 1.3 at 128, 1.5 to 1.9 at 256, 1.7 to 2.1 at 384 (docs/performance.md).
BF16_WIDTH = 128

# Groups of which a profile may say nothing: it then trains them as it does another one, and so but once.
LIKE = {"position-table": "small-long"}


@dataclass(frozen=True)
class Scale:
    """What a profile changes in the recipes of one group.

    ``model`` and ``train`` replace fields of the same name; ``bf16`` replaces fields of ``train`` once more where the
    run computes in bf16: equal time is then another number of steps. ``tokenizer`` takes the place of the recipes' own.
    ``seeds`` are the seeds that are trained; without any the group's recipes are not trained at all.
    """

    model: Mapping[str, Any] = field(default_factory=dict)
    train: Mapping[str, Any] = field(default_factory=dict)
    bf16: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: TokenizerName | None = None
    seeds: tuple[int, ...] = (0,)

    def times(self, factor: float) -> "Scale":
        """``factor`` times the steps, at least one; warm-ups and the steps between evaluations go with them."""

        def longer(train: Mapping[str, Any]) -> dict[str, Any]:
            counts = {name: train[name] for name in ("steps", "warmup_steps", "eval_every") if train.get(name)}
            return {**train, **{name: max(1, round(count * factor)) for name, count in counts.items()}}

        return replace(self, train=longer(self.train), bf16=longer(self.bf16))


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
    base: str = ""  # the profile that it was made from by ``longer``

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
            tokenizer=scale.tokenizer or recipe.tokenizer,
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
        """What the pretrained model computes in where exercises use it; the others are read in fp32, but for 21.10."""
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

        scales = {group: scale.times(budget) for group, scale in self.scales.items()}
        tuning = self.resolve_tuning(FineTune(name="any"))
        tokens = max(2 * tuning.block, round(tuning.train_tokens * budget))
        tuning_fields = {**self.finetune, "train_tokens": tokens}
        return replace(self, scales=scales, finetune=tuning_fields, budget=self.budget * budget)

    def longer(
        self,
        name: str,
        *,
        times: float,
        but: Mapping[str, float],
        seeds: tuple[int, ...],
        once: tuple[str, ...] = (),
        instead: Mapping[str, Scale] = MappingProxyType({}),
        **changes: Any,
    ) -> "Profile":
        """A profile of another name that follows this one: its groups, with ``times`` the steps and more ``seeds``.

        ``but`` has other factors for some groups. Groups keep the seeds that they have if those are more or none, or if
        they are among ``once``. ``instead`` are scales that take the place of others. ``changes`` are fields of the
        profile. What an exercise does not state for the new profile is as here: ``numbers`` and ``seconds``.

        Raises:
            ValueError: a group that this profile does not have.
        """
        if unknown := {*but, *once, *instead} - set(self.scales):
            raise ValueError(f"profile {name}: {self.name} has no groups {', '.join(sorted(unknown))}")
        scales = {
            group: replace(
                scale.times(but.get(group, times)),
                seeds=scale.seeds if group in once or not 0 < len(scale.seeds) < len(seeds) else seeds,
            )
            for group, scale in self.scales.items()
        }
        return replace(self, name=name, base=self.name, scales={**scales, **instead}, **changes)

    def seeds(self, recipe: Recipe) -> tuple[int, ...]:
        """The seeds with which this profile trains a recipe."""
        return self._scale(recipe.group).seeds

    def _scale(self, group: str) -> Scale:
        return self.scales[group if group in self.scales else LIKE.get(group, group)]

    def numbers(self, stated: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
        """An exercise's own numbers here, of what it has ``stated`` by profile.

        Under a profile that follows another one they are that one's, but for those that are stated for this one.

        Raises:
            KeyError: nothing is stated for this profile or the one that it follows.
        """
        return {**stated[self.base], **stated.get(self.name, {})} if self.base else stated[self.name]

    def seconds(self, stated: Mapping[str, float]) -> float:
        """An exercise's expected duration here, of what it has ``stated`` by profile; see ``numbers``."""
        return stated[self.base] if self.base and self.name not in stated else stated[self.name]


SMOKE = Profile(
    name="smoke",
    stand_in=True,
    finetune={"block": 32, "batch_size": 8, "train_tokens": 6_000, "validation_tokens": 1_000},
    train_characters=60_000,
    validation_characters=8_000,
    scales={
        # The book's three sizes keep their depth and give up their width and length.
        "small": Scale(model={"d_model": 32, "context": 64}, train={"steps": 60, "batch_size": 8, "warmup_steps": 6}),
        "medium": Scale(
            model={"d_model": 48, "context": 64},
            train={"steps": 60, "batch_size": 8, "warmup_steps": 6, "budgets": (0.5,)},
        ),
        "large": Scale(
            model={"d_model": 72, "context": 64},
            train={"steps": 60, "batch_size": 8, "warmup_steps": 6, "budgets": (0.5,)},
        ),
        "small-long": Scale(
            model={"d_model": 32, "context": 64},
            train={"steps": 240, "batch_size": 8, "warmup_steps": 6, "budgets": (60 / 240,)},
        ),
        "small-bpe": Scale(
            model={"d_model": 32, "context": 64},
            train={"steps": 60, "batch_size": 8, "warmup_steps": 6},
            tokenizer="bpe-2k",
        ),
        "medium-bpe": Scale(
            model={"d_model": 48, "context": 64}, train={"steps": 60, "batch_size": 8}, tokenizer="bpe-2k", seeds=()
        ),
        "large-bpe": Scale(
            model={"d_model": 72, "context": 64}, train={"steps": 60, "batch_size": 8}, tokenizer="bpe-2k", seeds=()
        ),
        "target": Scale(model={"d_model": 72, "context": 64}, train={"steps": 60, "batch_size": 8}),
        "draft-poor": Scale(
            model={"d_model": 32, "context": 64}, train={"steps": 15, "batch_size": 8, "warmup_steps": 6}
        ),
        "draft-fair": Scale(
            model={"d_model": 32, "context": 64}, train={"steps": 30, "batch_size": 8, "warmup_steps": 6}
        ),
        "timing": Scale(model={"n_layer": 2, "d_model": 64}, train={"steps": 8, "batch_size": 2}),
        "study": Scale(model={"d_model": 32, "context": 32}, train={"steps": 40, "batch_size": 16}),
        "positions": Scale(model={"d_model": 32, "context": 32}, train={"steps": 40, "batch_size": 16}),
        "positions-once": Scale(model={"d_model": 32, "context": 32}, train={"steps": 40, "batch_size": 16}),
        "study-long": Scale(model={"d_model": 32, "context": 64}, train={"steps": 40, "batch_size": 8}),
        "study-mqa-wide": Scale(
            model={"d_model": 32, "context": 32, "d_ff": 152}, train={"steps": 40, "batch_size": 16}
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
    finetune={"block": 128, "batch_size": 4, "train_tokens": 5_120, "validation_tokens": 2_048},
    train_characters=128_000,
    validation_characters=24_000,
    scales={
        # Two passes over the text in bf16; in fp32, which takes twice as long and more, less than one. Learned
        # positions learn what attention is for much sooner with 64 of them than with 128. The long training of small
        # passes the end of the short one on its way, and in bf16 the larger two finish some in about its time on theirs
        # (step times measured alone on one thread).
        "small": Scale(
            model={"context": 64},
            train={"steps": 80, "batch_size": 16, "warmup_steps": 20, "eval_every": 80},
            bf16={"steps": 250, "warmup_steps": 25, "eval_every": 125},
        ),
        "medium": Scale(
            model={"context": 64},
            train={"steps": 80, "batch_size": 16, "warmup_steps": 20, "eval_every": 80, "budgets": (0.8,)},
            bf16={"steps": 250, "warmup_steps": 25, "eval_every": 125, "budgets": (0.6,)},
            seeds=(0, 1),
        ),
        "large": Scale(
            model={"context": 64},
            train={"steps": 80, "batch_size": 16, "warmup_steps": 20, "eval_every": 80, "budgets": (0.25,)},
            bf16={"steps": 250, "warmup_steps": 25, "eval_every": 250, "budgets": (0.16, 0.24)},
            seeds=(0, 1),
        ),
        "small-long": Scale(
            model={"context": 64},
            train={
                "steps": 800,
                "batch_size": 16,
                "warmup_steps": 20,
                "eval_every": 200,
                "budgets": (80 / 800,),
            },
            # Of the small one's warm-up, so that the two are one training until the small one's rate goes down.
            bf16={"steps": 800, "warmup_steps": 25, "eval_every": 200, "budgets": (250 / 800,)},
            seeds=(0, 1),
        ),
        # A vocabulary of this text's own; of the book's 50,257 tokens it has fewer than a sixth.
        "small-bpe": Scale(
            model={"context": 64},
            train={"steps": 250, "batch_size": 16, "warmup_steps": 25, "eval_every": 250},
            bf16={"steps": 500, "warmup_steps": 50},
            tokenizer="bpe-2k",
        ),
        "medium-bpe": Scale(
            tokenizer="bpe-2k", model={"context": 64}, train={"steps": 600, "batch_size": 16}, seeds=()
        ),
        "large-bpe": Scale(tokenizer="bpe-2k", model={"context": 64}, train={"steps": 600, "batch_size": 16}, seeds=()),
        # Fewer passes than LARGE makes are enough to leave the small model behind.
        "target": Scale(
            model={"context": 64},
            train={"steps": 50, "batch_size": 16, "eval_every": 50},
            bf16={"steps": 100, "eval_every": 100},
        ),
        "draft-poor": Scale(
            model={"context": 64}, train={"steps": 40, "batch_size": 16, "warmup_steps": 10, "eval_every": 40}
        ),
        "draft-fair": Scale(
            model={"context": 64}, train={"steps": 150, "batch_size": 16, "warmup_steps": 20, "eval_every": 150}
        ),
        "timing": Scale(train={"steps": 60, "batch_size": 2, "eval_every": 60}),
        "study": Scale(train={"steps": 320, "batch_size": 8, "eval_every": 80}, seeds=(0, 1, 2)),
        "positions": Scale(train={"steps": 640, "batch_size": 8, "eval_every": 160}, seeds=(0, 1, 2)),
        "positions-once": Scale(train={"steps": 640, "batch_size": 8, "eval_every": 160}),  # a side question, one seed
        "study-long": Scale(train={"steps": 320, "batch_size": 2, "eval_every": 80}, seeds=(0, 1, 2)),
        "study-mqa-wide": Scale(train={"steps": 320, "batch_size": 8, "eval_every": 80}, seeds=(0, 1, 2)),
        # Steps for about the time of a study on characters, by step times measured alone on one thread.
        "study-word": Scale(train={"steps": 160, "batch_size": 8, "eval_every": 40}, seeds=(0, 1, 2)),
        "study-bpe": Scale(train={"steps": 48, "batch_size": 2, "eval_every": 24}, seeds=(0, 1, 2)),
        # Three passes over the text and more for the teacher, nearly one for its students; "student-long"
        # takes about the time that a distilled student takes.
        "teacher": Scale(train={"steps": 400, "batch_size": 16, "eval_every": 200}),
        "student": Scale(train={"steps": 120, "batch_size": 16, "eval_every": 40}, seeds=(0, 1, 2)),
        "student-long": Scale(train={"steps": 260, "batch_size": 16, "eval_every": 65}, seeds=(0, 1, 2)),
    },
)

# Two hours on two cores with bf16 instructions (once: 116 minutes), most in trainings: six to eight times laptop's
# steps, nearly five times those of the book's sizes, which have the dearest, on nearly five times the text; and three
# seeds of everything but the teacher, what is only timed, and the book's sizes with GPT-2's vocabulary, where they have
# its numbers of parameters. Those read half a million tokens, more than three times the text.
OVERNIGHT = LAPTOP.longer(
    "overnight",
    times=7.5,
    but={
        "timing": 1,
        **dict.fromkeys(("small", "medium", "large", "small-long"), 4.7),
        **dict.fromkeys(("draft-poor", "draft-fair"), 3),
        **dict.fromkeys(("target", "teacher", "student", "student-long"), 6),
    },
    seeds=(0, 1, 2),
    once=("timing", "teacher", "target"),
    instead={
        f"{size}-bpe": Scale(model={"context": 64}, train={"steps": 1_000, "batch_size": 8, "eval_every": 250})
        for size in ("small", "medium", "large")
    },
    train_characters=600_000,
    validation_characters=48_000,
    finetune={**LAPTOP.finetune, "train_tokens": 30_000, "validation_tokens": 4_096},
)

# Six passes over the text for the book's three sizes, one and a half for the models of the studies (five times
# overnight's tokens), and more where something is looked for late. Meant to take about twelve minutes on one H100, by
# step times that were measured there (docs/deploying.md); whole, it has not been run.
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
        name: Scale(train={"steps": 1_500, "batch_size": 64, "precision": "bf16", "compile": True}, seeds=(0, 1, 2))
        for name in ("small", "study", "study-long", "study-mqa-wide", "student")
    }
    | {
        name: Scale(
            train={"steps": steps, "batch_size": 64, "precision": "bf16", "compile": True, "budgets": (0.5,)},
            seeds=(0, 1, 2),
        )
        for name, steps in (("medium", 1_500), ("large", 1_500), ("small-long", 3_000))
    }
    | {
        "student-long": Scale(
            train={"steps": 3_000, "batch_size": 64, "precision": "bf16", "compile": True}, seeds=(0, 1, 2)
        )
    }
    | {
        # The book's own sizes, with GPT-2's vocabulary: of a million tokens five passes, after which they are learned
        # by heart.
        f"{name}-bpe": Scale(
            train={"steps": 300, "batch_size": 64, "warmup_steps": 30, "precision": "bf16", "compile": True},
            seeds=(0, 1, 2),
        )
        for name in ("small", "medium", "large")
    }
    | {
        f"draft-{name}": Scale(
            train={"steps": steps, "batch_size": 64, "warmup_steps": 20, "precision": "bf16", "compile": True}
        )
        for name, steps in (("poor", 100), ("fair", 400))
    }
    | {
        name: Scale(train={"steps": 3_000, "batch_size": 64, "precision": "bf16", "compile": True}, seeds=(0, 1, 2))
        for name in ("positions", "positions-once")
    }
    | {
        # One seed: what is looked at is the geometry of one table, of 1,024 rows as GPT-2's.
        "position-table": Scale(
            model={"context": 1024}, train={"steps": 4_500, "batch_size": 16, "precision": "bf16", "compile": True}
        ),
        **dict.fromkeys(
            ("teacher", "target"), Scale(train={"steps": 3_000, "batch_size": 64, "precision": "bf16", "compile": True})
        ),
        "study-word": Scale(
            train={"steps": 1_000, "batch_size": 64, "precision": "bf16", "compile": True}, seeds=(0, 1, 2)
        ),
        "study-bpe": Scale(
            train={"steps": 400, "batch_size": 64, "precision": "bf16", "compile": True}, seeds=(0, 1, 2)
        ),
        "timing": Scale(
            model={"n_layer": 12, "n_head": 12, "d_model": 768, "context": 1024},
            train={"steps": 200, "batch_size": 16, "learning_rate": 6e-4, "precision": "bf16"},
        ),
    },
)

PROFILES: Mapping[str, Profile] = {profile.name: profile for profile in (SMOKE, LAPTOP, OVERNIGHT, GPU)}
