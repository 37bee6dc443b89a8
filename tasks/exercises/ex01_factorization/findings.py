"""What 21.1 measures: the conditionals of one sentence under two models, and sums over all short sequences."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

SENTENCE = "The cat sat on the mat"
WORDS = SENTENCE.split()


@dataclass(frozen=True)
class Factor:
    """One conditional of the product."""

    piece: str  # the token's text
    probability: float
    rank: int  # among all tokens, 1 is the likeliest
    guess: str  # the likeliest token's text

    @property
    def nats(self) -> float:
        """Negative log-likelihood."""
        return -math.log(self.probability)


def by_word(found: Sequence[Factor]) -> list[list[Factor]]:
    """Factors grouped into words: a token that begins with a space begins a word."""
    words: list[list[Factor]] = []
    for factor in found:
        if not words or factor.piece.startswith(" "):
            words.append([])
        words[-1].append(factor)
    return words


@dataclass(frozen=True)
class Reading:
    """The sentence under one model, from one forward pass, and the same from other calculations."""

    model: str  # as shown to readers
    factors: tuple[Factor, ...]
    one_by_one: tuple[float, ...]  # the same probabilities from one pass for each prefix
    own_nats: float  # the same sum, by the model's library or by the project's evaluation

    @property
    def words(self) -> list[list[Factor]]:
        """The factors of each word."""
        return by_word(self.factors)

    @property
    def probability(self) -> float:
        """The product."""
        return math.prod(f.probability for f in self.factors)

    @property
    def nats(self) -> float:
        """The sum of the negative logarithms."""
        return sum(f.nats for f in self.factors)

    @property
    def perplexity(self) -> float:
        """The inverse of the conditionals' geometric mean."""
        return math.exp(self.nats / len(self.factors))

    @property
    def product_error(self) -> float:
        """Relative difference of the product from exp(-sum)."""
        return abs(self.probability / math.exp(-self.nats) - 1)

    @property
    def one_pass_error(self) -> float:
        """Largest difference of one pass from one pass per prefix, nats."""
        return max(abs(math.log(f.probability / p)) for f, p in zip(self.factors, self.one_by_one, strict=True))

    @property
    def hardest(self) -> tuple[str, float]:
        """The most expensive word, and its nats."""
        costs = [sum(f.nats for f in word) for word in self.words]
        return WORDS[min(costs.index(max(costs)), len(WORDS) - 1)], max(costs)


@dataclass(frozen=True)
class Beginning:
    """What follows one start token."""

    model: str
    start: str  # the token's text
    capital: float  # probability of "The"
    small: float  # probability of "the"
    nats: float  # of the whole sentence

    @property
    def ratio(self) -> float:
        """How much likelier the capital is."""
        return self.capital / self.small


@dataclass(frozen=True)
class Total:
    """The probabilities of all sequences of one length, added up."""

    length: int
    sequences: int
    probability: float


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    pretrained: Reading
    characters: Reading
    note: str  # what the pretrained model is, where it is not GPT-2 itself
    beginnings: tuple[Beginning, ...]  # of both models
    totals: tuple[Total, ...]  # of a tiny model with random weights
    vocabulary: int  # of the tiny model

    @property
    def ratios(self) -> list[float]:
        """How much likelier the capital is, by start token."""
        return [row.ratio for row in self.beginnings]

    @property
    def pretrained_costs(self) -> list[float]:
        """Nats of the sentence under the pretrained model, by start token."""
        return [row.nats for row in self.beginnings if row.model == self.pretrained.model]

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        real, characters = self.pretrained, self.characters
        return {
            "conditional_distributions": len(WORDS),
            "pretrained_tokens": len(real.factors),
            "pretrained_probability": real.probability,
            "pretrained_nll_nats": real.nats,
            "pretrained_perplexity": real.perplexity,
            **{f"pretrained_conditional_probability_{i + 1}": f.probability for i, f in enumerate(real.factors)},
            "character_tokens": len(characters.factors),
            "character_probability": characters.probability,
            "character_nll_nats": characters.nats,
            **{f"tiny_vocabulary_total_probability_length_{t.length}": t.probability for t in self.totals},
            "tiny_vocabulary_largest_sum_error": max(abs(t.probability - 1) for t in self.totals),
        }
