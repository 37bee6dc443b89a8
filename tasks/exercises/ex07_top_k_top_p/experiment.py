"""Computes 21.7: both truncations in floating point, and draws from a peaked distribution."""

from collections.abc import Sequence
from fractions import Fraction

import torch
from torch import Tensor

from minigpt.decoding.sampling import Sampling, sample, top_k_warp, top_p_warp
from minigpt.evaluation.entropy import effective_support, entropy, kl_divergence, participation_ratio, total_variation
from tasks.exercise import Context, Exercise
from tasks.exercises.ex07_top_k_top_p.findings import (
    BOUNDARY,
    GIVEN,
    PEAKED,
    PEAKED_K,
    SIZE,
    Findings,
    K,
    P,
    Rounding,
    Truncation,
    Warper,
    renormalised,
)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    from transformers import TopKLogitsWarper, TopPLogitsWarper

    counts, given, p = drawn(ctx), tensor(GIVEN), float(P)
    logits, ids = given.log()[None], torch.zeros(1, 1, dtype=torch.long)
    return Findings(
        entropy=entropy(given).item(),
        effective_support=effective_support(given).item(),
        participation_ratio=participation_ratio(given).item(),
        top_k=truncation(K),
        nucleus=truncation(SIZE),
        whole=truncation(len(GIVEN)),
        top_k_warper=warper(top_k_warp(logits, K), TopKLogitsWarper(K)(ids, logits), K),
        nucleus_warper=warper(top_p_warp(logits, p), TopPLogitsWarper(p)(ids, logits), SIZE),
        roundings=tuple(rounding(dtype) for dtype in (torch.float64, torch.float32, torch.float16)),
        drawn=tuple((counts / counts.sum()).tolist()),
        drawn_removed=int(counts[PEAKED_K:].sum()),
        p_value=chi_square(counts),
    )


def tensor(probabilities: Sequence[Fraction], dtype: torch.dtype = torch.float64) -> Tensor:
    """Rational numbers as floating point."""
    return torch.tensor([float(p) for p in probabilities], dtype=dtype)


def truncation(kept: int) -> Truncation:
    """The likeliest tokens of the given distribution, beside all of it."""
    q, given = tensor(renormalised(GIVEN, kept)), tensor(GIVEN)
    return Truncation(kept, total_variation(q, given).item(), kl_divergence(q, given).item(), entropy(q).item())


def warper(ours: Tensor, theirs: Tensor, kept: int) -> Warper:
    """Logits truncated here and by Transformers, beside fractions."""
    error = (ours.softmax(-1)[0] - tensor(renormalised(GIVEN, kept))).abs().max().item()
    return Warper(bool(torch.equal(ours, theirs)), error)


def rounding(dtype: torch.dtype) -> Rounding:
    """The nucleus in one precision, at P and at a threshold that a cumulative sum meets exactly."""
    logits = tensor(GIVEN, dtype).log()
    return Rounding(
        precision=str(dtype).removeprefix("torch."),
        total=tensor(GIVEN, dtype).cumsum(0)[SIZE - 2].item(),
        kept=int(top_p_warp(logits, float(P)).isfinite().sum()),
        kept_at_boundary=int(top_p_warp(logits, float(BOUNDARY)).isfinite().sum()),
    )


def drawn(ctx: Context) -> Tensor:
    """How often each token of the peaked distribution is drawn with top-k, (10,) int64."""
    logits = tensor(PEAKED).log().expand(ctx.numbers["draws"], -1)
    return sample(logits, Sampling(top_k=PEAKED_K), ctx.generator("peaked")).bincount(minlength=len(PEAKED))


def chi_square(counts: Tensor) -> float:
    """p-value of draws from the peaked distribution with top-k."""
    from scipy.stats import chisquare

    expected = tensor(renormalised(PEAKED, PEAKED_K))[:PEAKED_K] * counts.sum()
    return float(chisquare(counts[:PEAKED_K].double(), expected).pvalue)


EXERCISE = Exercise(
    measure=measure,
    numbers={"smoke": {"draws": 10_000}, "laptop": {"draws": 100_000}, "gpu": {"draws": 1_000_000}},
    seconds={"smoke": 2, "laptop": 1, "gpu": 2},
)
