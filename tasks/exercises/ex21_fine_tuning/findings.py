"""What 21.21 measures: the data, the training, and what the model scores and writes before and after it."""

from dataclasses import dataclass

from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std


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
    precision: str  # "fp32" or "bf16"
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


def has_words(text: str) -> bool:
    """Whether a written text holds a whole word: white space divides words, and the last one may be cut."""
    return len(text.split()) > 1


@dataclass(frozen=True)
class Written:
    """Continuations of one prompt, before and after, from the same random numbers."""

    prompt: str
    before: tuple[str, ...]
    after: tuple[str, ...]
    words_before: tuple[float, ...]  # per text, the share of its words that the training text has
    words_after: tuple[float, ...]

    @property
    def known_before(self) -> float | None:
        """Mean over the texts; None where none of them holds a whole word."""
        return mean_std(self.words_before)[0] if any(map(has_words, self.before)) else None

    @property
    def known_after(self) -> float | None:
        """The same after the training."""
        return mean_std(self.words_after)[0] if any(map(has_words, self.after)) else None


@dataclass(frozen=True)
class Recall:
    """Whether a model goes on with a text as the text does: greedily, from the first tokens of its lines."""

    lines: int
    prompt: int  # tokens given
    asked: int  # tokens after them
    whole_before: int  # lines that the untuned model goes on with in those very tokens
    whole_after: int  # likewise after the training
    share_before: float  # tokens of all lines that are the text's, up to the first that is not
    share_after: float


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
    recall: dict[str, Recall]  # of the same texts as scores
    own_loss: tuple[float, float]  # the untuned model's loss on the first window: ours, Transformers'
    again: float  # the loss before the first step, scored apart
    shared: int  # lines of the training text that stand in the held-out text, and were left out of the training
    overlap: int  # such lines that are left
    lines: int  # of the held-out text, of those that were looked for
    runs: int  # words in a run
    shared_runs: float  # share of the held-out text's runs that stand in what was trained on

    @property
    def epochs(self) -> list[float]:
        """How often the training text was read at each evaluation."""
        t = self.training
        return [step * t.batch_size * t.block / self.train.used for step in t.evaluated_steps]

    @property
    def domain_words(self) -> Comparison | None:
        """The shares of words after the training against those before it, paired over prompts.

        Texts of one prompt have much in common, so that each prompt counts once. None where after no prompt both
        models wrote a whole word, as in a script without spaces.
        """
        pairs = ((w.known_before, w.known_after) for w in self.written)
        shares = [(before, after) for before, after in pairs if before is not None and after is not None]
        return compare_paired(*zip(*shares, strict=True)) if shares else None

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        t, share = self.training, self.domain_words
        metrics: dict[str, float | int] = {
            "epochs": t.epochs,
            "learning_rate": t.learning_rate,
            "steps": t.steps,
            "train_tokens": self.train.used,
            "lines_left_out_of_training": self.shared,
            "held_out_runs_in_training_share": self.shared_runs,
            "training_seconds": t.seconds,
            "tokens_per_second": t.tokens_per_second,
        }
        if share is not None:
            metrics |= {
                "domain_words_share_before": share.baseline[0],
                "domain_words_share_after": share.other[0],
                "domain_words_share_before_std": share.baseline[1],
                "domain_words_share_after_std": share.other[1],
            }
        for name, r in self.recall.items():
            key = name.replace(" ", "_").lower()
            metrics |= {f"recalled_{key}_before": r.share_before, f"recalled_{key}_after": r.share_after}
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
