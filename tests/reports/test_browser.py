"""The page in a browser: headless Chromium, driven as a reader would, by mouse and by keyboard.

The browser is that of ``conftest.py``.
"""

import re
from contextlib import contextmanager

import pytest

from reports.chapter import QUESTIONS

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address(html, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(html, encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def reader(browser, address):
    """Opens the page; at the end nothing may have been logged, thrown or asked of the network."""
    complaints = []

    @contextmanager
    def open_page(width=1440, height=900, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        page = context.new_page()
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "request",
            lambda request: request.url == address or request.url.startswith("data:") or complaints.append(request.url),
        )
        page.goto(address)
        yield page
        context.close()

    yield open_page
    assert complaints == []


@pytest.mark.parametrize("width", [390, 768, 1440])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_quietly_and_nothing_overflows(reader, width, scheme):
    with reader(width, color_scheme=scheme) as page:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.evaluate("window.hacked") is None
        paper = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
        # What is wider than the page scrolls in a box of its own.
        wide = page.locator("#ex-21-17 .block-table .scroll")
        assert wide.evaluate("e => e.scrollWidth > e.clientWidth")
        page.mouse.wheel(0, 100_000)


def test_one_chart_per_width_and_its_text_is_not_scaled_down(reader):
    for width, shown, hidden in ((390, "narrow", "wide"), (1440, "wide", "narrow")):
        with reader(width) as page:
            chart = page.locator(f"#ex-21-22 .chart-{shown} svg").first
            assert chart.is_visible()
            assert not page.locator(f"#ex-21-22 .chart-{hidden} svg").first.is_visible()
            scale = chart.evaluate("e => e.getBoundingClientRect().width / e.viewBox.baseVal.width")
            assert scale > 0.9


def test_charts_follow_the_theme(reader):
    line = "#ex-21-22 .chart-wide path[style*='stroke:var(--c1)']"
    stroke = f'getComputedStyle(document.querySelector("{line}")).stroke'
    with reader(color_scheme="light") as page:
        assert page.evaluate(stroke) == "rgb(10, 95, 180)"
        page.emulate_media(color_scheme="dark")
        assert page.evaluate(stroke) == "rgb(108, 180, 255)"


def contrast(page, selector):
    """WCAG 2 contrast of an element's text with the page behind it."""
    return page.evaluate(
        """selector => {
          const rgb = text => text.match(/[\\d.]+/g).slice(0, 3).map(Number);
          const linear = v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
          const light = colour => rgb(colour).map(v => linear(v / 255))
            .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
          const element = document.querySelector(selector);
          const paper = e => getComputedStyle(e).backgroundColor;
          let behind = element;
          while (behind.parentElement && paper(behind) === "rgba(0, 0, 0, 0)") behind = behind.parentElement;
          const [a, b] = [light(getComputedStyle(element).color), light(paper(behind))];
          return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        }""",
        selector,
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast_enough(reader, scheme):
    selectors = (
        "body",
        ".explain",
        ".which .summary",
        ".tally .pass",
        ".tally .open",
        ".badge.ok",
        ".badge.failed",
        ".badge.not-run",
        ".prose a",
        ".check.exact.pass .verdict",
        ".check.empirical.fail .verdict",
        ".question",
        ".notes li",
        ".legend li",
        ".prompt",
        ".nav-number",
        ".hidden-char",
    )
    with reader(color_scheme=scheme) as page:
        low = {selector: ratio for selector in selectors if (ratio := contrast(page, selector)) < 4.5}
    assert low == {}


def test_the_theme_can_be_chosen_and_is_remembered(reader):
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    with reader(color_scheme="light") as page:
        button = page.locator("button.theme")
        seen = [page.evaluate(paper)]
        for _ in range(3):
            button.click()
            seen.append(page.evaluate(paper))
        assert seen == ["rgb(255, 255, 255)", "rgb(17, 21, 26)", "rgb(255, 255, 255)", "rgb(255, 255, 255)"]
        button.click()
        page.reload()
        assert page.evaluate(paper) == "rgb(17, 21, 26)"
        assert button.get_attribute("aria-label") == "Colours: dark"


# --- Finding one's way ---------------------------------------------------------------------------------------


def shown_rows(page):
    return page.locator(".exercises tbody tr:visible").count()


def test_the_filter_finds_by_text_and_status(reader):
    with reader() as page:
        assert shown_rows(page) == len(QUESTIONS)
        page.fill("#filter-text", "rope")
        assert page.locator(".exercises tbody tr:visible .title").all_inner_texts() == ["Implement RoPE"]
        assert page.locator("#nav li:visible").count() == 1
        assert page.inner_text("#filter-count") == f"1 of {len(QUESTIONS)}"
        page.fill("#filter-text", "21.2 mask")
        assert page.locator(".exercises tbody tr:visible .number").all_inner_texts()[0] == "21.2"
        page.fill("#filter-text", "")
        page.select_option("#filter-status", "failed")
        assert page.locator(".exercises tbody tr:visible .number").all_inner_texts() == ["21.27"]
        page.select_option("#filter-status", "unconfirmed")
        assert shown_rows(page) == 5
        page.fill("#filter-text", "no such words")
        assert page.locator("#filter-empty").is_visible()
        page.fill("#filter-text", "")
        page.select_option("#filter-status", "")
        assert shown_rows(page) == len(QUESTIONS)


def test_the_navigation_leads_and_follows(reader):
    with reader() as page:
        page.click('#nav a[href="#ex-21-24"]')
        page.wait_for_selector('#nav a[aria-current][href="#ex-21-24"]')
        top = page.locator("#ex-21-24").evaluate("e => e.getBoundingClientRect().top")
        assert 0 <= top < 200
        page.locator("#ex-21-02 h2").scroll_into_view_if_needed()
        page.evaluate("document.getElementById('ex-21-02').scrollIntoView()")
        page.wait_for_selector('#nav a[aria-current][href="#ex-21-02"]')


def test_the_menu_of_the_phone(reader):
    with reader(390) as page:
        menu = page.locator("button.menu")
        assert not page.locator("#nav").is_visible()
        menu.click()
        assert page.locator("#nav").is_visible()
        assert menu.get_attribute("aria-expanded") == "true"
        page.keyboard.press("Escape")
        assert not page.locator("#nav").is_visible()
        menu.click()
        page.click('#nav a[href="#ex-21-24"]')
        assert not page.locator("#nav").is_visible()
        top = page.locator("#ex-21-24 h2").evaluate("e => e.getBoundingClientRect().top")
        assert 40 < top < 400  # not under the bar


# --- Tables --------------------------------------------------------------------------------------------------


def column(page, index, table="#ex-21-22 .block-table"):
    return [row.locator("td").nth(index).inner_text() for row in page.locator(f"{table} tbody tr").all()]


def test_tables_sort_by_click_and_by_keyboard(reader):
    with reader() as page:
        heads = page.locator("#ex-21-22 .block-table th")
        written = ["small", "medium", "large <b>", "failed"]
        parameters = heads.nth(2).locator("button")
        parameters.click()
        assert column(page, 2) == ["420,000", "3,300,000", "10,800,000", "–"]
        assert heads.nth(2).get_attribute("aria-sort") == "ascending"
        parameters.press("Enter")
        assert column(page, 2) == ["10,800,000", "3,300,000", "420,000", "–"]  # what is missing stays last
        parameters.press("Space")
        assert column(page, 0) == written
        assert heads.nth(2).get_attribute("aria-sort") is None
        heads.nth(6).locator("button").click()
        assert column(page, 6) == ["3.2×10⁻⁹", "3.0×10⁻²", "1.0×10⁰", "–"]  # by value, not by text
        assert heads.nth(2).get_attribute("aria-sort") is None
        heads.nth(4).locator("button").click()
        assert column(page, 4)[0] == "1.65 ± 0.1"
        heads.nth(0).locator("button").click()
        assert column(page, 0) == sorted(written, key=str.lower)


# --- Scored passages -----------------------------------------------------------------------------------------


def test_tokens_by_mouse_and_by_keyboard(reader):
    with reader() as page:
        tokens = page.locator("#ex-21-24 .tok")
        tip, readout = page.locator("#tip"), page.locator("#ex-21-24 .readout")
        tokens.nth(3).hover()
        value = tokens.nth(3).get_attribute("data-value")
        assert tip.inner_text() == f"␣God: {value}"
        assert readout.inner_text() == f"␣God token 4 of {tokens.count()}, loss (nats): {value}"
        assert page.locator("#ex-21-24 .tok[tabindex='0']").count() == 1  # one stop for the whole passage
        page.mouse.move(5, 5)
        tokens.nth(0).focus()
        assert tip.inner_text() == "In: not scored"
        page.keyboard.press("ArrowRight")
        assert tip.inner_text().startswith("␣the: ")
        page.keyboard.press("End")
        assert f"token {tokens.count()} of" in readout.inner_text()
        page.keyboard.press("Home")
        first = page.evaluate("document.activeElement.getBoundingClientRect().top")
        page.keyboard.press("ArrowDown")
        assert page.evaluate("document.activeElement.getBoundingClientRect().top") > first
        page.keyboard.press("ArrowUp")
        assert page.evaluate("document.activeElement.getBoundingClientRect().top") == first
        page.keyboard.press("Escape")
        assert not tip.is_visible()


# --- Attention maps ------------------------------------------------------------------------------------------


def test_attention_maps_by_mouse_and_by_keyboard(reader):
    from tests.reports import sample

    block = sample.attention()
    with reader() as page:
        figure = page.locator("#ex-21-17 [data-attention]")
        cell = figure.locator("td[data-row='5'][data-column='4']")
        readout = figure.locator(".readout")
        cell.hover()
        assert readout.inner_text() == f"query ␣mat → key ␣the: {block.weights[0][0][0][5][4]:.3f}"
        assert page.locator("#tip").inner_text() == f"␣mat → ␣the: {block.weights[0][0][0][5][4]:.3f}"
        figure.locator("td[data-row='0'][data-column='0']").focus()
        for key in ("ArrowDown", "ArrowDown", "ArrowRight"):
            page.keyboard.press(key)
        assert readout.inner_text() == f"query ␣sat → key ␣cat: {block.weights[0][0][0][2][1]:.3f}"
        page.keyboard.press("End")
        assert readout.inner_text() == "query ␣sat → key .: masked"
        page.keyboard.press("ArrowRight")  # at the edge: stays
        assert readout.inner_text() == "query ␣sat → key .: masked"
        assert figure.locator("td[tabindex='0']").count() == 1


def test_attention_maps_are_chosen_by_select_and_by_picture(reader):
    from tests.reports import sample

    block = sample.attention()
    with reader() as page:
        figure = page.locator("#ex-21-17 [data-attention]")
        figure.locator(".controls").scroll_into_view_if_needed()  # off the screen nothing is laid out, and no text read
        layer, head, sentence = (figure.locator(f"[data-choose={name}]") for name in ("layer", "head", "sentence"))
        layer.select_option(label="9")
        head.select_option(label="11")
        assert head.locator("option").all_inner_texts() == ["0", "8", "9", "11"]
        figure.locator("td[data-row='7'][data-column='2']").hover()
        assert figure.locator(".readout").inner_text().endswith(f"{block.weights[0][3][3][7][2]:.3f}")
        assert (
            figure.locator(".thumb[aria-pressed=true]:visible").get_attribute("aria-label")
            == "Sentence 1, layer 9, head 11"
        )
        sentence.select_option(index=1)
        assert figure.locator("th[scope=row]").all_inner_texts() == ["<b>", "</script>", "␣↵", "U+202E", "␣end"]
        assert page.evaluate("window.hacked") is None
        figure.locator(".thumb:visible").nth(5).click()
        assert (layer.input_value(), head.input_value()) == ("1", "1")
        figure.locator("td[data-row='4'][data-column='3']").hover()
        assert figure.locator(".readout").inner_text() == f"query ␣end → key U+202E: {block.weights[1][1][1][4][3]:.3f}"


# --- Without scripts, and on paper ---------------------------------------------------------------------------


def test_everything_is_readable_without_scripts(reader):
    with reader(java_script_enabled=False) as page:
        for selector in ("#ex-21-24 .tok", "#ex-21-17 .thumb", "#ex-21-22 table", "#ex-21-22 .chart-wide svg", "#nav"):
            assert page.locator(selector).first.is_visible()
        assert not page.locator(".js-only").first.is_visible()
        assert page.locator("#ex-21-17 .sheet").nth(1).is_visible()
        assert page.locator("#ex-21-24 .tok").nth(3).get_attribute("title").startswith("␣God: ")


def test_on_paper_everything_is_open(reader):
    with reader(color_scheme="dark") as page:
        page.evaluate("dispatchEvent(new Event('beforeprint'))")
        page.emulate_media(media="print")
        assert page.locator("details:not([open])").count() == 0
        assert not page.locator("#nav").is_visible()
        assert not page.locator(".filter").is_visible()
        assert page.locator("#ex-21-17 .sheet").nth(1).is_visible()
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
        page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert page.locator("details:not([open])").count() > 0
        assert page.pdf(format="A4")[:5] == b"%PDF-"


def test_paper_is_used_sparingly(reader):
    """The laptop's page took 297 pages once: margins of nothing beside half-empty columns, and metrics for programs."""
    with reader() as page:
        pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True)))
        page.emulate_media(media="print")
        assert page.locator("#ex-21-22 .checks").evaluate("e => getComputedStyle(e).columnCount") == "2"
        assert not page.locator("#ex-21-01 table.metrics").is_visible()
        told = page.locator("#ex-21-01 .more:has(.metrics) > summary").evaluate(
            "e => getComputedStyle(e, '::after').content"
        )
        assert "JSON" in told
    assert 3 < pages <= 20  # 28 before
