"""Untrusted text: characters that would hide, reorder or break what a reader sees are made visible.

So are blanks where they are what is meant: in tokens (``token_label``), and at the edges of what a model wrote
(``sample_html``).
"""

import re
import unicodedata

from markupsafe import Markup, escape

# The two last code points of each plane, and 32 more, are no characters: pages that hold them are not valid.
_NONE = "\ufdd0-\ufdef" + "".join(f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17))
# Control characters beside tab and line feed, soft hyphen, zero-width and bidirectional controls, line and
# paragraph separators, byte order mark, interlinear annotation, lone surrogates, tags, no characters at all.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    f"\ud800-\udfff\U000e0000-\U000e007f{_NONE}]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_MARKED = re.compile(f"{_HIDDEN.pattern}|\ufffd")
REPLACEMENT = "\ufffd"
CUT = "� stands for what is no whole character: bytes cut within one, or a token that the vocabulary does not hold."
_EDGE = re.compile(r"\A[ \t\n]+|[ \t]+(?=\n)|[ \t\n]+\Z|(?<=\n)\n+|(?<=\n)[ \t]+| {2,}")


def _picture(character: str) -> str:
    """A visible stand-in: the control picture of C0 characters, the code point of others."""
    code = ord(character)
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"U+{code:04X}"


def _kind(character: str) -> str:
    return "not a character" if re.fullmatch(f"[{_NONE}]", character) else "control character"


def visible(text: str) -> str:
    """The text with hidden characters replaced by pictures of them, safe to print anywhere."""
    return _HIDDEN.sub(lambda match: _picture(match[0]), text.replace("\r\n", "\n"))


def visible_html(text: str) -> Markup:
    """The text escaped for HTML, hidden characters shown as marked stand-ins that name them."""
    text = text.replace("\r\n", "\n")
    pieces: list[str] = []
    end = 0
    for match in _MARKED.finditer(text):
        title = f"U+{ord(match[0]):04X} {escape(unicodedata.name(match[0], _kind(match[0])).lower())}"
        shown = REPLACEMENT if match[0] == REPLACEMENT else _picture(match[0])
        title = escape(CUT) if match[0] == REPLACEMENT else title
        pieces += [escape(text[end : match.start()]), f'<span class="hidden-char" title="{title}">{shown}</span>']
        end = match.end()
    pieces.append(escape(text[end:]))
    return Markup("".join(pieces))


def token_label(token: str) -> str:
    """A token on one line: spaces as "␣", line feeds as "↵", tabs as "⇥", the empty token as "∅"."""
    return visible(token).replace(" ", "␣").replace("\n", "↵").replace("\t", "⇥") or "∅"


def on_one_line(text: str) -> str:
    """A piece of running text on one line: line feeds marked, and blanks where nothing else shows them.

    Those are blanks at either end and several in a row: "…firstborn␣", "a↵b", "␣␣".
    """
    return _EDGE.sub(lambda match: token_label(match[0]), text).replace("\n", "↵") or "∅"


def sample_html(text: str) -> Markup:
    """What a model wrote, as ``visible_html``, and with its blanks seen where layout alone would hide them.

    Those are blanks at either end, before and after a line feed, several in a row, and empty lines. A line feed that is
    marked still breaks the line. Text of nothing is "∅".
    """
    text = text.replace("\r\n", "\n")
    pieces: list[str] = []
    end = 0
    for match in _EDGE.finditer(text):
        label = escape(token_label(match[0])).replace("↵", Markup("↵\n"))
        pieces += [visible_html(text[end : match.start()]), f'<span class="blank">{label}</span>']
        end = match.end()
    pieces.append(visible_html(text[end:]))
    return Markup("".join(pieces) or '<span class="blank" title="no text">∅</span>')


def encodable(text: str) -> str:
    r"""The text with lone surrogates as ``\udXXX``: JSON reads them back, and UTF-8 can hold them."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
