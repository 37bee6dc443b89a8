"""Tables, figures and checks of 21.6; the text is in answer.md."""

import math

from reports.answers import Draft
from reports.types import Check, Distribution, Figure, Series, Setting, Table
from tasks.exercises.ex06_temperature_analysis.findings import (
    COLD,
    LOGITS,
    RATIO,
    TEMPERATURES,
    THRESHOLD,
    TIED,
    Findings,
    ratio_temperature,
)

N = len(LOGITS)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "probabilities": probabilities(f),
            "turn": turn(),
            "entropy": entropy(f),
            "thresholds": thresholds(f),
            "curve": curve(f),
            "limits": limits(f),
        },
        checks=checks(f),
        values={
            "n": N,
            "largest_entropy": math.log(N),
            "odds": [math.exp((LOGITS[0] - LOGITS[1]) / tau) for tau in TEMPERATURES],
            "threshold": THRESHOLD,
            "ratio": RATIO,
            "ratio_temperature": ratio_temperature(),
            "gap": LOGITS[0] - LOGITS[1],
            "tied_logits": [f"{z:g}" for z in TIED],
            "cold": COLD,
        },
    )


def probabilities(f: Findings) -> Table:
    """Of every token at each temperature."""
    return Table(
        columns=("token", "logit", *(f"p at τ = {tau:g}" for tau in TEMPERATURES)),
        rows=tuple((f"{i + 1}", z, *(d.probabilities[i] for d in f.distributions)) for i, z in enumerate(LOGITS)),
        caption="Softmax probabilities at three temperatures",
        name="probabilities",
    )


def turn() -> Distribution:
    """The same to turn."""
    settings = tuple(Setting(f"τ = {tau:g}", tau) for tau in TEMPERATURES)
    tokens = tuple(str(i + 1) for i in range(N))
    return Distribution(tokens, LOGITS, settings, ("temperature",), "The same distribution at any temperature.")


def entropy(f: Findings) -> Table:
    """In all units."""
    return Table(
        columns=("τ", "H (nats)", "H (bits)", "H / ln 4", "effective tokens e^H"),
        rows=tuple((d.temperature, d.entropy, d.bits, d.normalised, d.effective) for d in f.distributions),
        caption="Entropy at three temperatures",
        name="entropy",
    )


def thresholds(f: Findings) -> Table:
    """How the answer depends on what is called approximately uniform."""
    return Table(
        columns=("threshold θ", "τ (root)", "τ (high-temperature formula)", "largest p", "smallest p", "ratio"),
        rows=tuple(
            (
                c.threshold,
                c.temperature,
                math.sqrt(f.variance / (2 * (1 - c.threshold) * math.log(N))),
                c.largest,
                c.smallest,
                c.ratio,
            )
            for c in f.crossings
        ),
        caption="Temperature at which normalised entropy passes a threshold",
        name="thresholds",
    )


def curve(f: Findings) -> Figure:
    """Normalised entropy and the largest probability against temperature."""
    return Figure(
        kind="line",
        series=(
            Series("normalised entropy", f.curve_temperatures, f.curve_normalised),
            Series("largest probability", f.curve_temperatures, f.curve_largest),
        ),
        x_label="temperature τ",
        y_label="H / ln 4, probability",
        x_log=True,
        caption="Entropy rises from 0 to its maximum while the likeliest token falls from 1 to a quarter",
        hlines=((THRESHOLD, f"threshold {THRESHOLD}"), (1 / N, "uniform probability")),
    )


def limits(f: Findings) -> Table:
    """Both limits approached."""
    return Table(
        columns=("τ", "largest p", "1 - largest p", "smallest p", "H (nats)"),
        rows=tuple((one.temperature, one.largest, one.rest, one.smallest, one.entropy) for one in f.limits),
        caption="Towards both limits, in 50-digit arithmetic",
        name="limits",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """Exact: decimal arithmetic, a second root finder, the derivative, the limits."""
    o = f.oracles
    return (
        Check.at_most(
            "probabilities equal 50-digit decimal arithmetic (largest difference)", o.probability_difference, 1e-14
        ),
        Check.at_most(
            "entropies equal 50-digit decimal arithmetic (largest difference, nats)", o.entropy_difference, 1e-14
        ),
        Check.close(
            f"Brent's τ for normalised entropy {THRESHOLD} equals bisection in decimal arithmetic",
            f.crossing.temperature,
            o.bisected,
            1e-9,
        ),
        Check.equal("entropy rises over 200 temperatures from 0.1 to 1000 (steps down)", o.steps_down, 0),
        Check.close("dH/dτ at τ = 1 equals the variance of the logits (central difference)", o.slope, o.variance, 1e-8),
        Check.close(
            f"largest over smallest probability at the temperature for a ratio of {RATIO:g}", o.ratio, RATIO, 1e-12
        ),
        Check.at_most("τ = 0.01 is the argmax (largest difference)", o.from_argmax, 1e-15),
        Check.at_most("τ = 10⁶ is uniform (largest difference)", o.from_uniform, 1e-6),
    )
