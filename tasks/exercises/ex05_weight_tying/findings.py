"""What 21.5 measures: counts of parameters, likeness of matrices, and a tied and an untied model side by side."""

from dataclasses import dataclass

from minigpt.evaluation.statistics import Comparison, mean_std
from tasks.variants import Variant, comparisons, metrics

VOCABULARY, WIDTH = 50_257, 768
MIB = 2**20


@dataclass(frozen=True)
class Saving:
    """What tying saves in one published architecture."""

    model: str
    vocab_size: int
    d_model: int
    untied: int  # parameters with two matrices, counted on a built model

    @property
    def saved(self) -> int:
        """One matrix."""
        return self.vocab_size * self.d_model

    @property
    def share(self) -> float:
        """Of the untied model."""
        return self.saved / self.untied


@dataclass(frozen=True)
class DirectPath:
    """Logits that the residual stream carries past all blocks, one value per seed."""

    asymmetry: tuple[float, ...]  # ‖A - Aᵀ‖ / ‖A + Aᵀ‖
    bigram_correlation: tuple[float, ...]  # with the log-bigrams of the training text
    itself: tuple[float, ...]  # share of tokens after which the token itself has the largest logit


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    tied: Variant
    untied: Variant
    gpt2_tied: int  # parameters of GPT-2 small, counted on a built model
    gpt2_untied: int
    savings: tuple[Saving, ...]
    likeness: dict[str, tuple[float, ...]]  # two matrices: correlation of their geometries, one per seed
    tied_path: DirectPath
    untied_path: DirectPath
    bigram_asymmetry: float
    vocab_size: int  # of the trained models
    d_model: int
    one_storage: tuple[bool, bool]  # whether the tied and the untied model read and write with one storage

    @property
    def rows(self) -> tuple[Variant, Variant]:
        """The two models; the tied one is the baseline."""
        return self.tied, self.untied

    @property
    def comparison(self) -> Comparison:
        """Untied against tied, at equal steps."""
        return comparisons(self.rows)[0]

    @property
    def saved(self) -> int:
        """Parameters of one matrix of GPT-2 small."""
        return VOCABULARY * WIDTH

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        return {
            "saved_parameters": self.saved,
            "saved_fp32_mib": self.saved * 4 / MIB,
            "saved_fp16_mib": self.saved * 2 / MIB,
            "gpt2_small_parameters_tied": self.gpt2_tied,
            "gpt2_small_parameters_untied": self.gpt2_untied,
            "saved_share_of_untied": self.saved / self.gpt2_untied,
            "shared_matrix_share_of_tied": self.saved / self.gpt2_tied,
            **metrics(self.rows),
            "validation_loss_untied_minus_tied_nats": self.comparison.difference,
            **{f"similarity_{name.replace(' ', '_')}": mean_std(values)[0] for name, values in self.likeness.items()},
            "direct_path_correlation_with_bigrams_tied": mean_std(self.tied_path.bigram_correlation)[0],
            "direct_path_correlation_with_bigrams_untied": mean_std(self.untied_path.bigram_correlation)[0],
            "direct_path_asymmetry_tied": mean_std(self.tied_path.asymmetry)[0],
            "direct_path_asymmetry_untied": mean_std(self.untied_path.asymmetry)[0],
            "bigram_asymmetry": self.bigram_asymmetry,
        }
