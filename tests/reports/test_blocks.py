"""Blocks as HTML: everything a model wrote is text, numbers sort and read well."""

import html
import json
import math
import re
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reports import blocks
from reports.text import token_label, visible
from reports.types import AttentionMaps, Code, Heatmap, Prose, Sample, Table, TokenScores
from tests.reports import sample
from tests.reports.test_text import ANY_TEXT

VOID = {"meta", "link", "img", "br", "wbr", "hr", "input"}


class Page(HTMLParser):
    """Tags in order, attributes and text; complains of tags that do not nest."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.attributes, self.data = [], [], [], []
        self.feed(str(text))
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.data.append((self.open[-1] if self.open else "", data))

    def text(self, tag):
        return [data for where, data in self.data if where == tag]


def harmless(text) -> Page:
    page = Page(text)
    assert not set(page.tags) & {"img", "iframe", "object", "embed", "form", "link", "meta", "base", "style"}
    assert not [a for a in page.attributes if a[1].startswith("on")]
    assert not [
        a for a in page.attributes if a[1] in ("href", "src") and not re.match(r"#|data:image/png|https?://", a[2])
    ]
    kinds = [value for tag, name, value in page.attributes if (tag, name) == ("script", "type")]
    assert kinds == ["application/json"] * page.tags.count("script")
    return page


@pytest.mark.parametrize("index", range(len(sample.results())))
def test_every_block_nests_and_is_harmless(index):
    for part in sample.results()[index].parts:
        harmless(blocks.render_all(part.blocks, "ex-1"))


@settings(deadline=None, max_examples=40)
@given(ANY_TEXT, ANY_TEXT)
def test_no_text_of_a_model_becomes_markup(text, other):
    shown = [
        Sample(text, other, text, other),
        Code(text, other),
        Table((text, other), ((text, other), (other, 1.0)), text),
        TokenScores((text, other), (None, 1.5), text, other),
        Heatmap(((1.0, None),), text, other, text, (text, other), (text,)),
    ]
    for block in shown:
        page = harmless(blocks.render(block, "u"))
        tags = set(page.tags) - {
            "figure",
            "figcaption",
            "pre",
            "code",
            "span",
            "table",
            "thead",
            "tbody",
            "tr",
            "th",
            "td",
            "div",
            "p",
        }
        assert tags <= {"svg", "title", "desc", "defs", "pattern", "path", "g", "rect", "text"}


def test_a_sample_shows_its_text_in_full():
    page = Page(blocks.render(Sample("t", "prompt ", sample.HOSTILE), "u"))
    shown = "".join(data for _, data in page.data)
    assert visible(sample.HOSTILE) in shown
    assert ("span", "class", "prompt") in page.attributes
    assert "prompt " in page.text("span")


def test_captions_begin_with_a_title():
    assert blocks.caption("Loss. Lower is better.") == 'Loss.<span class="explained"> Lower is better.</span>'
    assert blocks.caption("τ = 0.5 vs. more") == "τ = 0.5 vs. more"
    assert blocks.caption("A <b>. C") == 'A &lt;b&gt;.<span class="explained"> C</span>'
    assert blocks.caption("") == ""


# --- Tables --------------------------------------------------------------------------------------------------


def columns_of(table: Table) -> list[list[dict[str, str]]]:
    rows = re.findall(r"<tr>(.*?)</tr>", str(blocks.render(table, "u")), re.DOTALL)[1:]
    return [
        [
            {name: html.unescape(value) for name, value in re.findall(r'([\w-]+)="([^"]*)"', tag)}
            | {"text": html.unescape(text)}
            for tag, text in re.findall(r"<td([^>]*)>(.*?)</td>", row)
        ]
        for row in rows
    ]


def sorts_by(cell: dict[str, str]) -> str:
    """What tables.js takes: what the cell says, else its full value, else its text."""
    return cell.get("data-v", cell.get("title", cell["text"]))


def test_numbers_carry_their_full_value():
    ((first,), (second,)) = columns_of(Table(("loss",), ((1.62345678901234,), (124.5,))))
    assert (first["text"], first["title"], sorts_by(first)) == ("1.62", "1.62345678901234", "1.62345678901234")
    assert second["text"] == "124.50"
    assert first["class"] == "num"


def test_what_sorts_as_numbers():
    table = Table(
        ("int", "float", "mean ± std", "text", "bool", "mixed"),
        ((1, 0.5, "1.5 ± 0.1", "x", True, 1), (None, math.nan, "−2 ± 3", None, None, "many")),
    )
    heads = re.findall(r'<th scope="col" data-kind="(\w+)"', str(blocks.render(table, "u")))
    assert heads == ["number", "number", "number", "text", "text", "text"]
    first, second = columns_of(table)
    assert [sorts_by(cell) for cell in first] == ["1", "0.5", "1.5", "x", "yes", "1"]
    assert [sorts_by(cell) for cell in second] == ["", "", "-2.0", "", "", "many"]


def test_an_empty_table_is_a_table():
    assert "<tbody>" in blocks.render(Table(("a", "b"), ()), "u")


# --- Scored passages and attention ---------------------------------------------------------------------------


def test_tokens_carry_label_value_and_strength():
    block = TokenScores(("The", " cat", "\n", "<b>"), (None, 0.0, 2.0, 4.0), "loss (nats)")
    tags = re.findall(
        r'<span class="tok (\w*)" style="--a:([\d.]+)" data-token="([^"]*)" data-value="([^"]*)"',
        str(blocks.render(block, "u")),
    )
    assert tags == [
        ("", "0.00", "The", "not scored"),
        ("pos", "0.00", "␣cat", "0"),
        ("pos", "0.50", "↵", "2"),
        ("pos", "1.00", "&lt;b&gt;", "4"),
    ]


def test_negative_scores_have_a_colour_of_their_own():
    text = str(blocks.render(TokenScores(("a", "b"), (-1.0, 0.5), "difference"), "u"))
    assert re.findall(r'class="tok (\w+)" style="--a:([\d.]+)"', text) == [("neg", "1.00"), ("pos", "0.50")]
    assert "ramp warm diverging" in text


def embedded(block: AttentionMaps) -> dict:
    text = str(blocks.render(block, "u"))
    script = re.search(r'<script type="application/json">(.*?)</script>', text, re.DOTALL)[1]
    assert "<" not in script
    return json.loads(script)


def test_attention_is_embedded_to_three_decimals():
    block = sample.attention()
    data = embedded(block)
    assert data["triangular"] is True
    assert data["sentences"][1] == [token_label(token) for token in block.sentences[1]]
    for s, sentence in enumerate(block.weights):
        for la, layer in enumerate(sentence):
            for h, matrix in enumerate(layer):
                weights = data["weights"][s][la][h]
                assert len(weights) == len(matrix) * (len(matrix) + 1) // 2
                for i in range(len(matrix)):
                    for j in range(i + 1):
                        assert weights[i * (i + 1) // 2 + j] / 1000 == pytest.approx(matrix[i][j], abs=5e-4)


def test_attention_that_looks_ahead_is_embedded_whole():
    data = embedded(AttentionMaps((("a", "b"),), (0,), ((0,),), (((((0.5, 0.5), (0.25, 0.75)),),),)))
    assert data["triangular"] is False
    assert data["weights"][0][0][0] == [500, 500, 250, 750]


def test_every_map_has_a_picture_for_readers_without_scripts():
    block = sample.attention()
    text = str(blocks.render(block, "u"))
    assert len(re.findall("<image", text)) == sum(len(heads) for heads in block.heads) * len(block.sentences)
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))


@given(
    st.recursive(st.one_of(st.none(), st.integers(), ANY_TEXT), lambda inner: st.lists(inner, max_size=3), max_leaves=8)
)
def test_json_in_scripts_ends_no_script(data):
    text = blocks.script_json(data)
    assert json.loads(text) == data
    assert not re.search("[<>&\u2028\u2029]", text)


# --- Rows ----------------------------------------------------------------------------------------------------


def test_neighbours_stand_side_by_side():
    samples = (Sample("before", "", "x"), Sample("after", "", "y"))
    assert '<div class="row row-sample">' in blocks.render_all(samples, "u")
    assert "row" not in blocks.render_all((samples[0], Prose("between"), samples[1]), "u")


def test_only_web_addresses_are_linked():
    assert blocks.web_address("http://127.0.0.1:5000/#/runs") == "http://127.0.0.1:5000/#/runs"
    for url in ("javascript:alert(1)", "file:///etc/passwd", "", None, " https://x"):
        assert blocks.web_address(url) == ""
