"""Listings: where they stand in the project, and their words in colours."""

from functools import lru_cache
from itertools import groupby
from pathlib import Path

from markupsafe import Markup

from reports.text import visible_html
from reports.types import Code

ROOT = Path(__file__).parents[2]
# Classes of words, in the order in which they are tried. What is none of them stays ink: fewer elements, calmer code.
_CLASSES = (
    ("Comment", "c"),
    ("String.Doc", "c"),
    ("String", "s"),
    ("Number", "n"),
    ("Keyword", "k"),
    ("Operator.Word", "k"),
    ("Name.Function", "f"),
    ("Name.Class", "f"),
    ("Name.Decorator", "f"),
)


def listing(text: str, file: str, caption: str = "") -> Code:
    """Python as it stands in a file of the project, named by the path from its root, with its line where it is found.

    The line is that of the file as it is now: it is left out where the listing is no longer there, or there twice.
    """
    return Code(text, caption, "python", file, line_of(text, _source(file)))


@lru_cache(maxsize=64)
def _source(file: str) -> str:
    path = ROOT / file
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def line_of(text: str, source: str) -> int | None:
    """The line, from 1, at which the beginning of a text stands in a source, however it is indented.

    None where it stands nowhere or more than once.
    """
    wanted = [line.strip() for line in text.strip().splitlines()[:3]]
    lines = [line.strip() for line in source.splitlines()]
    found = [i for i in range(len(lines)) if wanted and lines[i : i + len(wanted)] == wanted]
    return found[0] + 1 if len(found) == 1 else None


def coloured(code: Code) -> Markup:
    """The text as HTML, letter for letter; coloured where its language is known."""
    if code.language != "python":
        return visible_html(code.text)
    from pygments.lexers import PythonLexer

    pieces = []
    tokens = PythonLexer(stripnl=False, ensurenl=False).get_tokens(code.text)
    for name, run in groupby(((_class(str(kind)), text) for kind, text in tokens), key=lambda item: item[0]):
        shown = visible_html("".join(text for _, text in run))
        pieces.append(Markup('<span class="{}">{}</span>').format(name, shown) if name else shown)
    return Markup("").join(pieces)


def _class(kind: str) -> str:
    """The class of a kind of token, "Token.Literal.String.Doc": "c"."""
    return next((name for part, name in _CLASSES if f".{part}." in f"{kind}."), "")
