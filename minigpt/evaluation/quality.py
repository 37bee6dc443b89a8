"""How likely a written text is, in the eyes of a model."""

import torch
from torch import Tensor

from minigpt.checks import token_ids, whole
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


def continuation_nll(scorer: GPT, texts: Tensor, start: int, batch_size: int = 64) -> Tensor:
    """Mean negative log-likelihood of tokens ``start`` … T - 1 of each text, (N, T) → (N,) nats per token.

    The tokens before ``start`` are read, not scored: they are the prompt, which no method wrote.

    Raises:
        ValueError: nothing to score, nothing before it, or unknown tokens.
    """
    token_ids("texts", texts, scorer.config.vocab_size, 2)
    whole("batch_size", batch_size, 1)
    if not 1 <= whole("start", start) < texts.shape[1]:
        raise ValueError(f"start must be from 1 to {texts.shape[1] - 1}, got {start}")
    found = []
    with torch.inference_mode(), evaluating(scorer):
        for rows in torch.split(texts, batch_size):
            log_p = scorer(rows[:, :-1]).float().log_softmax(dim=-1)
            losses = -log_p.gather(-1, rows[:, 1:, None])[..., 0]  # (B, T - 1)
            found.append(losses[:, start - 1 :].mean(dim=1))
    return torch.cat(found)
