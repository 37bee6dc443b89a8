"""What an exercise returns: parts made of blocks, checks, metrics. Pure data, no HTML, no colours.

Everything converts to and from plain JSON (``reports.plain``); a block carries its kind
in the field ``type``. Text in ``Prose`` is CommonMark without raw HTML; ``$…$`` and ``$$…$$`` hold LaTeX.
Everything else that is text is shown as it is: it may have been written by a model.
"""

import math
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Protocol

from reports.live.kinds import Distribution as Distribution
from reports.live.kinds import Mask as Mask
from reports.live.kinds import Round as Round
from reports.live.kinds import Setting as Setting
from reports.live.kinds import Speculation as Speculation

Cell = str | int | float | bool | None
CheckKind = Literal["exact", "empirical"]


@dataclass(frozen=True)
class Prose:
    """A paragraph or more of CommonMark with LaTeX; numbers in it are interpolated from measured values."""

    type: ClassVar[str] = "prose"
    text: str


@dataclass(frozen=True)
class Table:
    """Rows of cells under headings; numbers stay numbers, the page formats and sorts them."""

    type: ClassVar[str] = "table"
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    name: str = ""  # file name of the CSV, unique within the exercise; "" takes the part's letter and place

    def __post_init__(self) -> None:
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(f"table {self.caption!r}: {len(row)} cells under {len(self.columns)} columns: {row}")


@dataclass(frozen=True)
class Series:
    """One line, set of bars or cloud of points. ``error`` is a half-width in units of y (standard deviation).

    ``predicts`` names another series of the figure: what is measured there is predicted here. The two share a colour,
    the measured one solid, the predicted one dashed.
    """

    name: str
    x: tuple[float | str, ...]
    y: tuple[float, ...]
    error: tuple[float, ...] = ()
    predicts: str = ""

    def __post_init__(self) -> None:
        if len(self.x) != len(self.y) or (self.error and len(self.error) != len(self.y)):
            raise ValueError(f"series {self.name!r}: {len(self.x)} x, {len(self.y)} y, {len(self.error)} errors")


@dataclass(frozen=True)
class Figure:
    """A chart as data. ``hlines`` are (y, label) reference lines. For ``bar`` the x are category names."""

    type: ClassVar[str] = "figure"
    kind: Literal["line", "scatter", "bar", "step"]
    series: tuple[Series, ...]
    x_label: str
    y_label: str
    caption: str = ""
    x_log: bool = False
    y_log: bool = False
    hlines: tuple[tuple[float, str], ...] = ()

    def __post_init__(self) -> None:
        names = {series.name for series in self.series}
        if unknown := [series.predicts for series in self.series if series.predicts and series.predicts not in names]:
            raise ValueError(f"figure {self.caption!r}: predicts={unknown[0]!r}, which is none of {sorted(names)}")


@dataclass(frozen=True)
class Heatmap:
    """A matrix as colours. ``None`` cells are drawn as masked. Labels are optional.

    ``baseline`` and ``threshold`` are values with what they mean, (0.05, "uniform"): where the colours begin and end.
    Without them they run from the smallest value to the largest, and the strongest colour may mean next to nothing.
    """

    type: ClassVar[str] = "heatmap"
    values: tuple[tuple[float | None, ...], ...]
    x_label: str
    y_label: str
    caption: str = ""
    x_ticks: tuple[str, ...] = ()
    y_ticks: tuple[str, ...] = ()
    diverging: bool = False  # colours centred on zero
    annotate: bool = False  # write the values into the cells
    baseline: tuple[float, str] | None = None
    threshold: tuple[float, str] | None = None


@dataclass(frozen=True)
class Sample:
    """Text that a model wrote, after ``prompt``. Always escaped."""

    type: ClassVar[str] = "sample"
    title: str
    prompt: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Code:
    """Preformatted text: a matrix as printed, a listing in ``language`` ("python"), which is then coloured.

    ``file`` is where the listing stands, from the root of the project, ``line`` its first line there;
    ``reports.live.listings.listing`` finds it.
    """

    type: ClassVar[str] = "code"
    text: str
    caption: str = ""
    language: str = ""
    file: str = ""
    line: int | None = None


@dataclass(frozen=True)
class TokenScores:
    """A passage with a number per token, coloured in the text itself; hover shows token and value.

    With ``sides``, names of two kinds, ("red", "green"), a score is 0 or 1: the place of the token's kind among them.
    ``running`` is a second number per token, shown with it: what is known after it.
    """

    type: ClassVar[str] = "token_scores"
    tokens: tuple[str, ...]
    scores: tuple[float | None, ...]  # None: not scored (the first token)
    label: str  # what the number is, with its unit
    caption: str = ""
    sides: tuple[str, ...] = ()
    running: tuple[float | None, ...] = ()
    running_label: str = ""

    def __post_init__(self) -> None:
        if self.running and len(self.running) != len(self.scores):
            raise ValueError(
                f"token scores {self.caption!r}: {len(self.running)} running numbers of {len(self.scores)} scores"
            )


@dataclass(frozen=True)
class AttentionMaps:
    """Attention weights to explore: choose sentence, layer and head; hover shows the pair and the weight."""

    type: ClassVar[str] = "attention_maps"
    sentences: tuple[tuple[str, ...], ...]  # tokens of each sentence
    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]  # heads shown, per layer
    weights: tuple[tuple[tuple[tuple[tuple[float, ...], ...], ...], ...], ...]  # [sentence][layer][head][query][key]
    caption: str = ""


@dataclass(frozen=True)
class Details:
    """Blocks that are folded under a title: for readers who want to know more."""

    type: ClassVar[str] = "details"
    title: str
    blocks: "tuple[Block, ...]"


Block = (
    Prose
    | Table
    | Figure
    | Heatmap
    | Sample
    | Code
    | TokenScores
    | AttentionMaps
    | Distribution
    | Mask
    | Speculation
    | Details
)
BLOCKS: dict[str, type] = {block.type: block for block in typing.get_args(Block)}


def flattened(blocks: "Iterable[Block]") -> "Iterator[Block]":
    """All blocks in order, those that are folded in the place of their ``Details``."""
    for block in blocks:
        if isinstance(block, Details):
            yield from flattened(block.blocks)
        else:
            yield block


@dataclass(frozen=True)
class Part:
    """The answer to one lettered part; ``letter`` is "" where the exercise has none."""

    letter: str
    blocks: tuple[Block, ...]
    question: str = ""  # what this part asks, in a few words


class Repeated(Protocol):
    """A difference with a verdict on its noise: ``minigpt.evaluation.statistics.Comparison``, by its fields."""

    @property
    def difference(self) -> float: ...  # noqa: D102

    @property
    def verdict(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Check:
    """A claim with the measured value, its bound and the verdict.

    *Exact* checks compare with an independent oracle and must hold; *empirical* checks state what literature or
    intuition predicts and may fail, which the report then says. ``bound`` is text such as ``"<= 1e-05"``.
    """

    claim: str
    kind: CheckKind
    measured: Cell
    bound: str
    passed: bool

    @staticmethod
    def at_most(claim: str, measured: float, bound: float, kind: CheckKind = "exact") -> "Check":
        """Passes where measured <= bound; a NaN fails."""
        return Check(claim, kind, float(measured), f"<= {bound:g}", bool(measured <= bound))

    @staticmethod
    def at_least(claim: str, measured: float, bound: float, kind: CheckKind = "exact") -> "Check":
        """Passes where measured >= bound; a NaN fails."""
        return Check(claim, kind, float(measured), f">= {bound:g}", bool(measured >= bound))

    @staticmethod
    def equal(claim: str, measured: Cell, expected: Cell, kind: CheckKind = "exact") -> "Check":
        """Passes where measured == expected, without tolerance."""
        return Check(claim, kind, measured, f"== {expected}", measured == expected)

    @staticmethod
    def close(claim: str, measured: float, expected: float, tolerance: float, kind: CheckKind = "exact") -> "Check":
        """|measured - expected| <= tolerance."""
        passed = math.isfinite(measured) and abs(measured - expected) <= tolerance
        return Check(claim, kind, float(measured), f"{expected:.6g} ± {tolerance:g}", passed)

    @staticmethod
    def beyond_noise(claim: str, found: "Repeated", side: Literal["lower", "higher"]) -> "Check":
        """Empirical: a comparison of repeated measurements has this verdict, so that chance alone confirms nothing."""
        sign = "<" if side == "lower" else ">"
        return Check(claim, "empirical", found.difference, f"{sign} 0 beyond the noise", found.verdict == side)


@dataclass(frozen=True)
class Answer:
    """What is said of an exercise's findings.

    ``summary`` is the one sentence of the overview table. ``metrics`` carry every number that the exercise asks for,
    at full precision, the unit in the name where there is one (``kv_cache_fp16_mib``). ``finding`` is what readers of
    the whole page should learn here, one thought, "" where this run does not teach it; ``picture`` holds the figure
    that shows it. ``unexpected`` says why predictions failed, where some did.
    """

    summary: str
    parts: tuple[Part, ...]
    checks: tuple[Check, ...]
    metrics: dict[str, float | int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()  # substitutions and caveats, shown under the title
    finding: str = ""
    picture: "tuple[Block, ...]" = ()
    unexpected: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where a result comes from. ``seconds`` is the time of the exercise's own step, trainings not included."""

    profile: str
    sources: dict[str, str] = field(default_factory=dict)
    seeds: tuple[int, ...] = ()
    fingerprint: str = ""
    code_version: str = ""
    device: str = ""
    precision: str = ""  # of the trainings and of the pretrained model: "fp32", "bf16 and fp32", …
    machine: str = ""  # of an exercise that measures time: "Intel Xeon, 2 cores"
    seconds: float = 0.0
    mlflow_run_id: str | None = None
    mlflow_url: str | None = None
    prefect_run_id: str | None = None
    prefect_url: str | None = None


@dataclass(frozen=True)
class Result:
    """One exercise's outcome: the answer, or the error that prevented it."""

    id: str
    title: str
    status: Literal["ok", "failed"]
    provenance: Provenance
    parts: tuple[Part, ...] = ()
    checks: tuple[Check, ...] = ()
    metrics: dict[str, float | int] = field(default_factory=dict)
    summary: str = ""
    notes: tuple[str, ...] = ()
    error: str = ""
    finding: str = ""
    picture: tuple[Block, ...] = ()
    unexpected: str = ""
