"""What 21.18 measures: texts of nine ways to write and of people, each with its likelihood and its repetitions."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from minigpt.evaluation.diversity import distinct
from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std
from minigpt.evaluation.words import words

PROMPT = 32  # characters
RUN = 8  # characters whose repetition is counted


@dataclass(frozen=True)
class Strategy:
    """One way to continue a prompt."""

    key: str
    name: str
    letter: str = ""
    beams: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)  # fields of ``Sampling``

    @property
    def drawn(self) -> bool:
        """Whether chance decides, so that two runs differ."""
        return not self.beams and self.options.get("temperature") != 0.0


BEAM, WIDTHS = 5, (2, 5, 10)
BEAMS = {k: Strategy(f"beam_{k}", f"beam search (K = {k})", beams=k) for k in WIDTHS}
GREEDY = Strategy("greedy", "greedy decoding", "a", options={"temperature": 0.0})
TOP_K = Strategy("top_k_50", "top-k sampling (k = 50)", "b", options={"top_k": 50})
NUCLEUS = Strategy("nucleus_0.92", "nucleus sampling (p = 0.92)", "c", options={"top_p": 0.92})
COOL = Strategy("temperature_0.7", "temperature sampling (T = 0.7)", "d", options={"temperature": 0.7})
PLAIN = Strategy("plain", "plain sampling")
HUMAN = Strategy("human", "human text")
LETTERED = (GREEDY, TOP_K, NUCLEUS, COOL)
WRITING = (*BEAMS.values(), *LETTERED, PLAIN)
STRATEGIES = {strategy.key: strategy for strategy in (HUMAN, *WRITING)}


@dataclass(frozen=True)
class Written:
    """Continuations by one strategy, with one value per text."""

    key: str  # of the strategy
    texts: tuple[str, ...]
    own: tuple[float, ...]  # loss under the mini-GPT, nats per character
    nats: tuple[float, ...]  # loss under the pretrained model, nats per token
    bits: tuple[float, ...]  # the same, bits per character
    repeated: tuple[float, ...]  # share of runs of RUN characters that occurred before in the text
    known: tuple[float, ...]  # share of words that occur in the training text
    again: tuple[float, ...] = ()  # perplexities of several runs from the first prompt

    @property
    def name(self) -> str:
        """Of the strategy, as readers see it."""
        return STRATEGIES[self.key].name

    @property
    def perplexities(self) -> tuple[float, ...]:
        """Under the pretrained model, per token."""
        return tuple(math.exp(nats) for nats in self.nats)

    @property
    def perplexity(self) -> float:
        """Mean over the texts."""
        return mean_std(self.perplexities)[0]

    @property
    def perplexity_std(self) -> float:
        """Standard deviation over the texts."""
        return mean_std(self.perplexities)[1]

    @property
    def loss(self) -> float:
        """Under the pretrained model, mean over the texts, nats per token."""
        return mean_std(self.nats)[0]

    @property
    def bits_per_character(self) -> float:
        """Under the pretrained model, mean over the texts."""
        return mean_std(self.bits)[0]

    @property
    def own_loss(self) -> float:
        """Under the mini-GPT, mean over the texts, nats per character."""
        return mean_std(self.own)[0]

    @property
    def repeats(self) -> float:
        """Share of repeated runs, mean over the texts."""
        return mean_std(self.repeated)[0]

    @property
    def known_words(self) -> float:
        """Share of words that occur in the training text, mean over the texts."""
        return mean_std(self.known)[0]

    @property
    def runs(self) -> tuple[float, float]:
        """Perplexity of several runs from the first prompt, mean and standard deviation; nothing drawn, no spread."""
        return mean_std(self.again or self.perplexities[:1])

    @property
    def distinct(self) -> float:
        """Distinct bigrams of words over all of them, all texts together."""
        return distinct([words(text) for text in self.texts], 2)


def different(written: Sequence[Written]) -> list[tuple[float, float]]:
    """Loss in nats per token and share of repeated runs of all texts; one that several strategies wrote counts once."""
    texts = {(i, text): (w.nats[i], w.repeated[i]) for w in written for i, text in enumerate(w.texts)}
    return list(texts.values())


@dataclass(frozen=True)
class ByPretrained:
    """Continuations that the pretrained model wrote by one strategy, with one value per text; or people's."""

    key: str  # of the strategy
    texts: tuple[str, ...]
    nats: tuple[float, ...]  # loss under the model itself, per token
    repeated: tuple[float, ...]  # share of 4-grams of tokens that occurred before in the text
    real: tuple[float, ...]  # share of known words
    kept: float | None  # tokens that the sampler leaves after what people wrote, mean; None where nothing is drawn
    removed: float | None  # probability that it removes there

    @property
    def name(self) -> str:
        """Of the strategy, as readers see it."""
        return STRATEGIES[self.key].name

    @property
    def loss(self) -> float:
        """Mean over the texts, nats per token."""
        return mean_std(self.nats)[0]

    @property
    def perplexity(self) -> float:
        """Of that mean."""
        return math.exp(self.loss)

    @property
    def repeats(self) -> float:
        """Mean over the texts."""
        return mean_std(self.repeated)[0]

    @property
    def real_words(self) -> float:
        """Mean over the texts."""
        return mean_std(self.real)[0]

    @property
    def distinct(self) -> float:
        """Distinct bigrams of words over all of them, all texts together."""
        return distinct([words(text) for text in self.texts], 2)


@dataclass(frozen=True)
class Truncation:
    """What a sampler leaves of the distributions on held-out contexts, means."""

    kept: float  # characters
    removed: float  # probability
    entropy: float  # of what is left, nats


@dataclass(frozen=True)
class Writer:
    """The mini-GPT that writes."""

    layers: int
    width: int
    vocab_size: int
    context: int
    loss: float  # validation, nats per character


@dataclass(frozen=True)
class Accuracy:
    """The search and the score against second ways to the same numbers."""

    exhaustive: int  # texts of an exhaustive search
    best_found: bool  # the best of them, by a wide beam
    listed: int  # hypotheses that the wide beam returns
    listed_gap: float  # largest difference of their log-probabilities from those of the best texts, nats
    as_transformers: int  # searches that give the text of Transformers' generate
    searches: int
    width_1_is_greedy: bool
    same_again: bool
    reported: float  # log-probability by the search, nats
    reread: float  # of the same text, read without a cache
    judged: float  # loss of a continuation, nats per token
    judged_by_labels: float  # the pretrained model's own, prompt masked


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    writer: Writer
    judge: str  # name of the pretrained model
    note: str  # about it
    prompts: tuple[str, ...]
    n_new: int  # characters of a continuation
    runs: int  # of each sampler after the first prompt
    written: dict[str, Written]  # by key of the strategy
    truncation: dict[str, Truncation]  # by key of the strategy
    by_pretrained: dict[str, ByPretrained]  # by key of the strategy; people first
    pretrained_vocabulary: int
    pretrained_prompt: str  # the first
    correlation: float  # rank correlation of loss and repetition over all different texts
    accuracy: Accuracy
    source: str  # of the search

    @property
    def beam(self) -> Written:
        """Of the width that is compared."""
        return self.of(BEAMS[BEAM])

    @property
    def human(self) -> Written:
        """What people wrote."""
        return self.of(HUMAN)

    @property
    def ours(self) -> Sequence[Written]:
        """All but human text."""
        return [self.of(strategy) for strategy in WRITING]

    @property
    def by_width(self) -> Sequence[Written]:
        """Greedy decoding, which is width 1, and the beams."""
        return [self.of(GREEDY), *(self.of(BEAMS[k]) for k in WIDTHS)]

    @property
    def same_as_plain(self) -> int:
        """Prompts after which top-k sampling wrote what plain sampling wrote."""
        return sum(a == b for a, b in zip(self.of(TOP_K).texts, self.of(PLAIN).texts, strict=True))

    def of(self, strategy: Strategy) -> Written:
        """What a strategy wrote."""
        return self.written[strategy.key]

    def likelier(self, one: Written, other: Written) -> int:
        """Prompts after which the mini-GPT finds the text of one likelier than that of the other."""
        return sum(a < b for a, b in zip(one.own, other.own, strict=True))

    def by_loss(self, other: Written) -> Comparison:
        """Against beam search, nats per token, paired over prompts."""
        return compare_paired(self.beam.nats, other.nats)

    def by_repetition(self, other: Written) -> Comparison:
        """Against beam search, share of repeated runs, paired over prompts."""
        return compare_paired(self.beam.repeated, other.repeated)

    def beside_people(self, written: Written) -> Comparison:
        """Against human text, share of repeated runs, paired over prompts."""
        return compare_paired(self.human.repeated, written.repeated)

    def large(self, strategy: Strategy) -> ByPretrained:
        """What the pretrained model wrote with a strategy."""
        return self.by_pretrained[strategy.key]

    @property
    def truncates(self) -> Comparison:
        """Top-k sampling against plain sampling by the pretrained model, nats per token, paired over prompts."""
        return compare_paired(self.large(PLAIN).nats, self.large(TOP_K).nats)

    @property
    def nearest_to_people(self) -> tuple[ByPretrained, ByPretrained]:
        """The pretrained model's strategies that come nearest to people by loss, and by repetition."""
        human = self.large(HUMAN)
        own = [w for key, w in self.by_pretrained.items() if key != HUMAN.key]
        by_loss = min(own, key=lambda w: abs(w.loss - human.loss))
        return by_loss, min(own, key=lambda w: abs(w.repeats - human.repeats))

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            "runs": len(self.prompts),
            "new_characters": self.n_new,
            "vocabulary": self.writer.vocab_size,
        }
        for key, w in self.written.items():
            metrics[f"perplexity_{key}"], metrics[f"perplexity_{key}_std"] = mean_std(w.perplexities)
            metrics[f"loss_{key}_nats_per_token"] = w.loss
            metrics[f"bits_per_character_{key}"] = w.bits_per_character
            metrics[f"log_probability_{key}_nats"] = -w.own_loss * self.n_new
            metrics[f"repeated_runs_share_{key}"] = w.repeats
            metrics[f"distinct_bigrams_share_{key}"] = w.distinct
            metrics[f"known_words_share_{key}"] = w.known_words
            if key != HUMAN.key:
                over = "over_runs_of_one_prompt"
                metrics[f"perplexity_{key}_{over}"], metrics[f"perplexity_{key}_std_{over}"] = w.runs
        for key, large in self.by_pretrained.items():
            metrics[f"pretrained_loss_{key}_nats_per_token"] = large.loss
            metrics[f"pretrained_repeated_4grams_share_{key}"] = large.repeats
            metrics[f"pretrained_real_words_share_{key}"] = large.real_words
            if large.removed is not None:
                metrics[f"pretrained_probability_removed_{key}"] = large.removed
        for key, left in self.truncation.items():
            metrics[f"characters_kept_{key}"] = left.kept
            metrics[f"probability_removed_{key}"] = left.removed
            metrics[f"entropy_{key}_nats"] = left.entropy
        return metrics
