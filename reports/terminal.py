"""One answer in the terminal: prose, tables, small charts, checks with verdicts."""

import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.markdown import Markdown
from rich.padding import Padding
from rich.panel import Panel
from rich.rule import Rule
from rich.table import Table as RichTable
from rich.text import Text

from reports import formats, latex
from reports.chapter import QUESTIONS
from reports.live import views
from reports.page import VERDICTS
from reports.run import Score
from reports.text import token_label, visible
from reports.types import (
    AttentionMaps,
    Block,
    Check,
    Code,
    Details,
    Distribution,
    Figure,
    Heatmap,
    Mask,
    Prose,
    Result,
    Sample,
    Series,
    Speculation,
    Table,
    TokenScores,
)

_STYLES = {
    ("exact", True): "green",
    ("exact", False): "bold red",
    ("empirical", True): "green",
    ("empirical", False): "yellow",
}
_MARKS = {True: "✓", False: "✗"}
_BARS = " ▁▂▃▄▅▆▇█"
_SHADES = " ░▒▓█"
_MATH = re.compile(r"(?<!\\)\$\$(.+?)(?<!\\)\$\$|(?<![\\$])\$(?![\s$])([^$]*?[^\s$\\])\$(?!\d)", re.DOTALL)
MOST_ROWS = 40


def show(result: Result, console: Console) -> None:
    """Print one result. Text that a model wrote is printed as text: it can neither style nor control the terminal."""
    for renderable in _page(result):
        console.print(renderable)


def show_checks(result: Result, console: Console) -> None:
    """Print the checks of one result, and how many of them hold."""
    console.print(_heading(result))
    if result.checks:
        console.print(_checks(result.checks))
    console.print(_score(result))


def _page(result: Result) -> Iterator[RenderableType]:
    question = QUESTIONS.get(result.id)
    yield _heading(result)
    if result.status == "failed":
        yield Panel(Text(visible(result.error.strip())), title="failed", border_style="red")
    if result.summary:
        yield Padding(_markdown(result.summary), (0, 0, 1, 0))
    for note in result.notes:
        yield Padding(Group(Text("Note", style="yellow"), _markdown(note)), (0, 0, 1, 2))
    for part in result.parts:
        asked = part.question or (question.parts.get(part.letter, "") if question else "")
        heading = " ".join(filter(None, [f"({part.letter})" if part.letter else "", plain(asked)]))
        if heading:
            yield Text(heading, style="bold cyan")
        for block in part.blocks:
            yield Padding(_RENDERERS[type(block)](block), (0, 0, 1, 2))
    if result.checks:
        yield _checks(result.checks)
    if result.unexpected and any(not check.passed for check in result.checks if check.kind == "empirical"):
        yield Padding(Group(Text("Not as predicted", style="yellow"), _markdown(result.unexpected)), (0, 0, 1, 0))
    yield _score(result)


def _heading(result: Result) -> Rule:
    question = QUESTIONS.get(result.id)
    number = question.number if question else result.id
    return Rule(Text(f"{number}  {result.title}", style="bold"), align="left")


def _score(result: Result) -> Text:
    score = Score.of([result], 1)
    return Text(
        f"exact {score.exact_held}/{score.exact}, empirical {score.empirical_confirmed}/{score.empirical}; "
        f"profile {result.provenance.profile}, {formats.duration(result.provenance.seconds)}",
        style="dim",
    )


def plain(text: str) -> str:
    """Prose with its formulas as Unicode."""
    text = _MATH.sub(lambda match: latex.to_text(match[1] or match[2]), visible(text))
    return text.replace("\\$", "$")


def _markdown(text: str) -> Markdown:
    """Markdown with formulas as Unicode, displayed ones indented as blocks; marks within them are escaped."""

    def formula(match: re.Match[str]) -> str:
        shown = re.sub(r"([*_`\[\]<>\\])", r"\\\1", latex.to_text(match[1] or match[2]))
        return f"\n\n> {shown}\n\n" if match[1] else shown

    return Markdown(_MATH.sub(formula, visible(text)), hyperlinks=False)


def _captioned(caption: str, *content: RenderableType) -> RenderableType:
    return Group(*([Text(visible(caption), style="italic")] if caption else []), *content)


def _prose(block: Prose) -> RenderableType:
    return _markdown(block.text)


def _details(block: Details) -> RenderableType:
    inner = [Padding(_RENDERERS[type(one)](one), (0, 0, 1, 2)) for one in block.blocks]
    return Group(Text(f"▸ {plain(block.title)}", style="bold"), *inner)


def _table(block: Table) -> RenderableType:
    columns = [[row[index] for row in block.rows] for index in range(len(block.columns))]
    table = RichTable(box=None, header_style="bold", pad_edge=False)
    for name, cells in zip(block.columns, columns, strict=True):
        numeric = all(formats.leading_number(cell) is not None or cell is None for cell in cells)
        table.add_column(Text(visible(name)), justify="right" if numeric else "left")
    formatted = [[visible(text) for text in formats.column(cells)] for cells in columns]
    for row in list(zip(*formatted, strict=True))[:MOST_ROWS]:
        table.add_row(*(Text(cell) for cell in row))
    rest = len(block.rows) - MOST_ROWS
    more = [Text(f"… {rest} more rows in the report", style="dim")] if rest > 0 else []
    return _captioned(block.caption, table, *more)


def _figure(block: Figure) -> RenderableType:
    lines = [Text(visible(f"{block.y_label} against {block.x_label}"), style="dim")]
    if block.kind == "bar":
        lines += _bars(block)
    elif block.kind == "scatter":
        lines += [_cloud(series) for series in block.series]
    else:
        width = max((len(visible(series.name)) for series in block.series), default=0)
        lines += [_spark(series, width, block.y_log) for series in block.series]
    lines += [Text(f"— {visible(label)}: {formats.number(y)}", style="dim") for y, label in block.hlines]
    return _captioned(block.caption, *lines)


def _spark(series: Series, width: int, log: bool) -> Text:
    """A line as small bars, with its first, lowest, highest and last value."""
    values = [float(y) for y in series.y]
    finite = [y for y in values if math.isfinite(y)]
    name = Text(f"{visible(series.name):<{width}}  ", style="bold")
    if not finite:
        return name.append("no values", style="dim")
    spread = f"  {formats.number(finite[0], 4)} → {formats.number(finite[-1], 4)}"
    spread += f"  (min {formats.number(min(finite), 4)}, max {formats.number(max(finite), 4)})"
    return name.append(sparkline(values, log), style="blue").append(spread, style="not bold")


def _cloud(series: Series) -> Text:
    """A cloud of points by its extent."""
    x = [float(v) for v in series.x if not isinstance(v, str) and math.isfinite(v)]
    y = [v for v in series.y if math.isfinite(v)]
    extent = [
        f"{name} {formats.number(min(v), 4)} to {formats.number(max(v), 4)}" for name, v in (("x", x), ("y", y)) if v
    ]
    return Text(visible(series.name), style="bold").append(f"  {len(y)} points, {', '.join(extent)}", style="not bold")


def sparkline(values: Sequence[float], log: bool = False, width: int = 40) -> str:
    """Values as bars one character high, thinned to a width; gaps are spaces."""
    step = max(1.0, len(values) / width)
    chosen = [values[int(i * step)] for i in range(min(width, len(values)))]
    log = log and all(v > 0 for v in chosen if math.isfinite(v))
    scaled = [math.log(v) if log and math.isfinite(v) else v for v in chosen]
    finite = [v for v in scaled if math.isfinite(v)]
    if not finite:
        return " " * len(chosen)
    low, high = min(finite), max(finite)
    place = [(v - low) / (high - low) if high > low else 0.5 for v in scaled]
    return "".join(_BARS[1 + round(p * (len(_BARS) - 2))] if math.isfinite(p) else " " for p in place)


def _bars(block: Figure) -> list[Text]:
    """Bars lying down, one line per name and series."""
    finite = [abs(y) for series in block.series for y in series.y if math.isfinite(y)]
    largest = max(finite, default=0.0) or 1.0
    lines = []
    for series in block.series:
        if len(block.series) > 1:
            lines.append(Text(visible(series.name), style="bold"))
        names = [visible(x) if isinstance(x, str) else formats.number(x) for x in series.x]
        width = max(map(len, names), default=0)
        for name, y in list(zip(names, series.y, strict=True))[:MOST_ROWS]:
            bar = "█" * round(30 * abs(y) / largest) if math.isfinite(y) else ""
            lines.append(Text(f"{name:>{width}}  ").append(bar, style="blue").append(f" {formats.number(y, 4)}"))
    return lines


def _heatmap(block: Heatmap) -> RenderableType:
    known = [v for row in block.values for v in row if v is not None and math.isfinite(v)]
    spread = f"from {formats.number(min(known), 4)} to {formats.number(max(known), 4)}" if known else "no values"
    lines = [Text(visible(f"{block.y_label} down, {block.x_label} across, {spread}"), style="dim")]
    if known and len(block.values) <= 32 and max(map(len, block.values)) <= 48:
        low, high = min(known), max(known)
        lines += [Text("".join(_shade(v, low, high) * 2 for v in row)) for row in block.values]
    return _captioned(block.caption, *lines)


def _shade(value: float | None, low: float, high: float) -> str:
    if value is None or not math.isfinite(value):
        return "·"
    place = (value - low) / (high - low) if high > low else 0.5
    return _SHADES[round(place * (len(_SHADES) - 1))]


def _sample(block: Sample) -> RenderableType:
    text = Text(visible(block.prompt), style="bold").append(visible(block.text), style="not bold")
    note = visible(block.note) or None
    return Panel(
        text,
        title=Text(visible(block.title)),
        title_align="left",
        subtitle=Text(note) if note else None,
        border_style="dim",
    )


def _code(block: Code) -> RenderableType:
    return _captioned(block.caption, Text(visible(block.text), no_wrap=True, overflow="fold"))


def _two_kinds(block: TokenScores) -> list[RenderableType]:
    """The tokens, those of the second kind underlined."""
    text = Text()
    for token, score in zip(block.tokens, block.scores, strict=True):
        text.append(visible(token), style="bold underline" if score == 1 else "dim" if score is None else "")
    return [Text(f"{visible(block.label)}; underlined: {block.sides[1]}", style="dim"), text]


def _token_scores(block: TokenScores) -> RenderableType:
    known = sorted((score, index) for index, score in enumerate(block.scores) if score is not None)
    if block.sides:
        return _captioned(block.caption, *_two_kinds(block))
    high = {index for _, index in known[-max(1, len(known) // 10) :]}
    text = Text()
    for index, token in enumerate(block.tokens):
        text.append(visible(token), style="bold red" if index in high else "")
    lines: list[RenderableType] = [Text(f"{visible(block.label)}; the highest tenth is red", style="dim"), text]
    if known:
        ends = [("highest", known[:-6:-1]), ("lowest", known[:5])]
        for name, pairs in ends:
            listed = ", ".join(
                f"{token_label(block.tokens[index])} {formats.number(score, 3)}" for score, index in pairs
            )
            lines.append(Text(f"{name}: {listed}"))
    return _captioned(block.caption, *lines)


def _attention_maps(block: AttentionMaps) -> RenderableType:
    layers = ", ".join(map(str, block.layers))
    line = Text(f"{len(block.sentences)} sentences, layers {layers}: explore the maps in the report", style="dim")
    return _captioned(block.caption, line)


def _distribution(block: Distribution) -> RenderableType:
    """The first setting as bars; the page has the sliders."""
    turned = views.turned(block, block.settings[0])
    width = max(len(token.label) for token in turned.tokens)
    lines = [Text(f"{visible(block.settings[0].name)}; the report has the sliders", style="dim")]
    for token in turned.tokens:
        bar = "█" * round(30 * token.after)
        lines.append(Text(f"{token.label:>{width}}  ").append(bar, style="blue").append(f" {token.after:.4g}"))
    return _captioned(block.caption, *lines)


def _mask(block: Mask) -> RenderableType:
    seen = views.seen(block.length, block.window, block.prefix)
    lines = [Text("queries down, keys across; the report has the sliders", style="dim")]
    lines += [Text(" ".join("●" if one else "·" for one in row)) for row in seen]
    return _captioned(block.caption, *lines)


def _speculation(block: Speculation) -> RenderableType:
    styles = {"accepted": "green", "rejected": "red strike", "unread": "dim strike", "replaced": "bold yellow"}
    text = Text(visible(block.prompt), style="dim")
    for step in views.steps(block):
        text.append(step.label, style=styles.get(step.kind, "bold blue"))
    return _captioned(block.caption, text)


def _checks(checks: Sequence[Check]) -> RenderableType:
    table = RichTable(
        box=None, header_style="bold", pad_edge=False, title="Checks", title_justify="left", title_style="bold"
    )
    table.add_column("")
    table.add_column("claim", ratio=1)
    table.add_column("measured", justify="right")
    table.add_column("bound, or expected")
    for check in checks:
        verdict = Text(
            f"{_MARKS[check.passed]} {VERDICTS[(check.kind, check.passed)]}", style=_STYLES[(check.kind, check.passed)]
        )
        measured = visible(formats.cell(check.measured))
        table.add_row(verdict, Text(visible(check.claim)), Text(measured), Text(visible(formats.bound(check.bound))))
    return Padding(table, (0, 0, 1, 0))


_RENDERERS: dict[type[Block], Callable[[Any], RenderableType]] = {
    Prose: _prose,
    Details: _details,
    Table: _table,
    Figure: _figure,
    Heatmap: _heatmap,
    Sample: _sample,
    Code: _code,
    TokenScores: _token_scores,
    AttentionMaps: _attention_maps,
    Distribution: _distribution,
    Mask: _mask,
    Speculation: _speculation,
}
