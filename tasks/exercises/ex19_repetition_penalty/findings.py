"""What 21.19 measures: repetition and likelihood of texts that were written under a repetition penalty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std

STRENGTHS = (1.0, 1.2, 1.5, 2.0)  # α
NGRAMS = {2: "bigrams", 3: "trigrams", 4: "4-grams"}
SAMPLED, GREEDY, HUMAN = "sampled", "greedy", "human"
WAYS = (SAMPLED, GREEDY)


@dataclass(frozen=True)
class Written:
    """Continuations of all prompts by one way to write; one value per text."""

    key: str  # SAMPLED, GREEDY or HUMAN
    alpha: float
    prompts: tuple[str, ...]
    texts: tuple[str, ...]
    repeated: dict[int, tuple[float, ...]]  # n -> share of n-grams that occurred before in the continuation
    seen: tuple[float, ...]  # share of tokens that occurred before, in the prompt or the continuation
    nats: tuple[float, ...]  # mean loss under the model without penalty, per token
    real: tuple[float, ...]  # share of words that are known

    @property
    def perplexity(self) -> float:
        """Of all texts together."""
        return math.exp(self.loss)

    @property
    def loss(self) -> float:
        """Mean over the texts, nats per token."""
        return mean_std(self.nats)[0]

    @property
    def seen_share(self) -> float:
        """Mean share of tokens that occurred before."""
        return mean_std(self.seen)[0]

    @property
    def real_share(self) -> float:
        """Mean share of known words."""
        return mean_std(self.real)[0]

    def share(self, n: int) -> float:
        """Mean share of repeated n-grams."""
        return mean_std(self.repeated[n])[0]

    def values(self, measure: str) -> Sequence[float]:
        """By the name of a measure: n-grams as ``NGRAMS`` calls them, "loss" or "real words"."""
        return {
            **{name: self.repeated[n] for n, name in NGRAMS.items()},
            "loss": self.nats,
            "real words": self.real,
        }[measure]


@dataclass(frozen=True)
class Reading:
    """The human continuations under the model, one value per token, text after text."""

    losses: tuple[tuple[float, ...], ...]  # under each α, nats
    logits: tuple[float, ...]  # of the model itself
    seen: tuple[bool, ...]  # did the token occur before?

    @property
    def mean_logit(self) -> float:
        """Of the token that comes next."""
        return mean_std(self.logits)[0]

    @property
    def positive(self) -> float:
        """Share of the logits that are not negative."""
        return sum(logit >= 0 for logit in self.logits) / len(self.logits)


@dataclass(frozen=True)
class Accuracy:
    """The penalty and the measures against second ways to the same numbers."""

    as_transformers: bool  # the logits of its processor, for every α
    nothing_at_1: bool  # α = 1 leaves the logits as they are
    largest_rise: float  # of the logit of a token that occurred, α > 1
    three_and_minus_three: tuple[float, ...]  # what α = 2 makes of these logits
    penalised_once: bool  # a token that occurred three times
    same_samples_at_1: bool  # as without a processor
    recorded_loss: float  # of one text, while it was written in fp32, nats per token
    second_loss: float  # of the same, on a second pass
    repeated_bigrams: float
    counted_bigrams: float  # the same share, by counting
    banned_written: int


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    model: str
    note: str  # about the model
    prompt_length: int  # tokens
    n_new: int  # tokens of each continuation
    written: tuple[Written, ...]
    human: Written
    reading: Reading
    accuracy: Accuracy
    source: str  # of the penalty

    @property
    def prompts(self) -> int:
        """How many there are."""
        return len(self.human.texts)

    def of(self, key: str, alpha: float) -> Written:
        """The texts of one way to write at one strength."""
        return next(w for w in self.written if (w.key, w.alpha) == (key, alpha))

    def change(self, key: str, alpha: float, measure: str) -> Comparison:
        """Against no penalty, paired over prompts; of no penalty itself, against people."""
        other = self.human if alpha == 1.0 else self.of(key, 1.0)
        return compare_paired(other.values(measure), self.of(key, alpha).values(measure))

    def against_people(self, key: str, alpha: float) -> Comparison:
        """Repeated 4-grams, paired over prompts."""
        return compare_paired(self.human.repeated[4], self.of(key, alpha).repeated[4])

    def human_nats(self, alpha: float, seen: bool | None = None) -> float:
        """Mean loss of the human text under the penalised model, per token; ``seen`` picks those seen before or not."""
        losses = self.reading.losses[STRENGTHS.index(alpha)]
        chosen = [v for v, flag in zip(losses, self.reading.seen, strict=True) if seen is None or flag is seen]
        return mean_std(chosen)[0] if chosen else math.nan

    def reading_change(self, alpha: float) -> Comparison:
        """Loss of the human text under the penalised model against that without a penalty, paired over texts."""
        size = self.n_new
        plain, penalised = (
            [mean_std(losses[start : start + size])[0] for start in range(0, len(losses), size)]
            for losses in (self.reading.losses[STRENGTHS.index(a)] for a in (1.0, alpha))
        )
        return compare_paired(plain, penalised)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {"samples": self.prompts, "new_tokens": self.n_new}
        for w in (self.human, *self.written):
            key = HUMAN if w.key == HUMAN else f"{w.key}_alpha_{w.alpha:g}"
            for n in NGRAMS:
                metrics[f"repeated_{n}grams_share_{key}"], metrics[f"repeated_{n}grams_share_{key}_std"] = mean_std(
                    w.repeated[n]
                )
            metrics[f"perplexity_{key}"] = w.perplexity
            metrics[f"loss_{key}_nats"], metrics[f"loss_{key}_nats_std"] = mean_std(w.nats)
            metrics[f"real_words_share_{key}"] = w.real_share
            metrics[f"seen_before_share_{key}"] = w.seen_share
        for alpha in STRENGTHS:
            metrics[f"loss_human_text_under_alpha_{alpha:g}_nats"] = self.human_nats(alpha)
        metrics["mean_logit_of_human_tokens"] = self.reading.mean_logit
        return metrics
