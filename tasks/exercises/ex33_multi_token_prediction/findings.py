"""What 21.33 measures: models with several heads: losses by head, texts by the first, drafts by the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from minigpt.config import GPTConfig
from minigpt.evaluation.statistics import Comparison, compare_paired, holm, mean_std
from minigpt.evaluation.timing import Timing
from tasks.variants import Variant, comparisons, contrast, metrics

SUMMED = "N = 4, sum of losses"


def key(label: str) -> str:
    """A label such as "N = 2" as part of a metric's name."""
    return label.replace(" = ", "_").lower()


@dataclass(frozen=True)
class Scores:
    """Validation loss and accuracy of each head of one model."""

    losses: tuple[float, ...]  # nats per token
    accuracies: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One text, drafted and verified."""

    passes: int
    emitted: int
    by_head: tuple[tuple[int, int], ...]  # drafts tested and accepted, of heads 2, 3, …


@dataclass(frozen=True)
class Drafting:
    """A model with N heads that drafts for itself."""

    label: str
    greedy: tuple[tuple[Run, ...], ...]  # of each seed
    sampled: tuple[tuple[Run, ...], ...]
    wrong: int  # greedy texts that differ from plain decoding
    plain: Timing
    drafted: Timing

    @property
    def speedup(self) -> float:
        """Ratio of the medians."""
        return self.plain.median / self.drafted.median

    @property
    def low(self) -> float:
        """The speed-up by the less favourable quartiles."""
        return self.plain.low / self.drafted.high

    @property
    def tokens(self) -> float:
        """Greedy tokens per pass, mean over seeds."""
        return mean_std(self.tokens_per_pass(self.greedy))[0]

    @staticmethod
    def tokens_per_pass(seeds: Sequence[Sequence[Run]]) -> list[float]:
        """Tokens emitted per forward pass, over all texts of a seed; one value per seed."""
        return [sum(run.emitted for run in runs) / sum(run.passes for run in runs) for runs in seeds]

    def acceptance(self, head: int) -> float | None:
        """Share of the tested greedy drafts of one head (2, 3, …) that were accepted; None where none was tested."""
        runs = [run for seed in self.greedy for run in seed]
        tested, accepted = (sum(run.by_head[head - 2][i] for run in runs) for i in (0, 1))
        return accepted / tested if tested else None


@dataclass(frozen=True)
class Findings:
    """All that was measured; mappings are by the variant's label."""

    variants: tuple[Variant, ...]  # N = 1, 2, 4, 8, and N = 4 trained on the sum of the losses
    configs: dict[str, GPTConfig]
    scores: dict[str, tuple[Scores, ...]]  # one per seed
    check_steps: int
    differing_weights: int  # after these steps: objective multi_token with N = 1, and causal
    gradient_difference: float  # of the sum and N times the mean, relative
    unigram_loss: float  # what letter frequencies alone achieve, nats
    known_words: dict[str, tuple[float, ...]]  # share in texts by the first head, one value per seed
    texts: dict[str, str]  # one of each variant, first seed
    prompt: str
    prompts: int
    text_tokens: int
    temperature: float  # of the texts
    drafts: tuple[Drafting, ...]
    head_source: str
    objective_source: str

    @property
    def rows(self) -> list[Variant]:
        """The variants that are compared by N, N = 1 first."""
        return [row for row in self.variants if row.label != SUMMED]

    def row(self, label: str) -> Variant:
        """One variant."""
        return next(row for row in self.variants if row.label == label)

    @property
    def per_head(self) -> int:
        """Parameters that the second head adds."""
        return self.rows[1].parameters - self.rows[0].parameters

    @property
    def summed(self) -> Comparison:
        """First head: trained on the sum of the losses against trained on their mean."""
        return contrast(self.row("N = 4"), self.row(SUMMED))

    @property
    def against_one(self) -> Mapping[str, Comparison]:
        """First head against N = 1, by label."""
        return {row.label: found for row, found in zip(self.rows[1:], comparisons(self.rows), strict=True)}

    def with_verdict(self, *verdicts: str) -> list[str]:
        """Models whose first head, against that of N = 1, has one of these verdicts."""
        return [label for label, found in self.against_one.items() if found.verdict in verdicts]

    @property
    def better(self) -> list[str]:
        """Models whose first head is better than that of N = 1, beyond the noise."""
        return self.with_verdict("lower")

    @property
    def words_compared(self) -> Mapping[str, Comparison]:
        """Shares of known words against N = 1: texts from the same prompts by models of the same seeds."""
        known = self.known_words
        others = [label for label in known if label != "N = 1"]
        return dict(zip(others, holm([compare_paired(known["N = 1"], known[label]) for label in others]), strict=True))

    @property
    def furthest(self) -> tuple[float, float]:
        """What the last head of the largest N knows beyond letter frequencies, and what its first head does, nats."""
        means = [mean_std(column)[0] for column in self.by_head(self.rows[-1].label, "losses")]
        return self.unigram_loss - means[-1], self.unigram_loss - means[0]

    @property
    def fastest(self) -> Drafting:
        """By the clock, of those that gain by the less favourable quartiles if any does."""
        return max(self.drafts, key=lambda run: (run.low > 1, run.speedup))

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        found = metrics(self.variants) | {"unigram_loss_nats": self.unigram_loss}
        for row in self.variants:
            for name, field in (("loss_nats", "losses"), ("accuracy", "accuracies")):
                for n, column in enumerate(self.by_head(row.label, field), 1):
                    found[f"{name}_{row.key}_head_{n}"] = mean_std(column)[0]
        for label, shares in self.known_words.items():
            found[f"known_words_{key(label)}"] = mean_std(shares)[0]
            if len(shares) > 1:
                found[f"known_words_{key(label)}_std"] = mean_std(shares)[1]
        for run in self.drafts:
            for kind, seeds in (("greedy", run.greedy), ("sampled", run.sampled)):
                mean, spread = mean_std(run.tokens_per_pass(seeds))
                found[f"tokens_per_pass_{kind}_{key(run.label)}"] = mean
                if len(seeds) > 1:
                    found[f"tokens_per_pass_{kind}_{key(run.label)}_std"] = spread
            found[f"self_speculation_speedup_{key(run.label)}"] = run.speedup
        return found

    def by_head(self, label: str, field: str) -> list[tuple[float, ...]]:
        """Losses or accuracies of each head of a variant, one value per seed."""
        return list(zip(*(getattr(seed, field) for seed in self.scores[label]), strict=True))
