"""Charts for the page and as files: the drawing in the right colours, its legend, its description.

Each chart is drawn twice, for wide and for narrow screens, so that its text is never scaled down. The legend is HTML
above the chart: it wraps, and never covers data. Colours are the page's variables, so that one drawing serves both
themes; the file of its own is the wide drawing once more, in colours for paper and with the legend in it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from reports import charts, svg
from reports.charts import Drawn, marker_stride
from reports.formats import number
from reports.style import MARKER_PATHS, NARROW, PAGE_COLOURS, PRINT_COLOURS, RULES, WIDE, Look, Size, looks
from reports.text import visible
from reports.types import Figure

SIZES = (WIDE, NARROW)


@dataclass(frozen=True)
class LegendEntry:
    """A name and the small drawing of its line, marker or bar."""

    name: str
    swatch: Markup


def legend(figure: Figure) -> tuple[LegendEntry, ...]:
    """What the chart's marks mean; empty where one series stands alone whose name the axis says already."""
    if len(figure.series) == 1 and not figure.hlines and figure.series[0].name.lower() in figure.y_label.lower():
        return ()
    entries = [
        LegendEntry(visible(series.name), _swatch(figure.kind, look, bool(marker_stride(series))))
        for series, look in zip(figure.series, looks(figure), strict=True)
        if series.name or len(figure.series) > 1
    ]
    for index, (_, label) in enumerate(figure.hlines):
        dash = _dasharray(RULES[index % len(RULES)])
        line = f'<path d="M1 7H31" stroke="var(--chart-text)" stroke-width="1.4"{dash}/>'
        entries.append(LegendEntry(visible(label), _swatch_box(line)))
    return tuple(entries)


def _swatch(kind: str, look: Look, markers: bool) -> Markup:
    colour = f"var(--c{look.colour + 1})"
    if kind == "bar":
        faint = ' fill-opacity="0.5"' if look.marker is None else ""
        return _swatch_box(f'<rect x="8" y="1" width="16" height="12" rx="2" fill="{colour}"{faint}/>')
    marker = f'<path transform="translate(16 7)" d="{MARKER_PATHS[look.marker or 0]}" fill="{colour}"/>'
    if kind == "scatter":
        return _swatch_box(marker)
    line = f'<path d="M1 7H31" stroke="{colour}" stroke-width="2.2"{_dasharray(look.dash)}/>'
    return _swatch_box(line + (marker if markers and kind == "line" and look.marker is not None else ""))


def _swatch_box(content: str) -> Markup:
    return Markup(f'<svg class="swatch" viewBox="0 0 32 14" width="32" height="14" aria-hidden="true">{content}</svg>')


def _dasharray(dash: tuple[float, ...]) -> str:
    return f' stroke-dasharray="{" ".join(f"{d * 1.2:g}" for d in dash)}"' if dash else ""


def describe(figure: Figure) -> str:
    """The chart in words, for those who do not see it."""
    kinds = {"line": "Line chart", "scatter": "Scatter plot", "bar": "Bar chart", "step": "Step chart"}
    sentences = [f"{kinds[figure.kind]} of {figure.y_label} against {figure.x_label}."]
    for series in figure.series:
        values = [y for y in series.y if math.isfinite(y)]
        if values:
            spread = f"from {number(min(values))} to {number(max(values))}, last {number(values[-1])}"
            sentences.append(f"{series.name or 'Values'}: {len(values)} points, {spread}.")
        else:
            sentences.append(f"{series.name or 'Values'}: no values.")
    sentences += [f"Reference line {label}: {number(y)}." for y, label in figure.hlines]
    return visible(" ".join(sentences))


def draw(figure: Figure, size: Size, prefix: str, named_by: str = "") -> Markup:
    """The chart as SVG for the page, in the page's colours; ids begin with ``prefix``.

    It is named by its own title and description, or by those of the drawing with the prefix ``named_by``. Where its
    numbers lie is in ``data-plot``: left, top, right, bottom in pixels, then for each axis its ends and whether it is
    logarithmic, then whether bars lie.
    """
    drawn = charts.to_svg(figure, size)
    body = svg.inline(
        drawn.svg,
        prefix=prefix,
        colours=PAGE_COLOURS,
        title=_title(figure),
        description=describe(figure),
        named_by=named_by,
    )
    return Markup(str(body).replace("<svg ", f'<svg data-plot="{_plot(drawn)}" ', 1))


def _title(figure: Figure) -> str:
    return visible(figure.caption or f"{figure.y_label} against {figure.x_label}")


def _plot(drawn: Drawn) -> str:
    pixels = " ".join(f"{v:.6g}" for v in drawn.plot)
    axes = " ".join(f"{low:.9g} {high:.9g} {log:d}" for low, high, log in (drawn.x, drawn.y))
    return f"{pixels} {axes} {drawn.sideways:d}"


def readings(figure: Figure) -> dict[str, object]:
    """The chart's numbers for the page, to five digits: x once where series share it, y, errors, None for gaps.

    Whole numbers keep all their digits. ``colour`` is the number of the page's variable.
    """
    named = charts.named(figure)
    grids: list[tuple[float | str, ...]] = []
    for series in figure.series:
        if series.x not in grids:
            grids.append(series.x)
    return {
        "x": [[charts.name_of(x) if named or isinstance(x, str) else _rounded(x) for x in grid] for grid in grids],
        "named": named,
        "series": [
            {
                "name": visible(series.name or figure.y_label),
                "colour": look.colour + 1,
                "x": grids.index(series.x),
                "y": [_rounded(y) for y in series.y],
                **({"e": [_rounded(e) for e in series.error]} if series.error else {}),
            }
            for series, look in zip(figure.series, looks(figure), strict=True)
        ],
        "kind": figure.kind,
        "labels": [visible(figure.x_label), visible(figure.y_label)],
    }


def _rounded(value: float) -> float | None:
    if not math.isfinite(value):
        return None
    return int(value) if value == int(value) and abs(value) < 1e15 else float(f"{value:.5g}")


def standalone(figure: Figure) -> str:
    """The chart as an SVG file of its own, with its legend above it."""
    drawn = charts.to_svg(figure, WIDE)
    body = str(
        svg.inline(drawn.svg, prefix="chart", colours=PRINT_COLOURS, title=_title(figure), description=describe(figure))
    )
    rows, legend_height = _legend_rows(legend(figure))
    for variable, colour in {PAGE_COLOURS[sentinel]: colour for sentinel, colour in PRINT_COLOURS.items()}.items():
        rows = rows.replace(variable, colour)
    style = "<style>text{font-family:system-ui,sans-serif}path,use{stroke-linejoin:round}</style>"
    head, end, rest = body.partition("</desc>")
    _, _, width, height = head.partition('viewBox="')[2].partition('"')[0].split()
    taller = f"{float(height) + legend_height:g}"
    head = head.replace(f'viewBox="0 0 {width} {height}"', f'viewBox="0 {-legend_height:g} {width} {taller}"', 1)
    head = head.replace(f'height="{height}"', f'height="{taller}"', 1)
    paper = f'<rect y="{-legend_height:g}" width="100%" height="100%" fill="#fff"/>'
    return f"{head}{end}{style}{paper}{rows}{rest}\n"


def _legend_rows(entries: Sequence[LegendEntry]) -> tuple[str, float]:
    """A legend as SVG above y = 0, in lines as wide as the drawing, and its height."""
    line, x, y, pieces = 22.0, 2.0, 0.0, []
    for entry in entries:
        wide = 40 + 0.56 * WIDE.font * len(entry.name)
        if x > 2 and x + wide > WIDE.width:
            x, y = 2.0, y + line
        content = str(entry.swatch).partition(">")[2].removesuffix("</svg>")
        pieces.append((x, y, content, entry.name))
        x += wide + 18
    height = y + line + 8 if pieces else 0.0
    colour = "var(--chart-text)"
    drawn = "".join(
        f'<g transform="translate({x:g} {y - height + 4:g})">{content}'
        f'<text x="40" y="12" style="font-size:{WIDE.font:g}px;fill:{colour}">{escape(name)}</text></g>'
        for x, y, content, name in pieces
    )
    return drawn, height
