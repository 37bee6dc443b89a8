"""Matrices as colours that follow the page's theme.

Colour is laid over paper with an opacity, so one drawing serves light and dark. Small matrices are one rectangle per
cell with its value as tooltip; large ones are a grey image used as a mask, one byte per cell.
"""

import base64
import math
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from markupsafe import Markup, escape

from reports.formats import number
from reports.text import visible
from reports.types import Heatmap

MOST_RECTANGLES = 1600
_FONT = 12.0
_ADVANCE = 0.58 * _FONT  # of a character


@dataclass(frozen=True)
class ColourScale:
    """Maps values to -1…1: the sign chooses the colour, the size its opacity."""

    low: float
    high: float
    diverging: bool

    @staticmethod
    def of(values: Sequence[float], diverging: bool = False) -> "ColourScale":
        """From the smallest to the largest finite value; centred on zero where diverging."""
        finite = [v for v in values if math.isfinite(v)]
        low, high = (min(finite), max(finite)) if finite else (0.0, 1.0)
        if diverging:
            reach = max(abs(low), abs(high))
            return ColourScale(-reach, reach, True)
        return ColourScale(low, high, False)

    @staticmethod
    def for_map(heatmap: Heatmap) -> "ColourScale":
        """From the baseline to the threshold where the matrix has them, else as its values reach."""
        found = ColourScale.of(flat(heatmap), heatmap.diverging)
        low = heatmap.baseline[0] if heatmap.baseline else found.low
        high = heatmap.threshold[0] if heatmap.threshold else found.high
        return ColourScale(low, high, found.diverging)

    def place(self, value: float) -> float:
        """Where a value lies, from 0 (or -1 where diverging) to 1."""
        if self.diverging:
            return max(-1.0, min(1.0, value / self.high)) if self.high else 0.0
        return max(0.0, min(1.0, (value - self.low) / (self.high - self.low))) if self.high > self.low else 0.5


def flat(heatmap: Heatmap) -> list[float]:
    """All values that are there."""
    return [value for row in heatmap.values for value in row if value is not None]


def draw(heatmap: Heatmap, prefix: str) -> Markup:
    """The matrix as SVG with ticks and axis labels; ids begin with ``prefix``."""
    rows, columns = len(heatmap.values), max((len(row) for row in heatmap.values), default=0)
    annotations = _annotations(heatmap) if heatmap.annotate else []
    side = _cell_side(rows, columns, annotations)
    width, height = side * columns, side * rows
    x_names, y_names = [_tick(t) for t in heatmap.x_ticks], [_tick(t) for t in heatmap.y_ticks]
    upright = max((len(name) for name in x_names), default=0) * _ADVANCE > max(side, 26)
    left = 32 + max((len(name) for name in y_names), default=0) * _ADVANCE
    below = (max(map(len, x_names)) * _ADVANCE + 8 if upright else 20 if x_names else 4) + 20
    scale = ColourScale.for_map(heatmap)
    total_width, total_height = max(left + width + 8, 200), height + below + 4
    body = _image(heatmap, scale, side, prefix) if rows * columns > MOST_RECTANGLES else _cells(heatmap, scale, side)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {total_width:.0f} {total_height:.0f}" '
        f'width="{total_width:.0f}" height="{total_height:.0f}" style="width:{total_width * 1.12 / 16:.1f}rem" '
        f'role="img" aria-labelledby="{prefix}-t {prefix}-d">'
        f'<title id="{prefix}-t">{escape(visible(heatmap.caption or "Heatmap"))}</title>'
        f'<desc id="{prefix}-d">{escape(describe(heatmap))}</desc>',
        f'<defs><pattern id="{prefix}-h" width="5" height="5" patternUnits="userSpaceOnUse" '
        'patternTransform="rotate(45)"><path d="M0 0V5" class="hatch"/></pattern></defs>',
        f'<g transform="translate({left:.1f} 2)">',
        f'<rect width="{width:.1f}" height="{height:.1f}" fill="url(#{prefix}-h)" class="heat-frame"/>',
        body,
        *(_annotate(heatmap, scale, side, annotations) if annotations else []),
        *_ticks(x_names, side, along=True, upright=upright, reach=height),
        *_ticks(y_names, side, along=False, upright=False, reach=height),
        "</g>",
        f'<text class="axis-label" x="{left + width / 2:.1f}" y="{total_height - 5:.1f}" text-anchor="middle">'
        f"{escape(visible(heatmap.x_label))}</text>",
        f'<text class="axis-label" transform="translate(13 {height / 2:.1f}) rotate(-90)" text-anchor="middle">'
        f"{escape(visible(heatmap.y_label))}</text></svg>",
    ]
    return Markup("".join(parts))


def describe(heatmap: Heatmap) -> str:
    """The matrix in words."""
    values = flat(heatmap)
    size = f"{len(heatmap.values)} by {max((len(row) for row in heatmap.values), default=0)}"
    spread = f", values from {number(min(values))} to {number(max(values))}" if values else ""
    masked = sum(value is None for row in heatmap.values for value in row)
    hatched = f", {masked} cells masked" if masked else ""
    return visible(f"{size} matrix, {heatmap.y_label} down and {heatmap.x_label} across{spread}{hatched}.")


def _tick(text: str) -> str:
    name = visible(text)
    return name if len(name) <= 18 else name[:17] + "…"


def _annotations(heatmap: Heatmap) -> list[list[str]]:
    """Values as written into the cells: whole numbers as such, others with the same decimals."""
    finite = [v for v in flat(heatmap) if math.isfinite(v)]
    largest = max(map(abs, finite), default=0.0)
    whole = largest < 1e6 and all(v == int(v) for v in finite)
    decimals = 0 if whole or not largest else min(3, 2 - math.floor(math.log10(largest)))

    def written(value: float | None) -> str:
        if value is None:
            return ""
        if not math.isfinite(value) or decimals < 0 or largest < 1e-3:
            return number(value, 3)
        return f"{value:.{decimals}f}".replace("-", "−")

    return [[written(value) for value in row] for row in heatmap.values]


def _cell_side(rows: int, columns: int, annotations: list[list[str]]) -> float:
    """Side of a cell in pixels: wide enough for what is written in it, small enough for the page."""
    if annotations:
        return max(30.0, max((len(text) for row in annotations for text in row), default=1) * _ADVANCE + 10)
    return max(2.0, min(30.0, 400 / max(1, columns), 440 / max(1, rows)))


def _fill(place: float) -> str:
    colour = "heat-n" if place < 0 else "heat-p"
    return f'class="{colour}" fill-opacity="{abs(place):.3g}"'


def _cells(heatmap: Heatmap, scale: ColourScale, side: float) -> str:
    """One rectangle per cell on paper, drawn in units of a cell; a masked cell leaves the hatching bare."""
    shapes, paper = [], []
    for i, row in enumerate(heatmap.values):
        for there, run in groupby(enumerate(row), key=lambda cell: cell[1] is not None):
            cells = list(run)
            if there:
                paper.append(f"M{cells[0][0]} {i}h{len(cells)}v1h-{len(cells)}z")
        for j, value in enumerate(row):
            if value is None:
                continue
            x_name = visible(heatmap.x_ticks[j]) if j < len(heatmap.x_ticks) else str(j)
            y_name = visible(heatmap.y_ticks[i]) if i < len(heatmap.y_ticks) else str(i)
            place = scale.place(value) if math.isfinite(value) else 0.0
            shapes.append(
                f'<rect x="{j}" y="{i}" width="1" height="1" {_fill(place)}>'
                f"<title>{escape(y_name)}, {escape(x_name)}: {number(value)}</title></rect>"
            )
    ground = f'<path d="{"".join(paper)}" class="heat-paper"/>' if paper else ""
    return f'<g transform="scale({side:.4g})" class="cells">{ground}{"".join(shapes)}</g>'


def _annotate(heatmap: Heatmap, scale: ColourScale, side: float, texts: list[list[str]]) -> list[str]:
    shapes = []
    for i, row in enumerate(heatmap.values):
        for j, value in enumerate(row):
            if value is not None:
                depth = abs(scale.place(value))
                strong = ' class="h2"' if depth > 0.76 else ' class="h1"' if depth > 0.63 else ""
                at = f'x="{(j + 0.5) * side:.4g}" y="{(i + 0.5) * side + 4:.4g}"'
                shapes.append(f'<text {at} text-anchor="middle"{strong}>{texts[i][j]}</text>')
    return shapes


def _ticks(names: Sequence[str], side: float, *, along: bool, upright: bool, reach: float) -> list[str]:
    """Names along an axis, thinned where they would touch."""
    room = _FONT + 2 if upright or not along else max((len(name) for name in names), default=1) * _ADVANCE + 4
    every = max(1, math.ceil(room / side))
    shapes = []
    for index in range(0, len(names), every):
        at = (index + 0.5) * side
        if not along:
            place = f'x="-6" y="{at + 4:.4g}" text-anchor="end"'
        elif upright:
            place = f'transform="translate({at + 4:.4g} {reach + 6:.4g}) rotate(-90)" text-anchor="end"'
        else:
            place = f'x="{at:.4g}" y="{reach + 16:.4g}" text-anchor="middle"'
        shapes.append(f'<text class="tick" {place}>{escape(names[index])}</text>')
    return shapes


def _image(heatmap: Heatmap, scale: ColourScale, side: float, prefix: str) -> str:
    """Large matrices: an image of opacities for each colour, masking a rectangle of that colour."""
    rows, columns = len(heatmap.values), len(heatmap.values[0])
    box = f'width="{columns * side:.4g}" height="{rows * side:.4g}"'
    shapes = []
    there = [[0 if v is None else 255 for v in row] for row in heatmap.values]
    layers = [("heat-paper", there)]
    for colour, sign in (("heat-p", 1), ("heat-n", -1)) if scale.diverging else (("heat-p", 1),):
        opacity = [
            [0 if v is None or not math.isfinite(v) else round(255 * max(0.0, sign * scale.place(v))) for v in row]
            for row in heatmap.values
        ]
        layers.append((colour, opacity))
    for index, (colour, opacity) in enumerate(layers):
        name = f"{prefix}-m{index}"
        shapes.append(
            f'<mask id="{name}" maskUnits="userSpaceOnUse" x="0" y="0" {box}><image {box} preserveAspectRatio="none" '
            f'class="pixelated" href="data:image/png;base64,{grey_png(opacity)}"/></mask>'
            f'<rect {box} class="{colour}" mask="url(#{name})"/>'
        )
    return "".join(shapes)


def grey_png(rows: Sequence[Sequence[int]]) -> str:
    """An 8-bit grey PNG of rows of bytes, in base64."""
    height, width = len(rows), len(rows[0])
    lines = b"".join(b"\x00" + bytes(row) for row in rows)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(lines, 9)) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()
