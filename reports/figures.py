"""Charts for the page and as files: the drawing in the right colours, its legend, its description.

Each chart is drawn twice, for wide and for narrow screens, so that its text is never scaled down. The legend is HTML
above the chart: it wraps, and never covers data.
"""

import math
from dataclasses import dataclass

from markupsafe import Markup

from reports import charts, svg
from reports.charts import marker_stride
from reports.formats import number
from reports.style import DASHES, MARKER_PATHS, MARKERS, NARROW, PAGE_COLOURS, PRINT_COLOURS, RULES, SERIES, WIDE, Size
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
        LegendEntry(visible(series.name), _swatch(figure.kind, index, bool(marker_stride(series))))
        for index, series in enumerate(figure.series)
        if series.name or len(figure.series) > 1
    ]
    for index, (_, label) in enumerate(figure.hlines):
        dash = _dasharray(RULES[index % len(RULES)])
        line = f'<path d="M1 7H31" stroke="var(--chart-text)" stroke-width="1.4"{dash}/>'
        entries.append(LegendEntry(visible(label), _swatch_box(line)))
    return tuple(entries)


def _swatch(kind: str, index: int, markers: bool) -> Markup:
    colour = f"var(--c{index % len(SERIES) + 1})"
    if kind == "bar":
        return _swatch_box(f'<rect x="8" y="1" width="16" height="12" rx="2" fill="{colour}"/>')
    marker = f'<path transform="translate(16 7)" d="{MARKER_PATHS[index % len(MARKERS)]}" fill="{colour}"/>'
    if kind == "scatter":
        return _swatch_box(marker)
    line = f'<path d="M1 7H31" stroke="{colour}" stroke-width="2.2"{_dasharray(DASHES[index % len(DASHES)])}/>'
    return _swatch_box(line + (marker if markers and kind == "line" else ""))


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


def draw(figure: Figure, size: Size, prefix: str) -> Markup:
    """The chart as SVG for the page, in the page's colours; ids begin with ``prefix``."""
    title = visible(figure.caption or f"{figure.y_label} against {figure.x_label}")
    drawn = charts.to_svg(figure, size)
    return svg.inline(drawn, prefix=prefix, colours=PAGE_COLOURS, title=title, description=describe(figure))


def standalone(figure: Figure) -> str:
    """The chart as an SVG file of its own, with series named in it."""
    title = visible(figure.caption or f"{figure.y_label} against {figure.x_label}")
    drawn = charts.to_svg(figure, WIDE, with_legend=True)
    body = svg.inline(drawn, prefix="chart", colours=PRINT_COLOURS, title=title, description=describe(figure))
    style = "<style>text{font-family:system-ui,sans-serif}path,use{stroke-linejoin:round}</style>"
    head, end, rest = str(body).partition("</desc>")
    return f'{head}{end}{style}<rect width="100%" height="100%" fill="#fff"/>{rest}\n'
