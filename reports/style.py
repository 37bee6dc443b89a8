"""The house style of charts: colours, dashes, markers, sizes."""

from collections.abc import Mapping
from dataclasses import dataclass

from reports.types import Figure

# Matplotlib draws in these sentinels, which are then replaced by the page's colours, or by those of a file.
TEXT, GRID, AXIS, PAPER = "#0d0d01", "#0d0d02", "#0d0d03", "#0d0d04"
SERIES = tuple(f"#0c0c{n:02x}" for n in range(1, 9))
# Eight colours told apart with every common form of colour blindness, with ≥ 3:1 contrast on white.
PALETTE = ("#0a5fb4", "#c2500e", "#00775c", "#9c3f92", "#8a6d00", "#c42b5c", "#2f8fbf", "#55606b")
PAGE_COLOURS: Mapping[str, str] = {
    TEXT: "var(--chart-text)",
    GRID: "var(--chart-grid)",
    AXIS: "var(--chart-axis)",
    PAPER: "var(--paper)",
    **{sentinel: f"var(--c{n})" for n, sentinel in enumerate(SERIES, 1)},
}
PRINT_COLOURS: Mapping[str, str] = {
    TEXT: "#3c444d",
    GRID: "#e3e6ea",
    AXIS: "#8b949e",
    PAPER: "#ffffff",
    **dict(zip(SERIES, PALETTE, strict=True)),
}
# Of reference lines: none is solid, so that none is taken for data.
RULES: tuple[tuple[float, ...], ...] = ((6, 2.5), (2, 2), (8, 2.5, 2, 2.5), (1, 3.5), (11, 3))
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2.5), (2, 2), (8, 2.5, 2, 2.5))
MARKERS = "os^Dv*PX"
MARKER_PATHS = (  # the same eight shapes, in a box of ±4, for the legend
    "M-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
    "M-3.2-3.2h6.4v6.4h-6.4z",
    "M0-3.8 3.8 3.4H-3.8z",
    "M0-4.2 4.2 0 0 4.2-4.2 0z",
    "M0 3.8-3.8-3.4H3.8z",
    "M0-4.5 1.1-1.4 4.3-1.4 1.7.6 2.7 3.7 0 1.8-2.7 3.7-1.7.6-4.3-1.4-1.1-1.4z",
    "M-1.3-4h2.6v2.7H4v2.6H1.3V4h-2.6V1.3H-4v-2.6h2.7z",
    "M-4-2.4-2.4-4 0-1.6 2.4-4 4-2.4 1.6 0 4 2.4 2.4 4 0 1.6-2.4 4-4 2.4-1.6 0z",
)


@dataclass(frozen=True)
class Look:
    """How a series is drawn: places in the lists above; ``marker`` None where it has none of its own."""

    colour: int
    dash: tuple[float, ...]
    marker: int | None


def looks(figure: Figure) -> tuple[Look, ...]:
    """One per series. Where one predicts another they share a colour, and solid is measured, dashed predicted."""
    predicted = any(series.predicts for series in figure.series)
    own = [series.name for series in figure.series if not series.predicts]
    found, place = [], 0
    for series in figure.series:
        if series.predicts:
            found.append(Look(own.index(series.predicts) % len(SERIES), DASHES[1], None))
        else:
            dash = () if predicted else DASHES[place % len(DASHES)]
            found.append(Look(place % len(SERIES), dash, place % len(MARKERS)))
            place += 1
    return tuple(found)


@dataclass(frozen=True)
class Size:
    """Width and height of a chart in CSS pixels, and of its text."""

    name: str
    width: float
    height: float
    font: float


WIDE = Size("wide", 900, 400, 14)  # fills the column; narrower, its text shrinks to 10 px at the least
NARROW = Size("narrow", 350, 280, 12)
