"""Streaming with attention sinks, many tokens at a time: what ``SinkReader`` computes token by token, in one pass each.

A key, once cached, is not computed again when others are evicted. So a token of a stream sees, in every layer, the
sinks and the last ones before it, whoever is read beside it: a banded mask over a whole chunk gives the same numbers.

    cache of 4 with 1 sink, token t:       t = 6 sees   [0] . . . 4 5 6
                                           t = 7 sees   [0] . . . . 5 6 7

One thing is not a mask. Positions count inside the cache (Xiao et al., 2023, section 3.2): the sinks stand right before
the window, at another distance from each query of a chunk than their tokens have. With rotary positions, where only the
difference counts, that is the query turned back to position W - 1. Both scores come from one product: queries [q, q
turned back], keys [k, 0] in the window and [0, k] at the sinks.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.decoding.sampling import Progress
from minigpt.decoding.streaming import inverse_frequencies, shifted

ATTENTION = "minigpt_stream"  # the name under which Transformers finds ``_attend``
AT_ONCE = 1_024  # tokens of all rows read at once, whose logits are in memory together


class ChunkReader:
    """Reads B streams in bounded memory, each with its own number of sinks, any number of tokens at a time.

    What is kept are ``size`` - 1 keys and values a layer, at positions from 0 on: they never grow, however long the
    stream. The first call must hold all sinks. The model is called with its own attention replaced, and has it back
    afterwards.

    Raises:
        ValueError: no rotary positions, or sinks that do not fit.
    """

    def __init__(self, model: Any, sinks: Sequence[int], size: int) -> None:
        theta = inverse_frequencies(model)
        if theta is None:
            raise ValueError("the model has no rotary positions: its keys cannot be moved, use ReencodingReader")
        if not all(0 <= n < size for n in sinks):
            raise ValueError(f"sinks must be from 0 to {size - 1}, got {list(sinks)}")
        self.model, self.size, self.theta = model, size, theta
        self.sinks = torch.tensor(list(sinks), device=theta.device)
        self.length = 0  # tokens read so far
        self.logits: Tensor | None = None  # of the token to come, (B, V)
        self._layers: dict[int, tuple[Tensor, Tensor, Tensor, Tensor]] = {}  # sinks' keys, values; window's
        self._turn: Tensor  # (T, 1) by how many positions each query is turned back for the sinks
        self._mask: Tensor  # (B, 1, T, sinks + window + T) True where a query looks

    @torch.inference_mode()
    def read(self, tokens: Tensor, *, every: bool = False) -> Tensor:
        """Read the next tokens (B, T); logits of the token after them, (B, V), or after each of them, (B, T, V).

        Raises:
            ValueError: a first call without all sinks.
        """
        from transformers import AttentionInterface

        T, most = tokens.shape[1], int(self.sinks.max())
        if self.length == 0 and most > T:
            raise ValueError(f"the first tokens read must hold all {most} sinks, got {T}")
        AttentionInterface.register(ATTENTION, _attend)
        held = min(self.length, self.size - 1)
        self._see(T, held, most)
        places = torch.arange(held, held + T, device=tokens.device).expand(len(tokens), -1)
        config = self.model.config
        own, config._attn_implementation = config._attn_implementation, ATTENTION
        try:
            output = self.model(
                tokens,
                attention_mask=self._mask,
                position_ids=places,
                past_key_values=self,
                use_cache=True,
                logits_to_keep=0 if every else 1,
                stream=self,
            )
        finally:
            config._attn_implementation = own
        self.length += T
        logits: Tensor = output.logits.float()
        self.logits = logits[:, -1].clone()
        return logits if every else self.logits

    def branch(self, rows: Sequence[int]) -> "ChunkReader":
        """A reader that has read what these rows have; a row may come several times. This one stays as it is.

        Raises:
            ValueError: nothing was read before.
        """
        if self.logits is None:
            raise ValueError("nothing was read: there is nothing to branch from")
        chosen = torch.tensor(list(rows), device=self.theta.device)
        other = ChunkReader(self.model, self.sinks[chosen].tolist(), self.size)
        other.length, other.logits = self.length, self.logits[chosen]
        most = int(other.sinks.max())  # sinks that none of the chosen rows has are dropped
        for layer, (sink_keys, sink_values, keys, values) in self._layers.items():
            sinks = sink_keys[chosen, :, :most], sink_values[chosen, :, :most]
            other._layers[layer] = (*sinks, keys[chosen], values[chosen])
        return other

    def _see(self, T: int, held: int, most: int) -> None:
        device = self.theta.device
        t = self.length + torch.arange(T, device=device)[:, None]  # (T, 1) places in the stream
        self._turn = held + torch.arange(T, device=device)[:, None] - t.clamp_max(self.size - 1)
        sinks = self.sinks[:, None, None]  # (B, 1, 1)
        sink = torch.arange(most, device=device)
        recent = torch.arange(self.length - held, self.length + T, device=device)
        at_sinks = (sink < sinks) & (sink <= t)  # (B, T, most)
        at_window = (recent >= sinks) & (recent <= t) & (recent > t - (self.size - sinks))
        self._mask = torch.cat([at_sinks, at_window], dim=-1)[:, None]

    def update(self, keys: Tensor, values: Tensor, layer: int, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Keys and values (B, G, T, D) of one layer after those that are kept; all of them, sinks first, (B, G, S, D).

        A method of a Transformers cache, as is ``get_seq_length``.
        """
        most, end = int(self.sinks.max()), min(self.length, self.size - 1) + keys.shape[2]
        if layer not in self._layers:
            empty = keys[:, :, :0], values[:, :, :0]
            self._layers[layer] = keys[:, :, :most], values[:, :, :most], *empty
        sink_keys, sink_values, old_keys, old_values = self._layers[layer]
        recent_keys, recent_values = torch.cat([old_keys, keys], dim=2), torch.cat([old_values, values], dim=2)
        drop = max(0, end - (self.size - 1))
        kept = recent_keys[:, :, drop:]  # copied, or a whole chunk would stay in memory for the sake of its end
        kept = shifted(kept, self.theta, -drop) if drop else kept
        self._layers[layer] = sink_keys.clone(), sink_values.clone(), kept, recent_values[:, :, drop:].clone()
        return torch.cat([sink_keys, recent_keys], dim=2), torch.cat([sink_values, recent_values], dim=2)

    def get_seq_length(self, layer: int = 0) -> int:
        """Tokens read so far."""
        return self.length

    @property
    def n_bytes(self) -> int:
        """Memory for keys and values of all layers, those of the sinks included."""
        return sum(kept.nbytes for layer in self._layers.values() for kept in layer)


def _attend(
    module: Any,
    query: Tensor,  # (B, H, T, D), rotated as are the keys
    key: Tensor,  # (B, G, S, D)
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    stream: ChunkReader,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention as Transformers calls it, → (B, T, H, D)."""
    width = value.shape[-1]
    if most := int(stream.sinks.max()):
        query = torch.cat([query, shifted(query, stream.theta, -stream._turn)], dim=-1)
        key = torch.cat(
            [F.pad(key[:, :, :most], (key.shape[-1], 0)), F.pad(key[:, :, most:], (0, key.shape[-1]))], dim=2
        )
        if value.device.type == "cpu":  # its fused kernel wants them as wide as keys, and so takes half the time
            value = F.pad(value, (0, width))
    y = F.scaled_dot_product_attention(
        query,
        key,
        value,
        stream._mask,
        scale=scaling or module.head_dim**-0.5,
        enable_gqa=key.shape[1] != query.shape[1],
    )
    return y[..., :width].transpose(1, 2), None


@torch.inference_mode()
def chunked_losses(reader: ChunkReader, tokens: Tensor, chunk: int = 0, progress: Progress | None = None) -> Tensor:
    """-ln p of tokens 1 … T - 1 of each row, (B, T) → (B, T - 1), nats; the last one is read, too.

    In chunks of so many tokens a row; 0 takes what makes a good size of a pass.

    Raises:
        ValueError: rows of one token.
    """
    if tokens.shape[1] < 2:
        raise ValueError(f"nothing to score in rows of {tokens.shape[1]}")
    chunk = chunk or max(AT_ONCE // len(tokens), int(reader.sinks.max()), 1)
    found, before = [], None
    for start in range(0, tokens.shape[1], chunk):
        piece = tokens[:, start : start + chunk]
        after = reader.read(piece, every=True)  # (B, t, V): row i predicts token i + 1
        if before is None:
            predicted, targets = after[:, :-1], piece[:, 1:]
        else:
            predicted, targets = torch.cat([before, after[:, :-1]], dim=1), piece
        losses = F.cross_entropy(predicted.flatten(0, 1), targets.flatten(), reduction="none")
        found.append(losses.view(targets.shape))
        before = after[:, -1:].clone()
        if progress:
            progress(min(1.0, (start + chunk) / tokens.shape[1]))
    return torch.cat(found, dim=1)
