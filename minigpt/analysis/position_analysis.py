"""What the geometry of a table of position embeddings says about distance, periods and single positions.

A table is (T, C), row t the embedding of position t, counted from 0. Everything is computed in float64.

Similarity by distance: Wang & Chen (2020), "What Do Position Embeddings Learn?", https://arxiv.org/abs/2010.04903.
The helix in GPT-2's table: Yedidia (2023), "GPT-2's positional embedding matrix is a helix" (LessWrong).
"""

import itertools
import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Wave:
    """The strongest frequency of one component over position."""

    cycles: int  # over the whole table
    period: float  # in positions: T / cycles
    share: float  # of the component's power


@dataclass(frozen=True)
class Rotation:
    """How two of the first three components go round with position."""

    components: tuple[int, int]  # counted from 0
    turns: float  # signed, from the first to the last position
    steady: float  # share of the steps from one position to the next that go the way of the whole
    advance: float  # |correlation| of the third component with position: near 1 the curve is a helix


@dataclass(frozen=True)
class TableAnalysis:
    """Everything that the functions below say about one table."""

    cosine: Tensor  # (T, T)
    norms: Tensor  # (T,)
    variance: Tensor  # (K,) shares of the variance, descending, K = min(T, C)
    components: Tensor  # (T, K) coordinates on the principal axes
    nearest: Tensor  # (T,) the most similar other position
    by_distance: Tensor  # (T,) mean cosine of pairs at each distance

    @property
    def adjacent(self) -> float:
        """Share of positions whose most similar other one is next to them; 2/T by chance."""
        return adjacent_share(self.nearest)

    @property
    def reach(self) -> float:
        """Distance at which the mean cosine has first fallen to a half, between positions by interpolation."""
        return half_distance(self.by_distance)

    @property
    def near(self) -> float:
        """Mean cosine of adjacent positions."""
        return self.by_distance[1].item()

    @property
    def far(self) -> float:
        """Mean cosine of all pairs at least half the table apart."""
        T = len(self.by_distance)
        pairs = torch.arange(T - T // 2, 0, -1, dtype=self.by_distance.dtype)  # at each distance T // 2 … T - 1
        return ((self.by_distance[T // 2 :] * pairs).sum() / pairs.sum()).item()

    @property
    def stationary(self) -> float:
        """Share of the variance of the cosines that distance alone explains."""
        return stationary_share(self.cosine)

    @property
    def top(self) -> float:
        """Variance that the first three components hold."""
        return self.variance[:3].sum().item()

    def dimensions(self, share: float = 0.9) -> int:
        """Components needed for so much of the variance."""
        return int((self.variance.cumsum(0) < share).sum()) + 1

    def nearest_within(self, most: int) -> float:
        """Share of positions whose most similar other one is at most so far away."""
        places = torch.arange(len(self.nearest))
        return ((self.nearest - places).abs() <= most).double().mean().item()

    @property
    def rotation(self) -> Rotation:
        """The steadiest one among the first three components."""
        return rotation(self.components[:, :3])

    def wave(self, component: int) -> Wave:
        """The strongest frequency of a component, counted from 0."""
        return strongest_wave(self.components[:, component])


def analyse(table: Tensor) -> TableAnalysis:
    """All of it, (T, C) → ``TableAnalysis``.

    Raises:
        ValueError: fewer than 8 positions, or fewer than 3 dimensions.
    """
    if table.ndim != 2 or table.shape[0] < 8 or table.shape[1] < 3:
        raise ValueError(f"need at least 8 positions in 3 dimensions, got {tuple(table.shape)}")
    table = table.detach().cpu().double()
    cosine = cosine_matrix(table)
    variance, components = principal_components(table)
    return TableAnalysis(
        cosine=cosine,
        norms=table.norm(dim=1),
        variance=variance,
        components=components,
        nearest=nearest_positions(cosine),
        by_distance=mean_by_distance(cosine),
    )


def cosine_matrix(table: Tensor) -> Tensor:
    """cos(p_i, p_j) of all pairs of rows, (T, C) → (T, T)."""
    unit = table / table.norm(dim=1, keepdim=True).clamp_min(torch.finfo(table.dtype).tiny)
    return unit @ unit.T


def principal_components(table: Tensor) -> tuple[Tensor, Tensor]:
    """Shares of the variance (K,) and coordinates (T, K) by SVD of the centred table, K = min(T, C).

    X = U S Vᵀ: coordinates U S = X V, variances S² / (T - 1). Axes point so that the largest coordinate is positive.
    """
    centred = table - table.mean(dim=0)
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    coordinates = left * singular
    largest = coordinates.gather(0, coordinates.abs().argmax(dim=0, keepdim=True))
    return singular.square() / singular.square().sum(), coordinates * largest.sign()


def nearest_positions(cosine: Tensor) -> Tensor:
    """The most similar other position of each, (T, T) → (T,) int64."""
    return cosine.clone().fill_diagonal_(-math.inf).argmax(dim=1)


def adjacent_share(nearest: Tensor) -> float:
    """Share of positions t with ``nearest[t]`` = t ± 1. Chance: 2 of T - 1 inside, 1 at the two ends, so 2/T."""
    places = torch.arange(len(nearest), device=nearest.device)
    return ((nearest - places).abs() == 1).double().mean().item()


def mean_by_distance(matrix: Tensor) -> Tensor:
    """Mean of each diagonal, (T, T) → (T,): the mean over pairs of positions d = 0 … T - 1 apart."""
    return torch.stack([matrix.diagonal(d).mean() for d in range(len(matrix))])


def distance_correlation(matrix: Tensor, most: int | None = None) -> float:
    """Pearson's correlation of cosine and distance over all pairs i < j, or over those at most ``most`` apart."""
    i, j = torch.triu_indices(len(matrix), len(matrix), 1)
    near = (j - i) <= (most or len(matrix))
    pairs = torch.stack([matrix[i, j][near], (j - i)[near].to(matrix.dtype)])
    return torch.corrcoef(pairs)[0, 1].item()


def stationary_share(matrix: Tensor) -> float:
    """Share of the variance of the cosines (pairs i < j) that their distance explains: 1 for a Toeplitz matrix."""
    i, j = torch.triu_indices(len(matrix), len(matrix), 1)
    values, expected = matrix[i, j], mean_by_distance(matrix)[j - i]
    return 1 - ((values - expected).square().sum() / (values - values.mean()).square().sum()).item()


def half_distance(by_distance: Tensor) -> float:
    """Where a curve that starts at 1 first falls to 1/2, linear between positions; its last distance if it never does.

    Where neighbours have nothing in common, cosine 0, that is 0.5.
    """
    curve = by_distance.tolist()
    for d in range(1, len(curve)):
        if curve[d] <= 0.5:
            return d - 1 + (curve[d - 1] - 0.5) / (curve[d - 1] - curve[d])
    return float(len(curve) - 1)


def strongest_wave(component: Tensor) -> Wave:
    """The frequency with the most power in the discrete Fourier transform of (T,), the mean left out."""
    power = torch.fft.rfft(component - component.mean()).abs().square()[1:]
    best = int(power.argmax())
    return Wave(best + 1, len(component) / (best + 1), (power[best] / power.sum()).item())


def rotation(components: Tensor) -> Rotation:
    """Of the three planes of (T, 3), the one in which the angle goes most steadily one way."""
    found = []
    for a, b in itertools.combinations(range(3), 2):
        angle = torch.atan2(components[:, b], components[:, a])
        step = angle.diff().remainder(2 * math.pi)
        step = torch.where(step > math.pi, step - 2 * math.pi, step)  # the shorter way round
        turns = step.sum().item() / (2 * math.pi)
        steady = (step.sign() == math.copysign(1, turns)).double().mean().item()
        places = torch.arange(len(components), dtype=components.dtype, device=components.device)
        third = torch.stack([components[:, 3 - a - b], places])
        found.append(Rotation((a, b), turns, steady, torch.corrcoef(third)[0, 1].abs().item()))
    return max(found, key=lambda r: r.steady)


def sinusoidal_cosine(length: int, width: int) -> Tensor:
    """The cosines of sinusoidal embeddings in closed form, (T, T).

    sin a sin b + cos a cos b = cos(a - b), so p_i · p_j = Σ_k cos((i - j) ω_k) with ω_k = 10,000^(-2k/C), and
    p_i · p_i = C / 2. Vaswani et al. (2017), section 3.5.

    Raises:
        ValueError: an odd width, whose last sine has no cosine.
    """
    if width % 2:
        raise ValueError(f"the width must be even, got {width}")
    rate = 10_000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    places = torch.arange(length, dtype=torch.float64)
    by_distance = (places[:, None] * rate).cos().mean(dim=1)
    return by_distance[(places[:, None] - places).abs().long()]
