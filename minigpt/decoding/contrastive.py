"""Contrastive decoding: prefer what a large model (the expert) likes more than a small one (the amateur) does.

The book subtracts logits, ``expert - α · amateur``. The paper keeps only the tokens that the expert itself finds
plausible before it contrasts, which is what makes the idea work: without that, a token that both models find absurd
wins as soon as the amateur finds it the more absurd one.

Source: Li et al. (2022), "Contrastive Decoding: Open-ended Text Generation as Optimization",
https://arxiv.org/abs/2210.15097. Names: here α is the weight of the amateur; the paper's α, its threshold of
plausibility, is called ``plausibility``.
"""

import torch
from torch import Tensor

from minigpt.checks import number, share
from minigpt.decoding.readers import GPTReader
from minigpt.decoding.sampling import REMOVED
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


def plausible(expert: Tensor, plausibility: float) -> Tensor:
    """V_head: tokens with at least ``plausibility`` times the probability of the most likely one, (…, V) bool.

    Li et al. (2022), section 3.2. In logits: no further than -log(plausibility) below the largest.

    Raises:
        ValueError: ``plausibility`` is outside [0, 1].
    """
    share("plausibility", plausibility)
    gap = torch.tensor(plausibility, dtype=expert.dtype, device=expert.device).log()
    return expert >= expert.max(dim=-1, keepdim=True).values + gap


def contrast(expert: Tensor, amateur: Tensor, alpha: float, plausibility: float = 0.0) -> Tensor:
    """``expert - α · amateur``, -inf for implausible tokens, (…, V) logits each.

    With ``plausibility=0`` this is the book's formula. Logits and log-probabilities give the same distribution: a
    constant per row falls out of the softmax. The coefficients sum to 1 - α, so that where the two models agree the
    result is the expert at temperature 1 / (1 - α). α = 0 returns the expert's logits unchanged. What the expert has
    removed stays removed, whatever the amateur thinks of it.

    Raises:
        ValueError: α is negative, or ``plausibility`` is outside [0, 1].
    """
    share("plausibility", plausibility)
    number("alpha", alpha, lambda x: x >= 0, "a finite number from 0 up")
    logits = torch.where(expert == REMOVED, REMOVED, expert - alpha * amateur) if alpha else expert
    return logits if plausibility == 0 else logits.masked_fill(~plausible(expert, plausibility), REMOVED)


class Contrastive:
    """A logits processor for ``generate``, with a reader of its own for the amateur.

    Make a new one for each generation: the reader remembers the text.
    """

    def __init__(self, amateur: GPT, alpha: float, plausibility: float = 0.0) -> None:
        self.amateur, self.alpha, self.plausibility = amateur, alpha, plausibility
        self._reader: GPTReader | None = None

    def __call__(self, tokens: Tensor, expert: Tensor) -> Tensor:
        """Tokens so far (B, T) and the expert's logits (B, V) → contrasted logits (B, V)."""
        amateur = self._read(tokens) if self.alpha else expert
        return contrast(expert, amateur, self.alpha, self.plausibility)

    def _read(self, tokens: Tensor) -> Tensor:
        if self._reader is None:
            context = self.amateur.config.context
            self._reader = GPTReader(self.amateur, len(tokens), limit=context, capacity=context)
        with evaluating(self.amateur):
            return self._reader.read(tokens[:, self._reader.length :])
