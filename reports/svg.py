"""Matplotlib's SVG made fit for a page: small, deterministic, theme-following, with ids of its own."""

import re
from collections.abc import Mapping
from itertools import count

from markupsafe import Markup, escape

from reports.style import GRID

_TAG = re.compile(r"<[^>]+>")
_NUMBER = re.compile(r"-?\d+\.\d+")
_STYLE = re.compile(r'style="([^"]*)"')
_USES = re.compile(r'(?:\s*<use [^>]*?style="([^"]*)"/>)(?:\s*<use [^>]*?style="\1"/>)+')
# Matplotlib draws every marker of a line at the origin and places it; nothing else needs an id on the page.
_REFERENCE = re.compile(r'(?:href="#|url\(#)([\w.-]+)')
_DEFAULTS = {"stroke-dashoffset:0", "stroke-linejoin:miter"}  # what a browser assumes anyway


def inline(
    svg: str, *, prefix: str, colours: Mapping[str, str], title: str, description: str, named_by: str = ""
) -> Markup:
    """The SVG as part of a page.

    ``colours`` maps the sentinel colours it was drawn with to CSS values; ``prefix`` makes its ids unique on the page.
    A drawing of the same chart may be ``named_by`` the title and description that another one, of that prefix, has.
    """
    body = svg[svg.index("<svg") :].replace("xlink:href", "href")
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the whole page
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    numbers = count()
    ids = {name: f"{prefix}-{next(numbers)}" for name in dict.fromkeys(_REFERENCE.findall(body))}
    body = _TAG.sub(lambda match: _tag(match[0], colours, ids), body)
    body = _USES.sub(_share_style, body)
    body = re.sub(r">\s*\n\s*<", "><", body)
    body = _one_path(_without_bare_groups(body), colours)
    view_box = re.search(r'viewBox="([^"]*)"', body)
    _, _, width, height = (view_box[1] if view_box else "0 0 680 360").split()
    name = named_by or prefix
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-labelledby="{name}-t {name}-d">'
    )
    if not named_by:
        head += f'<title id="{name}-t">{escape(title)}</title><desc id="{name}-d">{escape(description)}</desc>'
    return Markup(head + body[body.index(">") + 1 :].strip())


def _tag(tag: str, colours: Mapping[str, str], ids: Mapping[str, str]) -> str:
    """One tag with short numbers and styles, its id renamed if something refers to it and dropped otherwise."""
    if tag.startswith(("</", "<?", "<!")):
        return tag
    tag = " ".join(tag.split())
    tag = _STYLE.sub(lambda match: _style(match[1], colours), tag)
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{ids[m[1]]}"' if m[1] in ids else "", tag)
    tag = _REFERENCE.sub(lambda match: match[0].replace(match[1], ids[match[1]]), tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", tag)
    tag = _NUMBER.sub(_short, tag)
    tag = tag.replace('"-0"', '"0"')
    return re.sub(r' d="([^"]*)"', lambda m: f' d="{re.sub(r" ?([MLCQzZ]) ?", _command, m[1]).strip()}"', tag)


def _short(number: re.Match[str]) -> str:
    return f"{float(number[0]):.2f}".rstrip("0").rstrip(".")


def _command(match: re.Match[str]) -> str:
    return match[1]


def _style(style: str, colours: Mapping[str, str]) -> str:
    """A style attribute without fonts, which the page chooses, and with the page's colours."""
    kept = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        shown = f"{name}:{colours.get(value, value)}"
        if name and name != "font-family" and shown not in _DEFAULTS:
            kept.append(shown)
    return f'style="{";".join(kept)}"' if kept else ""


def _share_style(match: re.Match[str]) -> str:
    """A run of markers with one style: the style moves to a group around them."""
    style = match[1]
    return f'<g style="{style}">' + match[0].replace(f' style="{style}"', "") + "</g>"


def _without_bare_groups(body: str) -> str:
    """The drawing without empty elements, and without groups that say nothing of what they hold."""
    while (smaller := re.sub(r"<(g|defs)(/>|></\1>)", "", body)) != body:
        body = smaller
    pieces: list[str] = []
    bare: list[bool] = []  # of the groups that are open
    end = 0
    for match in re.finditer(r"<g\b[^>]*>|</g>", body):
        pieces.append(body[end : match.start()])
        end = match.end()
        if match[0] == "</g>":
            pieces.append("" if bare.pop() else "</g>")
        else:
            bare.append(match[0] == "<g>")
            pieces.append("" if bare[-1] else match[0])
    return "".join(pieces) + body[end:]


def _one_path(body: str, colours: Mapping[str, str]) -> str:
    """The lines of the grid as one path, in the place of the first: they lie behind everything."""
    line = re.compile(rf'<path d="([^"]*)" (style="fill:none;stroke:{re.escape(colours[GRID])};[^"]*")/>')
    lines = line.findall(body)
    if not lines:
        return body
    whole = f'<path d="{"".join(d for d, _ in lines)}" {lines[0][1]}/>'
    first = line.search(body)
    assert first is not None
    return body[: first.start()] + whole + line.sub("", body[first.start() :])
