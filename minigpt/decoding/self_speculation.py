"""A model with several heads drafts for itself: one pass both verifies the last drafts and makes the next.

    h  =  hidden state that gave token t by head 1
    draft     tokens t+1 … t+N-1 by heads 2 … N at h, none of which has seen the others
    verify    one pass over token t and the drafts: head 1 gives what the model alone would say at each place
    accept    as in speculative decoding; h moves to the place of the last emitted token

Sources: Stern, Shazeer & Uszkoreit (2018), https://arxiv.org/abs/1811.03115, section 4 (one pass for both, greedy);
Gloeckle et al. (2024), https://arxiv.org/abs/2404.19737, section 3.2; the acceptance rule for sampled text is
Leviathan, Kalman & Matias (2023), algorithm 1, in ``minigpt.decoding.speculative``: the proposal of a head is a
distribution like any other, so that the text is distributed as the first head's own.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from minigpt.checks import prompt_of, whole
from minigpt.decoding.readers import cache_for
from minigpt.decoding.sampling import PLAIN, Sampling, distribution
from minigpt.decoding.speculative import Speculation, draw, verify
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


@dataclass
class SelfSpeculation(Speculation):
    """What drafting for oneself took; ``by_head`` counts (tested, accepted) of heads 2, 3, …"""

    by_head: list[list[int]] = field(default_factory=list)


@torch.inference_mode()
def self_speculate(
    model: GPT,
    prompt: Tensor,  # (B, T) int64, T >= 1
    n_new: int,
    *,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
) -> SelfSpeculation:
    """Continue prompts by ``n_new`` tokens of the first head, with the drafts of the others.

    Temperature 0 gives the first head's greedy tokens. Rows advance in lockstep, as in ``speculate``.

    Raises:
        ValueError: an empty prompt or one of unknown tokens, fewer than 0 tokens to write, more than the model has
            positions for, or logits that are no distribution.
    """
    prompt_of(prompt, model.config.vocab_size)
    end, heads = prompt.shape[1] + whole("n_new", n_new, 0), model.config.n_future
    if model.position_embedding is not None and end - 1 > model.config.context:
        raise ValueError(f"{end} tokens need more than the {model.config.context} learned positions")
    cache = cache_for(model, len(prompt), end)
    result = SelfSpeculation(prompt, by_head=[[0, 0] for _ in range(heads - 1)])
    h: Tensor | None = None  # (B, 1, C); there is none before the prompt is read
    with evaluating(model):
        while (room := end - result.tokens.shape[1]) > 0:
            length = result.tokens.shape[1]
            steps = range(2, 2 + min(heads - 1, room - 1)) if h is not None else range(0)
            q = [distribution(model.future_logits(h, step).float(), sampling) for step in steps if h is not None]
            drafted = [draw(proposal, generator) for proposal in q]
            tokens = torch.cat([result.tokens, *drafted], dim=1)
            hidden = model.hidden(tokens[:, cache.length :], cache=cache)[:, -len(q) - 1 :]  # (B, γ + 1, C)
            p = distribution(model.future_logits(hidden, 1).float(), sampling)
            kept, emitted = verify(p, torch.cat(q, dim=1) if q else p[:, :0], tokens[:, length:], generator)
            n = int(kept.min())
            result.tokens = torch.cat([tokens[:, : length + n], emitted[:, n : n + 1]], dim=1)
            _count(result, kept, n, len(q))
            h = hidden[:, n : n + 1]
            cache.rewind(length + n)
    return result


def _count(result: SelfSpeculation, kept: Tensor, n: int, drafts: int) -> None:
    result.passes += 1
    result.emitted += n + 1
    for index in range(min(n + 1, drafts)):  # later drafts were not put to the test
        accepted = int((kept > index).sum())
        result.by_head[index][0] += len(kept)
        result.by_head[index][1] += accepted
        result.tested += len(kept)
        result.accepted += accepted
