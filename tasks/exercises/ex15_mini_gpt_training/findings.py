"""What 21.15 measures: losses and samples of a mini-GPT after every epoch, and what models that know less would pay."""

import math
from dataclasses import dataclass
from itertools import pairwise

from minigpt.evaluation.statistics import mean_std


@dataclass(frozen=True)
class Epoch:
    """The model after so many passes over the training text."""

    number: float  # 0 is the untrained model; the last may be a part of a pass
    step: int
    train_loss: float | None  # mean over the steps since the epoch before, nats
    nats: float  # per character, over the whole validation split
    bits_per_byte: float  # over the same
    targets: int  # characters scored
    text: str  # the first sample
    real_words: float  # share of the words in all samples that occur in the training text

    @property
    def bits(self) -> float:
        """Validation loss, bits per character."""
        return self.nats / math.log(2)

    @property
    def perplexity(self) -> float:
        """Validation perplexity per character."""
        return math.exp(self.nats)


@dataclass(frozen=True)
class Baselines:
    """What the validation text costs without a Transformer, nats per character."""

    uniform: float
    unigram: float
    bigram: float
    xz: float  # what it adds to the xz-compressed training text
    ngram: float  # of the n below, the best of 1 … 8
    n: int


@dataclass(frozen=True)
class Curve:
    """Losses at steps, nats per character."""

    steps: tuple[float, ...]
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Setting:
    """The model and its training."""

    parameters: int
    n_layer: int
    d_model: int
    n_head: int
    context: int  # characters
    vocab_size: int
    steps: int
    batch_size: int
    learning_rate: float  # its peak
    seconds: float  # of training


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    setting: Setting
    training: Curve  # as the training recorded it
    validation: Curve  # as the training recorded it
    epochs: tuple[Epoch, ...]
    steps_per_epoch: float
    tokens_per_epoch: int
    baselines: Baselines
    targets: int  # characters of the validation text but the first
    prompt: str
    bits: tuple[float, ...]  # of every seed at the end, per character
    samples: int
    characters: int  # of a sample
    temperature: float

    @property
    def last(self) -> Epoch:
        """The finished model."""
        return self.epochs[-1]

    @property
    def best(self) -> Epoch:
        """The epoch with the lowest validation loss."""
        return min(self.epochs, key=lambda epoch: epoch.nats)

    @property
    def wobble(self) -> float:
        """The largest rise of the validation loss from one epoch to the next before its lowest point, in nats."""
        losses = [epoch.nats for epoch in self.epochs[: self.epochs.index(self.best) + 1]]
        return max(0.0, *(after - before for before, after in pairwise(losses)))

    @property
    def rise(self) -> float:
        """Of the validation loss from its lowest point to the end, in nats."""
        return self.last.nats - self.best.nats

    @property
    def gap(self) -> float:
        """From the training loss up to the validation loss, at the end, in nats."""
        return self.last.nats - float(self.last.train_loss or math.nan)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        seeds = {"final_validation_bits_per_character_mean_of_seeds": mean_std(self.bits)[0]}
        seeds["final_validation_bits_per_character_std"] = mean_std(self.bits)[1]
        return (seeds if len(self.bits) > 1 else {}) | {
            "start_loss_nats": self.epochs[0].nats,
            "ln_vocab_nats": self.baselines.uniform,
            "final_train_loss_nats": float(self.last.train_loss or math.nan),
            "final_validation_loss_nats": self.last.nats,
            "final_validation_bits_per_character": self.last.bits,
            "final_validation_bits_per_byte": self.last.bits_per_byte,
            "final_validation_perplexity_per_character": self.last.perplexity,
            "best_validation_loss_nats": self.best.nats,
            "best_epoch": self.best.number,
            "epochs": self.last.number,
            "unigram_loss_nats": self.baselines.unigram,
            "bigram_loss_nats": self.baselines.bigram,
            "best_ngram_loss_nats": self.baselines.ngram,
            "best_n": self.baselines.n,
            "xz_loss_nats": self.baselines.xz,
            "real_words_first_epoch_share": self.epochs[1].real_words,
            "real_words_last_epoch_share": self.last.real_words,
            "parameters": self.setting.parameters,
            "training_seconds": self.setting.seconds,
        }
