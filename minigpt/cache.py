"""The key/value cache: what a decoder remembers of the tokens it has read."""

import torch
from torch import Tensor

from minigpt.checks import whole
from minigpt.config import GPTConfig


class KVCache:
    """Keys and values of all layers in two buffers of shape (L, B, G, capacity, D).

    ``length`` counts the positions that are filled. A forward pass writes every layer at the same
    place and then moves ``length`` once; ``rewind`` takes positions back (speculative decoding
    rejects drafts) and ``reorder`` permutes the batch (beam search changes parents).

    Raises:
        ValueError: a batch or a capacity below 0.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        capacity: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        whole("batch", batch, 0)
        whole("capacity", capacity, 0)
        shape = (config.n_layer, batch, config.kv_heads, capacity, config.head_dim)
        self.keys = torch.zeros(shape, device=device, dtype=dtype)
        self.values = torch.zeros(shape, device=device, dtype=dtype)
        self.length = 0

    @property
    def capacity(self) -> int:
        """Positions that fit."""
        return self.keys.shape[3]

    @property
    def nbytes(self) -> int:
        """Size of both buffers, in bytes."""
        return self.keys.nbytes + self.values.nbytes

    def keys_seen(self, count: int) -> int:
        """S, the number of keys that ``update`` will return with ``count`` new ones: masks are made before."""
        return self.length + count

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B, G, T, D) to one layer; return all of it, (B, G, length + T, D), in the precision of k and v.

        Raises:
            ValueError: the buffers are full.
        """
        end = self.length + k.shape[2]
        if end > self.capacity:
            raise ValueError(f"the cache holds {self.capacity} positions, {end} are needed")
        keys, values = self.keys[layer], self.values[layer]  # (B, G, capacity, D)
        keys.narrow(2, self.length, k.shape[2]).copy_(k)  # indexing makes more views, which take longer than this
        values.narrow(2, self.length, k.shape[2]).copy_(v)
        return keys.narrow(2, 0, end).to(k.dtype), values.narrow(2, 0, end).to(v.dtype)

    def advance(self, count: int) -> None:
        """Count ``count`` new positions, once every layer has written them."""
        self.length += count

    def rewind(self, length: int) -> None:
        """Forget every position from ``length`` on.

        Raises:
            ValueError: ``length`` lies outside what is filled.
        """
        if not 0 <= length <= self.length:
            raise ValueError(f"cannot rewind to {length}: {self.length} positions are filled")
        self.length = length

    def reorder(self, index: Tensor) -> None:
        """Make row b of the batch a copy of row ``index[b]``."""
        filled = slice(0, self.length)
        self.keys[:, :, :, filled] = self.keys[:, index, :, filled]
        self.values[:, :, :, filled] = self.values[:, index, :, filled]


class RollingKVCache(KVCache):
    """The last W keys and values and no others: position i lies in slot i mod W.

    Under ``config.window`` = W no query looks further back, so a text of any length is read in constant memory. Keys
    carry their rotation with them and attention does not depend on the order of its keys, so that a single new token
    gets the slots as they lie; several tokens at once get them in order, because their masks differ.

    Source: Jiang et al. (2023), section 2, "Rolling buffer cache".

    Raises:
        ValueError: the configuration has no window.
    """

    def __init__(
        self,
        config: GPTConfig,
        batch: int,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if config.window is None:
            raise ValueError("a rolling cache needs a window: without one every key is needed again")
        super().__init__(config, batch, config.window, device=device, dtype=dtype)
        self._written = 0  # the largest length there has been: what lies W before it is gone

    def keys_seen(self, count: int) -> int:
        """S: never more than the W - 1 keys before the first query and the queries' own."""
        return min(self.length, self.capacity - 1) + count

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append k, v (B, G, T, D) to one layer; return all that the T queries see, (B, G, S, D), S <= W - 1 + T.

        In the precision of k and v, all rounded to that of the buffers, as in ``KVCache.update``.
        """
        keys, values, window, end = self.keys[layer], self.values[layer], self.capacity, self.length + k.shape[2]
        asked, k, v = k.dtype, k.to(keys.dtype), v.to(values.dtype)
        if k.shape[2] == 1:
            keys[:, :, self.length % window], values[:, :, self.length % window] = k[:, :, 0], v[:, :, 0]
            return keys[:, :, : min(end, window)].to(asked), values[:, :, : min(end, window)].to(asked)
        before = self._slots(max(0, self.length - window + 1), self.length)
        seen = torch.cat([keys[:, :, before], k], dim=2), torch.cat([values[:, :, before], v], dim=2)
        after = self._slots(max(self.length, end - window), end)
        keys[:, :, after], values[:, :, after] = k[:, :, -len(after) :], v[:, :, -len(after) :]
        return seen[0].to(asked), seen[1].to(asked)

    def advance(self, count: int) -> None:
        """Count ``count`` new positions, once every layer has written them."""
        super().advance(count)
        self._written = max(self._written, self.length)

    def rewind(self, length: int) -> None:
        """Forget every position from ``length`` on.

        Raises:
            ValueError: ``length`` lies outside what was read, or keys that are needed again have been overwritten.
        """
        if self._written > self.capacity and length < self._written - 1:
            raise ValueError(f"cannot rewind to {length}: the window of {self.capacity} is already at {self._written}")
        super().rewind(length)

    def _slots(self, first: int, end: int) -> Tensor:
        return torch.arange(first, end, device=self.keys.device) % self.capacity
