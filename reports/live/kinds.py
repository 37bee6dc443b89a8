"""Blocks that a reader can turn: plain data, as those of ``reports.types``. Where nothing moves they stand as set."""

from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True)
class Setting:
    """Where the sliders of a distribution stand: temperature τ > 0, k >= 1, 0 < p <= 1; ``name`` is on its button."""

    name: str
    temperature: float = 1.0
    k: int | None = None  # None: all tokens
    p: float = 1.0


@dataclass(frozen=True)
class Distribution:
    """A distribution over next tokens to turn: temperature, then top-k, then nucleus, then renormalised.

    It is shown at the first of ``settings``; on the page ``sliders`` move it, and a button sets each setting.
    """

    type: ClassVar[str] = "distribution"
    tokens: tuple[str, ...]
    logits: tuple[float, ...]
    settings: tuple[Setting, ...]
    sliders: tuple[Literal["temperature", "k", "p"], ...] = ("temperature", "k", "p")
    caption: str = ""

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.logits) or not self.settings:
            counts = f"{len(self.tokens)} tokens, {len(self.logits)} logits, {len(self.settings)} settings"
            raise ValueError(f"distribution {self.caption!r}: {counts}; one logit per token, at least one setting")


@dataclass(frozen=True)
class Mask:
    """An attention mask to set: who sees whom. It is shown as given; on the page ``sliders`` change it.

    A query sees the keys up to itself, of these only the last ``window`` where one is given, and all of the first
    ``prefix`` ones.
    """

    type: ClassVar[str] = "mask"
    length: int  # tokens
    sliders: tuple[Literal["length", "window", "prefix"], ...]
    window: int | None = None  # keys per query, itself included
    prefix: int = 0  # tokens that see each other
    caption: str = ""


@dataclass(frozen=True)
class Round:
    """One pass of speculative decoding: what was drafted, how much of it stands, and the token that the pass adds."""

    drafted: tuple[str, ...]
    target: tuple[float, ...]  # probability of each drafted token under the target
    draft: tuple[float, ...]  # … under the draft
    accepted: int  # of the drafted tokens, from the first on
    added: str  # drawn instead of the first rejected token, or after all of them


@dataclass(frozen=True)
class Speculation:
    """Speculative decoding to step through: drafted, accepted, replaced."""

    type: ClassVar[str] = "speculation"
    prompt: str
    rounds: tuple[Round, ...]
    caption: str = ""
