"""The layout in a browser: tables that fit and line up, pages that any reader can use, in both themes and widths."""

import os
from pathlib import Path

import pytest

from reports import page
from reports.story.editions import Edition
from reports.types import Part, Prose, Result, Table
from tests.reports import sample
from tests.reports.test_browser import reader  # noqa: F401 - a fixture

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parent.parent.parent
GEOMETRY = """table => {
  const edges = cell => {
    const range = document.createRange();
    range.selectNodeContents(cell);
    const boxes = [...range.getClientRects()].filter(box => box.width > 0);
    return {left: Math.min(...boxes.map(box => box.left)), right: Math.max(...boxes.map(box => box.right))};
  };
  const heads = [...table.tHead.rows[0].cells];
  return heads.map((head, column) => ({
    number: head.classList.contains("num"),
    head: edges(head.querySelector("button") ?? head),
    cells: [...table.tBodies[0].rows].map(row => edges(row.cells[column])),
  }));
}"""


@pytest.fixture(scope="module")
def address(html, tmp_path_factory):
    path = tmp_path_factory.mktemp("layout") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


def off_edges(page) -> list[tuple[str, float]]:
    """How far headings of number columns end from the right edge of their numbers, of text columns from the left."""
    off = []
    for table in page.locator("#ex-21-22 table.sortable, #ex-21-01 table.metrics, .models table").all():
        if not table.is_visible():
            continue
        for column in table.evaluate(GEOMETRY):
            side = "right" if column["number"] else "left"
            ends = [cell[side] for cell in column["cells"] if cell["left"] < 1e6 and abs(cell["left"]) < 1e6]
            if ends:
                off.append(abs(column["head"][side] - (max(ends) if side == "right" else min(ends))))
    return off


@pytest.mark.parametrize("width", [390, 1440])
def test_headings_end_where_their_numbers_do(reader, width):  # noqa: F811
    with reader(width) as page:
        off = off_edges(page)
        assert len(off) > 10
        assert max(off) <= 2


def test_the_first_column_stays_in_view(reader):  # noqa: F811
    with reader(390) as page:
        box = page.locator("#ex-21-17 .block-table .scroll").first
        first = box.locator("tbody tr").first.locator("td").first
        box.scroll_into_view_if_needed()
        left = first.evaluate("cell => cell.getBoundingClientRect().left")
        box.evaluate("box => { box.scrollLeft = 300; }")
        assert first.evaluate("cell => cell.getBoundingClientRect().left") == pytest.approx(left, abs=1)
        page.wait_for_selector("#ex-21-17 .block-table .scroll.beyond")  # and it is said that there is more
        assert "swipe" in box.evaluate("box => getComputedStyle(box, '::after').content")


def test_no_word_is_written_a_letter_a_line(reader):  # noqa: F811
    """On a phone, where tables scroll, columns give up their words before they give up anything else."""
    with reader(390) as page:
        page.add_style_tag(content=".exercise { content-visibility: visible !important; }")
        split = page.evaluate(
            """() => [...document.querySelectorAll("table.sortable tr > :first-child")].filter(cell => {
              const range = document.createRange();
              range.selectNodeContents(cell);
              const lines = new Set([...range.getClientRects()].map(box => Math.round(box.top))).size;
              return lines > 2 + cell.textContent.trim().split(/[\\s-]+/).length;
            }).map(cell => cell.textContent.trim())"""
        )
        assert split == []
        assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_tables_of_everyday_width_do_not_overflow_at_1440(browser, tmp_path):
    """Thirteen columns of names and numbers, as in the comparison of GPT-1, GPT-2 and GPT-3, all of it in view."""
    columns = ("model", *(f"hidden dimension {i}" for i in range(9)), "training data", "layer norm")
    row = ("GPT-3 6.7B", *(12_288.0 + i for i in range(9)), "300 B tokens of five data sets", "pre-norm: before each")
    table = Table(columns, (row,) * 13, "A comparison", "comparison")
    result = Result("21.3", "t", "ok", sample.PROVENANCE, parts=(Part("", (Prose("x"), table)),))
    (tmp_path / "page.html").write_text(page.render(results=[result]), encoding="utf-8")
    opened = browser.new_page(viewport={"width": 1440, "height": 900})
    opened.goto((tmp_path / "page.html").as_uri())
    box = opened.locator("#ex-21-03 .block-table .scroll")
    box.scroll_into_view_if_needed()
    fits = box.evaluate("box => [box.scrollWidth <= box.clientWidth, box.scrollHeight <= box.clientHeight]")
    opened.close()
    assert fits == [True, True]


def test_sections_off_the_screen_are_laid_out_when_they_come_near(reader):  # noqa: F811
    with reader() as page:
        lazy = page.locator("#ex-21-24")
        assert lazy.evaluate("e => getComputedStyle(e).contentVisibility") == "auto"
        page.click('#nav a[href="#ex-21-24"]')
        page.wait_for_selector('#nav a[aria-current][href="#ex-21-24"]')
        page.emulate_media(media="print")
        assert lazy.evaluate("e => getComputedStyle(e).contentVisibility") == "visible"


def test_blank_tokens_are_seen(reader):  # noqa: F811
    with reader() as page:
        assert page.locator("#ex-21-24 .tok .blank").first.text_content().startswith("↵")
        assert page.locator("#ex-21-21 .sample .blank").count() > 0


def test_a_card_leads_to_its_exercise(reader):  # noqa: F811
    with reader() as page:
        card = page.locator(".card").first
        target = card.locator("a").get_attribute("href")
        box = card.locator(".card-says").bounding_box()
        page.mouse.click(box["x"] + 5, box["y"] + 5)  # anywhere on it
        assert page.url.endswith(target)


def axe() -> str:
    """The source of axe-core, from AXE or from ``npm install --no-save axe-core`` in this folder."""
    named = os.environ.get("AXE")
    path = Path(named) if named else ROOT / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        pytest.skip("axe-core is not here: npm install --no-save axe-core")
    return path.read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [390, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("answers", ["shown", "folded"])
def test_axe_finds_no_violation(browser, cache, tmp_path, answers, scheme, width):
    source = axe()
    html = page.render(results=sample.results(), run=sample.RUN, sections_cache=cache, edition=Edition(answers=answers))
    (tmp_path / "page.html").write_text(html, encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=True)
    opened = context.new_page()
    opened.goto((tmp_path / "page.html").as_uri())
    opened.evaluate("document.querySelectorAll('details').forEach(e => { e.open = true; })")
    opened.add_style_tag(content=".exercise { content-visibility: visible !important; }")
    opened.evaluate(source)
    found = opened.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    context.close()
    assert [(rule["id"], node["target"]) for rule in found for node in rule["nodes"]] == []
