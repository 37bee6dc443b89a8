"""What 21.7 computes: two truncations of one distribution, in rational numbers and in floating point."""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

GIVEN = tuple(map(Fraction, ("0.35", "0.20", "0.15", "0.10", "0.08", "0.05", "0.03", "0.02", "0.01", "0.01")))
K, P = 3, Fraction("0.9")

PEAKED = tuple(
    map(Fraction, ("0.96", "0.03", "0.006", "0.002", "0.001", "0.0005", "0.0002", "0.0001", "0.0001", "0.0001"))
)
PEAKED_K, UNLIKELY = 5, Fraction("0.01")
LENGTH = 200  # tokens of a text, for what a small probability per token means in the long run


def nucleus_size(probabilities: Sequence[Fraction], p: Fraction) -> int:
    """Size of the smallest set of likeliest tokens with at least p of the mass, in rational arithmetic."""
    cumulative = accumulate(sorted(probabilities, reverse=True))
    return 1 + next(i for i, mass in enumerate(cumulative) if mass >= p)


def renormalised(probabilities: Sequence[Fraction], kept: int) -> tuple[Fraction, ...]:
    """The first ``kept`` probabilities over their sum, 0 for the rest."""
    mass = sum(probabilities[:kept])
    return tuple(p / mass if i < kept else Fraction(0) for i, p in enumerate(probabilities))


def unlikely_mass() -> Fraction:
    """What top-k leaves to the unlikely tokens of the constructed distribution."""
    kept = renormalised(PEAKED, PEAKED_K)
    return sum((kept[i] for i in range(PEAKED_K) if PEAKED[i] < UNLIKELY), Fraction(0))


SIZE = nucleus_size(GIVEN, P)  # of the nucleus
BOUNDARY = sum(GIVEN[: SIZE - 1], Fraction(0))  # mass of one token less
UNLIKELY_KEPT = sum(p < UNLIKELY for p in PEAKED[:PEAKED_K])


@dataclass(frozen=True)
class Truncation:
    """What is left of the given distribution, and how far it is from the whole."""

    kept: int  # tokens
    total_variation: float
    kl: float  # nats
    entropy: float  # of what is left, nats

    @property
    def mass(self) -> float:
        """Kept."""
        return float(sum(GIVEN[: self.kept]))


@dataclass(frozen=True)
class Warper:
    """A truncation of logits here, beside that of Transformers and beside exact fractions."""

    equals_transformers: bool
    error: float  # largest difference of a probability from exact fractions


@dataclass(frozen=True)
class Rounding:
    """The nucleus in one precision."""

    precision: str
    total: float  # sum of all its tokens but the last
    kept: int  # tokens at P
    kept_at_boundary: int  # tokens at BOUNDARY


@dataclass(frozen=True)
class Findings:
    """All that was computed."""

    entropy: float  # of the given distribution, nats
    effective_support: float  # equally likely tokens with that entropy
    participation_ratio: float
    top_k: Truncation
    nucleus: Truncation
    whole: Truncation  # nothing removed
    top_k_warper: Warper
    nucleus_warper: Warper
    roundings: tuple[Rounding, ...]
    drawn: tuple[float, ...]  # share of each token in draws with top-k from the constructed distribution
    drawn_removed: int  # draws of tokens that top-k had removed
    p_value: float  # of chi-square, draws against the exact distribution

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        given = {"top_k": renormalised(GIVEN, K)[:K], "top_p": renormalised(GIVEN, SIZE)[:SIZE]}
        peaked = {"peaked_top_k": renormalised(PEAKED, PEAKED_K)[:PEAKED_K]}

        def each(kept: dict[str, tuple[Fraction, ...]]) -> dict[str, float]:
            return {f"{key}_probability_token_{i + 1}": float(p) for key, ps in kept.items() for i, p in enumerate(ps)}

        return {
            **each(given),
            "top_k_tokens": K,
            "top_p_tokens": SIZE,
            "top_k_mass_kept": self.top_k.mass,
            "top_p_mass_kept": self.nucleus.mass,
            "entropy_nats": self.entropy,
            "effective_support_tokens": self.effective_support,
            "participation_ratio_tokens": self.participation_ratio,
            "top_k_total_variation": self.top_k.total_variation,
            "top_p_total_variation": self.nucleus.total_variation,
            "top_k_kl_nats": self.top_k.kl,
            "top_p_kl_nats": self.nucleus.kl,
            **each(peaked),
            f"peaked_unlikely_draws_in_{LENGTH}_tokens": LENGTH * float(unlikely_mass()),
            "peaked_top_k_unlikely_tokens": UNLIKELY_KEPT,
            "peaked_top_k_unlikely_mass": float(unlikely_mass()),
            "peaked_top_p_tokens": nucleus_size(PEAKED, P),
        }
