"""A recipe says everything about a trained model, so that its weights are a function of it.

Recipes are frozen values derived from one another with ``replace``; the catalogue names them. What a
profile changes (steps, widths, seeds) is applied by ``Profile.resolve`` before anything is trained.
"""

from dataclasses import dataclass, replace
from typing import Literal

from minigpt.config import GPTConfig
from minigpt.precision import Precision
from minigpt.train import TrainConfig

# "bpe" is GPT-2's vocabulary of 50,257 tokens, "bpe-2k" one of 2,048 that is trained on the corpus.
TokenizerName = Literal["char", "word", "bpe", "bpe-2k"]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One trained model.

    ``group`` is the key under which a profile scales it: the book's own sizes, the small studies of variants, …
    ``teacher`` is the recipe that a student learns from; it is trained first.
    """

    name: str  # lower-case words joined by "-", unique in the catalogue
    group: str
    model: GPTConfig
    train: TrainConfig
    corpus: Literal["main", "domain", "code"] = "main"
    tokenizer: TokenizerName = "char"
    seed: int = 0
    teacher: "Recipe | None" = None

    def with_seed(self, seed: int) -> "Recipe":
        """The same recipe with other random numbers; the teacher stays as it is."""
        return replace(self, seed=seed)


@dataclass(frozen=True, kw_only=True)
class FineTune:
    """The run's pretrained model, trained further. Budgets are in tokens of that model, taken from the text's start."""

    name: str  # as of a recipe, and unique among recipes, too
    corpus: Literal["main", "domain", "code"] = "domain"
    epochs: int = 3
    learning_rate: float = 5e-5  # after a warm-up over a tenth of the steps, then a cosine
    block: int = 128  # tokens in a sequence; fewer if the model's context is shorter
    batch_size: int = 8  # sequences
    train_tokens: int = 20_000
    validation_tokens: int = 2_048
    precision: Precision = "fp32"
    threads: int = 1
    seed: int = 0
