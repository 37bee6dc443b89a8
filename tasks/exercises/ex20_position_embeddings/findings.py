"""What 21.20 measures: the geometry of tables of position embeddings, as plain data."""

import math
from dataclasses import dataclass

LEARNED, OWN, SINES, NOISE = "learned", "own", "sinusoidal", "random"


@dataclass(frozen=True)
class Similarity:
    """Cosines of pairs of positions."""

    mean: float  # over all pairs of different positions, as are the next two
    lowest: float
    highest: float
    near: float  # mean of adjacent positions
    far: float  # mean of positions at least half the table apart
    adjacent: float  # share of positions whose most similar other one is next to them
    within_3: float  # share of positions whose most similar other one is at most 3 away
    reach: float  # distance at which the mean cosine has first fallen to a half
    stationary: float  # share of the variance of the cosines that distance explains
    correlation: float  # of cosine and distance, over all pairs
    correlation_near: float  # over pairs at most a sixteenth of the table apart
    by_distance: tuple[float, ...]  # mean cosine at each distance
    first_pair: float  # of positions 0 and 1
    last_pair: float  # of the last position and the one before it
    shown: tuple[tuple[float, ...], ...]  # every ``step``-th row and column, rounded
    step: int


@dataclass(frozen=True)
class Wave:
    """The strongest frequency of one component over position."""

    cycles: int  # over the whole table
    period: float  # in positions
    share: float  # of the component's power


@dataclass(frozen=True)
class Rotation:
    """How two of the first three components go round with position."""

    components: tuple[int, int]  # counted from 0
    turns: float  # signed, from the first to the last position
    steady: float  # share of the steps that go the way of the whole
    advance: float  # |correlation| of the third component with position


@dataclass(frozen=True)
class Principal:
    """Principal components."""

    variance: tuple[float, ...]  # share of each, descending
    cumulative: tuple[float, ...]  # of the first ones
    two: float  # share of the first two
    three: float
    dimensions: int  # needed for 90 % of the variance
    coordinates: tuple[tuple[float, ...], ...]  # of the first components, over position
    waves: tuple[Wave, ...]  # of the first components
    rotation: Rotation


@dataclass(frozen=True)
class Norms:
    """Lengths of the rows."""

    each: tuple[float, ...]
    mean: float
    median: float
    spread: float  # standard deviation / mean
    deviation: float  # median absolute deviation from the median

    @property
    def first_is_special(self) -> bool:
        """Whether the first position's norm is an outlier."""
        return self._special(self.each[0])

    @property
    def last_is_special(self) -> bool:
        """Whether the last position's norm is an outlier."""
        return self._special(self.each[-1])

    @property
    def longest(self) -> int:
        """The position with the largest norm."""
        return self.each.index(max(self.each))

    @property
    def shortest(self) -> int:
        """The position with the smallest norm."""
        return self.each.index(min(self.each))

    def _special(self, norm: float) -> bool:
        return abs(norm - self.median) > 6 * self.deviation


@dataclass(frozen=True)
class Studied:
    """One table."""

    key: str  # in names of metrics
    name: str  # as readers see it
    length: int  # positions
    width: int  # numbers per position
    cosine: Similarity
    principal: Principal
    norms: Norms

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of this table."""
        c, p, r = self.cosine, self.principal, self.principal.rotation
        result: dict[str, float | int] = {
            "positions": self.length,
            "width": self.width,
            "mean_cosine_all_pairs": c.mean,
            "lowest_cosine": c.lowest,
            "highest_cosine": c.highest,
            "mean_cosine_adjacent": c.near,
            "mean_cosine_half_apart": c.far,
            "nearest_is_adjacent_share": c.adjacent,
            "nearest_within_3_share": c.within_3,
            "half_similarity_positions": c.reach,
            "variance_explained_by_distance": c.stationary,
            "correlation_cosine_distance": c.correlation,
            "correlation_cosine_distance_near_pairs": c.correlation_near,
            "components_for_90_percent": p.dimensions,
            "variance_two_components": p.two,
            "variance_three_components": p.three,
            "rotation_turns": abs(r.turns),
            "rotation_steady_share": r.steady,
            "rotation_advance_correlation": r.advance,
            "norm_first": self.norms.each[0],
            "norm_last": self.norms.each[-1],
            "norm_median": self.norms.median,
        }
        for k in range(3):
            result[f"component_{k + 1}_variance"] = p.variance[k]
            result[f"component_{k + 1}_period_positions"] = p.waves[k].period
        return {f"{self.key}_{name}": value for name, value in result.items()}


@dataclass(frozen=True)
class Snapshot:
    """The project's own table during training."""

    step: int
    adjacent: float  # share of positions whose most similar other one is next to them
    near: float  # mean cosine of adjacent positions


@dataclass(frozen=True)
class OwnModel:
    """The project's own model with learned positions."""

    name: str
    layers: int
    context: int
    loss: float  # validation, nats per character
    snapshots: tuple[Snapshot, ...]

    @property
    def ordered(self) -> bool:
        """Whether the last table has more adjacent nearest positions than noise has: 2 ± 1.6, whatever its size."""
        return self.snapshots[-1].adjacent > (2 + 3 * 1.6) / self.context


@dataclass(frozen=True)
class Accuracy:
    """Each tool against another way to the same number; the tables of the first and the sinusoidal one."""

    asymmetry: float  # of the cosine matrix
    diagonal: float  # its largest distance from 1
    closed_form: float  # sinusoidal cosines against the sum of cosines of differences
    shares: float  # of variance, by SVD against eigenvalues
    total_variance: float  # sum of the shares
    inner_products: float  # of coordinates against those of centred rows, relative
    line: float  # share of the first component of a table on a line
    arc: float  # nearest by cosine against nearest by angle
    cycles: int  # found in a cosine of 5


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    model: str  # the pretrained one
    note: str  # about it
    tables: tuple[Studied, ...]  # the one in question first; sinusoids and noise last
    own: OwnModel
    word_length: float | None  # characters with a space, mean, where the table in question has characters as tokens
    accuracy: Accuracy

    @property
    def table(self) -> Studied:
        """The one in question."""
        return self.tables[0]

    @property
    def sines(self) -> Studied:
        """Sinusoids of its size."""
        return self.tables[-2]

    @property
    def noise(self) -> Studied:
        """Gaussian noise of its size."""
        return self.tables[-1]

    @property
    def near_by_chance(self) -> float:
        """Standard deviation of the mean cosine of neighbours among random rows."""
        return 1 / math.sqrt(self.table.width * (self.table.length - 1))

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        found: dict[str, float | int] = {"own_adjacent_share_first_snapshot": self.own.snapshots[0].adjacent}
        for table in self.tables:
            found |= table.metrics
        return found
