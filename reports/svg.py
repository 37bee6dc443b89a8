"""Matplotlib's SVG made fit for a page: small, deterministic, theme-following, with ids of its own."""

import re
from collections.abc import Mapping

from markupsafe import Markup, escape

_TAG = re.compile(r"<[^>]+>")
_NUMBER = re.compile(r"-?\d+\.\d+")
_STYLE = re.compile(r'style="([^"]*)"')
_USES = re.compile(r'(?:\s*<use [^>]*?style="([^"]*)"/>)(?:\s*<use [^>]*?style="\1"/>)+')
# Matplotlib draws every marker of a line at the origin and places it; nothing else needs an id on the page.
_REFERENCE = re.compile(r'(?:href="#|url\(#)([\w.-]+)')


def inline(svg: str, *, prefix: str, colours: Mapping[str, str], title: str, description: str) -> Markup:
    """The SVG as part of a page.

    ``colours`` maps the sentinel colours it was drawn with to CSS values; ``prefix`` makes its ids unique on the page.
    """
    body = svg[svg.index("<svg") :].replace("xlink:href", "href")
    body = re.sub(r"<style.*?</style>", "", body, flags=re.DOTALL)  # it would style the whole page
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    referenced = set(_REFERENCE.findall(body))
    body = _TAG.sub(lambda match: _tag(match[0], prefix, colours, referenced), body)
    body = _USES.sub(_share_style, body)
    body = re.sub(r">\s*\n\s*<", "><", body)
    while (smaller := re.sub(r"<(g|defs)(/>|></\1>)", "", body)) != body:
        body = smaller
    view_box = re.search(r'viewBox="([^"]*)"', body)
    _, _, width, height = (view_box[1] if view_box else "0 0 680 360").split()
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        f'role="img" aria-labelledby="{prefix}-t {prefix}-d"><title id="{prefix}-t">{escape(title)}</title>'
        f'<desc id="{prefix}-d">{escape(description)}</desc>'
    )
    return Markup(head + body[body.index(">") + 1 :].strip())


def _tag(tag: str, prefix: str, colours: Mapping[str, str], referenced: set[str]) -> str:
    """One tag with short numbers and styles, its id prefixed if something refers to it and dropped otherwise."""
    if tag.startswith(("</", "<?", "<!")):
        return tag
    tag = " ".join(tag.split())
    tag = _STYLE.sub(lambda match: _style(match[1], colours), tag)
    tag = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}-{m[1]}"' if m[1] in referenced else "", tag)
    tag = _REFERENCE.sub(lambda match: match[0].replace(match[1], f"{prefix}-{match[1]}"), tag)
    tag = re.sub(r' transform="rotate\(-?0 [^"]*\)"', "", tag)
    tag = _NUMBER.sub(lambda match: f"{float(match[0]):.2f}".rstrip("0").rstrip("."), tag)
    tag = tag.replace('"-0"', '"0"')
    return re.sub(r' d="([^"]*)"', lambda m: f' d="{re.sub(r" ?([MLCQzZ]) ?", _command, m[1])}"', tag)


def _command(match: re.Match[str]) -> str:
    return match[1]


def _style(style: str, colours: Mapping[str, str]) -> str:
    """A style attribute without fonts, which the page chooses, and with the page's colours."""
    kept = []
    for declaration in style.split(";"):
        name, _, value = (part.strip() for part in declaration.partition(":"))
        if name and name != "font-family":
            kept.append(f"{name}:{colours.get(value, value)}")
    return f'style="{";".join(kept)}"' if kept else ""


def _share_style(match: re.Match[str]) -> str:
    """A run of markers with one style: the style moves to a group around them."""
    style = match[1]
    return f'<g style="{style}">' + match[0].replace(f' style="{style}"', "") + "</g>"
