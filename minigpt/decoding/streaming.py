"""Reading a text without end in bounded memory: attention sinks and the last tokens (StreamingLLM).

    kept of a long text, W = 8 with 2 sinks:   [0 1] 2 3 4 … t-6 [t-5 t-4 t-3 t-2 t-1 t]

Xiao et al. (2023), https://arxiv.org/abs/2309.17453: a window alone breaks once the first tokens leave the cache, as
much of the attention goes to them whatever they say; keeping them costs next to nothing. Positions count inside the
cache (section 3.2), so the sinks stand right before the window and no distance is larger than in training.

Two readers, for models of Transformers' interface. ``SinkReader`` keeps keys and values and needs rotary positions.
``ReencodingReader`` reads the kept tokens again for each new one: it works with any model, costs W times as much, and
is not quite the same, because the tokens kept are read without those that were dropped.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.checks import prompt_of, whole
from minigpt.decoding.readers import Reader
from minigpt.decoding.sampling import PLAIN, Progress, Sampling, decode
from minigpt.masks import causal_mask
from minigpt.pretrained.limits import context_of


def inverse_frequencies(model: Any) -> Tensor | None:
    """The θ_i of a model's rotary positions, (D/2,); None where it has none that are the same in all layers."""
    found = [module.inv_freq for module in model.modules() if isinstance(getattr(module, "inv_freq", None), Tensor)]
    if not found or any(other.shape != found[0].shape or not torch.equal(other, found[0]) for other in found):
        return None
    return found[0].float()


def shifted(keys: Tensor, theta: Tensor, distance: int | Tensor) -> Tensor:
    """Keys as they would be ``distance`` positions later, (…, D), one number or one a position (T, 1).

    Rotations by m and n are one by m + n. Su et al. (2021), section 3.4.2, in Llama's pairing (i, i + D/2). Where only
    the first dimensions are rotated (GPT-NeoX), ``theta`` has as many pairs, and the rest stays.
    """
    half = len(theta)
    angle = theta * distance
    cos, sin = angle.cos().to(keys.dtype), angle.sin().to(keys.dtype)
    first, second, rest = keys[..., :half], keys[..., half : 2 * half], keys[..., 2 * half :]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], dim=-1)


class SinkCache:
    """Keys and values of ``size`` positions per row: its first ``sinks[b]`` tokens, and the last ones.

    A ring: a new token takes the place of the oldest one that is no sink. Attention does not depend on the order of its
    keys, and rotary attention on differences of positions only. So the recent keys stay where they are, and instead of
    moving all of them back after each token, the few sinks are moved forward: always from their original keys, so that
    no rounding errors add up.

    It has the methods of a Transformers cache that a model calls.

    Raises:
        ValueError: no room, or a number of sinks that leaves none for the last token.
    """

    def __init__(self, sinks: Sequence[int], size: int, theta: Tensor) -> None:
        whole("size", size, 1)
        if not sinks or not all(0 <= whole("each number of sinks", n) < size for n in sinks):
            raise ValueError(f"sinks must be from 0 to {size - 1}, got {list(sinks)}")
        self.size, self.theta = size, theta
        self.sinks = torch.tensor(list(sinks), device=theta.device)
        self.length = 0  # tokens read so far
        self._layers: dict[int, tuple[Tensor, Tensor, Tensor]] = {}  # keys, values, original keys of the sinks

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, G, T, D) of one layer; return all that the T queries may see, (B, G, S, D)."""
        T, most = keys.shape[2], int(self.sinks.max())
        if layer not in self._layers:
            room = (*keys.shape[:2], self.size, keys.shape[3])
            originals = keys.new_zeros(*keys.shape[:2], most, keys.shape[3])
            self._layers[layer] = keys.new_zeros(room), values.new_zeros(room), originals
        kept_keys, kept_values, originals = self._layers[layer]
        begin, end = self.length, self.length + T
        if end <= self.size:
            kept_keys[:, :, begin:end], kept_values[:, :, begin:end] = keys, values
            if begin < most:
                originals[:, :, begin : min(end, most)] = keys[:, :, : most - begin]
            return kept_keys[:, :, :end], kept_values[:, :, :end]
        rows = torch.arange(len(keys), device=keys.device)
        slots = self.sinks + (begin - self.sinks) % (self.size - self.sinks)
        kept_keys[rows, :, slots], kept_values[rows, :, slots] = keys[:, :, 0], values[:, :, 0]
        if most:
            moved = shifted(originals, self.theta, end - self.size)
            is_sink = torch.arange(most, device=keys.device) < self.sinks[:, None]  # (B, most)
            kept_keys[:, :, :most] = torch.where(is_sink[:, None, :, None], moved, kept_keys[:, :, :most])
        return kept_keys, kept_values

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens read so far."""
        return self.length

    @property
    def n_bytes(self) -> int:
        """Memory for keys and values of all layers, the original keys of the sinks included."""
        return sum(kept.nbytes for layer in self._layers.values() for kept in layer)


class SinkReader:
    """Reads with a ``SinkCache``.

    Raises:
        ValueError: no rotary positions that ``SinkCache`` can shift.
    """

    def __init__(self, model: Any, sinks: Sequence[int], size: int) -> None:
        theta = inverse_frequencies(model)
        if theta is None:
            raise ValueError("the model has no rotary positions: its keys cannot be moved, use ReencodingReader")
        self.model, self.cache = model, SinkCache(sinks, size, theta)

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """See ``Reader``; at first at most ``size`` tokens at once.

        Raises:
            ValueError: several tokens that do not fit into what is left of the cache.
        """
        begin, T = self.cache.length, tokens.shape[1]
        if T > 1 and begin + T > self.cache.size:
            raise ValueError(f"{T} tokens at once do not fit: {begin} of {self.cache.size} positions are taken")
        logits = _read(self.model, self.cache, tokens, begin)
        self.cache.length += T
        return logits


def _read(model: Any, cache: SinkCache, tokens: Tensor, position: int) -> Tensor:
    """Logits after tokens (B, T) that stand at ``position`` and after it, (B, V)."""
    T = tokens.shape[1]
    seen = min(cache.length + T, cache.size)
    mask = torch.zeros(T, seen, device=tokens.device, dtype=model.dtype)
    if T > 1:
        mask.masked_fill_(~causal_mask(T, seen, device=tokens.device), float("-inf"))
    logits: Tensor = model(
        tokens,
        attention_mask=mask.expand(len(tokens), 1, T, seen),
        position_ids=torch.arange(position, position + T, device=tokens.device).expand(len(tokens), -1),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits
    return logits[:, -1].float()


class ReencodingReader:
    """Reads the first ``sinks[b]`` tokens of each row and its last ones, ``size`` in all, from scratch every time.

    Raises:
        ValueError: a size beyond the model's context, or a number of sinks that leaves no room for the last token.
    """

    def __init__(self, model: Any, sinks: Sequence[int], size: int) -> None:
        whole("size", size, 1)
        inside = sinks and all(0 <= whole("each number of sinks", n) < size for n in sinks)
        if not inside or size > context_of(model):
            raise ValueError(f"need 0 <= sinks < size <= {context_of(model)}, got {list(sinks)} and {size}")
        self.model, self.sinks, self.size = model, list(sinks), size
        self.tokens: Tensor | None = None

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """See ``Reader``."""
        self.tokens = tokens if self.tokens is None else torch.cat([self.tokens, tokens], dim=1)
        kept = self.tokens
        if kept.shape[1] > self.size:
            rows = zip(self.sinks, kept, strict=True)
            kept = torch.stack([torch.cat([row[:n], row[len(row) - self.size + n :]]) for n, row in rows])
        logits: Tensor = self.model(kept, use_cache=False, logits_to_keep=1).logits[:, -1].float()
        return logits


@torch.inference_mode()
def rotation_error(model: Any, distance: int = 1_000) -> float:
    """How far ``shifted`` is from the model's own keys, relative to their size; infinite if it cannot be tried.

    A token read alone has the same hidden states at every position, so its keys differ by a rotation only.
    """
    theta = inverse_frequencies(model)
    if theta is None:
        return float("inf")
    token, found = torch.ones(1, 1, dtype=torch.long, device=theta.device), []
    for position in (0, distance):
        cache = SinkCache([0], 1, theta)
        try:
            _read(model, cache, token, position)
        except (AttributeError, TypeError):  # a model that wants a cache of another kind
            return float("inf")
        found.append([keys for keys, _, _ in cache._layers.values()])
    pairs = list(zip(*found, strict=True))
    if not pairs:  # it keeps its keys elsewhere
        return float("inf")
    return max(((shifted(a, theta, distance) - b).abs().max() / b.abs().max()).item() for a, b in pairs)


@torch.inference_mode()
def stream_losses(reader: Reader, tokens: Tensor, first: int, progress: Progress | None = None) -> Tensor:
    """-ln p of tokens ``first`` … T - 1 of each row, the ``first`` ones before them read at once, (B, T - first), nats.

    Raises:
        ValueError: nothing to read or nothing to score.
    """
    prompt_of(tokens, None)
    T = tokens.shape[1]
    if not 1 <= whole("first", first) < T:
        raise ValueError(f"first must be from 1 to {T - 1}, got {first}")
    logits, found = reader.read(tokens[:, :first]), []
    for t in range(first, T):
        found.append(F.cross_entropy(logits, tokens[:, t], reduction="none"))
        if t < T - 1:
            logits = reader.read(tokens[:, t : t + 1])
        if progress and t % 16 == 0:
            progress((t - first) / (T - first))
    return torch.stack(found, dim=1)


@torch.inference_mode()
def reencoded_losses(
    model: Any, tokens: Tensor, sinks: Sequence[int], size: int, places: Sequence[int], progress: Progress | None = None
) -> Tensor:
    """-ln p of the tokens at some places of each row, by a ``ReencodingReader``, (B, len(places)), nats.

    Each place costs a pass over ``size`` tokens of every row.

    Raises:
        ValueError: a place that has nothing before it.
    """
    prompt_of(tokens, None)
    if not places:
        raise ValueError(f"places must be from 1 to {tokens.shape[1] - 1}, got none")
    found = []
    for i, t in enumerate(places):
        if not 1 <= t < tokens.shape[1]:
            raise ValueError(f"places must be from 1 to {tokens.shape[1] - 1}, got {t}")
        logits = ReencodingReader(model, sinks, size).read(tokens[:, :t])
        found.append(F.cross_entropy(logits, tokens[:, t], reduction="none"))
        if progress:
            progress((i + 1) / len(places))
    return torch.stack(found, dim=1)


def stream_on(
    reader: Reader,
    prompt: Tensor,  # (B, P) int64
    n_new: int,
    *,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
    progress: Progress | None = None,
) -> Tensor:
    """Continue prompts for as long as one likes, (B, P) → (B, P + n_new)."""
    return decode(reader, prompt, n_new, sampling, generator, progress=progress)
