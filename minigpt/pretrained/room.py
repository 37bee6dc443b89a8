"""Room to grow for the cache of a Transformers model, which by itself is copied whole for each token it takes in."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

SPARE = 64  # positions of room beyond what is needed; a layer that outgrows it doubles


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer at the beginning of tensors that have room for more, (B, G, S, D) each.

    Like its base in all but where they lie: ``keys`` and ``values`` are views of what is filled.
    """

    keys: Tensor
    values: Tensor

    def __init__(self, layer: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.lazy_initialization(layer.keys, layer.values)
        self.keys, self.values = layer.keys, layer.values
        self._room = self.keys, self.values

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Add keys and values (B, G, T, D) after the S there are; all of them, (B, G, S + T, D) each."""
        begin = self.keys.shape[2]
        end = begin + key_states.shape[2]
        if not self._fits(end):
            size = max(end + SPARE, 2 * begin)
            self._room = _with_room(self.keys, size), _with_room(self.values, size)
        keys, values = self._room
        keys[:, :, begin:end], values[:, :, begin:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _fits(self, end: int) -> bool:
        """Whether what is filled lies in the room, not elsewhere as after a choice of rows, and there is enough."""
        room = self._room[0]
        return room.data_ptr() == self.keys.data_ptr() and len(room) == len(self.keys) and end <= room.shape[2]


def _with_room(filled: Tensor, size: int) -> Tensor:
    B, G, S, D = filled.shape
    room = filled.new_empty(B, G, size, D)
    room[:, :, :S] = filled
    return room


def with_room(cache: Any) -> Any:
    """The same cache with room to grow in its layers; a cache of any other kind as it is."""
    if type(cache) is DynamicCache and all(type(layer) is DynamicLayer for layer in cache.layers):
        cache.layers = [RoomyLayer(layer) for layer in cache.layers]
    return cache
