"""Scoring and continuing text with somebody else's model: any causal language model of Transformers' interface.

Nothing here knows an architecture. A model is called as ``model(input_ids, past_key_values=…, use_cache=…)`` and
answers with ``logits`` (B, T, V); what it can hold is read from its configuration.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from minigpt.sampling import Processor, sample


def context_of(model: Any) -> int:
    """Longest sequence that the model was made for, in tokens.

    Raises:
        ValueError: its configuration does not say.
    """
    for name in ("n_positions", "max_position_embeddings", "n_ctx", "max_seq_len"):
        value = getattr(model.config, name, None)
        if isinstance(value, int) and value > 0:
            return value
    raise ValueError("the model's configuration names no context length")


@torch.inference_mode()
def token_losses(model: Any, ids: Tensor, *, batch_size: int = 4) -> Tensor:
    """-ln p of every token but the first, given those before it in its row, (B, T) → (B, T-1), nats.

    Row b, column t is the loss of token t+1: logits at t predict the next token.

    Raises:
        ValueError: rows of fewer than 2 tokens, or longer than the model's context.
    """
    if ids.ndim != 2 or not 2 <= ids.shape[1] <= context_of(model):
        raise ValueError(f"rows must have 2 to {context_of(model)} tokens, got {tuple(ids.shape)}")
    found = []
    for rows in ids.split(batch_size):
        logits = model(rows, use_cache=False).logits[:, :-1].float()
        found.append(torch.nn.functional.cross_entropy(logits.transpose(1, 2), rows[:, 1:], reduction="none"))
    return torch.cat(found)


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
