"""What 21.22 measures: losses, times and texts of three sizes, at equal steps and at equal time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from minigpt.evaluation.curves import mean_between
from minigpt.evaluation.statistics import Comparison, compare, mean_std

SIZES = ("small", "medium", "large")
EQUAL_TIME = ("small, longer", "medium, longer", "large")


@dataclass(frozen=True)
class Seed:
    """One training of a recipe, and its score over the whole validation split."""

    nats: float  # per character
    perplexity: float  # per character
    bits_per_byte: float
    targets: int  # characters scored
    tokens_per_second: float  # median over the history of the training
    evaluated_steps: tuple[float, ...]
    evaluated_losses: tuple[float, ...]  # nats per character, as the training recorded them
    trained_steps: tuple[float, ...]
    trained_losses: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One recipe with all its seeds."""

    name: str
    seeds: tuple[Seed, ...]
    steps: int  # updates of the weights
    tokens_per_step: int  # targets in a batch
    parameters: int  # trained numbers, shared ones once
    vocab_size: int
    flops_per_token: float  # of a training step
    texts: tuple[str, ...]  # samples of the first seed
    real_words: float  # share of the words that the training text has too
    copied: float  # mean over samples of the longest run that the training text has too, characters

    @property
    def losses(self) -> list[float]:
        """Validation loss of each seed, nats per character."""
        return [seed.nats for seed in self.seeds]

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.losses)[0]

    @property
    def perplexity(self) -> float:
        """Per character, mean over the seeds."""
        return mean_std([seed.perplexity for seed in self.seeds])[0]

    @property
    def bits_per_byte(self) -> float:
        """Mean over the seeds."""
        return mean_std([seed.bits_per_byte for seed in self.seeds])[0]

    @property
    def training_loss(self) -> float:
        """Mean over the last tenth of the steps, nats per character; of the first seed."""
        first = self.seeds[0]
        return mean_between(first.trained_steps, first.trained_losses, 0.9 * self.steps, self.steps)

    @property
    def characters(self) -> int:
        """Seen in training, repetitions included."""
        return self.steps * self.tokens_per_step

    @property
    def step_seconds(self) -> float:
        """Median over the history of the training, of which the median over seeds."""
        rates = sorted(seed.tokens_per_second for seed in self.seeds)
        return self.tokens_per_step / rates[len(rates) // 2]

    @property
    def rate(self) -> float:
        """Characters per second of training."""
        return self.tokens_per_step / self.step_seconds

    @property
    def seconds(self) -> float:
        """Of the training: steps times the median step, so that a pause of the machine does not count."""
        return self.steps * self.step_seconds


@dataclass(frozen=True)
class Count:
    """Parameters of one of the book's sizes with some vocabulary, whatever the profile trains."""

    size: str
    vocabulary: str  # in words
    vocab_size: int
    closed_form: int
    built: int  # counted on a model that is really built
    d_model: int


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    runs: dict[str, Run]
    counts: tuple[Count, ...]
    epoch: int  # training characters
    targets: int  # validation characters but the first
    prompt: str
    samples: int
    characters: int  # of a sample
    temperature: float
    device: str

    def time_ratio(self, name: str) -> float:
        """Training time of a run over that of large."""
        return self.runs[name].seconds / self.runs["large"].seconds

    def best(self, names: Sequence[str]) -> Run:
        """The run with the lowest mean validation loss."""
        return min((self.runs[name] for name in names), key=lambda run: run.loss)

    @property
    def at_equal_steps(self) -> Comparison:
        """Large against small."""
        return compare(self.runs["small"].losses, self.runs["large"].losses)

    @property
    def at_equal_time(self) -> Comparison:
        """Large against small, trained longer."""
        return compare(self.runs["small, longer"].losses, self.runs["large"].losses)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for name, run in self.runs.items():
            key = name.replace(", ", "_")
            metrics |= {
                f"{key}_parameters": run.parameters,
                f"{key}_steps": run.steps,
                f"{key}_training_loss_nats": run.training_loss,
                f"{key}_validation_loss_nats": run.loss,
                f"{key}_validation_perplexity_per_character": run.perplexity,
                f"{key}_bits_per_character": run.loss / math.log(2),
                f"{key}_bits_per_byte": run.bits_per_byte,
                f"{key}_seconds_per_epoch": self.epoch / run.tokens_per_step * run.step_seconds,
                f"{key}_tokens_per_second": run.rate,
                f"{key}_training_seconds": run.seconds,
                f"{key}_real_words_share": run.real_words,
                f"{key}_longest_copied_run_characters": run.copied,
            }
            if len(run.losses) > 1:
                metrics[f"{key}_validation_loss_nats_std"] = mean_std(run.losses)[1]
        own = self.runs["small"].vocab_size
        for count in self.counts:
            if count.vocab_size != own:
                metrics[f"{count.size}_parameters_vocab_{count.vocab_size}"] = count.closed_form
        return metrics
