"""What answers back on the page, in a browser: its numbers are Python's, by mouse, finger and keyboard."""

import csv
import io
import math
from dataclasses import replace
from fractions import Fraction
from itertools import product
from xml.etree import ElementTree

import pytest
import torch
from PIL import Image

from minigpt.decoding.sampling import Sampling, warp
from minigpt.masks import causal_mask, prefix_mask, window_mask
from reports import formats, page
from reports.live.listings import ROOT, listing
from reports.types import Figure, Heatmap, Mask, Part, Round, Series, Speculation, TokenScores
from reports.write import tables
from tasks.exercises.ex06_temperature_analysis import answer as ex06
from tasks.exercises.ex07_top_k_top_p import answer as ex07
from tasks.exercises.ex07_top_k_top_p.findings import GIVEN, SIZE, K, renormalised
from tasks.exercises.ex14_nucleus_sampling import answer as ex14
from tests.reports import sample

pytestmark = pytest.mark.browser

SPECULATION = Speculation(
    "In the ",
    (
        Round(("b", "e", "g"), (0.5, 0.2, 0.9), (0.25, 0.4, 0.9), 1, "i"),
        Round(("n", "<"), (0.5, 0.5), (0.5, 0.25), 2, "i"),
        Round((), (), (), 0, "!"),
    ),
    "Pass by pass.",
)
LINES = Figure(
    "line",
    (
        Series("measured", (1.0, 10.0, 100.0), (0.5, 2.25, 1234.5), (0.1, 0.2, 0.3)),
        Series("predicted", (1.0, 10.0, 100.0), (0.75, math.nan, 30000.0), predicts="measured"),
        Series("other steps", (1.0, 30.0, 100.0), (3.0, 4.0, 5.0)),
    ),
    "tokens",
    "speed-up",
    "Measured and predicted.",
    x_log=True,
    y_log=True,
    hlines=((1.0, "as fast"),),
)
BARS = Figure(
    "bar",
    (Series("first", ("a long name indeed, so that bars lie", "b"), (0.5, 2.0)),),
    "strategy",
    "perplexity",
    "Lying bars.",
)
MAP = Heatmap(((0.0, 0.5), (None, 2.0)), "key", "query", "A map.", baseline=(0.1, "uniform"), threshold=(1.0, "named"))
TURNED = {"21.6": ex06.turn(), "21.7": ex07.turn(GIVEN, K, "Any k, any p."), "21.14": ex14.turn()}
TABLE = next(block for result in sample.results() if result.id == "21.22" for block in result.parts[1].blocks)
TOKENS = TokenScores(
    ("p", "a", "b"), (None, 1.0, 0.0), "list", "Marked.", ("red", "green"), (None, 1.5, 0.0), "z so far"
)


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    """The address of a page with every block that moves."""
    code = listing("\n".join((ROOT / "minigpt/masks.py").read_text().splitlines()[29:33]), "minigpt/masks.py")
    blocks = {
        "21.2": Mask(8, ("length",), caption="Causal."),
        "21.16": LINES,
        "21.22": TABLE,
        "21.25": BARS,
        "21.26": Mask(12, ("length", "window"), window=4, caption="Window."),
        "21.27": SPECULATION,
        "21.29": MAP,
        "21.30": Mask(6, ("length", "prefix"), prefix=3, caption="Prefix."),
        "21.32": TOKENS,
        "21.34": code,
        **TURNED,
    }
    results = [sample.result(id, Part("a", (block,)), summary="It moves.") for id, block in blocks.items()]
    path = tmp_path_factory.mktemp("live") / "report.html"
    path.write_text(page.render(results=results, run=sample.RUN), encoding="utf-8")
    return path.as_uri()


@pytest.fixture(scope="module")
def opened(browser, document):
    """One page for all tests that only read it or set it anew."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, color_scheme="dark", accept_downloads=True)
    context.grant_permissions(["clipboard-read", "clipboard-write"])
    tab, complaints = context.new_page(), []
    tab.on("console", lambda message: complaints.append(message.text))
    tab.on("pageerror", lambda error: complaints.append(str(error)))
    tab.goto(document)
    yield tab
    assert complaints == []
    context.close()


def block(tab, id):
    """The first block of an exercise, brought into view: what is far from it is not laid out."""
    found = tab.locator(f"#ex-21-{int(id.partition('.')[2]):02d} figure.block").first
    found.scroll_into_view_if_needed()
    return found


def shown(figure):
    """The probabilities and readouts of a distribution, with all their digits."""
    after = [float(v) for v in figure.locator("[data-now]").evaluate_all("all => all.map(e => e.dataset.now)")]
    outs = figure.locator("[data-out]").evaluate_all("all => all.map(e => [e.dataset.out, e.dataset.value])")
    return after, {name: float(value) for name, value in outs}


def choose(figure, name, value):
    figure.locator(f"[data-type={name}]").fill(f"{value:g}")


# --- Distributions -------------------------------------------------------------------------------------------


def test_settings_of_the_tables_give_the_tables_numbers(opened):
    figure = block(opened, "21.6")
    for tau in ex06.TEMPERATURES:
        figure.get_by_role("button", name=f"τ = {tau:g}").click()
        after, outs = shown(figure)
        weights = [math.exp(z / tau) for z in ex06.LOGITS]
        expected = [w / math.fsum(weights) for w in weights]
        assert after == pytest.approx(expected, abs=1e-14)
        assert outs["entropy"] == pytest.approx(-math.fsum(p * math.log(p) for p in expected), abs=1e-14)
        assert outs["effective"] == pytest.approx(math.exp(outs["entropy"]))
        assert figure.locator("[data-now]").all_inner_texts() == [formats.number(p) for p in after]
    figure = block(opened, "21.7")
    for name, size in ((f"k = {K}", K), ("p = 0.9", SIZE)):
        figure.get_by_role("button", name=name).click()
        after, outs = shown(figure)
        assert after == pytest.approx([float(q) for q in renormalised(GIVEN, size)], abs=1e-14)
        assert outs["kept"] == size
        assert outs["mass"] == pytest.approx(float(sum(GIVEN[:size])), abs=1e-14)
    after, outs = shown(block(opened, "21.14"))
    kept = {"the": Fraction("0.40"), "said": Fraction("0.24"), "of": Fraction("0.14"), "LORD": Fraction("0.12")}
    exact = [float(kept[token] / sum(kept.values())) if token in kept else 0.0 for token in ex14.TOKENS]
    assert after == pytest.approx(exact, abs=1e-14)


@pytest.mark.parametrize("id", list(TURNED))
def test_any_setting_is_the_samplers(opened, id):
    figure, logits = block(opened, id), torch.tensor(TURNED[id].logits, dtype=torch.float64)
    sliders = TURNED[id].sliders
    for tau, k, p in product((0.3, 1.7), (2, 9), (0.42, 0.97)):
        k = min(k, len(logits))
        for name, value in (("temperature", tau), ("k", k), ("p", p)):
            if name in sliders:
                choose(figure, name, value)
        sampling = Sampling(tau, k if "k" in sliders else 0, p if "p" in sliders else 1.0)
        expected = warp(logits, sampling).softmax(-1)
        after, outs = shown(figure)
        # Sorted: which of two equally likely tokens is the last one, nobody says.
        assert sorted(after) == pytest.approx(sorted(expected.tolist()), abs=1e-12)
        assert outs["entropy"] == pytest.approx(float(torch.special.entr(expected).sum()), abs=1e-12)


def test_sliders_move_by_keyboard_and_are_kept_in_range(opened):
    figure = block(opened, "21.7")
    figure.get_by_role("button", name="nothing removed").click()
    slider = figure.locator("[data-turn=k]")
    slider.focus()
    slider.press("Home")
    assert shown(figure)[1]["kept"] == 1
    for _ in range(3):
        slider.press("ArrowRight")
    assert shown(figure)[1]["kept"] == 4
    assert figure.locator("[data-type=k]").input_value() == "4"
    assert figure.locator("tr.removed").count() == 6
    choose(figure, "k", 99)  # not possible: nothing moves
    assert shown(figure)[1]["kept"] == 4
    choose(figure, "k", 10)
    figure.locator("[data-turn=temperature]").press("End")
    assert shown(figure)[1]["entropy"] == pytest.approx(math.log(10), abs=1e-3)


# --- Masks ---------------------------------------------------------------------------------------------------


def mask_of(figure):
    rows = figure.locator("tbody tr").evaluate_all(
        "rows => rows.map(r => [...r.cells].slice(1).map(c => c.textContent))"
    )
    return [[text == "●" for text in row] for row in rows]


@pytest.mark.parametrize(
    ("id", "name", "expected"),
    [
        ("21.2", "length", lambda n: causal_mask(n)),
        ("21.26", "window", lambda w: window_mask(12, w)),
        ("21.30", "prefix", lambda p: prefix_mask(6, p)),
    ],
)
def test_masks_show_who_sees_whom(opened, id, name, expected):
    figure = block(opened, id)
    slider = figure.locator(f"[data-turn={name}]")
    start = int(slider.input_value())
    assert mask_of(figure) == expected(start).tolist()
    for key, step in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1)):
        slider.press(key)
        mask = expected(start + step)
        assert mask_of(figure) == mask.tolist()
        assert figure.locator("[data-pairs]").inner_text().startswith(f"{int(mask.sum())} of {mask.numel()} pairs")


def test_a_pair_is_named_by_mouse_and_by_keyboard(opened):
    figure = block(opened, "21.26")
    figure.locator("[data-turn=window]").fill("4")
    figure.locator("td[data-row='7'][data-column='5']").hover()
    said = figure.locator("[data-say]").inner_text()
    assert said.startswith("Query 7 sees key 5. It sees 4–7: 4 of 12; key 5 is seen by 5–8.")
    figure.locator("td[data-row='7'][data-column='5']").focus()
    opened.keyboard.press("ArrowUp")
    opened.keyboard.press("Home")
    assert figure.locator("[data-say]").inner_text().startswith("Query 6 does not see key 0. It sees 3–6")
    assert figure.locator("td[tabindex='0']").count() == 1


# --- Speculative decoding ------------------------------------------------------------------------------------


def test_speculation_is_stepped_through(opened):
    figure = block(opened, "21.27")
    say, text = figure.locator("[data-say]"), figure.locator(".speculated")
    assert say.inner_text() == "3 passes of the target wrote 6 tokens; 3 of them were drafted."
    figure.locator("[data-go=first]").click()
    assert text.inner_text().strip() == "In the"
    seen = []
    for _ in range(9):
        figure.locator("[data-go=on]").click()
        seen.append((text.inner_text().removeprefix("In the").strip(), say.inner_text()))
    assert [written for written, _ in seen] == [
        *("beg", "beg", "begi"),
        *("bin<", "bin<", "bin<i"),
        *("bin<i", "bin<i", "begin<i!"),
    ]
    assert seen[1][1] == "Pass 1: the target reads them in one pass and accepts 1 of 3; “e” is rejected."
    assert seen[2][1] == "Pass 1: “i” is drawn instead of “e”. 2 tokens in 1 pass."
    assert seen[5][1] == "Pass 2: “i” is drawn after them, at no further cost. 5 tokens in 2 passes."
    slider = figure.locator("[data-step]")
    slider.focus()
    slider.press("Home")
    slider.press("ArrowRight")
    assert figure.locator(".drafted:visible").all_inner_texts() == ["b", "e", "g"]
    assert "draft 0.4, target 0.2, accepted with probability 0.5" in figure.locator(".pass").inner_text()
    slider.press("End")


# --- Charts --------------------------------------------------------------------------------------------------


def spots(figure):
    """Where the points of the first series are on the screen, from its markers."""
    return figure.locator(".chart-wide svg g use").evaluate_all(
        "all => all.map(e => { const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; })"
    )


def test_a_line_chart_says_its_values_at_the_pointer(opened):
    figure = block(opened, "21.16")
    figure.scroll_into_view_if_needed()
    tip = figure.locator(".chart-wide .probe-tip")
    points = spots(figure)
    for (x, y), (tokens, said) in zip(
        points[:3], (("1", "0.5 ± 0.1"), ("10", "2.25 ± 0.2"), ("100", "1234.5 ± 0.3")), strict=True
    ):
        opened.mouse.move(x + 3, y + 40)
        first, second, *_ = tip.inner_text().splitlines()
        assert (first, second) == (f"tokens {tokens}", f"measured {said}")
    assert "predicted 30,000" in tip.inner_text()
    dot = figure.locator(".chart-wide .probe-mark circle").first.bounding_box()
    centre = (dot["x"] + dot["width"] / 2, dot["y"] + dot["height"] / 2)
    assert centre == pytest.approx(tuple(points[2]), abs=1.0)  # the mark lies on Matplotlib's own marker
    opened.mouse.move(5, 5)
    assert not tip.is_visible()


def test_a_line_chart_says_its_values_by_keyboard(opened):
    figure = block(opened, "21.16")
    probe, tip = figure.locator(".chart-wide .probe"), figure.locator(".chart-wide .probe-tip")
    probe.focus()
    probe.press("Home")
    probe.press("ArrowRight")
    said = probe.get_attribute("aria-valuetext")
    assert said == "tokens 10: measured 2.25 ± 0.2, predicted –, other steps 3 (at 1)"
    probe.press("End")
    assert tip.inner_text().splitlines()[0] == "tokens 100"
    assert probe.get_attribute("aria-valuenow") == "4"
    probe.press("Escape")
    assert not tip.is_visible()
    bars = block(opened, "21.25")
    bars.locator(".chart-wide .probe").focus()
    assert bars.locator(".chart-wide .probe-tip").inner_text().splitlines()[1] == "first 0.5"
    bars.locator(".chart-wide .probe").blur()


def test_a_map_says_its_values_by_mouse_and_by_keyboard(opened):
    figure = block(opened, "21.29")
    figure.scroll_into_view_if_needed()
    box = figure.locator(".heat-frame").bounding_box()
    opened.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + box["height"] * 0.75)
    tip, probe = figure.locator(".probe-tip"), figure.locator(".probe")
    assert tip.inner_text() == "query 1, key 1: 2"
    opened.mouse.move(5, 5)
    assert not tip.is_visible()
    probe.focus()
    probe.press("ArrowLeft")
    assert probe.get_attribute("aria-valuetext") == "query 1, key 0: masked"
    probe.press("ArrowUp")
    assert tip.inner_text() == "query 0, key 0: 0"
    probe.press("End")
    assert probe.get_attribute("aria-valuetext") == "query 0, key 1: 0.5"
    probe.blur()


def test_measured_and_predicted_share_a_colour_in_both_themes(browser, document):
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    tab = context.new_page()
    tab.goto(document)
    for scheme in ("light", "dark"):
        tab.emulate_media(color_scheme=scheme)
        legend, lines = tab.locator("#ex-21-16").evaluate(
            """section => {
              const look = e => [getComputedStyle(e).stroke, getComputedStyle(e).strokeDasharray !== "none"];
              const drawn = [...section.querySelectorAll(".chart-wide path")]
                .filter(path => /--c\\d\\);stroke-width:1.9/.test(path.getAttribute("style")));
              return [[...section.querySelectorAll(".legend li path[stroke]")].map(look), drawn.map(look)];
            }"""
        )
        assert legend[:3] == lines  # what the legend shows is what is drawn
        assert legend[0][0] == legend[1][0] != legend[2][0]
        assert [dashed for _, dashed in legend[:3]] == [False, True, False]
    context.close()


def test_numbers_are_written_as_in_python(opened):
    values = [
        0,
        1,
        -2.5,
        1 / 3,
        12345,
        1234567.891,
        12345.6789,
        3.2e-9,
        5e22,
        0.0001,
        9.99999e-5,
        99999.5,
        1e7,
        0.1 + 0.2,
    ]
    assert opened.evaluate("values => values.map(v => kit.number(v))", values) == [
        formats.number(float(v)) for v in values
    ]


def test_everything_answers_to_a_finger(browser, document):
    context = browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    tab = context.new_page()
    tab.goto(document)
    figure = block(tab, "21.16")
    probe = figure.locator(".chart-narrow .probe")
    probe.scroll_into_view_if_needed()
    box = probe.bounding_box()
    tab.touchscreen.tap(box["x"] + box["width"] - 20, box["y"] + box["height"] / 2)
    assert figure.locator(".chart-narrow .probe-tip").inner_text().startswith("tokens 100")
    mask = block(tab, "21.26")
    mask.locator("td[data-row='2'][data-column='1']").tap()
    assert mask.locator("[data-say]").inner_text().startswith("Query 2 sees key 1.")
    block(tab, "21.7").get_by_role("button", name="p = 0.9").tap()
    assert shown(block(tab, "21.7"))[1]["kept"] == SIZE
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    context.close()


# --- To take away --------------------------------------------------------------------------------------------


def taken(tab, figure, name):
    with tab.expect_download() as download:
        figure.get_by_role("button", name=name).click()
    return download.value.path().read_bytes()


def test_a_table_is_taken_away_as_its_csv_file(opened):
    figure = block(opened, "21.22")
    result = sample.result("21.22", Part("a", (TABLE,)))
    frame = next(iter(tables(result).values()))
    written = csv.reader(io.StringIO(frame.to_csv(index=False)))
    expected = [[{"True": "yes", "False": "no"}.get(cell, cell) for cell in row] for row in written]
    assert list(csv.reader(io.StringIO(taken(opened, figure, "CSV").decode()))) == expected
    figure.get_by_role("button", name="Copy").click()
    figure.get_by_role("button", name="Copied").wait_for()
    copied = opened.evaluate("navigator.clipboard.readText()")
    assert [line.split("\t") for line in copied.splitlines()] == expected


def test_a_chart_is_taken_away_in_the_colours_of_paper(opened):
    figure = block(opened, "21.16")
    text = taken(opened, figure, "SVG").decode()  # of a page that is dark
    root = ElementTree.fromstring(text)
    styles = " ".join(element.get("style", "") for element in root.iter())
    assert "var(" not in styles
    assert "rgb(10, 95, 180)" in styles  # --c1 of the light theme
    names = ["".join(element.itertext()) for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"measured", "predicted", "other steps", "as fast", "speed-up"} <= set(names)
    image = Image.open(io.BytesIO(taken(opened, figure, "PNG"))).convert("RGB")
    width, height = (float(v) for v in root.get("viewBox").split()[2:])
    assert image.size == pytest.approx((2 * width, 2 * height), abs=1)
    assert image.getpixel((1, 1)) == (255, 255, 255)
    assert (10, 95, 180) in {colour for _, colour in image.getcolors(1 << 24)}
    rows = list(csv.reader(io.StringIO(taken(opened, figure, "CSV").decode())))
    assert rows[0] == ["series", "tokens", "speed-up", "±"]
    assert ["measured", "100", "1234.5", "0.3"] in rows
    assert len(rows) == 10


def test_a_map_is_taken_away_with_its_colours(opened):
    root = ElementTree.fromstring(taken(opened, block(opened, "21.29"), "SVG").decode())
    fills = [e.get("style") for e in root.iter("{http://www.w3.org/2000/svg}rect") if e.get("fill-opacity")]
    assert len(fills) == 3
    assert all("fill:rgb(11, 79, 160)" in style.replace(": ", ":") for style in fills)


def test_code_is_copied_letter_for_letter_and_says_where_it_stands(opened):
    figure = block(opened, "21.34")
    assert figure.locator(".source").text_content() == "minigpt/masks.py, line 30"
    figure.get_by_role("button", name="Copy").click()
    figure.get_by_role("button", name="Copied").wait_for()
    lines = (ROOT / "minigpt/masks.py").read_text().splitlines()
    assert opened.evaluate("navigator.clipboard.readText()") == "\n".join(lines[29:33])


# --- Passages and pages without scripts ----------------------------------------------------------------------


def test_marked_tokens_say_their_list_and_the_running_score(opened):
    figure = block(opened, "21.32")
    figure.locator(".tok").nth(1).hover()
    assert figure.locator(".readout").inner_text() == "a token 2 of 3, list: green, z so far 1.5"
    lines = figure.locator(".tok").evaluate_all("all => all.map(e => getComputedStyle(e).textDecorationLine)")
    assert lines == ["none", "underline", "none"]  # not by colour alone


def test_without_scripts_all_is_there(browser, document):
    context = browser.new_context(viewport={"width": 1440, "height": 900}, java_script_enabled=False)
    tab = context.new_page()
    tab.goto(document)
    assert not any(element.is_visible() for element in tab.locator(".js-only").all())
    assert tab.locator("#ex-21-07 .turned tbody tr").count() == len(GIVEN)
    assert "3 of 10 tokens kept, with 0.7 of the mass" in tab.locator("#ex-21-07 .live").text_content()
    assert mask_of(block(tab, "21.26")) == window_mask(12, 4).tolist()
    assert tab.locator("#ex-21-27 .speculated .rejected").text_content() == "e"
    block(tab, "21.27")
    assert tab.locator("#ex-21-27 .spec-key").is_visible()
    context.close()


def test_a_map_is_coloured_from_baseline_to_threshold():
    from reports.blocks import render

    html = str(render(MAP, "x"))
    assert "uniform ≤ 0.1" in html
    assert "named ≥ 1" in html
    strengths = [float(part.partition('"')[0]) for part in html.split('fill-opacity="')[1:]]
    assert strengths == pytest.approx([0, (0.5 - 0.1) / 0.9, 1], abs=1e-3)
    plain = str(render(replace(MAP, baseline=None, threshold=None), "x"))
    assert [float(part.partition('"')[0]) for part in plain.split('fill-opacity="')[1:]] == [0, 0.25, 1]
