"""Fine-tuning: training that goes on from a pretrained model of Transformers' interface, on other text.

The loop is ``minigpt.train``: the same optimiser, schedule, checkpoints and curves. What is added is a wrapper with the
calling convention of this package's models, and a budget in epochs.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.data import Windows
from minigpt.precision import Precision
from minigpt.pretrained.limits import context_of
from minigpt.pretrained.quick import quick
from minigpt.train import Shape


class Wrapped(nn.Module):
    """A causal language model of Transformers, called as tokens (B, T) → logits (B, T, V).

    Labels are not given to it: Transformers' models shift them by one themselves, and ``minigpt.objectives`` has
    shifted them already. In evaluation mode it computes in ``precision`` by itself, as ``quick`` does; in training mode
    that is ``minigpt.train``'s to do.

    Raises:
        ValueError: ``block`` is longer than the model's context.
    """

    def __init__(self, model: Any, block: int, precision: Precision = "fp32") -> None:
        super().__init__()
        if not 1 <= block <= context_of(model):
            raise ValueError(f"blocks of {block} tokens are beyond the model's context of {context_of(model)}")
        self.model = model
        dropout = max((module.p for module in model.modules() if isinstance(module, nn.Dropout)), default=0.0)
        self.config = Shape(vocab_size=model.get_input_embeddings().num_embeddings, context=block, dropout=dropout)
        self._precision = precision
        self._rounded: list[Any] = []  # for one evaluation; in a list, as a module would count among the weights

    def train(self, mode: bool = True) -> "Wrapped":
        """To training or evaluation mode; what was rounded of earlier weights is forgotten."""
        self._rounded.clear()
        return super().train(mode)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at each position."""
        model = self.model
        if self._precision != "fp32" and not self.training:
            if not self._rounded:
                self._rounded.append(quick(model, self._precision))
            [model] = self._rounded
        logits: Tensor = model(tokens, use_cache=False).logits
        return logits


def steps_for(epochs: int, tokens: int, block: int, batch_size: int) -> int:
    """Steps of ``batch_size`` blocks in so many passes over a text of ``tokens`` tokens; the last may go beyond it.

    Raises:
        ValueError: the text is shorter than one block and the token after it.
    """
    per_epoch = Windows(torch.zeros(tokens, dtype=torch.long), block, 0).per_epoch
    return math.ceil(epochs * per_epoch / batch_size)
