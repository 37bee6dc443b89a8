"""Beam search: the most probable continuation that a search of bounded width finds.

    K beams × V tokens → the K best of K·V continuations → … (Lowerre, 1976; Sutskever et al., 2014, section 3.2)

It maximises log P(continuation | prompt) over many continuations at once; sampling draws one of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.decoding.readers import GPTReader
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


@dataclass(frozen=True)
class Hypothesis:
    """One continuation that the search has found."""

    tokens: Tensor  # (T + n,) int64, the prompt included; ends with the end token if that was reached
    log_probability: float  # of the n new tokens given the prompt, nats
    score: float  # log_probability / n ** length_penalty


def beam_search(
    model: GPT,
    prompt: Tensor,  # (T,) int64, T >= 1
    n_new: int,
    *,
    beams: int,
    end: int | None = None,
    length_penalty: float = 1.0,
    limit: int | None = None,
) -> list[Hypothesis]:
    """The best continuations of at most ``n_new`` tokens, best first, at most ``beams`` of them.

    A beam that writes the token ``end`` is finished: it is set aside with its score and never extended. Scores divide
    by length ** ``length_penalty`` because every further token lowers a probability; with 1 the mean log-probability
    decides, with 0 the probability itself. The search ends early when no running beam can beat the finished ones at
    its present length, as in Transformers (``early_stopping=False``). Without ``end`` all lengths are equal and the
    penalty changes no order.

    The model sees at most the last ``limit`` tokens, by default the length it was trained on, as in
    ``minigpt.decoding.sampling.generate``.

    Raises:
        ValueError: an empty prompt, fewer than one beam or new token, or a limit beyond the learned positions.
    """
    limit = limit or model.config.context
    if prompt.ndim != 1 or len(prompt) < 1:
        raise ValueError(f"the prompt must be (T,) with T >= 1, got {tuple(prompt.shape)}")
    if beams < 1 or n_new < 1:
        raise ValueError(f"beams and n_new must be at least 1, got {beams} and {n_new}")
    if model.position_embedding is not None and limit > model.config.context:
        raise ValueError(f"limit {limit} is beyond the {model.config.context} learned positions")
    # All beams start as the same prompt: all but one are ruled out, or the first step would find each token K times.
    running = prompt.repeat(beams, 1)  # (K, T)
    totals = torch.full((beams,), float("-inf"), device=prompt.device)  # log-probabilities so far
    totals[0] = 0.0
    finished: list[Hypothesis] = []
    reader, unread = GPTReader(model, beams, limit=limit, capacity=min(limit, len(prompt) + n_new)), running
    with torch.inference_mode(), evaluating(model):
        for length in range(1, n_new + 1):
            log_p = (totals[:, None] + reader.read(unread).log_softmax(dim=-1)).flatten()  # (K · V,)
            # Each beam can end in one way only, so that K of 2K candidates can go on.
            best, places = log_p.topk(2 * beams)
            rows, tokens = places // model.config.vocab_size, places % model.config.vocab_size
            candidates = torch.cat([running[rows], tokens[:, None]], dim=1)
            ends = torch.full_like(tokens, length == n_new, dtype=torch.bool)
            if end is not None:
                ends |= tokens == end
            found = (ends[:beams] & best[:beams].isfinite()).nonzero().flatten().tolist()
            finished += [
                Hypothesis(candidates[i], best[i].item(), best[i].item() / length**length_penalty) for i in found
            ]
            finished = sorted(finished, key=lambda hypothesis: -hypothesis.score)[:beams]
            going = (~ends).nonzero().flatten()[:beams]
            if not len(going):
                break
            running, totals = candidates[going], best[going]
            if len(finished) == beams and finished[-1].score >= totals.max().item() / length**length_penalty:
                break
            reader.reorder(rows[going])
            unread = running[:, -1:]
    return finished
