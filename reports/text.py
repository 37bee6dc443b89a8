"""Untrusted text: characters that would hide, reorder or break what a reader sees are made visible."""

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
    for match in _HIDDEN.finditer(text):
        title = f"U+{ord(match[0]):04X} {escape(unicodedata.name(match[0], _kind(match[0])).lower())}"
        pieces += [
            escape(text[end : match.start()]),
            f'<span class="hidden-char" title="{title}">{_picture(match[0])}</span>',
        ]
        end = match.end()
    pieces.append(escape(text[end:]))
    return Markup("".join(pieces))


def token_label(token: str) -> str:
    """A token on one line: spaces as "·", line feeds as "↵", tabs as "→", the empty token as "∅"."""
    return visible(token).replace(" ", "·").replace("\n", "↵").replace("\t", "→") or "∅"


def encodable(text: str) -> str:
    r"""The text with lone surrogates as ``\udXXX``: JSON reads them back, and UTF-8 can hold them."""
    return _SURROGATE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
