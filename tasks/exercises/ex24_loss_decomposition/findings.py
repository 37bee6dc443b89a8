"""What 21.24 measures: a passage token by token, and what tokens and words of a longer text cost by what they are."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.word_losses import CONTENT, FUNCTION, LATER, MARK

EXTREMES = 10  # tokens in (b) and (c)
RARE = 10_000  # a word is rare that is less than one in so many of the training text
BOUNDS = (8, 16, 32, 64, 128, 256)  # of the bins of positions: up to 8 tokens before it, up to 16, …
PLACES = 12  # of a word in its sentence, in the figure


class Described(Protocol):
    """What is known about a token; see ``minigpt.evaluation.word_losses``."""

    @property
    def loss(self) -> float: ...  # noqa: D102

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def name(self) -> bool: ...  # noqa: D102

    @property
    def rare(self) -> bool: ...  # noqa: D102

    @property
    def begins(self) -> bool: ...  # noqa: D102

    @property
    def seen(self) -> bool: ...  # noqa: D102


FLAGS: dict[str, Callable[[Described], bool]] = {
    "in a name": lambda token: token.name,
    "in a rare word": lambda token: token.rare,
    "begins a sentence": lambda token: token.begins,
    CONTENT: lambda token: token.kind == CONTENT,
    FUNCTION: lambda token: token.kind == FUNCTION,
    LATER: lambda token: token.kind == LATER,
    MARK: lambda token: token.kind == MARK,
    "pair seen before": lambda token: token.seen,
}


def mean(values: Iterable[float]) -> float:
    """Of at least one value; 0 of none."""
    found = list(values)
    return mean_std(found)[0] if found else 0.0


def share(tokens: Sequence[Described], flag: str) -> float:
    """Of tokens that have it."""
    return mean(float(FLAGS[flag](token)) for token in tokens)


@dataclass(frozen=True)
class PassageToken:
    """A scored token of the passage."""

    index: int  # among the scored tokens
    piece: str
    before: str  # what stands before it, its end
    loss: float  # nats
    choice: str  # the model's likeliest token in its place
    probability: float  # of that
    kind: str
    word: str  # that it belongs to; "" if none
    name: bool  # of a word that is written like a name
    rare: bool
    begins: bool  # the first piece of a sentence's first word
    seen: bool  # it followed the same token earlier in its window: it could be copied


@dataclass(frozen=True)
class Group:
    """Tokens of one kind."""

    tokens: int
    loss: float | None  # mean, nats; None of no tokens
    share: float  # of the loss of all tokens


@dataclass(frozen=True)
class Text:
    """The whole text that was scored; the passage is its beginning."""

    tokens: int
    nats: float  # per token
    perplexity: float  # per token
    bits_per_byte: float
    kinds: dict[str, Group]
    shares: dict[str, float]  # of all tokens, by flag
    extremes: int  # tokens of highest and of lowest loss that were looked at
    highest: dict[str, float]  # their shares
    lowest: dict[str, float]


@dataclass(frozen=True)
class Line:
    """Mean losses with their standard errors."""

    name: str
    x: tuple[str | int, ...]
    means: tuple[float, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class FirstWords:
    """What sentences begin with."""

    sentences: int  # whose first word is whole
    commonest: str
    number: int  # of sentences that begin with it
    loss: float  # of its first piece there, nats
    others: float | None  # the same of other first words; None if there are none
    function: float  # share of function words among first words
    inner_function: float  # and among the other words of sentences


@dataclass(frozen=True)
class Effect:
    """The mean of group 1 less the mean of group 0, within strata."""

    difference: float  # nats
    interval: tuple[float, float]  # percentiles of the bootstrap
    means: tuple[float, float]  # raw, groups 0 and 1
    counts: tuple[int, int]  # values of groups 0 and 1
    verdict: str  # "lower", "higher", "noise" or "too few"


@dataclass(frozen=True)
class Comparison:
    """One question of (d): a number per word or token, a group, and the effect with and without control."""

    name: str
    groups: tuple[str, str]  # what the difference is: the second less the first
    measure: str
    effects: dict[str, Effect | None]  # by what is held equal


@dataclass(frozen=True)
class Modern:
    """The same of a passage of present-day prose, which no model has read."""

    begins: str  # the first token, which nothing precedes
    pieces: tuple[str, ...]  # of all scored tokens
    losses: tuple[float, ...]  # nats
    bits_per_byte: float
    first_words: FirstWords | None
    comparisons: tuple[Comparison, ...]

    @property
    def nats(self) -> float:
        """Mean loss per token."""
        return mean(self.losses)

    @property
    def perplexity(self) -> float:
        """Per token."""
        return math.exp(self.nats)

    def controlled(self, name: str, held: str = "position") -> Effect | None:
        """An effect on first pieces."""
        found = next(c for c in self.comparisons if (c.name, c.measure) == (name, "first piece"))
        return found.effects[held]


@dataclass(frozen=True)
class Oracle:
    """The same numbers on other ways."""

    size: int  # tokens that were compared with Transformers
    ours: float  # their mean loss, nats
    transformers: float
    moved: float  # largest difference to losses that are moved by one place, nats
    misplaced: int  # tokens whose text is not what stands at their place
    alone: float  # largest difference of the passage's losses from those of the passage scored by itself, nats
    total: float  # loss of the text, nats
    by_kind: float  # its sum over kinds of tokens
    by_words: float  # over words, and tokens outside of them
    slope: float | None  # content words at equal position by least squares, nats; None where there is no such effect


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    model: str  # its name
    note: str  # what it is and what it cannot answer
    before: str  # the first token, which nothing precedes
    window: int
    passage: tuple[PassageToken, ...]
    text: Text
    words: int  # whole ones
    function_words: float  # share of them
    different_function_words: int
    different_content_words: int
    first_words: FirstWords | None  # None where no sentence begins inside the text
    by_position: Line
    by_place: tuple[Line, ...]  # all words, function words, content words
    comparisons: tuple[Comparison, ...]
    modern: Modern
    oracle: Oracle

    @property
    def nats(self) -> float:
        """Mean loss of the passage."""
        return mean(token.loss for token in self.passage)

    @property
    def perplexity(self) -> float:
        """Of the passage."""
        return math.exp(self.nats)

    def extremes(self, *, highest: bool) -> list[PassageToken]:
        """The tokens of the passage with the highest or lowest loss, in order."""
        return sorted(self.passage, key=lambda token: token.loss, reverse=highest)[:EXTREMES]

    @property
    def share_of_loss(self) -> float:
        """What part of the passage's loss the tokens with the highest loss hold."""
        top = self.extremes(highest=True)
        return sum(token.loss for token in top) / sum(token.loss for token in self.passage)

    def comparison(self, name: str, measure: str) -> Comparison:
        """One of those measured."""
        return next(c for c in self.comparisons if (c.name, c.measure) == (name, measure))

    def controlled(self, name: str, measure: str = "first piece") -> Effect | None:
        """The effect at equal position."""
        return self.comparison(name, measure).effects["position"]

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        found: dict[str, float | int] = {
            "passage_tokens": len(self.passage),
            "passage_loss_nats": self.nats,
            "passage_perplexity": self.perplexity,
            "text_tokens": self.text.tokens,
            "text_loss_nats": self.text.nats,
            "text_perplexity": self.text.perplexity,
            "text_bits_per_byte": self.text.bits_per_byte,
            "function_word_share": self.function_words,
        }
        for which, highest in (("highest", True), ("lowest", False)):
            tokens = self.extremes(highest=highest)
            for rank, token in enumerate(tokens, 1):
                found[f"loss_{which}_{rank}_nats"] = token.loss
            for flag in FLAGS:
                found[f"share_{key(flag)}_{which}_10"] = share(tokens, flag)
        found["share_of_passage_loss_highest_10"] = self.share_of_loss
        for kind in (FUNCTION, CONTENT, LATER, MARK):
            if (loss := self.text.kinds[kind].loss) is not None:
                found[f"loss_{key(kind)}_nats"] = loss
        found["modern_tokens"], found["modern_loss_nats"] = len(self.modern.losses), self.modern.nats
        found["modern_bits_per_byte"] = self.modern.bits_per_byte
        for name in ("sentence start", "word class"):
            if (effect := self.modern.controlled(name)) is not None:
                found[f"modern_difference_{key(name)}_first_piece_held_position_nats"] = effect.difference
        for c in self.comparisons:
            for held, effect in c.effects.items():
                if effect is not None:
                    name = f"difference_{key(c.groups[1])}_{key(c.measure)}_held_{key(held)}"
                    found[f"{name}_nats"] = effect.difference
                    found[f"{name}_low_nats"], found[f"{name}_high_nats"] = effect.interval
        return found


def key(text: str) -> str:
    """As part of a metric's name."""
    return text.replace(",", "").replace(" ", "_")
