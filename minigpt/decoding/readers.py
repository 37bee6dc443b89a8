"""Readers: what a loop that writes needs of a model, and the two that read with a model of ours.

    logits = reader.read(prompt)        # (B, T) → (B, V)
    logits = reader.read(next_token)    # (B, 1) → (B, V), and so on

Others keep the protocol, too: ``FullReader`` in ``minigpt.pretrained.full_context`` for the models of Transformers, and
the two of ``minigpt.decoding.streaming`` for texts without end.
"""

from typing import Protocol

import torch
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.checks import whole
from minigpt.model import GPT


class Reader(Protocol):
    """Something that reads B texts token by token."""

    def read(self, tokens: Tensor) -> Tensor:
        """Read the next tokens (B, T), many at first and then one at a time; logits of the token after them, (B, V)."""


class GPTReader:
    """Reads from a key/value cache while the whole text fits, and after that its last ``limit`` tokens anew.

    Positions count from the first visible token. Beyond the limit they all shift with every new one, which makes every
    cached key wrong. ``capacity`` 0 reads without a cache from the start. The caller puts the model into evaluation
    mode.
    """

    def __init__(self, model: GPT, batch: int, *, limit: int, capacity: int) -> None:
        self.model, self.limit = model, limit
        self.length = 0  # tokens read so far
        self._cache = cache_for(model, batch, capacity) if capacity else None
        self._text: list[Tensor] = []  # what was read, in pieces, which are joined once they are needed

    def read(self, tokens: Tensor) -> Tensor:
        """See ``Reader``."""
        self.length += tokens.shape[1]
        self._text.append(tokens)
        if self._cache is not None and self.length <= self._cache.capacity:
            logits = self.model(tokens, cache=self._cache, last_only=True)
        else:
            self._text = [torch.cat(self._text, dim=1)[:, -self.limit :]]
            logits = self.model(self._text[0], last_only=True)
        return logits[:, -1].float()

    def reorder(self, rows: Tensor) -> None:
        """Text b goes on from what was text ``rows[b]`` (beam search): its keys and values must follow it."""
        self._text = [torch.cat(self._text, dim=1)[rows]]
        if self._cache is not None:
            self._cache.reorder(rows)


class PrefixReader:
    """Reads what comes first as a bidirectional prefix, in one pass into the cache, and the rest causally.

    New tokens attend to the prefix as causal ones do, so the cache stays valid.
    """

    def __init__(self, model: GPT, batch: int, capacity: int) -> None:
        self.model, self._cache = model, cache_for(model, batch, capacity)

    def read(self, tokens: Tensor) -> Tensor:
        """See ``Reader``."""
        prefix = 0 if self._cache.length else tokens.shape[1]
        return self.model(tokens, cache=self._cache, prefix=prefix, last_only=True)[:, -1].float()


def cache_for(model: GPT, batch: int, capacity: int) -> KVCache:
    """An empty cache where the model is, in the precision that it wants."""
    return KVCache(model.config, batch, capacity, device=model.token_embedding.weight.device, dtype=model.cache_dtype)


def limit_of(model: GPT, limit: int | None) -> int:
    """How many tokens a model is to see at most; by default the length it was trained on.

    Raises:
        ValueError: fewer than one, or more than there are learned positions for.
    """
    if limit is None:
        return model.config.context
    if model.position_embedding is not None and whole("limit", limit, 1) > model.config.context:
        raise ValueError(f"limit {limit} is beyond the {model.config.context} learned positions")
    return whole("limit", limit, 1)
