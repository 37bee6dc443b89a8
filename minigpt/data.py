"""Training batches as a function of (seed, step): nothing to remember, so nothing to lose.

An epoch is one pass over the tokens in windows of T + 1 that share their boundary token, so that no token is a target
twice. Epochs differ by a random offset of the grid and by the order of the windows; what the grid leaves over at the
two ends, fewer than 2T targets together, is left out of that epoch. The epochs follow each other without a gap: a
batch may hold the end of one and the start of the next.
"""

import hashlib

import torch
from torch import Tensor

from minigpt.checks import whole


def derive_seed(seed: int, *path: int | str) -> int:
    """An independent 63-bit seed for one purpose, the same on every machine."""
    digest = hashlib.blake2b(repr((seed, *path)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class Windows:
    """Windows of ``context + 1`` tokens, in an endless stream of epochs.

    Args:
        tokens: (N,) int64, on the device where batches are wanted.
        context: T, the number of targets in a window.
        seed: the order of the stream.

    Raises:
        ValueError: fewer than T + 1 tokens, or T is not a whole number from 1 up.
    """

    def __init__(self, tokens: Tensor, context: int, seed: int) -> None:
        if len(tokens) <= whole("context", context, 1):
            raise ValueError(f"{len(tokens)} training tokens are fewer than one window of {context + 1}")
        self.tokens, self.context, self.seed = tokens, context, seed
        # One window less than fits, where there are several: the offset then has a whole window of room.
        self.per_epoch = max(1, (len(tokens) - 1) // context - 1)
        self._span = torch.arange(context + 1, device=tokens.device)
        self._epochs: dict[int, Tensor] = {}

    def starts(self, epoch: int) -> Tensor:
        """Where the windows of one epoch begin, in their random order, (per_epoch,) int64 on the CPU."""
        if epoch not in self._epochs:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "epoch", epoch))
            room = len(self.tokens) - 1 - self.per_epoch * self.context
            offset = torch.randint(min(room, self.context - 1) + 1, (1,), generator=generator)
            order = torch.randperm(self.per_epoch, generator=generator)
            self._epochs = {e: s for e, s in self._epochs.items() if e == epoch - 1}  # a batch may span two
            self._epochs[epoch] = offset + self.context * order
        return self._epochs[epoch]

    def batch(self, step: int, size: int) -> Tensor:
        """The windows of one step, (size, T + 1).

        Raises:
            ValueError: a step below 0, or a size below 1.
        """
        whole("step", step, 0)
        whole("size", size, 1)
        pieces, item = [], step * size
        while item < (step + 1) * size:
            epoch, place = divmod(item, self.per_epoch)
            take = min((step + 1) * size - item, self.per_epoch - place)
            pieces.append(self.starts(epoch)[place : place + take])
            item += take
        starts = torch.cat(pieces).to(self.tokens.device, non_blocking=True)
        return self.tokens[starts[:, None] + self._span]

    def steps_per_epoch(self, size: int) -> float:
        """Steps of ``size`` windows in one pass."""
        return self.per_epoch / size
