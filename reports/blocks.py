"""Blocks of an answer as HTML. What a block shows is decided here, how it looks in the templates and style sheet."""

import json
import math
import re
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import groupby
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from reports import figures, formats, heatmaps, prose
from reports.live import listings, views
from reports.story.references import linked
from reports.text import CUT, REPLACEMENT, sample_html, token_label, visible, visible_html
from reports.types import (
    AttentionMaps,
    Block,
    Cell,
    Check,
    Code,
    Details,
    Distribution,
    Figure,
    Heatmap,
    Mask,
    Prose,
    Sample,
    Speculation,
    Table,
    TokenScores,
)


@lru_cache(maxsize=1)
def environment() -> Environment:
    """The templates, escaping everything that is not marked as HTML."""
    made = Environment(
        loader=PackageLoader("reports", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(
        text=visible_html,
        sample=sample_html,
        plain=visible,
        caption=caption,
        count=formats.count,
        here=is_local,
        wanted=wanted,
        prose=prose.html,
        inline_prose=prose.html_inline,
        cited_prose=partial(prose.html_inline, cite=True),
        number=formats.cell,
        brief=formats.brief,
        bound=formats.bound,
        duration=formats.duration,
        moment=formats.moment,
        full=full_value,
        web=web_address,
    )
    return made


def wanted(check: Check) -> str:
    """What a check's bound is: a limit that must be kept, or what was expected, which may turn out otherwise."""
    return "expected" if check.kind == "empirical" or not check.bound.startswith(("<", ">")) else "bound"


def is_local(url: str | None) -> bool:
    """Whether an address leads to the reader's own machine, where nothing may be: marked, and never shared."""
    host = urlsplit(url or "").hostname or ""
    return host == "localhost" or host.endswith(".localhost") or host == "::1" or host.startswith("127.")


def web_address(url: str | None) -> str:
    """The address if it is one of the web, else "": nothing else is ever linked."""
    return url if url and url.startswith(("https://", "http://")) else ""


def caption(text: str) -> Markup:
    """A caption: its first sentence is the title, the rest explains."""
    end = re.search(r"(?<!et al)[.?!](?=\s+[A-Z])", text)
    if end is None:
        return linked(text)
    title, rest = linked(text[: end.end()]), linked(text[end.end() :])
    return Markup('{}<span class="explained">{}</span>').format(title, rest)


def full_value(value: Cell) -> str:
    """A cell at full precision."""
    return "" if value is None else visible(str(value))


def render_all(blocks: Sequence[Block], uid: str, *, isolated: bool = False) -> Markup:
    """Blocks in order; neighbours of one kind that can stand side by side share a row.

    A block that cannot be drawn raises, or is an error card among the others where ``isolated``.
    """
    draw = _render_or_say_why if isolated else render
    pieces: list[Markup] = []
    numbered = list(enumerate(blocks))
    for kind, group in groupby(numbered, key=lambda item: _beside(item[1])):
        rendered = [draw(block, f"{uid}-{index}") for index, block in group]
        if kind and len(rendered) > 1:
            pieces.append(Markup('<div class="row row-{}">{}</div>').format(kind, Markup("").join(rendered)))
        else:
            pieces += rendered
    return Markup("").join(pieces)


def _beside(block: Block) -> str:
    """The kind of a block that may stand beside its like; "" for one that wants the whole width."""
    if isinstance(block, Sample):
        return "sample"
    if isinstance(block, Heatmap) and max((len(row) for row in block.values), default=0) <= 16:
        return "heatmap"
    return ""


def _render_or_say_why(block: Block, uid: str) -> Markup:
    try:
        return render(block, uid)
    except Exception:
        template = environment().get_template("not_drawn.html")
        return Markup(template.render(kind=block.type.replace("_", " "), error=traceback.format_exc()))


def render(block: Block, uid: str) -> Markup:
    """One block; ``uid`` is unique on the page and begins with a letter."""
    view = _VIEWS[type(block)](block, uid)
    return Markup(environment().get_template(f"{block.type}.html").render(block=block, uid=uid, **view))


# --- One view per kind ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Shown:
    """A table's cell: what is read, the full value where it says more, and what it sorts by ("" comes last).

    ``sort`` is None where the full value or the text says it: they are what the page then sorts by. ``kind`` is the
    class that keeps short text on one line and gives long text room.
    """

    text: Markup
    title: str
    sort: str | None
    kind: str


def _prose(block: Prose, uid: str) -> dict[str, Any]:
    return {"html": prose.html(block.text)}


def _details(block: Details, uid: str) -> dict[str, Any]:
    return {"html": render_all(block.blocks, uid)}


def _table(block: Table, uid: str) -> dict[str, Any]:
    columns = [_column([row[index] for row in block.rows]) for index in range(len(block.columns))]
    return {
        "numeric": [numeric for numeric, _ in columns],
        "rows": list(zip(*(cells for _, cells in columns), strict=True)),
        "long": len(block.rows) > 25,
        "density": " tight" if len(block.columns) > 9 else " dense" if len(block.columns) > 7 else "",
        "cut": _cut(*(cell for row in block.rows for cell in row if isinstance(cell, str))),
    }


def _column(cells: Sequence[Cell]) -> tuple[bool, list[Shown]]:
    """Cells of one column. Numbers, and texts that begin with one throughout, sort by it and stand to the right."""
    numbers = [formats.leading_number(cell) for cell in cells]
    numeric = any(n is not None for n in numbers) and all(
        n is not None or cell is None for n, cell in zip(numbers, cells, strict=True)
    )
    shown = []
    for text, cell, value in zip(formats.column(cells), cells, numbers, strict=True):
        full = full_value(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else ""
        full = "" if full == text else full
        sort: str | None = None
        if cell is None or (value is not None and math.isnan(value)):
            sort = ""
        elif numeric and not full and not formats.reads_as(text, value):
            sort = repr(value)
        kind = "num" if numeric else "short" if len(text) <= 24 else "long" if len(text) > 60 else "middling"
        shown.append(Shown(visible_html(text), full, sort, kind))
    return numeric, shown


def _figure(block: Figure, uid: str) -> dict[str, Any]:
    wide, *narrower = figures.SIZES
    name = f"{uid}-{wide.name[0]}"
    charts = [(wide.name, figures.draw(block, wide, name))]
    charts += [(size.name, figures.draw(block, size, f"{uid}-{size.name[0]}", named_by=name)) for size in narrower]
    return {"legend": figures.legend(block), "charts": charts, "readings": script_json(figures.readings(block))}


def _heatmap(block: Heatmap, uid: str) -> dict[str, Any]:
    values = heatmaps.flat(block)
    scale = heatmaps.ColourScale.for_map(block)
    masked = any(value is None for row in block.values for value in row)
    return {
        "svg": heatmaps.draw(block, uid),
        "scale": scale,
        "low": _end(scale.low, block.baseline, "≤" if min(values, default=scale.low) < scale.low else ""),
        "high": _end(scale.high, block.threshold, "≥" if max(values, default=scale.high) > scale.high else ""),
        "masked": masked,
        "constant": scale.low == scale.high,
    }


def _end(value: float, meaning: tuple[float, str] | None, sign: str) -> str:
    """One end of a scale of colours: its value, and what it means where it was chosen."""
    return " ".join(filter(None, [meaning[1] if meaning else "", sign, formats.number(value, 3)]))


def _sample(block: Sample, uid: str) -> dict[str, Any]:
    return {"cut": _cut(block.prompt, block.text)}


def _cut(*texts: str) -> str:
    """What the sign U+FFFD means, where one of the texts has it."""
    return CUT if any(REPLACEMENT in text for text in texts) else ""


def _code(block: Code, uid: str) -> dict[str, Any]:
    return {"html": listings.coloured(block)}


@dataclass(frozen=True)
class ScoredToken:
    """A token of a passage: its text, its label on one line, its value, and its opacity."""

    text: Markup
    label: str
    value: str
    opacity: str
    colour: str


def _token_scores(block: TokenScores, uid: str) -> dict[str, Any]:
    known = [score for score in block.scores if score is not None]
    scale = heatmaps.ColourScale.of(known, diverging=any(score < 0 for score in known))
    tokens = []
    for token, score, after in zip(block.tokens, block.scores, block.running or block.scores, strict=True):
        place = scale.place(score) if score is not None and math.isfinite(score) and not block.sides else 0.0
        colour = "" if score is None else f"side{score:.0f}" if block.sides else "neg" if place < 0 else "pos"
        value = _scored(block, score, after if block.running else None)
        tokens.append(ScoredToken(_token_text(token), token_label(token), value, f"{abs(place):.2f}", colour))
    return {
        "tokens": tokens,
        "cut": _cut(*block.tokens),
        "scale": scale,
        "low": formats.number(scale.low, 3),
        "high": formats.number(scale.high, 3),
    }


def _scored(block: TokenScores, score: float | None, running: float | None) -> str:
    """What is said of a token: its number or its side, and what is known after it."""
    if score is None:
        return "not scored"
    said = block.sides[int(score)] if block.sides else formats.number(score, 4)
    return said if running is None else f"{said}, {block.running_label} {formats.number(running, 4)}"


def _token_text(token: str) -> Markup:
    """A token within running text: a line feed is marked and still breaks the line, a blank one is seen."""
    if not token.strip(" \t"):
        return Markup('<span class="blank">{}</span>').format(token_label(token))
    return visible_html(token).replace("\n", Markup('<span class="blank">↵</span>\n'))


def _attention_maps(block: AttentionMaps, uid: str) -> dict[str, Any]:
    sentences = [[token_label(token) for token in tokens] for tokens in block.sentences]
    triangular = all(
        weight == 0 for _, _, _, matrix in _maps(block) for i, row in enumerate(matrix) for weight in row[i + 1 :]
    )
    data = {
        "sentences": sentences,
        "layers": block.layers,
        "heads": block.heads,
        "triangular": triangular,
        "weights": [
            [[_thousandths(matrix, triangular) for matrix in layer] for layer in sentence] for sentence in block.weights
        ],
    }
    thumbs = {(s, la, h): _thumb(matrix, f"{uid}-{s}-{la}-{h}") for s, la, h, matrix in _maps(block)}
    return {"data": script_json(data), "sentences": sentences, "thumbs": thumbs}


Matrix = Sequence[Sequence[float]]


def _maps(block: AttentionMaps) -> Iterator[tuple[int, int, int, Matrix]]:
    """Sentence, layer and head as places in their lists, and the matrix."""
    for s, sentence in enumerate(block.weights):
        for la, layer in enumerate(sentence):
            for h, matrix in enumerate(layer):
                yield s, la, h, matrix


def _thousandths(matrix: Matrix, triangular: bool) -> list[int]:
    """Weights in thousandths, row after row; of a causal map only the part up to the diagonal."""
    return [round(1000 * w) for i, row in enumerate(matrix) for w in (row[: i + 1] if triangular else row)]


def _thumb(matrix: Matrix, uid: str) -> Markup:
    """A small picture of one map, coloured from 0 to its largest weight."""
    size = len(matrix)
    largest = max((w for row in matrix for w in row), default=0.0) or 1.0
    image = heatmaps.grey_png([[round(255 * min(1.0, max(0.0, w / largest))) for w in row] for row in matrix])
    box = f'width="{size}" height="{size}"'
    return Markup(
        f'<svg viewBox="0 0 {size} {size}" aria-hidden="true">'
        f'<mask id="{uid}" maskUnits="userSpaceOnUse" x="0" y="0" {box}>'
        f'<image {box} class="pixelated" href="data:image/png;base64,{image}"/></mask>'
        f'<rect {box} class="heat-paper"/><rect {box} class="heat-p" mask="url(#{uid})"/></svg>'
    )


def _distribution(block: Distribution, uid: str) -> dict[str, Any]:
    return {"turned": views.turned(block, block.settings[0]), "data": script_json(views.distribution_data(block))}


def _mask(block: Mask, uid: str) -> dict[str, Any]:
    return {"seen": views.seen(block.length, block.window, block.prefix), "data": script_json(views.mask_data(block))}


def _speculation(block: Speculation, uid: str) -> dict[str, Any]:
    return {"steps": views.steps(block)}


def script_json(data: object) -> Markup:
    """JSON that can stand in a script element: no "<" that could end it, no line separators."""
    text = json.dumps(data, separators=(",", ":"))
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))


_VIEWS: dict[type, Callable[[Any, str], dict[str, Any]]] = {
    Prose: _prose,
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
    Details: _details,
}
