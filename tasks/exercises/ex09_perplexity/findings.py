"""What 21.9 measures: one model's perplexity in three units, and a pretrained model's on prose and on code."""

import math
from dataclasses import dataclass

from minigpt.evaluation.statistics import mean_std

GIVEN, UNIFORM, QUESTIONED = 25, 50_000, 50
ENGLISH, PYTHON = 15, 45


@dataclass(frozen=True)
class Unit:
    """One way to count the same text, and what the same loss comes to in it."""

    name: str
    count: int
    perplexity: float

    @property
    def total_bits(self) -> float:
        """Of the whole text."""
        return math.log2(self.perplexity) * self.count


@dataclass(frozen=True)
class Meaning:
    """What the perplexity QUESTIONED comes to with one kind of tokens."""

    tokens: str
    vocab_size: int | None
    bytes_per_token: float
    bits_per_byte: float


@dataclass(frozen=True)
class Scored:
    """A text under the pretrained model, and under two references that know no language."""

    tokens: int
    bytes_per_token: float
    perplexity: float  # per token
    bits_per_byte: float
    byte_frequencies: float  # bits per byte
    lzma: float  # bits per byte
    blank_share: float  # of tokens that are white space
    blank_loss: float | None  # mean, nats; None where there are none
    other_loss: float | None
    loss: float | None  # of all
    own_difference: float  # of the loss on the first tokens from that of Transformers, nats per token

    @property
    def gain(self) -> float:
        """Share of LZMA's bits that the model does without; negative where it needs more."""
        return 1 - self.bits_per_byte / self.lzma


@dataclass(frozen=True)
class Study:
    """The character model on the whole validation text."""

    losses: tuple[float, ...]  # nats per character, one per seed
    vocab_size: int
    characters: int  # predicted: all but the first
    n_bytes: int
    words: int | None  # what white space divides; None in a script that does without
    unigram_loss: float  # of one who knows the frequencies of characters only, nats per character

    @property
    def units(self) -> tuple[Unit, ...]:
        """Mean loss over seeds, shared out."""
        nats = mean_std(self.losses)[0] * self.characters
        return tuple(
            Unit(name, count, math.exp(nats / count))
            for name, count in (("character", self.characters), ("byte", self.n_bytes), ("word", self.words))
            if count is not None
        )


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    pretrained: str  # name
    note: str  # on what it is, where that needs saying
    pretrained_vocab_size: int
    prose: Scored
    code: Scored
    study: Study
    uniform_perplexity: float  # of constant logits over UNIFORM tokens
    exact_log: float  # ln GIVEN in 50-digit arithmetic
    given_perplexity: float  # of a model that gives the right token 1 / GIVEN

    @property
    def scored(self) -> dict[str, Scored]:
        """Both texts by the names that readers see."""
        return {"English prose": self.prose, "Python source": self.code}

    @property
    def meanings(self) -> tuple[Meaning, ...]:
        """What QUESTIONED comes to if the tokens are characters, those of the pretrained model, or words if any."""
        study, bits, size = self.study, math.log2(QUESTIONED), self.prose.bytes_per_token
        n_bytes = study.n_bytes
        found = (
            Meaning("characters", study.vocab_size, n_bytes / study.characters, bits * study.characters / n_bytes),
            Meaning(f"those of {self.pretrained}", self.pretrained_vocab_size, size, bits / size),
        )
        if study.words is None:
            return found
        return *found, Meaning("words", None, n_bytes / study.words, bits * study.words / n_bytes)

    @property
    def hypothetical(self) -> tuple[float, float]:
        """Bits per byte of the two perplexities in the question, with the pretrained model's tokens."""
        return math.log2(ENGLISH) / self.prose.bytes_per_token, math.log2(PYTHON) / self.code.bytes_per_token

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {
            "cross_entropy_at_perplexity_25_nats": math.log(GIVEN),
            "cross_entropy_at_perplexity_25_bits": math.log2(GIVEN),
            "perplexity_uniform_50000": self.uniform_perplexity,
            "cross_entropy_uniform_50000_nats": math.log(UNIFORM),
            "bits_per_byte_at_perplexity_15_english": self.hypothetical[0],
            "bits_per_byte_at_perplexity_45_python": self.hypothetical[1],
        }
        for key, s in (("english", self.prose), ("python", self.code)):
            metrics |= {
                f"perplexity_{key}": s.perplexity,
                f"bits_per_byte_{key}": s.bits_per_byte,
                f"bytes_per_token_{key}": s.bytes_per_token,
                f"scored_tokens_{key}": s.tokens,
                f"byte_frequencies_bits_per_byte_{key}": s.byte_frequencies,
                f"lzma_bits_per_byte_{key}": s.lzma,
                f"fewer_bits_than_lzma_share_{key}": s.gain,
            }
        metrics |= {f"study_perplexity_per_{unit.name}": unit.perplexity for unit in self.study.units}
        for key, meaning in zip(("character", "pretrained_token", "word"), self.meanings, strict=False):
            metrics[f"bits_per_byte_at_perplexity_{QUESTIONED}_per_{key}"] = meaning.bits_per_byte
        return metrics
