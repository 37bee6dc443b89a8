"""Reading and scoring with everything in view: what a bounded cache is compared with.

A long prompt is read once; from there any number of continuations can be scored, or written, without reading it again.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.pretrained.limits import keeping


class FullReader:
    """Reads B texts with the ordinary cache of a Transformers model, which grows; see ``minigpt.decoding.readers``.

    The caller keeps within the model's context. Of what is read, the model computes the logits of the last token and
    no others where its architecture can.
    """

    def __init__(self, model: Any) -> None:
        self.model = model
        self.logits: Tensor | None = None  # of the token to come, (B, V)
        self._cache: Any = None

    @torch.inference_mode()
    def read(self, tokens: Tensor) -> Tensor:
        """Read the next tokens (B, T); logits of the token after them, (B, V)."""
        output = self.model(tokens, past_key_values=self._cache, use_cache=True, **keeping(self.model, 1))
        return self._take(output.past_key_values, output.logits[:, -1].float())

    def _take(self, cache: Any, logits: Tensor) -> Tensor:
        from minigpt.pretrained.room import with_room  # it imports Transformers, which takes seconds

        self._cache, self.logits = with_room(cache) if self._cache is None else cache, logits
        return logits

    @torch.inference_mode()
    def score(self, tokens: Tensor, chunk: int = 128) -> Tensor:
        """-ln p of the next tokens, each given all before it, (B, T) → (B, T), nats; they are read, too.

        In chunks, as the logits of B · T tokens over a large vocabulary would not fit.

        Raises:
            ValueError: nothing was read before.
        """
        if self.logits is None:
            raise ValueError("the first token has nothing before it: read it, and score the others")
        found = []
        for piece in tokens.split(chunk, dim=1):
            output = self.model(piece, past_key_values=self._cache, use_cache=True)
            after = output.logits.float()  # (B, t, V): row i predicts token i + 1
            before = torch.cat([self.logits[:, None], after[:, :-1]], dim=1)
            losses = F.cross_entropy(before.flatten(0, 1), piece.flatten(), reduction="none")
            found.append(losses.view(piece.shape))
            self._take(output.past_key_values, after[:, -1].clone())
        return torch.cat(found, dim=1)

    def branch(self, rows: Sequence[int]) -> "FullReader":
        """A reader that has read what these rows have; a row may come several times. This one stays as it is.

        Raises:
            ValueError: nothing was read before.
        """
        if self.logits is None:
            raise ValueError("nothing was read: there is nothing to branch from")
        chosen = torch.tensor(list(rows), device=self.logits.device)
        other = FullReader(self.model)
        other._cache, other.logits = copy.deepcopy(self._cache), self.logits[chosen]
        other._cache.batch_select_indices(chosen)
        return other
