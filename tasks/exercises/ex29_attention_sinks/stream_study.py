"""How well a model reads and goes on with long texts, by the number of sinks that its bounded cache keeps.

All settings and texts are rows of one batch, so that a step of all costs little more than a step of one. Beside them
stands the same model with everything in view, as far as its context reaches; it also judges what each setting wrote.

Shapes: S settings, N texts of T tokens, P places that were scored; n continuations, those of a text in a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from minigpt.decoding.sampling import Sampling, sample
from minigpt.decoding.stream_chunks import ChunkReader, chunked_losses
from minigpt.decoding.streaming import ReencodingReader, reencoded_losses, stream_on
from minigpt.pretrained.full_context import FullReader
from minigpt.pretrained.limits import context_of

Tell = Callable[[float, str], None]  # fraction done, what


@dataclass(frozen=True)
class Bounded:
    """What settings of sinks read and wrote, as plain data."""

    places: list[int]  # tokens that were scored
    losses: list[list[list[float]]]  # (S, N, P) nats
    written: list[list[list[int]]]  # (S, n, new)


@dataclass(frozen=True)
class Unbounded:
    """The same model with everything in view, as plain data."""

    losses: list[list[float]]  # (N, T - 1 or less) nats of tokens 1 …, up to the context
    written: list[list[int]]  # (n, new)
    judged: list[list[float]]  # (S + 1, n) nats per token of every setting's continuation, its own last


def read_cached(
    model: Any,
    texts: Tensor,  # (N, T) int64
    sinks: Sequence[int],
    size: int,
    new: int,
    *,
    samples: int,
    sampling: Sampling,
    generator: torch.Generator,
    tell: Tell,
) -> Bounded:
    """Stream the texts through a bounded cache, scoring all tokens but the first; each goes on ``samples`` times."""
    rows, per_row = texts.repeat(len(sinks), 1), [k for k in sinks for _ in texts]
    reader = ChunkReader(model, per_row, size)
    losses = chunked_losses(reader, rows, progress=lambda done: tell(0.6 * done, f"streaming {len(rows)} texts"))
    tell(0.6, "continuing")
    many = reader.branch([row for row in range(len(rows)) for _ in range(samples)])
    assert many.logits is not None
    first = sample(many.logits, sampling, generator)[:, None]
    written = stream_on(many, first, new - 1, sampling=sampling, generator=generator) if new > 1 else first
    return Bounded(
        list(range(1, texts.shape[1])),
        losses.view(len(sinks), len(texts), -1).tolist(),
        written.view(len(sinks), len(texts) * samples, -1).tolist(),
    )


def read_anew(
    model: Any,
    texts: Tensor,  # (N, T) int64
    sinks: Sequence[int],
    size: int,
    new: int,
    *,
    places: Sequence[int],
    continued: int,
    sampling: Sampling,
    generator: torch.Generator,
    tell: Tell,
) -> Bounded:
    """The same by re-encoding, which costs far more: some places are scored, and ``continued`` texts go on."""
    rows, per_row = texts.repeat(len(sinks), 1), [k for k in sinks for _ in texts]
    losses = reencoded_losses(model, rows, per_row, size, places, lambda done: tell(done / 2, "re-encoding"))
    few = texts[:continued]
    reader = ReencodingReader(model, [k for k in sinks for _ in few], size)
    written = stream_on(
        reader,
        few.repeat(len(sinks), 1),
        new,
        sampling=sampling,
        generator=generator,
        progress=lambda done: tell(0.5 + done / 2, "continuing"),
    )[:, texts.shape[1] :]
    return Bounded(
        list(places),
        losses.view(len(sinks), len(texts), -1).tolist(),
        written.view(len(sinks), len(few), -1).tolist(),
    )


def read_in_full(
    model: Any,
    texts: Tensor,  # (N, T) int64
    written: Tensor,  # (S, n, new) int64: continuations of the first n / samples texts
    *,
    samples: int,
    sampling: Sampling,
    generator: torch.Generator,
    tell: Tell,
) -> Unbounded:
    """Score the texts with everything in view, continue them, and score all continuations.

    Where a text and its continuation are longer than the context, the end of the text is read that leaves room.
    """
    _, n, new = written.shape
    owners = [i // samples for i in range(n)]
    T, context = texts.shape[1], context_of(model)
    whole = T + new <= context
    tell(0.0, "the full context")
    reader = FullReader(model)
    reader.read(texts[:, :1])
    losses = reader.score(texts[:, 1 : T if whole else min(T, context)])
    if not whole:
        reader = FullReader(model)
        reader.read(texts[:, -min(T, context - new) :])
    tell(0.4, "continuing with the full context")
    own = reader.branch(owners)
    assert own.logits is not None
    first = sample(own.logits, sampling, generator)[:, None]
    text = stream_on(own, first, new - 1, sampling=sampling, generator=generator) if new > 1 else first
    tell(0.7, "judging what was written")
    everything = torch.cat([written.to(text.device), text[None]])
    judged = [reader.branch(owners).score(rows).mean(dim=1) for rows in everything]
    return Unbounded(losses.tolist(), text.tolist(), torch.stack(judged).tolist())


@dataclass(frozen=True)
class StreamStudy:
    """Both, with what is asked of them."""

    sinks: tuple[int, ...]
    size: int  # positions kept
    texts: Tensor  # (N, T)
    bounded: Bounded
    full: Unbounded

    @cached_property
    def _losses(self) -> Tensor:
        return torch.tensor(self.bounded.losses, dtype=torch.float64)  # (S, N, P)

    @cached_property
    def _full_losses(self) -> Tensor:
        return torch.tensor(self.full.losses, dtype=torch.float64)

    @property
    def length(self) -> int:
        """T."""
        return self.texts.shape[1]

    @property
    def places(self) -> list[int]:
        """Scored places that were read after the first token had gone."""
        return [place for place in self.bounded.places if place > self.size]

    def loss(self, sinks: int, places: Sequence[int] | None = None) -> list[float]:
        """Mean loss per text at some of the scored places, by default all after eviction, nats."""
        inside = [self.bounded.places.index(place) for place in (self.places if places is None else places)]
        values: list[float] = self._losses[self.sinks.index(sinks)][:, inside].mean(dim=-1).tolist()
        return values

    def full_loss(self, places: Sequence[int] | None = None) -> list[float] | None:
        """The same with everything in view; None where the context does not reach them all."""
        inside = list(self.places if places is None else places)
        if max(inside) > self._full_losses.shape[1]:
            return None
        values: list[float] = self._full_losses[:, [place - 1 for place in inside]].mean(dim=-1).tolist()
        return values

    def buckets(self) -> list[list[int]]:
        """The places after eviction in stretches of one cache size each."""
        starts = range(self.size + 1, self.length, self.size)
        found = [[place for place in self.places if start <= place < start + self.size] for start in starts]
        return [bucket for bucket in found if bucket]

    def curve(self, sinks: int | None, width: int) -> list[tuple[float, list[float]]]:
        """Loss in stretches of ``width`` positions: their middles and means per text. None: everything in view."""
        if sinks is None:
            losses, places = self._full_losses, list(range(1, self._full_losses.shape[1] + 1))
        else:
            losses, places = self._losses[self.sinks.index(sinks)], self.bounded.places
        found = []
        for start in range(0, self.length, width):
            inside = [i for i, place in enumerate(places) if start <= place < start + width]
            if inside:
                found.append((start + (width - 1) / 2, losses[:, inside].mean(dim=-1).tolist()))
        return found
