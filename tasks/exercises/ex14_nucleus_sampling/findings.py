"""What 21.14 measures: the five steps on an example, comparisons with two references, nuclei of a model."""

from dataclasses import dataclass
from fractions import Fraction

P = 0.85
TOKENS = ("and", "the", "LORD", "unto", "said", "ark", "of", "seven")  # in vocabulary order, not in that of likelihood
PROBABILITIES = tuple(map(Fraction, ("0.07", "0.40", "0.12", "0.02", "0.24", "0.005", "0.14", "0.005")))
GRID = (0.0, 1e-9, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.99, 0.999, 1.0)


@dataclass(frozen=True)
class Reference:
    """Our filter beside another one, on vectors of one kind over the grid of p."""

    name: str
    logits: str  # the kind of vectors
    comparisons: int
    disagreements: int  # in which other tokens are kept


@dataclass(frozen=True)
class Sizes:
    """Quartiles of the nucleus size over a model's distributions."""

    p: float
    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Findings:
    """All that was measured. Numbers of the example are in vocabulary order, or ranked from the likeliest down."""

    logits: tuple[float, ...]
    ordered: tuple[float, ...]  # logits, ranked
    order: tuple[int, ...]  # tokens, ranked
    cumulative: tuple[float, ...]  # probabilities, ranked
    kept: int
    masked: tuple[float, ...]  # logits, -inf outside the nucleus
    probabilities: tuple[float, ...]  # renormalised
    counts: tuple[int, ...]  # of the samples, by token
    p_value: float
    exact_kept: int  # in rational arithmetic
    exact_difference: float  # of any probability from its rational value
    dropped_mass: float  # of the nucleus without the token that crosses p
    not_scattered: tuple[str, ...]
    references: tuple[Reference, ...]
    per_reference: int  # vectors of each kind
    limits: tuple[int, int]  # vectors where p → 0 leaves one token, where p = 1 leaves all
    vectors: int
    saturated: float  # share of the extreme vectors whose sum is 1 before the last token
    sizes: tuple[Sizes, ...]  # of a model's nuclei, by p
    size_range: tuple[int, int]  # at P
    characters: int
    vocab_size: int
    sources: dict[str, str]  # of the functions, by name

    @property
    def draws(self) -> int:
        """Samples that were tested."""
        return sum(self.counts)

    @property
    def ranked(self) -> tuple[str, ...]:
        """Tokens from the likeliest down."""
        return tuple(TOKENS[i] for i in self.order)

    @property
    def mass(self) -> float:
        """Probability of the nucleus."""
        return self.cumulative[self.kept - 1]

    @property
    def disagreements(self) -> int:
        """With all references."""
        return sum(reference.disagreements for reference in self.references)

    @property
    def comparisons(self) -> int:
        """With all references."""
        return sum(reference.comparisons for reference in self.references)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            "p": P,
            "nucleus_size": self.kept,
            "nucleus_mass": self.mass,
            "mass_without_crossing_token": self.dropped_mass,
            "chi_square_p_value": self.p_value,
            "reference_disagreements": self.disagreements,
            "model_nucleus_size_min": self.size_range[0],
            "model_nucleus_size_max": self.size_range[1],
        }
        for token, probability in zip(TOKENS, self.probabilities, strict=True):
            metrics[f"renormalised_probability_{token.lower()}"] = probability
        for sizes in self.sizes:
            metrics[f"model_nucleus_size_median_p_{sizes.p:g}"] = sizes.median
        return metrics
