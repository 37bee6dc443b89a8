"""What 21.21 measures: the data, the training, and what the model scores and writes before and after it."""

from dataclasses import dataclass

from minigpt.evaluation.statistics import Comparison, compare, compare_paired


@dataclass(frozen=True)
class Split:
    """The training or the held-out part of the domain."""

    characters: int
    words: int
    tokens: int  # of the model's own tokenizer
    gpt2_tokens: int  # of GPT-2's
    used: int  # tokens of the training, or of the evaluations during it


@dataclass(frozen=True)
class Training:
    """The fine-tuning."""

    epochs: int
    learning_rate: float
    batch_size: int
    block: int  # tokens in a sequence
    steps: int
    parameters: int
    seconds: float
    tokens_per_second: float
    trained_steps: tuple[float, ...]
    trained_losses: tuple[float, ...]  # nats per token, mean since the point before
    evaluated_steps: tuple[float, ...]  # the first is of before the training
    evaluated_losses: tuple[float, ...]  # on held-out text, nats per token


@dataclass(frozen=True)
class Score:
    """A held-out text under one model."""

    tokens: int
    perplexity: float
    bits_per_byte: float
    windows: tuple[float, ...]  # mean loss of each whole window, nats per token


@dataclass(frozen=True)
class Scores:
    """One held-out text under the model before and after."""

    before: Score
    after: Score

    @property
    def change(self) -> Comparison:
        """Of the mean loss, paired over windows."""
        return compare_paired(self.before.windows, self.after.windows)


@dataclass(frozen=True)
class Written:
    """Continuations of one prompt, before and after, from the same random numbers."""

    prompt: str
    before: tuple[str, ...]
    after: tuple[str, ...]


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    model: str  # its name
    note: str  # what it is and what it cannot answer; "" for GPT-2 itself
    train: Split
    held_out: Split
    first_tokens: tuple[tuple[int, str], ...]  # of the training text: id and text
    training: Training
    scores: dict[str, Scores]  # the domain, the main corpus, Python source
    written: tuple[Written, ...]
    domain_words_before: tuple[float, ...]  # per text, the share of its words that the training text has
    domain_words_after: tuple[float, ...]
    own_loss: tuple[float, float]  # the untuned model's loss on the first window: ours, Transformers'
    again: float  # the loss before the first step, scored apart
    overlap: int  # lines of the held-out text that also stand in the training text
    lines: int  # of the held-out text, of those that were looked for

    @property
    def epochs(self) -> list[float]:
        """How often the training text was read at each evaluation."""
        t = self.training
        return [step * t.batch_size * t.block / self.train.used for step in t.evaluated_steps]

    @property
    def domain_words(self) -> Comparison:
        """The shares of words after the training against those before it."""
        return compare(self.domain_words_before, self.domain_words_after)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        t, share = self.training, self.domain_words
        metrics: dict[str, float | int] = {
            "domain_words_share_before": share.baseline[0],
            "domain_words_share_after": share.other[0],
            "domain_words_share_before_std": share.baseline[1],
            "domain_words_share_after_std": share.other[1],
            "epochs": t.epochs,
            "learning_rate": t.learning_rate,
            "steps": t.steps,
            "train_tokens": self.train.used,
            "training_seconds": t.seconds,
            "tokens_per_second": t.tokens_per_second,
        }
        for name, s in self.scores.items():
            key, change = name.replace(" ", "_").lower(), s.change
            metrics |= {
                f"perplexity_{key}_before": s.before.perplexity,
                f"perplexity_{key}_after": s.after.perplexity,
                f"bits_per_byte_{key}_before": s.before.bits_per_byte,
                f"bits_per_byte_{key}_after": s.after.bits_per_byte,
                f"loss_change_nats_{key}": change.difference,
            }
            if change.verdict != "one seed":
                metrics[f"loss_change_nats_{key}_low"], metrics[f"loss_change_nats_{key}_high"] = change.interval
        return metrics
