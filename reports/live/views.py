"""How blocks that move are shown as set, and what the page's scripts are given to move them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from reports.formats import number
from reports.live.kinds import Distribution, Mask, Setting, Speculation
from reports.text import token_label

# --- A distribution ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TurnedToken:
    """A row: the token, what the model gives it, and what is left of that."""

    label: str
    before: float
    after: float  # 0 where it is removed

    @property
    def kept(self) -> bool:
        """Whether it can still be drawn."""
        return self.after > 0


@dataclass(frozen=True)
class Turned:
    """A distribution at one setting. ``assets/distribution.js`` computes the same."""

    tokens: tuple[TurnedToken, ...]
    mass: float  # of the kept tokens, at this temperature, before they are renormalised
    entropy: float  # of what is left, nats

    @property
    def effective(self) -> float:
        """Equally likely tokens that would be as uncertain."""
        return math.exp(self.entropy)

    @property
    def kept(self) -> int:
        """Tokens that can still be drawn."""
        return sum(token.kept for token in self.tokens)


def turned(block: Distribution, setting: Setting) -> Turned:
    """Temperature, then top-k, then the nucleus: the smallest set of likeliest tokens with at least p of the mass.

    Ties with the k-th token stay, as in ``minigpt.decoding.sampling``.
    A sum is taken to reach p from 10⁻¹² below it on: that is rounding, where p is a sum of probabilities exactly.
    """
    before = _softmax(block.logits, 1.0)
    hot = _softmax(block.logits, setting.temperature)
    order = sorted(range(len(hot)), key=lambda i: -block.logits[i])
    least = block.logits[order[min(setting.k or len(hot), len(hot)) - 1]]
    order = [i for i in order if block.logits[i] >= least]
    whole, total, kept = math.fsum(hot[i] for i in order), 0.0, []
    for i in order:
        kept.append(i)
        total += hot[i]
        if total / whole >= setting.p - 1e-12:
            break
    after = [hot[i] / total if i in kept else 0.0 for i in range(len(hot))]
    rows = zip(block.tokens, before, after, strict=True)
    return Turned(
        tokens=tuple(TurnedToken(token_label(token), p, q) for token, p, q in rows),
        mass=total,
        entropy=-math.fsum(q * math.log(q) for q in after if q > 0),
    )


def _softmax(logits: Sequence[float], temperature: float) -> list[float]:
    largest = max(logits)
    weights = [math.exp((z - largest) / temperature) for z in logits]
    return [w / math.fsum(weights) for w in weights]


def distribution_data(block: Distribution) -> dict[str, Any]:
    """For the script: logits, and the settings with all their numbers."""
    settings = [[s.temperature, s.k or len(block.tokens), s.p] for s in block.settings]
    return {"logits": block.logits, "settings": settings}


# --- A mask --------------------------------------------------------------------------------------------------


def seen(length: int, window: int | None, prefix: int) -> list[list[bool]]:
    """Who sees whom: a row per query, a column per key. ``assets/mask.js`` computes the same."""
    return [
        [(j <= i and (window is None or j > i - window)) or j < prefix for j in range(length)] for i in range(length)
    ]


def mask_data(block: Mask) -> dict[str, Any]:
    """For the script: where its sliders stand; 0 is no window."""
    return {"length": block.length, "window": block.window or 0, "prefix": block.prefix}


# --- Speculative decoding ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """A token of the text that two models write, in the pass that made it."""

    round: int
    label: str
    kind: str  # "accepted", "rejected", "unread" after a rejected one, "replaced" for what stands instead, "bonus"
    note: str


def steps(block: Speculation) -> list[Step]:
    """Every drafted token and every added one, in the order of the text."""
    found = []
    for index, one in enumerate(block.rounds):
        for place, (token, p, q) in enumerate(zip(one.drafted, one.target, one.draft, strict=True)):
            kind = "accepted" if place < one.accepted else "rejected" if place == one.accepted else "unread"
            chance = min(1.0, p / q) if q > 0 else 0.0
            note = f"draft {number(q, 3)}, target {number(p, 3)}, accepted with probability {number(chance, 3)}"
            found.append(Step(index, token_label(token), kind, note))
        replaced = one.accepted < len(one.drafted)
        note = "drawn from what the target has more than the draft" if replaced else "drawn from the target"
        found.append(Step(index, token_label(one.added), "replaced" if replaced else "bonus", note))
    return found
