"""What 21.19 measures: repetition and likelihood of texts that were written under a repetition penalty."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std

ASKED = (1.0, 1.2, 1.5, 2.0)  # α of the exercise
STRENGTHS = (1.0, 1.05, 1.1, 1.2, 1.5, 2.0)  # those, and two where the penalty begins to work
NGRAMS = {2: "bigrams", 3: "trigrams", 4: "4-grams"}
NUCLEUS, GREEDY, HUMAN = "nucleus", "greedy", "human"
WAYS = (NUCLEUS, GREEDY)
TOP_P = 0.9


def penalised(logit: float, alpha: float) -> float:
    """The logit of a token that occurred, under α."""
    return logit * alpha if logit < 0 else logit / alpha


@dataclass(frozen=True)
class Written:
    """Continuations of all prompts by one way to write; one value per text."""

    key: str  # NUCLEUS, GREEDY or HUMAN
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
        """By the name of a measure: n-grams as ``NGRAMS`` calls them, "seen", "loss" or "real words"."""
        return {
            **{name: self.repeated[n] for n, name in NGRAMS.items()},
            "seen": self.seen,
            "loss": self.nats,
            "real words": self.real,
        }[measure]


@dataclass(frozen=True)
class Reading:
    """The human continuations under the model, one value per token, text after text."""

    losses: tuple[tuple[float, ...], ...]  # under each α, nats
    logits: tuple[float, ...]  # of the model itself
    seen: tuple[bool, ...]  # did the token occur before?
    best_seen: tuple[float, ...]  # largest logit of the tokens that occurred before
    best_new: tuple[float, ...]  # largest logit of the others

    @property
    def leads(self) -> tuple[float, ...]:
        """By how much the best token that occurred is ahead of the best new one, where it is ahead, nats."""
        pairs = zip(self.best_seen, self.best_new, strict=True)
        return tuple(seen - new for seen, new in pairs if seen > new)

    @property
    def led(self) -> float:
        """Share of the places where a token that occurred is the likeliest."""
        return len(self.leads) / len(self.best_seen)

    @property
    def lead(self) -> float:
        """Median of the leads; 0 where there are none."""
        return median(self.leads) if self.leads else 0.0

    def penalty(self, alpha: float) -> float:
        """What α takes from the best token that occurred, mean over places, nats."""
        return mean_std([z - penalised(z, alpha) for z in self.best_seen])[0]

    def overtaken(self, alpha: float) -> float:
        """Share of those places where α puts a new token first."""
        pairs = [(seen, new) for seen, new in zip(self.best_seen, self.best_new, strict=True) if seen > new]
        return sum(penalised(seen, alpha) < new for seen, new in pairs) / len(pairs) if pairs else 0.0

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

    def step(self, key: str, alpha: float, measure: str) -> Comparison:
        """Against the asked-for strength before, paired over prompts.

        Raises:
            ValueError: there is none.
        """
        before = ASKED[ASKED.index(alpha) - 1]
        if before > alpha:
            raise ValueError(f"no strength was asked for below {alpha:g}")
        return compare_paired(self.of(key, before).values(measure), self.of(key, alpha).values(measure))

    def told_apart(self, measure: str) -> int:
        """In how many of the steps between asked-for strengths a measure differs beyond noise, of both ways."""
        steps = [self.step(key, alpha, measure) for key in WAYS for alpha in ASKED[1:]]
        return sum(step.verdict in ("lower", "higher") for step in steps)

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
            if alpha > 1:
                metrics[f"penalty_alpha_{alpha:g}_nats"] = self.reading.penalty(alpha)
                metrics[f"overtaken_share_alpha_{alpha:g}"] = self.reading.overtaken(alpha)
        metrics["mean_logit_of_human_tokens"] = self.reading.mean_logit
        metrics["likeliest_occurred_share"], metrics["likeliest_occurred_lead_nats"] = (
            self.reading.led,
            self.reading.lead,
        )
        return metrics
