"""Using a prefix language model: scoring what follows a prefix, and continuing it.

The prefix is read with full attention, what follows with causal attention (Raffel et al., 2020,
https://arxiv.org/abs/1910.10683, section 3.2.1); ``minigpt.masks.prefix_mask`` is the mask, the objective "prefix"
the training.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.checks import prompt_of, token_ids, whole
from minigpt.decoding.readers import GPTReader, PrefixReader, Reader
from minigpt.decoding.sampling import PLAIN, Sampling, decode
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


@torch.inference_mode()
def suffix_losses(
    model: GPT,
    windows: Tensor,  # (B, T + 1) int64
    prefix: int,
    *,
    bidirectional: bool = True,
    batch_size: int = 64,
) -> Tensor:
    """Negative log-likelihood of tokens P … T of each window given all before them, (B, T + 1 - max(P, 1)) in nats.

    ``bidirectional=False`` reads the prefix causally and scores the very same targets. Tokens inside the prefix are
    never scored, as they see themselves; the first token of a window never is, as nothing precedes it.

    Raises:
        ValueError: no target is left, or unknown tokens.
    """
    token_ids("windows", windows, model.config.vocab_size, 2)
    whole("batch_size", batch_size, 1)
    T = windows.shape[1] - 1
    if not 0 <= whole("prefix", prefix) <= T or T < 1 or not len(windows):
        raise ValueError(f"a prefix of {prefix} leaves nothing to score in windows of {T + 1} tokens")
    first, scores = max(prefix, 1), []
    with evaluating(model):
        for rows in torch.split(windows, batch_size):
            logits = model(rows[:, :-1], prefix=prefix if bidirectional else 0)[:, first - 1 :].float()
            targets = rows[:, first:]
            losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
            scores.append(losses.view_as(targets))
    return torch.cat(scores)


def complete(
    model: GPT,
    prompt: Tensor,  # (B, P) int64, P >= 1
    n_new: int,
    *,
    bidirectional: bool = True,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue prompts that are read as bidirectional prefixes, (B, P) → (B, P + n_new).

    ``bidirectional=False`` reads them causally, as ``minigpt.decoding.sampling.generate`` does.

    Raises:
        ValueError: an empty prompt or one of unknown tokens, fewer than 0 tokens to write, or more than the model has
            learned positions for.
    """
    prompt_of(prompt, model.config.vocab_size, "(B, P)")
    B, end = len(prompt), prompt.shape[1] + whole("n_new", n_new, 0)
    reader: Reader = PrefixReader(model, B, end) if bidirectional else GPTReader(model, B, limit=end, capacity=end)
    with evaluating(model):
        return decode(reader, prompt, n_new, sampling, generator)
