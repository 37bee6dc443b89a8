"""What 21.32 measures: green lists, marked texts at every δ, and a detector on text with and without the mark."""

import math
from dataclasses import dataclass

from minigpt.evaluation.statistics import mean_std

RATE, LOOSE_RATE = 0.01, 0.05  # false positives that are allowed for
USUAL = 2.0  # δ in most of Kirchenbauer et al. (2023)
BIN = 0.5  # of the histograms of z
EDGES = tuple(-5.0 + BIN * i for i in range(41))  # between their bins
EDITED = 0.1  # share of the characters that the edit replaces


def uniform_share(fraction: float, delta: float) -> float:
    """P(green) of a model with uniform logits, where a fraction of the vocabulary is green."""
    odds = fraction * math.exp(delta)
    return odds / (odds + 1 - fraction)


def allowed(texts: int, rate: float = RATE) -> float:
    """A false-positive rate plus three standard errors."""
    return rate + 3 * math.sqrt(rate * (1 - rate) / texts)


@dataclass(frozen=True)
class GreenList:
    """The list at one place of a human text."""

    context: str  # the previous characters
    green: str  # all characters on the list
    following: str  # what the text goes on with
    is_green: bool  # whether that is on the list


@dataclass(frozen=True)
class Score:
    """The detector on many texts with one key."""

    texts: int
    scored: float  # distinct n-grams, mean over texts
    mean_z: float  # in single precision, as the detector returns it
    z: tuple[float, float]  # mean and standard deviation over texts
    flagged: float  # share of the texts called marked at RATE
    flagged_loosely: float  # … at LOOSE_RATE
    histogram: tuple[float, ...]  # share of the texts in each bin of z

    @property
    def keeps_the_rate(self) -> bool:
        """Whether no more than RATE are flagged, up to three standard errors."""
        return self.flagged <= allowed(self.texts)


@dataclass(frozen=True)
class Marked:
    """What one δ wrote, and how it is seen. The first text is kept as a sample."""

    delta: float
    prompt: str
    text: str
    text_z: float
    text_green: int  # n-grams
    text_scored: int
    tokens: tuple[str, ...]  # of that text
    green: tuple[bool | None, ...]  # each of them; None where the detector does not count it
    running_z: tuple[float | None, ...]  # z of the text up to each of them; None where nothing is counted yet
    nll: tuple[float, ...]  # under the unmarked model, nats per character, one per text
    known: float  # share of the words that the training text has too
    green_share: float  # of the scored n-grams, mean over texts
    right: Score  # with the key that marked the texts
    wrong: Score  # with another key
    rates: tuple[float, ...]  # flagged at RATE with the right key, for each length

    @property
    def mean_nll(self) -> float:
        """Over texts, nats per character."""
        return mean_std(self.nll)[0]

    def cost(self, plain: "Marked") -> float:
        """What the mark costs in likelihood, nats per character."""
        return self.mean_nll - plain.mean_nll

    def perplexity_ratio(self, plain: "Marked") -> float:
        """The cost as a factor of the perplexity."""
        return math.exp(self.cost(plain))

    def cost_error(self, plain: "Marked") -> float:
        """Standard error of the cost; what the texts of a prompt have in common cancels in the differences."""
        return mean_std([b - a for a, b in zip(plain.nll, self.nll, strict=True)])[1] / math.sqrt(len(self.nll))


@dataclass(frozen=True)
class Width:
    """Lists that depend on so many previous characters."""

    width: int  # k
    scored: float  # distinct n-grams of a human text, mean over texts
    flagged: tuple[float, ...]  # share of the human texts flagged at RATE, for each key
    mean_z: tuple[float, ...]  # of the human texts, for each key
    detected: float  # share of the texts marked with USUAL that are flagged at RATE
    detected_edited: float  # … with EDITED of their characters replaced

    @property
    def worst(self) -> float:
        """Share of the human texts that the worst key flags."""
        return max(self.flagged)

    @property
    def drift(self) -> float:
        """Standard deviation over keys of the mean z."""
        return mean_std(self.mean_z)[1]


@dataclass(frozen=True)
class Findings:
    """All that was measured. ``marked[0]`` is plain sampling, δ = 0."""

    width: int  # k
    vocab_size: int
    list_size: int  # green characters per list
    lists: tuple[GreenList, ...]
    listing: str  # source of the lists
    lengths: tuple[int, ...]  # at which detection is tried, characters; the last one is all of the text
    marked: tuple[Marked, ...]
    human: Score  # with the key of the marked texts
    human_wrong: Score  # with another key
    widths: tuple[Width, ...]
    width_texts: int  # human texts under every key
    biased_as_transformers: bool
    counted_as_transformers: bool
    z_error: float  # largest difference from Transformers' z-scores
    zero_changes_nothing: bool
    uniform_error: float  # largest difference from ``uniform_share``
    random_texts: int  # of uniformly random tokens
    random_flagged: float
    p_error: float  # largest difference of their p-values from scipy's

    @property
    def fraction(self) -> float:
        """γ as it really is: the size of a list is a whole number."""
        return self.list_size / self.vocab_size

    @property
    def length(self) -> int:
        """Characters of a text."""
        return self.lengths[-1]

    @property
    def plain(self) -> Marked:
        """The texts without a mark."""
        return self.marked[0]

    @property
    def usual(self) -> Marked:
        """The texts marked with the usual δ."""
        return next(m for m in self.marked if m.delta == USUAL)

    @property
    def enough(self) -> Marked | None:
        """The smallest δ that is found in at least 95% of the whole texts."""
        return next((m for m in self.marked if m.rates[-1] >= 0.95), None)

    @property
    def honest(self) -> tuple[Width, ...]:
        """Widths at which no key that was tried flags more human texts than RATE, up to three standard errors."""
        return tuple(w for w in self.widths if w.worst <= allowed(self.width_texts))

    @property
    def best(self) -> Width:
        """Of the honest widths the one whose mark survives an edit best, the narrowest of equals.

        Where none is honest, the one whose worst key is least wrong.
        """
        if self.honest:
            return max(self.honest, key=lambda w: (w.detected_edited, -w.width))
        return min(self.widths, key=lambda w: w.worst)

    @property
    def keys(self) -> int:
        """Under which human text is tested for each width."""
        return len(self.widths[0].flagged)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            "false_positive_rate_human": self.human.flagged,
            "false_positive_rate_human_wrong_key": self.human_wrong.flagged,
            "false_positive_rate_unmarked": self.plain.right.flagged,
            "false_positive_rate_wrong_key": self.usual.wrong.flagged,
            "false_positive_rate_unmarked_wrong_key": self.plain.wrong.flagged,
            "detection_rate_marked": self.usual.right.flagged,
            "delta_marked": self.usual.delta,
            "human_texts": self.human.texts,
            "unmarked_texts": self.human.texts + self.plain.right.texts,
            "mean_z_human": self.human.mean_z,
            "best_width": self.best.width,
            "mean_z_marked": self.usual.right.mean_z,
        }
        for m in self.marked:
            name = f"delta_{m.delta:g}"
            metrics[f"nll_nats_{name}"], metrics[f"nll_nats_{name}_std"] = mean_std(m.nll)
            metrics[f"nll_cost_nats_{name}"] = m.cost(self.plain)
            metrics[f"nll_cost_nats_{name}_standard_error"] = m.cost_error(self.plain)
            metrics[f"mean_z_{name}"] = m.right.mean_z
            metrics[f"known_words_{name}"] = m.known
            for length, rate in zip(self.lengths, m.rates, strict=True):
                metrics[f"detection_rate_{name}_length_{length}"] = rate
        return metrics
