"""Beam search: the most probable continuation that a search of bounded width finds.

    K beams × V tokens → the K best of K·V continuations → … (Lowerre, 1976; Sutskever et al., 2014, section 3.2)

It maximises log P(continuation | prompt) over many continuations at once; sampling draws one of them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.checks import number, prompt_of, whole
from minigpt.decoding.readers import GPTReader, limit_of
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
        ValueError: an empty prompt or one of unknown tokens, fewer than one beam or new token, a limit below 1 or
            beyond the learned positions, an end that is no token, a penalty beyond all floats, or logits that are not
            numbers.
    """
    prompt_of(prompt, model.config.vocab_size, "(T,)")
    beams, n_new, limit = whole("beams", beams, 1), whole("n_new", n_new, 1), limit_of(model, limit)
    if end is not None:
        whole("end", end, 0, model.config.vocab_size - 1)
    number("length_penalty", length_penalty, lambda x: _power(n_new, x) > 0, f"a number to which {n_new} can be raised")
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
            best, places = log_p.topk(min(2 * beams, len(log_p)))
            if not best[0] > float("-inf"):  # what is not a number comes first
                raise ValueError(f"logits must be numbers and leave one token, got {best[0]} for the best continuation")
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


def _power(n: int, exponent: float) -> float:
    """n to a power, 0 where that is more than a float can be."""
    try:
        return float(n**exponent)
    except OverflowError:
        return 0.0
