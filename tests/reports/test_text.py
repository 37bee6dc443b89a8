"""Hidden characters become visible, markup stays text."""

import html
import json
import re

from hypothesis import given
from hypothesis import strategies as st

from reports.text import encodable, token_label, visible, visible_html

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=60)  # lone surrogates included
HIDDEN = [
    *map(chr, range(0x09)),
    "\x0b",
    "\x0c",
    "\x1b",
    "\x7f",
    "\x85",
    "\u200b",
    "\u202e",
    "\u2066",
    "\ufeff",
    "\ud800",
]


@given(ANY_TEXT)
def test_what_is_shown_is_what_was_there(text):
    shown = visible_html(text)
    assert html.unescape(re.sub(r"<span class=\"hidden-char\"[^>]*>|</span>", "", shown)) == visible(text)
    shown.encode()  # no lone surrogate is left
    assert "<" not in re.sub(r"<span class=\"hidden-char\" title=\"[^\"<>]*\">|</span>", "", shown)


@given(ANY_TEXT)
def test_ordinary_text_is_untouched(text):
    if visible(text) == text:
        assert visible_html(text) == html.escape(text).replace("&#x27;", "&#39;").replace("&quot;", "&#34;")


def test_every_hidden_character_shows():
    for character in HIDDEN:
        assert character not in visible(f"a{character}b")
        assert len(visible(character)) >= 1
    assert visible("\x1b[31m") == "␛[31m"
    assert visible("\u202eabc") == "U+202Eabc"
    assert visible("a\ufffeb\ufdd0\U0010ffff") == "aU+FFFEbU+FDD0U+10FFFF"
    assert 'title="U+FFFE not a character"' in visible_html("\ufffe")
    assert 'title="U+202E right-to-left override"' in visible_html("\u202e")


def test_line_ends_and_tabs_stay():
    assert visible("a\tb\nc\r\nd") == "a\tb\nc\nd"


def test_tokens_on_one_line():
    assert token_label(" the") == "␣the"
    assert token_label("\n\n") == "↵↵"
    assert token_label("") == "∅"


@given(ANY_TEXT)
def test_lone_surrogates_survive_json(text):
    written = encodable(json.dumps(text, ensure_ascii=False))
    assert json.loads(written.encode().decode()) == text
