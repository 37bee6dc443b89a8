"""What 21.25 measures: the rotation, what it gives the attention, and how far trained models read with it."""

from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.evaluation.statistics import Comparison, compare, compare_paired, holm, mean_std
from tasks.variants import LearningCurve, Variant, comparisons, metrics

D = 16  # head width of the demonstrations, that of the trained models at their full width
TOLERATED = 0.1  # nats


@dataclass(frozen=True)
class Rotation:
    """The rotation by itself."""

    positions: int  # at which it was compared
    from_matrix: float  # largest difference from multiplication by the rotation matrix
    from_llama: float  # largest difference from Transformers' Llama
    from_orthogonal: float  # largest entry of |R Rᵀ − 1|
    code: str  # our implementation
    turned: dict[int, tuple[tuple[float, ...], tuple[float, ...]]]  # pair → its two numbers, by position
    cosines: tuple[tuple[float, ...], ...]  # one row per pair, by position of the training


@dataclass(frozen=True)
class CacheTrap:
    """Reading one token at a time, with the right positions and with positions that restart at 0."""

    tokens: int
    right: float  # largest difference of the logits from reading at once
    wrong: float
    nats: float  # loss of reading at once, per token
    wrong_nats: float


@dataclass(frozen=True)
class Attention:
    """What the rotation gives the attention."""

    distances: tuple[int, ...]
    scores: dict[int, tuple[float, ...]]  # place of the key → q·k at the distances
    spread: float  # of the scores at one distance, the largest
    additive_distance: int
    additive_spread: float  # the same with sinusoids added to the vectors, at that distance
    from_llama: float  # largest difference of a Llama with our attention in place of its own
    code: str  # our implementation
    trap: CacheTrap


@dataclass(frozen=True)
class Extrapolation:
    """Losses by bucket of positions: label → the buckets of each seed."""

    bucket: int
    context: int
    length: int
    losses: dict[str, tuple[tuple[float, ...], ...]]
    refusal: str  # what the model with learned positions says

    @property
    def edges(self) -> list[tuple[int, int]]:
        """First and last position of each bucket, counted from 1."""
        return [(first + 1, first + self.bucket) for first in range(0, self.length, self.bucket)]

    def at(self, label: str, bucket: int) -> list[float]:
        """One bucket's losses, over the seeds."""
        return [seed[bucket] for seed in self.losses[label]]

    @property
    def last_inside(self) -> int:
        """The last bucket that training has seen."""
        return self.context // self.bucket - 1

    @property
    def last(self) -> int:
        """The last bucket."""
        return len(self.edges) - 1

    def mean(self, label: str, bucket: int) -> float:
        """One bucket's loss, mean over the seeds."""
        return mean_std(self.at(label, bucket))[0]

    @property
    def beyond(self) -> Comparison:
        """Plain RoPE in the last bucket against itself started again, at positions that training has seen.

        Of the same tokens: two buckets have different ones, and how those differ no seed can show.
        """
        return compare_paired(self.at("RoPE, restarted", self.last), self.at("RoPE", self.last))

    def inside_beats(self, bigram: float) -> bool:
        """Whether every RoPE model does at positions that training has seen."""
        return all(mean_std(seed)[0] < bigram for seed in self.losses["RoPE, restarted"])

    @property
    def remedies(self) -> dict[str, Comparison]:
        """Every other reading against plain RoPE in the last bucket, corrected for their number.

        Readings of the same models are pairs; models of fewer seeds are no pairs of its models.
        """
        others = [label for label in self.losses if label != "RoPE"]
        own = self.at("RoPE", self.last)
        found = [
            (compare_paired if len(self.losses[label]) == len(own) else compare)(own, self.at(label, self.last))
            for label in others
        ]
        return dict(zip(others, holm(found), strict=True))

    @property
    def read_on(self) -> dict[str, Comparison]:
        """The changed readings against starting again, at all positions beyond training, corrected for their number."""

        def beyond(label: str) -> list[float]:
            return [mean_std(seed[self.last_inside + 1 :])[0] for seed in self.losses[label]]

        found = [compare_paired(beyond("RoPE, restarted"), beyond(label)) for label in self.changed]
        return dict(zip(self.changed, holm(found), strict=True))

    @property
    def changed(self) -> list[str]:
        """The changed readings of the RoPE model, which do not start again."""
        return [label for label in self.losses if label.startswith("RoPE, ") and label != "RoPE, restarted"]

    def good_until(self, label: str) -> int:
        """The last position up to which no bucket costs more than TOLERATED above the restarted RoPE model's."""
        until = 0
        for bucket, (_, last) in enumerate(self.edges):
            if self.mean(label, bucket) > self.mean("RoPE, restarted", bucket) + TOLERATED:
                break
            until = last
        return until

    @property
    def metrics(self) -> dict[str, float | int]:
        """Loss by bucket and reading, and how far each reading goes."""
        found: dict[str, float | int] = {}
        for label, seeds in self.losses.items():
            key = label.lower().replace(",", "").replace("-", "_").replace(" ", "_")
            for bucket, (first, last) in enumerate(self.edges):
                mean, spread = mean_std(self.at(label, bucket))
                found[f"loss_nats_{key}_positions_{first}_{last}"] = mean
                if len(seeds) > 1:
                    found[f"loss_nats_{key}_positions_{first}_{last}_std"] = spread
            found[f"good_until_position_{key}"] = self.good_until(label)
        return found


@dataclass(frozen=True)
class Written:
    """A text of the RoPE model, longer than any it was trained on."""

    prompt: str
    text: str
    seed: int  # of the model


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    rotation: Rotation
    attention: Attention
    variants: tuple[Variant, ...]  # learned positions, RoPE, sinusoidal, no positions
    training_bigram: float  # nats per token of the training text, of one given the one before, counted on it
    escapes: dict[str, tuple[float | None, ...]]  # by label, per seed: see ``escape``
    extrapolation: Extrapolation
    written: Written

    @property
    def learned(self) -> Variant:
        """The baseline."""
        return self.variants[0]

    @property
    def rope(self) -> Variant:
        """The model with rotary positions."""
        return self.variants[1]

    @property
    def rope_against_learned(self) -> Comparison:
        """At equal steps, as one of the comparisons with learned positions."""
        return comparisons(self.variants)[0]

    @property
    def gaps(self) -> Comparison:
        """How far the two are apart, seed by seed: after all steps, against the shortest finished trainings of both.

        Counted in the direction in which they are apart after the shortest: lower is closer together.
        """
        early, late = (
            [learned.finished_losses[i] - rope.finished_losses[i] for rope, learned in self._pairs] for i in (0, -1)
        )
        sign = 1.0 if sum(early) >= 0 else -1.0
        return compare_paired([sign * gap for gap in early], [sign * gap for gap in late])

    @property
    def _pairs(self) -> list[tuple[LearningCurve, LearningCurve]]:
        return list(zip(self.rope.curves, self.learned.curves, strict=True))

    @property
    def shorter(self) -> int:
        """Steps of the shorter trainings."""
        return round(self.rope.curves[0].finished_steps[0])

    def escaped(self, label: str) -> float | None:
        """Steps to below the bigram, mean over seeds; None where a seed did not get there."""
        steps = [step for step in self.escapes[label] if step is not None]
        return mean_std(steps)[0] if len(steps) == len(self.escapes[label]) else None

    @property
    def earlier(self) -> Comparison | None:
        """Steps to below the bigram, RoPE against learned positions; None where a seed did not get there."""
        learned, rope = (self.escapes[row.label] for row in (self.learned, self.rope))
        if any(step is None for step in (*learned, *rope)):
            return None
        return compare_paired([step or 0.0 for step in learned], [step or 0.0 for step in rope])

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        return {
            **metrics(self.variants),
            "score_spread_rope": self.attention.spread,
            "score_spread_sinusoidal": self.attention.additive_spread,
            "cache_trap_loss_nats": self.attention.trap.wrong_nats,
            "cache_right_loss_nats": self.attention.trap.nats,
            "training_text_entropy_of_pairs_nats": self.training_bigram,
            **self.extrapolation.metrics,
            **{
                f"steps_to_bigram_{row.key}": steps
                for row in self.variants
                if (steps := self.escaped(row.label)) is not None
            },
        }


def escape(steps: Sequence[float], losses: Sequence[float], bigram: float) -> float | None:
    """The step at which a training loss, averaged over five rows of its history, first falls below the bigram's.

    Both are losses on the training text, and no bigram model has less there. So this is where the model leaves the
    plateau on which it knows no more than which token follows which. None if it never does.
    """
    for i in range(4, len(losses)):
        if sum(losses[i - 4 : i + 1]) / 5 < bigram:
            return steps[i - 2]
    return None


def rates(base: float = 10_000.0) -> Sequence[float]:
    """θ_i, how far each pair of dimensions turns from one position to the next, in radians."""
    return [base ** (-2 * i / D) for i in range(D // 2)]
