"""What 21.23 measures: lengths, costs of training, and bits per byte under three tokenizers."""

import math
from dataclasses import dataclass

import regex

from minigpt.evaluation.statistics import mean_std
from tasks.variants import Variant

CONTEXTS = (256, 1024)
WORD = regex.compile(r"\w{1,32}(?:['’]\w{1,32})*")  # as ``minigpt.tokenizers.WordTokenizer`` has it, in any script
SELDOM = 10  # an entry of the vocabulary that occurs less often is hardly trained
CLASSES = (("unseen", 0, 0), ("1-9", 1, 9), ("10-99", 10, 99), ("100 or more", 100, math.inf))


@dataclass(frozen=True)
class Pieces:
    """A word in tokens."""

    tokens: int
    text: str  # the tokens, each decoded alone


@dataclass(frozen=True)
class Kind:
    """One tokenizer, and the models that were trained with it."""

    name: str
    variant: Variant  # the models of all seeds, and the time of a step, measured alone
    late: tuple[float, ...]  # validation loss of trainings as long as the shortest (or of the shortest that was
    # finished, where that takes longer), nats per token, one per seed
    vocabulary: int  # entries
    d_model: int
    context: int
    tokens_per_step: int  # targets in a batch
    flops_per_token: float  # of training
    logits_share: float  # of these FLOPs: those of the product with the unembedding
    spans: tuple[tuple[int, int], ...]  # of the paragraph's tokens, in characters
    tokens: int  # in the validation text
    unknown: int  # tokens among them
    spelling: float  # bits to write the unknown words out
    train_tokens: int
    bits: tuple[float, ...]  # of the validation text, one per seed
    nats_per_token: tuple[float, ...]  # of the validation text, scored again, one per seed
    by_rarity: tuple[tuple[float, ...], ...]  # per class: bits per byte of words, one per seed, unknown ones spelled
    entries_below: dict[int, float]  # share of the vocabulary that the training text has less often than so many times
    rare: tuple[Pieces, ...]  # the rare words of the findings
    round_trips: tuple[bool, bool]  # of the paragraph, of a text with unseen signs
    n_bytes: int  # of the validation text
    train_bytes: int

    @property
    def paragraph(self) -> int:
        """Tokens in the paragraph."""
        return len(self.spans)

    @property
    def bits_per_byte(self) -> list[float]:
        """Per seed; unknown words cost no more than the sign that stands for them."""
        return [bits / self.n_bytes for bits in self.bits]

    @property
    def spelled(self) -> list[float]:
        """Per seed, with unknown words spelled out."""
        return [bits + self.spelling / self.n_bytes for bits in self.bits_per_byte]

    @property
    def spelled_at_equal_time(self) -> list[float]:
        """Per seed, of trainings as long as the shortest."""
        return [(nats * (self.tokens - 1) / math.log(2) + self.spelling) / self.n_bytes for nats in self.late]

    @property
    def late_cost(self) -> float:
        """The same, mean over seeds."""
        return mean_std(self.spelled_at_equal_time)[0]

    @property
    def rarity(self) -> tuple[float, ...]:
        """Bits per byte of words by class, mean over seeds."""
        return tuple(mean_std(values)[0] for values in self.by_rarity)

    @property
    def bytes_per_token(self) -> float:
        """In the validation text."""
        return self.n_bytes / self.tokens

    @property
    def train_bytes_per_token(self) -> float:
        """In the training text."""
        return self.train_bytes / self.train_tokens

    @property
    def unknown_share(self) -> float:
        """Of the tokens of the validation text."""
        return self.unknown / self.tokens

    @property
    def seconds(self) -> float:
        """Of one training: steps times the median step."""
        return self.variant.steps * self.variant.step_seconds

    @property
    def bytes_seen(self) -> float:
        """Text that one training read."""
        return self.variant.steps * self.tokens_per_step * self.train_bytes_per_token

    @property
    def bytes_per_second(self) -> float:
        """Text that a training reads."""
        return self.bytes_seen / self.seconds

    @property
    def flops_per_byte(self) -> float:
        """Of training."""
        return self.flops_per_token / self.train_bytes_per_token

    @property
    def embedding_share(self) -> float:
        """Of the parameters that the token embedding has."""
        return self.vocabulary * self.d_model / self.variant.parameters


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    kinds: dict[str, Kind]
    text: str  # the paragraph
    rare: tuple[
        tuple[str, int], ...
    ]  # the rarest words of the paragraph, then some foreign to it; times in the training text
    rarity_sizes: tuple[int, ...]  # words of the validation text, by class
    unknown_pieces: int  # found by looking pieces up
    transformers_agrees: bool  # that its GPT-2 tokenizer gives the same ids

    @property
    def budget(self) -> float:
        """Seconds of the shortest training: what equal time means."""
        return min(kind.seconds for kind in self.kinds.values())

    @property
    def words(self) -> int:
        """In the paragraph."""
        return len(WORD.findall(self.text))

    @property
    def present(self) -> list[int]:
        """The classes of words that the validation text has."""
        return [i for i, size in enumerate(self.rarity_sizes) if size]

    @property
    def by_late_cost(self) -> list[Kind]:
        """The tokenizers by what they cost at equal time, the least first."""
        return sorted(self.kinds.values(), key=lambda kind: kind.late_cost)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {"equal_time_seconds": self.budget}
        for name, kind in self.kinds.items():
            key, n = name.replace(" ", "_"), kind.paragraph
            for context in (kind.context, *CONTEXTS):
                metrics[f"{key}_contexts_of_{context}_per_paragraph"] = n / context
            for (label, *_), size, cost in zip(CLASSES, self.rarity_sizes, kind.rarity, strict=True):
                if size:  # "unseen", "1_to_9", …
                    metrics[f"{key}_bits_per_byte_words_{label.replace(' ', '_').replace('-', '_to_')}"] = cost
            metrics |= {
                f"{key}_paragraph_tokens": n,
                f"{key}_tokens_per_word": n / self.words,
                f"{key}_words_in_a_context_of_{CONTEXTS[-1]}": CONTEXTS[-1] * self.words / n,
                f"{key}_embedding_share_of_parameters": kind.embedding_share,
                f"{key}_logits_share_of_flops": kind.logits_share,
                f"{key}_unused_share_of_vocabulary": kind.entries_below[1],
                f"{key}_bits_per_byte_spelled_at_equal_time": kind.late_cost,
                f"{key}_vocabulary": kind.vocabulary,
                f"{key}_bytes_per_token": kind.bytes_per_token,
                f"{key}_unknown_tokens_share": kind.unknown_share,
                f"{key}_embedding_parameters": kind.vocabulary * kind.d_model,
                f"{key}_bits_per_byte": mean_std(kind.bits_per_byte)[0],
                f"{key}_bits_per_byte_spelled": mean_std(kind.spelled)[0],
                f"{key}_training_seconds": kind.seconds,
                f"{key}_training_bytes_per_second": kind.bytes_per_second,
                f"{key}_training_flops_per_byte": kind.flops_per_byte,
            }
        return metrics | {"paragraph_bytes": len(self.text.encode()), "paragraph_words": self.words}
