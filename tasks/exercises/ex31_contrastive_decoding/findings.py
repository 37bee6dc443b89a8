"""What 21.31 measures: texts of contrastive decoding, each setting beside plain sampling of the same entropy."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import Comparison, compared, holm, mean_std

BOOK, PAPER = "book", "paper"
PLAUSIBILITY = 0.1  # Li et al. (2022), section 3.2


@dataclass(frozen=True)
class Setting:
    """One way to decode."""

    formula: str  # BOOK, PAPER or ""
    alpha: float
    temperature: float = 1.0

    @property
    def plausibility(self) -> float:
        """Threshold of V_head, 0 without one."""
        return PLAUSIBILITY if self.formula == PAPER else 0.0

    @property
    def label(self) -> str:
        """As readers see it."""
        greedy = ", greedy" if self.temperature == 0 else ""
        if self.formula:
            return f"{self.formula}, α = {self.alpha:g}{greedy}"
        return "expert alone, greedy" if greedy else f"expert alone, τ = {self.temperature:.2f}"

    @property
    def key(self) -> str:
        """In names of metrics."""
        return f"{self.formula}_alpha_{self.alpha:g}" + ("_greedy" if self.temperature == 0 else "")


@dataclass(frozen=True)
class Quality:
    """What a setting wrote, and how good it is."""

    setting: Setting
    entropy: float  # of the sampling distribution on held-out contexts, nats per token; 0 when greedy
    prompt: str  # of the first text
    text: str  # the first
    nll: tuple[float, ...]  # under the scorer, nats per character, one per text of every seed
    by_seed: tuple[float, ...]  # means of these, one per seed of the amateur; without one, per seed of the sampling
    known: float  # share of the words that occur in the training text
    distinct: float  # distinct words over words, all texts together
    repeats: tuple[float, ...]  # share of 8-grams of characters that a text had before, one per text, as ``nll``

    @property
    def mean_nll(self) -> float:
        """Over the texts."""
        return mean_std(self.nll)[0]

    @property
    def repeated(self) -> float:
        """Repeated 8-grams, mean over the texts."""
        return mean_std(self.repeats)[0]


def between(
    baseline: Quality, other: Quality, of: Literal["nll", "repeats"] = "nll", confidence: float = 0.95
) -> Comparison:
    """NLL or repetition of two settings, whose texts continue the same prompts, with amateurs of the same seeds.

    Other prompts would change the difference, and so would other amateurs: the squared errors of its mean over prompts
    and over seeds add up, with Satterthwaite's degrees of freedom. What belongs to neither is in both, so that the
    interval is rather too wide. With one amateur it holds for that one.
    """
    before, after = (quality.nll if of == "nll" else quality.repeats for quality in (baseline, other))
    one, two = np.reshape(before, (len(baseline.by_seed), -1)), np.reshape(after, (len(other.by_seed), -1))  # (S, B)
    differences = two - one  # of a setting that is certain there is one row for all seeds
    means = [differences.mean(axis=axis) for axis in (0, 1)]
    squares = [(mean_std(values)[1] ** 2 / len(values), len(values) - 1) for values in means if len(values) > 1]
    total = sum(square for square, _ in squares)
    freedom = total**2 / sum(square**2 / n for square, n in squares) if total else 1.0
    error = math.sqrt(total) if squares else math.inf
    return compared(float(differences.mean()), error, max(1.0, freedom), before, after, confidence, paired=True)


@dataclass(frozen=True)
class Pair:
    """A contrastive setting, and plain sampling from the expert at the temperature of equal entropy."""

    own: Quality
    plain: Quality

    @property
    def change(self) -> Comparison:
        """NLL of the contrastive texts against that of the plain ones."""
        return between(self.plain, self.own)


@dataclass(frozen=True)
class Greedy:
    """The likeliest character each time."""

    expert: Quality  # alone
    paper: Quality  # α = 1

    @property
    def change(self) -> Comparison:
        """NLL of the paper's texts against that of the expert's."""
        return between(self.expert, self.paper)

    @property
    def repetition(self) -> Comparison:
        """Repeated 8-grams of the paper's texts against those of the expert's."""
        return between(self.expert, self.paper, "repeats")


@dataclass(frozen=True)
class Model:
    """One of the three, with all its seeds."""

    layers: int
    width: int
    parameters: int
    steps: int
    losses: tuple[float, ...]  # validation, nats per character, one per seed

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.losses)[0]


@dataclass(frozen=True)
class OneStep:
    """The distributions of the next character where the two models disagree most."""

    before: str
    characters: tuple[str, ...]  # as Python shows them
    probabilities: dict[str, tuple[float, ...]]  # by distribution, one per character


@dataclass(frozen=True)
class Exactness:
    """The formulas against their definitions."""

    same_tokens: bool  # α = 0 and plain sampling, same generator
    formula: float  # the book's, against p/q^α, max difference of probabilities
    head: bool  # V_head against its definition
    temperature: float  # an amateur equal to the expert against temperature 1/(1 - α), max difference
    cache: float  # the amateur's cache against reading anew, max difference of logits


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    expert: Model
    amateur: Model
    longer: Model  # the amateur, had it trained for longer
    baselines: Baselines
    scorer: Model  # takes no part in decoding
    step: OneStep
    source: str  # of the formula
    pairs: tuple[Pair, ...]
    greedy: Greedy
    exact: Exactness
    texts: int  # per setting and seed
    n_new: int  # characters of a text
    contexts: int  # held-out ones for the entropy
    vocab_size: int

    def of(self, formula: str) -> list[Pair]:
        """The pairs of a formula, by rising α."""
        return [pair for pair in self.pairs if pair.own.setting.formula == formula]

    def at(self, formula: str, alpha: float) -> Pair:
        """The pair of a setting."""
        return next(pair for pair in self.pairs if pair.own.setting == Setting(formula, alpha))

    @property
    def best(self) -> Pair:
        """The contrastive setting that writes the likeliest text."""
        return min((pair for pair in self.pairs if pair.own.setting.alpha > 0), key=lambda pair: pair.own.mean_nll)

    @property
    def ahead(self) -> float:
        """How much better the expert predicts than the amateur, nats per character."""
        return self.amateur.loss - self.expert.loss

    @property
    def ahead_of_longer(self) -> float:
        """How much better the expert is than an amateur that trained for longer, nats per character."""
        return self.longer.loss - self.expert.loss

    @property
    def untaught(self) -> bool:
        """Whether the expert does not even beat a bigram."""
        return self.expert.loss >= self.baselines.bigram

    @property
    def leads(self) -> tuple[Comparison, Comparison]:
        """The expert against the amateur, and against the one that trained for longer.

        There is one expert: it is taken to vary with its seed as they do.
        """
        found = []
        for other in (self.amateur, self.longer):
            n, (_, spread) = len(other.losses), mean_std(other.losses)
            error = spread * math.sqrt(1 + 1 / n) if n > 1 else math.inf
            difference = self.expert.loss - other.loss
            one = compared(difference, error, max(1.0, n - 1), other.losses, self.expert.losses, 0.95, paired=False)
            taught = max(*other.losses, self.expert.loss) < self.baselines.bigram
            found.append(one if taught else replace(one, verdict="untrained"))
        first, second = holm(found)
        return first, second

    @property
    def changes(self) -> list[Comparison]:
        """All that is compared by its texts, corrected for its number: each pair, the greedy ones, and one more.

        That one is the paper's formula with the largest α against α = 0, which is the truncation alone.
        """
        paper = self.of(PAPER)
        return holm(
            [
                *(pair.change for pair in self.pairs),
                self.greedy.change,
                between(paper[0].own, paper[-1].own),
            ]
        )

    def change(self, pair: Pair) -> Comparison:
        """NLL of the contrastive texts against that of the plain ones, as one of ``changes``."""
        return self.changes[self.pairs.index(pair)]

    @property
    def greedy_change(self) -> Comparison:
        """The same of greedy texts."""
        return self.changes[-2]

    @property
    def contrast_over_truncation(self) -> Comparison:
        """The same of the paper's formula with the largest α against the truncation alone."""
        return self.changes[-1]

    def verdicts(self, formula: str) -> Mapping[str, list[str]]:
        """What contrast does beyond its change of entropy: verdict → values of α, as text."""
        found: dict[str, list[str]] = {"lower": [], "higher": [], "noise": [], "one of many": [], "one seed": []}
        for pair, change in zip(self.pairs, self.changes, strict=False):
            if pair.own.setting.formula == formula and pair.own.setting.alpha > 0:
                found[change.verdict].append(f"{pair.own.setting.alpha:g}")
        return {verdict: alphas for verdict, alphas in found.items() if alphas}

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            "validation_loss_nats_expert": self.expert.loss,
            "validation_loss_nats_amateur": self.amateur.loss,
            "validation_loss_nats_amateur_longer": self.longer.loss,
            "validation_loss_nats_scorer": self.scorer.loss,
            "bigram_loss_nats": self.baselines.bigram,
            "best_ngram_loss_nats": self.baselines.ngram,
        }
        for pair in self.pairs:
            key = pair.own.setting.key
            for quality, name in ((pair.own, key), (pair.plain, f"{key}_matched")):
                metrics[f"nll_nats_{name}"], metrics[f"nll_nats_{name}_std"] = mean_std(quality.nll)
                if len(quality.by_seed) > 1:
                    metrics[f"nll_nats_{name}_std_over_seeds"] = mean_std(quality.by_seed)[1]
                metrics[f"entropy_nats_{name}"] = quality.entropy
                metrics[f"known_words_{name}"] = quality.known
                metrics[f"distinct_words_{name}"] = quality.distinct
            metrics[f"temperature_{key}_matched"] = pair.plain.setting.temperature
        for name, quality in (("expert", self.greedy.expert), ("paper", self.greedy.paper)):
            metrics[f"repeated_8grams_greedy_{name}"] = quality.repeated
            metrics[f"nll_nats_greedy_{name}"] = quality.mean_nll
        return metrics
