"""What 21.6 computes: distributions and entropies at many temperatures, and the same by other methods."""

import math
from dataclasses import dataclass

LOGITS = (2.0, 1.0, 0.5, -1.0)
TEMPERATURES = (0.5, 1.0, 2.0)
THRESHOLD = 0.99  # of the largest possible entropy: what "approximately uniform" means here
RATIO = 1.1  # another reading: no token more than so many times as likely as another
LIMITS = (0.01, 0.05, 0.1, 0.2, 5.0, 10.0, 100.0, 10_000.0)  # towards both
THRESHOLDS = (0.9, 0.95, THRESHOLD, 0.999, 0.9999)
TIED = (2.0, 2.0, 0.5, -1.0)  # two equal best tokens
COLD = 0.01  # the temperature at which they are looked at


def ratio_temperature() -> float:
    """The temperature at which the largest probability is ``RATIO`` times the smallest."""
    return (max(LOGITS) - min(LOGITS)) / math.log(RATIO)


@dataclass(frozen=True)
class Distribution:
    """The softmax at one temperature."""

    temperature: float
    probabilities: tuple[float, ...]
    entropy: float  # nats
    normalised: float  # entropy over its maximum
    effective: float  # equally likely tokens that would be as uncertain

    @property
    def bits(self) -> float:
        """Entropy."""
        return self.entropy / math.log(2)


@dataclass(frozen=True)
class Crossing:
    """Where normalised entropy passes a threshold."""

    threshold: float
    temperature: float  # by a root finder
    largest: float  # probability there
    smallest: float
    ratio: float  # of the two


@dataclass(frozen=True)
class Limit:
    """A temperature near 0 or far from it, in 50-digit arithmetic."""

    temperature: float
    largest: float  # probability
    rest: float  # 1 - largest, subtracted before rounding
    smallest: float
    entropy: float  # nats


@dataclass(frozen=True)
class Oracles:
    """What other methods say of the same; differences are absolute."""

    probability_difference: float  # largest, from 50-digit decimal arithmetic
    entropy_difference: float  # largest, from the same, nats
    bisected: float  # temperature at THRESHOLD, by bisection in decimal arithmetic
    steps_down: int  # of the entropy, over 200 temperatures from 0.1 to 1000
    slope: float  # dH/dτ at τ = 1 by central differences
    variance: float  # of the logits under the distribution at τ = 1
    ratio: float  # of the largest to the smallest probability at ``ratio_temperature()``
    from_argmax: float  # largest difference of the probabilities at τ = 0.01
    from_uniform: float  # largest difference of the probabilities at τ = 10⁶


@dataclass(frozen=True)
class Findings:
    """All that was computed."""

    distributions: tuple[Distribution, ...]  # at TEMPERATURES
    crossings: tuple[Crossing, ...]  # of THRESHOLDS
    limits: tuple[Limit, ...]  # at LIMITS
    variance: float  # of the logits, all weighted alike
    tied: tuple[float, ...]  # probabilities of the logits TIED at the temperature COLD
    curve_temperatures: tuple[float, ...]
    curve_normalised: tuple[float, ...]  # normalised entropy
    curve_largest: tuple[float, ...]  # probability
    oracles: Oracles

    @property
    def crossing(self) -> Crossing:
        """That of THRESHOLD."""
        return next(crossing for crossing in self.crossings if crossing.threshold == THRESHOLD)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for d in self.distributions:
            tau = d.temperature
            metrics |= {f"probability_token_{i + 1}_tau_{tau}": value for i, value in enumerate(d.probabilities)}
            metrics |= {
                f"entropy_nats_tau_{tau}": d.entropy,
                f"entropy_bits_tau_{tau}": d.bits,
                f"entropy_normalised_tau_{tau}": d.normalised,
            }
        metrics |= {f"tau_at_normalised_entropy_{c.threshold}": c.temperature for c in self.crossings}
        metrics[f"tau_at_probability_ratio_{RATIO}"] = ratio_temperature()
        for limit in (self.limits[0], self.limits[-1]):
            metrics |= {
                f"largest_probability_tau_{limit.temperature:g}": limit.largest,
                f"smallest_probability_tau_{limit.temperature:g}": limit.smallest,
                f"entropy_nats_tau_{limit.temperature:g}": limit.entropy,
            }
        metrics["entropy_nats_uniform"] = math.log(len(LOGITS))
        return metrics
