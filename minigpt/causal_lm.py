"""Scoring and continuing text with somebody else's model: any causal language model of Transformers' interface.

Nothing here knows an architecture. A model is called as ``model(input_ids, past_key_values=…, use_cache=…)`` and
answers with ``logits`` (B, T, V); what it can hold is read from its configuration.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.limits import context_of
from minigpt.sampling import Processor, sample


@torch.inference_mode()
def token_losses(model: Any, ids: Tensor, *, batch_size: int = 4) -> Tensor:
    """-ln p of every token but the first, given those before it in its row, (B, T) → (B, T-1), nats.

    Row b, column t is the loss of token t+1: logits at t predict the next token. The last token is not read.

    Raises:
        ValueError: rows of fewer than 2 tokens, or of more than the model's context and one.
    """
    if ids.ndim != 2 or not 2 <= ids.shape[1] <= context_of(model) + 1:
        raise ValueError(f"rows must have 2 to {context_of(model) + 1} tokens, got {tuple(ids.shape)}")
    found = []
    for rows in ids.split(batch_size):
        logits = model(rows[:, :-1], use_cache=False).logits.float()
        losses = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        found.append(losses.view(len(rows), -1))
    return torch.cat(found)


@dataclass(frozen=True)
class ScoredText:
    """A text under a model: the loss of each token but the first, which nothing precedes."""

    losses: Tensor  # (N,) nats, on the CPU
    pieces: tuple[str, ...]  # the N scored tokens, each decoded alone
    text: str  # what they cover

    @property
    def tokens(self) -> int:
        """N."""
        return len(self.losses)

    @property
    def n_bytes(self) -> int:
        """UTF-8 length of the text."""
        return len(self.text.encode())

    @property
    def nats(self) -> float:
        """Mean loss per token."""
        return self.losses.double().mean().item()

    @property
    def perplexity(self) -> float:
        """Per token."""
        return math.exp(self.nats)

    @property
    def bytes_per_token(self) -> float:
        """How much text a token stands for."""
        return self.n_bytes / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits to encode the text over its bytes."""
        return self.losses.double().sum().item() / math.log(2) / self.n_bytes


def score_text(model: Any, tokenizer: Any, text: str, *, tokens: int, window: int, batch_size: int = 4) -> ScoredText:
    """Loss of the first ``tokens`` tokens after the first, in windows that follow each other without overlap.

    The first tokens of a window have little to go by: compare texts and models only at the same window. ``tokenizer``
    is a fast one of Transformers, which knows what part of the text each token stands for.
    """
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = torch.tensor(encoded["input_ids"]), encoded["offset_mapping"]
    tokens = min(tokens, len(ids) - 1)
    window = min(window, tokens, context_of(model))
    device, starts = next(model.parameters()).device, torch.arange(0, tokens // window * window, window)
    losses = [token_losses(model, ids[starts[:, None] + torch.arange(window + 1)].to(device), batch_size=batch_size)]
    if rest := tokens % window:
        losses.append(token_losses(model, ids[None, tokens - rest : tokens + 1].to(device)))
    pieces = tuple(tokenizer.decode([token]) for token in ids[1 : tokens + 1].tolist())
    covered = text[offsets[0][1] : offsets[tokens][1]]
    return ScoredText(torch.cat([piece.flatten() for piece in losses]).cpu(), pieces, covered)


@torch.inference_mode()
def continuation_losses(model: Any, prompt: Sequence[int], continuation: Sequence[int]) -> Tensor:
    """-ln p of the tokens of a continuation, (N,), nats; the prompt is read but not scored.

    Of a text beyond the model's context, the beginning of the prompt is left out.

    Raises:
        ValueError: an empty prompt or continuation, or a continuation as long as the context.
    """
    if not prompt or not continuation or len(continuation) >= context_of(model):
        raise ValueError(f"cannot score {len(continuation)} tokens after {len(prompt)}: context {context_of(model)}")
    ids = [*prompt, *continuation][-context_of(model) :]
    device = next(model.parameters()).device
    return token_losses(model, torch.tensor([ids], device=device))[0, -len(continuation) :]


@torch.inference_mode()
def continue_text(
    model: Any,
    prompt: Tensor,  # (B, T) int64
    n_new: int,
    *,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    generator: torch.Generator | None = None,
    processors: Sequence[Processor] = (),
) -> Tensor:
    """Continue prompts of equal length by ``n_new`` tokens with the model's own cache, (B, T) → (B, T + n_new).

    ``processors`` change the logits (B, V) given all tokens so far, before the warping. A model that ends a text
    goes on all the same: samples of equal length can be compared.

    Raises:
        ValueError: the text would be longer than the model's context.
    """
    if prompt.shape[1] + n_new > context_of(model):
        raise ValueError(f"{prompt.shape[1]} + {n_new} tokens are beyond the context of {context_of(model)}")
    tokens, past, read = prompt, None, prompt
    for _ in range(n_new):
        output = model(read, past_key_values=past, use_cache=True)
        past, logits = output.past_key_values, output.logits[:, -1].float()
        for process in processors:
            logits = process(tokens, logits)
        read = sample(logits, generator, temperature, top_k, top_p)[:, None]
        tokens = torch.cat([tokens, read], dim=1)
    return tokens
