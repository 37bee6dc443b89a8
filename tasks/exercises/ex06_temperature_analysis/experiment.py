"""Computes 21.6; nothing in it depends on the profile."""

from decimal import Decimal, localcontext
from itertools import pairwise

import torch
from torch import Tensor

from minigpt.evaluation.entropy import effective_support, entropy, normalised_entropy
from tasks.exercise import Context, Exercise
from tasks.exercises.ex06_temperature_analysis.findings import (
    COLD,
    LIMITS,
    LOGITS,
    TEMPERATURES,
    THRESHOLD,
    THRESHOLDS,
    TIED,
    Crossing,
    Distribution,
    Findings,
    Limit,
    Oracles,
    ratio_temperature,
)

DIGITS = 50


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    taus = torch.logspace(-1.5, 2, 141, dtype=torch.float64).tolist()
    return Findings(
        distributions=tuple(distribution(tau) for tau in TEMPERATURES),
        crossings=tuple(crossing(threshold) for threshold in THRESHOLDS),
        limits=tuple(limit(tau) for tau in LIMITS),
        variance=torch.tensor(LOGITS, dtype=torch.float64).var(correction=0).item(),
        tied=tuple((torch.tensor(TIED, dtype=torch.float64) / COLD).softmax(dim=-1).tolist()),
        curve_temperatures=tuple(taus),
        curve_normalised=tuple(normalised_entropy(probabilities(t)).item() for t in taus),
        curve_largest=tuple(probabilities(t).max().item() for t in taus),
        oracles=oracles(),
    )


def probabilities(tau: float) -> Tensor:
    """Softmax of the logits at one temperature, (4,) float64."""
    return (torch.tensor(LOGITS, dtype=torch.float64) / tau).softmax(dim=-1)


def exact_probabilities(tau: float) -> list[Decimal]:
    """The same in decimal arithmetic, from the definition: the independent check."""
    with localcontext() as context:
        context.prec = DIGITS
        weights = [(Decimal(z) / Decimal(tau)).exp() for z in LOGITS]
        return [weight / sum(weights) for weight in weights]


def exact_entropy(tau: float) -> Decimal:
    """Entropy in nats in decimal arithmetic."""
    with localcontext() as context:
        context.prec = DIGITS
        return -sum((p * p.ln() for p in exact_probabilities(tau)), Decimal(0))


def threshold_temperature(threshold: float) -> float:
    """The temperature at which normalised entropy equals ``threshold``, by Brent's method (1973, chapter 4)."""
    from scipy.optimize import brentq

    return float(brentq(lambda tau: normalised_entropy(probabilities(tau)).item() - threshold, 0.05, 1e4, xtol=1e-13))


def bisected_temperature(threshold: float) -> float:
    """The same by bisection in decimal arithmetic: another method, another arithmetic, another entropy."""
    low, high = 0.05, 1e4
    with localcontext() as context:
        context.prec = DIGITS
        goal = Decimal(threshold) * Decimal(len(LOGITS)).ln()
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if exact_entropy(middle) < goal else (low, middle)
    return (low + high) / 2


def distribution(tau: float) -> Distribution:
    """The softmax at one temperature, and how spread out it is."""
    p = probabilities(tau)
    return Distribution(
        tau, tuple(p.tolist()), entropy(p).item(), normalised_entropy(p).item(), effective_support(p).item()
    )


def crossing(threshold: float) -> Crossing:
    """Where a threshold is passed."""
    tau = threshold_temperature(threshold)
    p = probabilities(tau)
    return Crossing(threshold, tau, p.max().item(), p.min().item(), (p.max() / p.min()).item())


def limit(tau: float) -> Limit:
    """One temperature, from the definition in decimal arithmetic."""
    p = exact_probabilities(tau)
    return Limit(tau, float(max(p)), float(1 - max(p)), float(min(p)), float(exact_entropy(tau)))


def oracles() -> Oracles:
    """Decimal arithmetic, a second root finder, the derivative, the limits."""
    grid = torch.logspace(-1, 3, 200, dtype=torch.float64).tolist()
    curve = [entropy(probabilities(tau)).item() for tau in grid]
    z, step = torch.tensor(LOGITS, dtype=torch.float64), 1e-5
    p, even = probabilities(1.0), probabilities(ratio_temperature())
    argmax = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    return Oracles(
        probability_difference=max(
            abs(float(Decimal(p) - q))
            for tau in TEMPERATURES
            for p, q in zip(probabilities(tau).tolist(), exact_probabilities(tau), strict=True)
        ),
        entropy_difference=max(abs(entropy(probabilities(t)).item() - float(exact_entropy(t))) for t in TEMPERATURES),
        bisected=bisected_temperature(THRESHOLD),
        steps_down=sum(b <= a for a, b in pairwise(curve)),
        slope=(entropy(probabilities(1 + step)) - entropy(probabilities(1 - step))).item() / (2 * step),
        variance=((p * z**2).sum() - (p * z).sum() ** 2).item(),
        ratio=(even.max() / even.min()).item(),
        from_argmax=(probabilities(0.01) - argmax).abs().max().item(),
        from_uniform=(probabilities(1e6) - 1 / len(LOGITS)).abs().max().item(),
    )


EXERCISE = Exercise(
    measure=measure,
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    seconds={"smoke": 1, "laptop": 1, "gpu": 1},
)
