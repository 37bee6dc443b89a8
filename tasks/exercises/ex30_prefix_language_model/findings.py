"""What 21.30 measures: the mask's limits, losses after a prefix by model and reading, and completions."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std
from tasks.variants import Variant, metrics

# How each model is read, and whether the prefix is then bidirectional. The first three are as trained.
READINGS = {
    "causal model": ("causal", False),
    "prefix model": ("prefix", True),
    "control": ("control", False),
    "prefix model, read causally": ("prefix", False),
    "causal model, prefix opened": ("causal", True),
}
WRONG = 3  # continuations of other paragraphs to choose among


def trained_targets(context: int) -> float:
    """Share of a window's targets that the prefix objective scores, for lengths uniform on 0 … T - 1."""
    return sum(context + 1 - max(prefix, 1) for prefix in range(context)) / context**2


def with_spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """The mean as a metric, and the standard deviation where there are several seeds."""
    mean, spread = mean_std(values)
    return {name: mean, f"{name}_std": spread} if len(values) > 1 else {name: mean}


@dataclass(frozen=True)
class Limits:
    """Largest differences, which should be exactly 0, and a leak that should not be there."""

    causal: float
    full: float
    leaking: int  # scored predictions that change with their own target
    inside: int  # predictions inside the prefix that do, which is why they are not scored
    cached: int  # tokens of a completion that differ from recomputing everything for each token


@dataclass(frozen=True)
class Words:
    """Words after the paragraph, completed without error from what stands before them; shares, one per seed."""

    count: int
    shortest: int  # letters
    given: int  # tokens, where not all of the window before the word is
    after_all: dict[str, tuple[float, ...]]  # by label
    after_little: dict[str, tuple[float, ...]]  # given only the tokens just before the word

    def paragraph(self, label: str) -> Comparison:
        """What the rest of the paragraph is worth to a model: all of it against the last tokens."""
        return compare_paired(self.after_little[label], self.after_all[label])

    @property
    def prefix_against_causal(self) -> Comparison:
        """After the whole paragraph."""
        return compare_paired(self.after_all["causal"], self.after_all["prefix"])


@dataclass(frozen=True)
class Completion:
    """A paragraph as one model continues it."""

    paragraph: int  # from 1
    model: str  # label of the variant
    seed: int
    prompt: str
    text: str
    original: str


@dataclass(frozen=True)
class Findings:
    """All that was measured. ``seeds``, ``choices`` and ``by_distance`` are of the causal and of the prefix model."""

    rows: tuple[Variant, ...]  # causal, prefix, control
    context: int  # tokens in a window
    windows: int  # that are scored
    masks: dict[int, tuple[tuple[bool, ...], ...]]  # by prefix, to be drawn
    limits: Limits
    limits_prefix: int
    losses: dict[str, dict[int, tuple[float, ...]]]  # on the suffix: reading → prefix → one value per seed
    seeds: dict[str, tuple[int, ...]]  # by label
    choices: dict[str, tuple[float, ...]]  # share of right ones, one value per seed
    by_distance: dict[str, tuple[float, ...]]  # loss of the first, second, … token after the prefix
    words: Words
    completions: tuple[Completion, ...]
    temperature: float  # of the completions
    mask_source: str
    objective_source: str

    @property
    def half(self) -> int:
        """The prefix at which models are compared."""
        return self.context // 2

    def against(self, other: str, prefix: int) -> Comparison:
        """The prefix model against another reading, on the same targets; no verdict unless both beat the bigram."""
        theirs, its = self.losses[other][prefix], self.losses["prefix model"][prefix]
        found = compare_paired(theirs, its)
        learned = max(*theirs, *its) < self.rows[0].baselines.bigram
        return found if learned else replace(found, verdict="untrained")

    @property
    def against_causal(self) -> Comparison:
        """At half of the context."""
        return self.against("causal model", self.half)

    @property
    def against_control(self) -> Comparison:
        """At half of the context."""
        return self.against("control", self.half)

    @property
    def opened(self) -> Comparison:
        """The prefix model read as trained against its causal reading: the same models, their differences cancel."""
        read = self.losses
        return compare_paired(read["prefix model, read causally"][self.half], read["prefix model"][self.half])

    @property
    def chosen(self) -> Comparison:
        """Share of right choices: the prefix model against the causal one."""
        return compare_paired(self.choices["causal"], self.choices["prefix"])

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        found = metrics(self.rows)
        for label, shares in self.choices.items():
            found |= with_spread(f"right_choices_share_{label}", shares)
            found |= with_spread(f"completed_words_share_{label}", self.words.after_all[label])
            found |= with_spread(f"completed_words_share_{label}_given_little", self.words.after_little[label])
        for reading, by in self.losses.items():
            key = reading.replace(",", "").replace(" ", "_")
            for prefix, values in by.items():
                found |= with_spread(f"suffix_loss_nats_{key}_p_{prefix}", values)
        return found
