"""How two groups differ where a third thing is held equal: differences within strata, and their bootstrap interval.

Early tokens of a window have little to go by, whatever they are. If one of two groups has more of them, the raw
difference of the means is partly that. Within strata of equal position it is not:

    Δ = Σ_s w_s (mean_1s - mean_0s) / Σ_s w_s,        w_s = n_1s n_0s / (n_1s + n_0s)

With these weights Δ is the coefficient of the group in a least-squares regression on the group and a constant per
stratum (Frisch & Waugh, 1933); a stratum that lacks one of the groups says nothing.

The interval resamples clusters, not values: values of one sentence are not independent (Efron & Tibshirani, 1993,
An Introduction to the Bootstrap, chapters 8 and 13).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

FEW = 10  # values of a group, or clusters, with fewer of which percentiles say nothing


@dataclass(frozen=True)
class Effect:
    """The mean of group 1 less the mean of group 0, within strata."""

    difference: float
    interval: tuple[float, float]  # percentiles of the bootstrap
    means: tuple[float, float]  # raw, groups 0 and 1
    counts: tuple[int, int]  # values of groups 0 and 1
    clusters: int  # that were resampled

    @property
    def verdict(self) -> Literal["lower", "higher", "noise", "too few"]:
        """Where group 1 lies, if the interval says so; "too few" where it may not be asked."""
        if min(*self.counts, self.clusters) < FEW:
            return "too few"
        return "lower" if self.interval[1] < 0 else "higher" if self.interval[0] > 0 else "noise"


def stratified_difference(
    values: Sequence[float],
    group: Sequence[bool],
    strata: Sequence[object],
    clusters: Sequence[object],
    *,
    generator: torch.Generator,
    draws: int = 2_000,
    confidence: float = 0.95,
) -> Effect | None:
    """Difference between values with and without a property, within strata; one entry per value in all four.

    None where no stratum has both groups, or fewer than two clusters are there to resample. Draws of the bootstrap
    that lose one of the groups are left out.
    """
    y, g = torch.tensor(list(values), dtype=torch.float64), torch.tensor([int(is_one) for is_one in group])
    if not len(y):
        return None
    (home, C), (place, S) = _numbered(clusters), _numbered(strata)
    cell = (home * S + place) * 2 + g
    counts, sums = (torch.bincount(cell, v, minlength=C * S * 2).view(C, S, 2) for v in (torch.ones_like(y), y))
    difference = _difference(counts.sum(dim=0), sums.sum(dim=0)).item()
    if C < 2 or math.isnan(difference):
        return None
    chosen = torch.randint(C, (draws, C), generator=generator)
    times = torch.zeros(draws, C, dtype=torch.float64).scatter_add_(1, chosen, torch.ones(chosen.shape).double())
    again = _difference(torch.einsum("dc,csg->dsg", times, counts), torch.einsum("dc,csg->dsg", times, sums))
    tail = (1 - confidence) / 2
    low, high = torch.nanquantile(again, torch.tensor([tail, 1 - tail], dtype=torch.float64)).tolist()
    means = (y[g == 0].mean().item(), y[g == 1].mean().item())
    return Effect(difference, (low, high), means, (int((g == 0).sum()), int((g == 1).sum())), C)


def _numbered(names: Sequence[object]) -> tuple[Tensor, int]:
    """Names as numbers in order of appearance, and how many there are."""
    numbers = {name: i for i, name in enumerate(dict.fromkeys(names))}
    return torch.tensor([numbers[name] for name in names]), len(numbers)


def _difference(counts: Tensor, sums: Tensor) -> Tensor:
    """Δ of counts and sums per stratum and group, (…, S, 2) → (…); NaN where no stratum has both."""
    n0, n1 = counts.unbind(dim=-1)
    weight = n0 * n1 / (n0 + n1).clamp_min(1)
    mean0, mean1 = (sums / counts.clamp_min(1)).unbind(dim=-1)
    return (weight * (mean1 - mean0)).sum(dim=-1) / weight.sum(dim=-1)
