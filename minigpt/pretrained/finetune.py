"""Fine-tuning: training that goes on from a pretrained model of Transformers' interface, on other text.

The loop is ``minigpt.train``: the same optimiser, schedule, checkpoints and curves. What is added is a wrapper with the
calling convention of this package's models, and a budget in epochs.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.data import Windows
from minigpt.pretrained.limits import context_of
from minigpt.train import Shape


class Wrapped(nn.Module):
    """A causal language model of Transformers, called as tokens (B, T) → logits (B, T, V).

    Labels are not given to it: Transformers' models shift them by one themselves, and ``minigpt.objectives`` has
    shifted them already.

    Raises:
        ValueError: ``block`` is longer than the model's context.
    """

    def __init__(self, model: Any, block: int) -> None:
        super().__init__()
        if not 1 <= block <= context_of(model):
            raise ValueError(f"blocks of {block} tokens are beyond the model's context of {context_of(model)}")
        self.model = model
        dropout = max((module.p for module in model.modules() if isinstance(module, nn.Dropout)), default=0.0)
        self.config = Shape(vocab_size=model.get_input_embeddings().num_embeddings, context=block, dropout=dropout)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits of the next token at each position."""
        logits: Tensor = self.model(tokens, use_cache=False).logits
        return logits


def steps_for(epochs: int, tokens: int, block: int, batch_size: int) -> int:
    """Steps of ``batch_size`` blocks in so many passes over a text of ``tokens`` tokens; the last may go beyond it.

    Raises:
        ValueError: the text is shorter than one block and the token after it.
    """
    per_epoch = Windows(torch.zeros(tokens, dtype=torch.long), block, 0).per_epoch
    return math.ceil(epochs * per_epoch / batch_size)
