"""What an exercise is, and what it is given. An exercise's ``experiment.py`` imports this, ``minigpt`` and recipes.

    EXERCISE = Exercise(
        measure=measure,          # Context -> Findings
        recipes=(SMALL, MEDIUM, LARGE),
        numbers={"smoke": {"samples": 1}, "laptop": {"samples": 3}, "gpu": {"samples": 5}},
        seconds={"smoke": 3, "laptop": 40, "gpu": 60},
    )

It stands in ``tasks/exercises/exNN_slug/``, whose name says which exercise it is; what is said of the findings is made
by ``tasks.answers``. The context is all that ``measure`` may use: no files, no network, no clock beside ``timed``
exercises.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:  # an exercise's cache key follows its imports: this module must not add any
    import torch
    from torch import Tensor

    from minigpt.evaluation.ngrams import Baselines
    from minigpt.model import GPT
    from minigpt.precision import Precision
    from minigpt.tokenizers import Tokenizer
    from tasks.recipes.recipe import FineTune, Recipe

Source = Literal["main", "domain", "code", "pretrained", "bpe"]
Split = Literal["train", "validation"]


@dataclass(frozen=True)
class TrainedModel:
    """A model as an exercise receives it: in evaluation mode, on the context's device."""

    recipe: Recipe  # resolved: sizes, steps and seed are final; the vocabulary is the tokenizer's
    model: GPT
    tokenizer: Tokenizer
    history: Mapping[str, list[float]]  # curves: "step", "tokens", "train_loss", "seconds"; see minigpt.train
    evaluations: Mapping[str, list[float]]  # "step", "tokens", "validation_loss", "seconds"
    finished: Mapping[str, list[float]]  # the same of the trainings that came to their end; see minigpt.train
    seconds: float  # of training alone, evaluation not included
    tokens_per_second: float
    train_tokens: int  # in the text; steps × batch × context over it are the epochs
    baselines: Baselines  # what n-grams reach on the same tokens: who is not below the bigram has no opinion
    snapshot_steps: tuple[int, ...]
    load_snapshot: Callable[[int], GPT]  # the model as it was after that many steps


@dataclass(frozen=True)
class Pretrained:
    """The pretrained model of the source bundle, or its stand-in."""

    name: str  # as shown to readers: "openai-community/gpt2", "SmolLM2-135M-Instruct (4-bit, dequantised)", …
    model: Any  # a transformers PreTrainedModel in evaluation mode, eager attention, fp32
    tokenizer: Any  # a transformers tokenizer
    is_stand_in: bool  # True: trained by this project because no real one can be had
    note: str  # a sentence for the report: what it is and what it cannot answer; "" for GPT-2 itself


@dataclass(frozen=True)
class FineTuned:
    """The pretrained model after training further, with its curves; see ``TrainedModel``."""

    recipe: FineTune  # resolved
    pretrained: Pretrained  # its weights are the new ones
    steps: int
    block: int  # tokens in a sequence
    tokens: Mapping[str, int]  # of the text, per split
    history: Mapping[str, list[float]]
    evaluations: Mapping[str, list[float]]
    seconds: float
    tokens_per_second: float


class Context(Protocol):
    """What an exercise sees of the world."""

    profile: str  # for the provenance and for captions only: never branch on it
    numbers: Mapping[str, Any]  # the exercise's own numbers at this profile
    device: torch.device
    precision: Precision  # in which the pretrained model computes: see ``minigpt.precision``

    def seeds(self, recipe: Recipe) -> tuple[int, ...]:
        """The seeds with which this profile trains a recipe."""

    def model(self, recipe: Recipe, seed: int | None = None) -> TrainedModel:
        """A trained model, of the profile's first seed unless one is given; one of the exercise's ``recipes``."""

    def text(self, split: Split = "validation", corpus: Source = "main") -> str:
        """Text of one split of a corpus. The splits are disjoint, contiguous pieces."""

    def tokens(self, recipe: Recipe, split: Split = "validation") -> Tensor:
        """The recipe's corpus under its tokenizer, (N,) int64 on the device."""

    def pretrained(self) -> Pretrained:
        """The pretrained model; the exercise must list ``"pretrained"`` among its ``sources``."""

    def finetuned(self, recipe: FineTune) -> FineTuned:
        """The pretrained model after a fine-tuning that is among the exercise's ``finetunes``."""

    def bpe(self) -> Tokenizer:
        """GPT-2's byte-pair tokenizer with its 50,257 tokens; the exercise must list ``"bpe"``."""

    def generator(self, salt: str = "") -> torch.Generator:
        """A CPU generator seeded from the exercise's id and ``salt``."""

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """A part of a long exercise as plain JSON, kept on disk until the exercise ends.

        An exercise that was killed finds the parts that it had finished, a timed one those that were done ahead.
        ``name`` is unique within the exercise.
        """

    def progress(self, fraction: float, note: str = "") -> None:
        """Tell the reader how far the step is, from 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class Exercise:
    """One exercise of the chapter. ``numbers`` holds its budgets, one mapping per profile."""

    measure: Callable[[Context], Any]  # returns the Findings of the folder's findings.py
    recipes: tuple[Recipe, ...] = ()
    sources: tuple[Source, ...] = ()
    finetunes: tuple[FineTune, ...] = ()
    numbers: Mapping[str, Mapping[str, Any]]
    timed: bool = False  # measures wall-clock: runs alone, and its key holds the hardware
    seconds: Mapping[str, float]  # expected duration per profile on two cores; trainings and ``ahead`` not included
    # Of a timed exercise: finds, beside other steps, the parts that need no quiet machine, each with ``Context.once``.
    # ``measure`` asks for the same parts, and finds those itself that nobody has found ahead.
    ahead: Callable[[Context], object] | None = None
    seconds_ahead: Mapping[str, float] = field(default_factory=dict)  # likewise
    version: int = 1

    def __post_init__(self) -> None:
        if self.ahead and not self.timed:
            raise ValueError(f"exercise {self.id}: ahead is for timed exercises; others run beside others anyway")
        if self.ahead and self.seconds_ahead.keys() != self.seconds.keys():
            raise ValueError(f"exercise {self.id}: seconds_ahead must name the profiles of seconds")

    @property
    def id(self) -> str:
        """The id as the chapter writes it, "21.22": said by the folder in which ``measure`` stands."""
        folder = self.measure.__module__.split(".")[-2]
        return f"21.{int(folder[2:4])}"
