"""What each of several heads is worth: loss and accuracy by the number of tokens ahead."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


@dataclass(frozen=True)
class FutureHeadScores:
    """Validation loss and accuracy of each head of one model."""

    losses: tuple[float, ...]  # nats per token
    accuracies: tuple[float, ...]


@torch.inference_mode()
def score_heads(model: GPT, tokens: Tensor, batch_size: int = 64) -> FutureHeadScores:
    """Score all heads on tokens (N,) in contiguous windows of the model's context.

    Head n is scored on the tokens n … T of each window, as it has nothing to read for the first n - 1 of them; a rest
    shorter than a window is not read.
    """
    T, N = model.config.context, model.config.n_future
    nll, right, count = torch.zeros(N, dtype=torch.double), torch.zeros(N), torch.zeros(N)
    with evaluating(model):
        for windows in torch.split(tokens.unfold(0, T + 1, T), batch_size):
            hidden = model.hidden(windows[:, :-1])
            for step in range(1, N + 1):
                logits = model.future_logits(hidden[:, : T + 1 - step], step).flatten(0, 1).float()
                targets = windows[:, step:].flatten()
                nll[step - 1] += F.cross_entropy(logits, targets, reduction="sum").double().cpu()
                right[step - 1] += (logits.argmax(dim=-1) == targets).sum().cpu()
                count[step - 1] += len(targets)
    return FutureHeadScores(tuple((nll / count).tolist()), tuple((right / count).tolist()))
