"""Charts drawn by Matplotlib, which is imported only when something must be drawn."""

import io
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from reports.formats import number, power
from reports.style import AXIS, GRID, MARKERS, PAPER, RULES, SERIES, TEXT, WIDE, Size, looks
from reports.text import visible
from reports.types import Figure, Series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 3000  # of a cloud; more are thinned evenly


def marker_stride(series: Series) -> int:
    """How many points apart a line's markers stand; 0 for none."""
    points = len(series.x)
    return 1 if points <= 16 else points // 8 if points <= 60 else 0


@dataclass(frozen=True)
class Drawn:
    """Matplotlib's SVG of a chart in sentinel colours, and where its numbers lie in it.

    ``plot`` is the rectangle of the data in pixels of the drawing, left, top, right, bottom; ``x`` and ``y`` are the
    numbers at its left and right, at its bottom and top, and whether the axis is logarithmic. Along an axis of
    categories the numbers are their places, 0, 1, …
    """

    svg: str
    plot: tuple[float, float, float, float]
    x: tuple[float, float, bool]
    y: tuple[float, float, bool]
    sideways: bool  # bars lie: the categories are along y


@lru_cache(maxsize=128)
def to_svg(figure: Figure, size: Size) -> Drawn:
    """The same bytes for the same figure. What was drawn last is remembered: for the page, then for a file."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    settings: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "chapter",
        "text.parse_math": False,  # labels are shown as they are
        "font.size": size.font,
        "path.simplify_threshold": 0.2,
        "axes.unicode_minus": True,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # the browser has fonts of its own
        plan = _Plan.of(figure, size)
        canvas = Canvas(figsize=(size.width / 72, plan.height / 72), dpi=72)
        FigureCanvasSVG(canvas)
        axes = canvas.add_axes((0.1, 0.1, 0.8, 0.8))
        canvas.patch.set_visible(False)
        axes.patch.set_visible(False)
        _MARKS[figure.kind](axes, figure, plan)
        _finish(canvas, axes, figure, plan)
        buffer = io.StringIO()
        canvas.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
        left, bottom, width, height = axes.get_position().bounds
    box = (left * size.width, (1 - bottom - height) * plan.height, (left + width) * size.width)
    return Drawn(
        svg=buffer.getvalue(),
        plot=(*box, (1 - bottom) * plan.height),
        x=(*axes.get_xlim(), axes.get_xscale() == "log"),
        y=(*axes.get_ylim(), axes.get_yscale() == "log"),
        sideways=plan.sideways,
    )


@dataclass(frozen=True)
class _Plan:
    """How a chart lies on its canvas: sideways bars where category names are too long to stand side by side."""

    size: Size
    height: float
    categories: tuple[str, ...]
    sideways: bool

    @staticmethod
    def of(figure: Figure, size: Size) -> "_Plan":
        names = tuple(dict.fromkeys(name_of(x) for series in figure.series for x in series.x)) if named(figure) else ()
        longest = max((len(name) for name in names), default=0)
        room = (size.width - 70) / max(1, len(names)) / (0.56 * size.font)
        sideways = figure.kind == "bar" and longest > max(4, room)
        height = size.height
        if sideways:
            height = 74 + len(names) * (14 + max(12, 11 * len(figure.series)))
        return _Plan(size, height, names, sideways)

    def at(self, x: float | str) -> float:
        """Where an x lies along its axis."""
        return float(self.categories.index(name_of(x)) if self.categories else x)


def named(figure: Figure) -> bool:
    """Whether x are names of categories, not places on a scale."""
    return figure.kind == "bar" or any(isinstance(x, str) for series in figure.series for x in series.x)


def name_of(x: float | str) -> str:
    """A category as it is written."""
    return visible(x) if isinstance(x, str) else number(x)


def _finite(values: Sequence[float]) -> list[float]:
    return [y if math.isfinite(y) else math.nan for y in values]


def _draw_lines(axes: "Axes", figure: Figure, plan: _Plan) -> None:
    for index, (series, look) in enumerate(zip(figure.series, looks(figure), strict=True)):
        colour = SERIES[look.colour]
        every = marker_stride(series)
        x, y = [plan.at(value) for value in series.x], _finite(series.y)
        style = {
            "color": colour,
            "linewidth": 1.9,
            "dashes": look.dash or (None, None),
            "marker": MARKERS[look.marker] if every and figure.kind == "line" and look.marker is not None else None,
            "markersize": 5.8,
            "markeredgewidth": 0,
            "markevery": (index * every // max(1, len(figure.series)), every) if every > 1 else None,
            "drawstyle": "steps-post" if figure.kind == "step" else "default",
            "zorder": 3,
        }
        axes.plot(x, y, **style)  # type: ignore[arg-type]
        if series.error:
            low, high = _band(series, figure.y_log)
            if len(x) <= 12 and figure.kind == "line":
                _error_bars(axes, x, y, low, high, colour, vertical=True)
            else:
                step: Any = "post" if figure.kind == "step" else None
                axes.fill_between(x, low, high, color=colour, alpha=0.15, linewidth=0, step=step, zorder=2)


def _band(series: Series, log: bool) -> tuple[list[float], list[float]]:
    """Lower and upper ends of the errors; on a logarithmic axis the lower end stays above zero."""
    pairs = list(zip(_finite(series.y), _finite(series.error), strict=True))
    low = [max(y - e, y / 10) if log else y - e for y, e in pairs]
    return low, [y + e for y, e in pairs]


def _error_bars(
    axes: "Axes", at: list[float], y: list[float], low: list[float], high: list[float], colour: str, *, vertical: bool
) -> None:
    widths = [[v - lo for v, lo in zip(y, low, strict=True)], [hi - v for v, hi in zip(y, high, strict=True)]]
    style = {
        "fmt": "none",
        "ecolor": colour,
        "color": colour,
        "markeredgecolor": colour,
        "elinewidth": 1.2,
        "capsize": 2.5,
        "zorder": 4,
    }
    if vertical:
        axes.errorbar(at, y, yerr=widths, **style)  # type: ignore[arg-type]
    else:
        axes.errorbar(y, at, xerr=widths, **style)  # type: ignore[arg-type]


def _draw_points(axes: "Axes", figure: Figure, plan: _Plan) -> None:
    total = sum(len(series.x) for series in figure.series)
    stride = max(1, math.ceil(total / MOST_POINTS))
    size = 7.0 if total <= 60 else 5.5 if total <= 400 else 3.6
    for series, look in zip(figure.series, looks(figure), strict=True):
        colour = SERIES[look.colour]
        x, y = [plan.at(value) for value in series.x], _finite(series.y)
        axes.plot(
            x[::stride],
            y[::stride],
            linestyle="none",
            marker=MARKERS[look.marker or 0],
            markersize=size,
            markerfacecolor=colour,
            markeredgecolor=PAPER,
            markeredgewidth=0.5 if total <= 400 else 0,
            alpha=0.9 if total <= 400 else 0.65,
            zorder=3,
        )
        if series.error:
            low, high = _band(series, figure.y_log)
            _error_bars(axes, x, y, low, high, colour, vertical=True)


def _draw_bars(axes: "Axes", figure: Figure, plan: _Plan) -> None:
    width = 0.78 / max(1, len(figure.series))
    error_colour = TEXT
    for index, (series, look) in enumerate(zip(figure.series, looks(figure), strict=True)):
        offset = (index - (len(figure.series) - 1) / 2) * width
        at = [plan.at(value) + offset for value in series.x]
        y = _finite(series.y)
        style = {"color": SERIES[look.colour], "linewidth": 0, "alpha": 0.5 if series.predicts else None, "zorder": 3}
        if plan.sideways:
            axes.barh(at, y, height=width * 0.94, **style)  # type: ignore[arg-type]
        else:
            axes.bar(at, y, width=width * 0.94, **style)  # type: ignore[arg-type]
        if series.error:
            low, high = _band(series, figure.y_log)
            _error_bars(axes, at, y, low, high, error_colour, vertical=not plan.sideways)
    if plan.sideways:
        axes.invert_yaxis()


_MARKS = {"line": _draw_lines, "step": _draw_lines, "scatter": _draw_points, "bar": _draw_bars}


# --- Axes ----------------------------------------------------------------------------------------------------


def _finish(canvas: Any, axes: "Axes", figure: Figure, plan: _Plan) -> None:
    """Scales, reference lines, ticks, labels and margins."""
    size = plan.size
    values, positions = (axes.xaxis, axes.yaxis) if plan.sideways else (axes.yaxis, axes.xaxis)
    for index, (y, _) in enumerate(figure.hlines):
        rule = axes.axvline if plan.sideways else axes.axhline
        rule(y, color=TEXT, linewidth=1.2, dashes=RULES[index % len(RULES)], zorder=2.5)
    if figure.y_log and _positive(figure):
        (axes.set_xscale if plan.sideways else axes.set_yscale)("log")
    if figure.x_log and not plan.categories and all(x > 0 for x in _numeric_x(figure)):
        axes.set_xscale("log")
    if not any(math.isfinite(y) for series in figure.series for y in series.y):
        axes.text(0.5, 0.5, "no values", transform=axes.transAxes, ha="center", va="center", color=TEXT)
    for spine in axes.spines.values():
        spine.set_visible(False)
    base = axes.spines["left" if plan.sideways else "bottom"]
    base.set_visible(True)
    base.set_color(AXIS)
    values.grid(True, color=GRID, linewidth=0.9, zorder=0, clip_on=False)
    axes.tick_params(length=0, colors=TEXT, labelsize=size.font, pad=5)
    labels = _ticks(values, figure.y_log and _positive(figure), size.width / 75 if plan.sideways else plan.height / 52)
    names = _position_ticks(axes, positions, figure, plan)
    _margins(canvas, axes, figure, plan, names if plan.sideways else labels)


def _positive(figure: Figure) -> bool:
    """Whether a logarithmic axis can show the values: one that is zero or negative cannot be drawn there."""
    return any(y > 0 for series in figure.series for y in series.y)


def _numeric_x(figure: Figure) -> list[float]:
    return [float(x) for series in figure.series for x in series.x if not isinstance(x, str)]


def _ticks(axis: Any, log: bool, most: float) -> list[str]:
    """Ticks of a numeric axis at round values, with their labels set; returns the labels."""
    from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator, NullLocator

    low, high = sorted(axis.get_view_interval())
    if log:
        decades = math.log10(high) - math.log10(low)
        subs = (1.0,) if decades > 3 else (1.0, 3.0) if decades > 1.5 else (1.0, 2.0, 3.0, 5.0, 7.0)
        locations = LogLocator(subs=subs, numticks=int(most) + 2).tick_values(low, high)
    else:
        locations = MaxNLocator(nbins=max(3, int(most)), steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    shown = [float(v) for v in locations if low <= v <= high]
    labels = tick_labels(shown, log)
    axis.set_major_locator(FixedLocator(shown))
    axis.set_minor_locator(NullLocator())
    axis.set_ticklabels(labels)
    return labels


def tick_labels(locations: Sequence[float], log: bool = False) -> list[str]:
    """Labels of ticks: equal decimals on a linear axis, "10⁻³" for powers of ten far from one, "2M" for millions."""
    if log:
        return [_log_label(v) for v in locations]
    largest = max(map(abs, locations), default=0.0)
    if largest >= 1e9 or 0 < largest < 1e-3:
        return [number(v, 3) for v in locations]
    scale, unit = (1e6, "M") if largest >= 1e6 else (1.0, "")
    shown = [round(v / scale, 10) for v in locations]
    decimals = max((len(f"{v:.6f}".rstrip("0").partition(".")[2]) for v in shown), default=0)
    separator = "," if largest / scale >= 10_000 else ""
    return [f"{v:{separator}.{decimals}f}{unit if v else ''}".replace("-", "−") for v in shown]


def _log_label(value: float) -> str:
    exponent = math.floor(math.log10(value) + 1e-9)
    mantissa = float(f"{value:e}".partition("e")[0])  # dividing by a power of ten would leave the range of floats
    if -3 <= exponent <= 5:
        return number(value, 3)
    return power(exponent) if abs(mantissa - 1) < 1e-6 else f"{mantissa:.0f}×{power(exponent)}"


def _position_ticks(axes: "Axes", axis: Any, figure: Figure, plan: _Plan) -> list[str]:
    """Ticks along x: names of categories, the data's own few values, or round ones."""
    from matplotlib.ticker import FixedLocator, NullLocator

    if not plan.categories:
        own = sorted(set(_numeric_x(figure)))
        places = own if len(own) <= 9 and _apart(own, axes, figure.x_log, plan) else None
        if places is None:
            return _ticks(axis, axis.get_scale() == "log", plan.size.width / (85 if plan.size is WIDE else 62))
        axis.set_major_locator(FixedLocator(places))
        axis.set_minor_locator(NullLocator())
        labels = [number(x, 4) for x in places]
        axis.set_ticklabels(labels)
        return labels
    count = len(plan.categories)
    longest = max(map(len, plan.categories), default=1) * 0.56 * plan.size.font + 6
    every = 1 if plan.sideways else max(1, math.ceil(count * longest / (plan.size.width - 70)))
    rotated = not plan.sideways and figure.kind != "bar" and every > 1 and count <= 12
    chosen = list(range(0, count, 1 if rotated else every))
    axis.set_major_locator(FixedLocator(chosen))
    names = [_shortened(plan.categories[place], 34 if plan.size is WIDE else 18) for place in chosen]
    axis.set_ticklabels(names, **({"rotation": 35, "ha": "right", "rotation_mode": "anchor"} if rotated else {}))
    low, high = -0.6, count - 0.4
    (axes.set_ylim if plan.sideways else axes.set_xlim)(*((high, low) if plan.sideways else (low, high)))
    return names


def _shortened(name: str, most: int) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"


def _apart(places: Sequence[float], axes: "Axes", log: bool, plan: _Plan) -> bool:
    """Whether labels at these places do not touch."""
    low, high = axes.get_xlim()
    scale = math.log10 if axes.get_xscale() == "log" else float
    try:
        at = [(scale(x) - scale(low)) / (scale(high) - scale(low)) * (plan.size.width - 80) for x in places]
    except (ValueError, ZeroDivisionError):
        return False
    width = [len(number(x, 4)) * 0.58 * plan.size.font for x in places]
    return all(b - a > (u + v) / 2 + 6 for (a, b), (u, v) in zip(pairwise(at), pairwise(width), strict=True))


def _margins(canvas: Any, axes: "Axes", figure: Figure, plan: _Plan, left_labels: Sequence[str]) -> None:
    """Place the axes so that labels fit, and write the labels: of y flat above its axis, of x below."""
    size, height = plan.size, plan.height
    x_label, y_label = (figure.y_label, "") if plan.sideways else (figure.x_label, figure.y_label)
    left = max((len(label) for label in left_labels), default=1) * 0.56 * size.font + 12
    rotated = [label for label in axes.get_xticklabels() if label.get_rotation()]
    drop = max((len(label.get_text()) for label in rotated), default=0) * 0.56 * size.font * math.sin(math.radians(35))
    bottom = size.font * (1.9 + (1.5 if x_label else 0)) + drop
    top = size.font * (2.2 if y_label else 0.6)
    right = 16 if size is WIDE else 12
    axes.set_position(
        (left / size.width, bottom / height, 1 - (left + right) / size.width, 1 - (bottom + top) / height)
    )
    style: dict[str, Any] = {"color": TEXT, "fontsize": size.font}
    if y_label:
        canvas.text(2 / size.width, 1 - 4 / height, visible(y_label), ha="left", va="top", **style)
    if x_label:
        middle = (left + size.width - right) / 2 / size.width
        canvas.text(middle, 4 / height, visible(x_label), ha="center", va="bottom", **style)
