"""Charts and matrices: valid, deterministic, in the page's colours, true to their numbers."""

import base64
import io
import math
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from reports import charts, figures, heatmaps
from reports.style import NARROW, PALETTE, WIDE
from reports.types import Figure, Heatmap, Series
from tests.reports import sample

ROOT = Path(__file__).parents[2]
FIGURES = sample.figures()


def parse(text) -> ElementTree.Element:
    return ElementTree.fromstring(str(text).replace('xmlns="http://www.w3.org/2000/svg"', ""))


def texts(root: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in root.iter("text")]


@pytest.mark.parametrize("index", range(len(FIGURES)))
def test_charts_are_valid_and_follow_the_theme(index):
    for size in figures.SIZES:
        root = parse(figures.draw(FIGURES[index], size, "ex-1-n"))
        assert root.get("viewBox").startswith(f"0 0 {size.width:g} ")
        assert {element.tag for element in root.iter()} <= {
            "svg",
            "title",
            "desc",
            "g",
            "path",
            "use",
            "text",
            "defs",
            "clipPath",
            "rect",
        }
        styles = " ".join(element.get("style", "") for element in root.iter())
        assert not re.search(r"#[0-9a-f]{3,6}\b", styles)  # every colour is the page's
        assert set(re.findall(r"var\(--([\w-]+)\)", styles)) <= {
            "chart-text",
            "chart-grid",
            "chart-axis",
            "paper",
            *(f"c{n}" for n in range(1, 9)),
        }


def test_ids_are_prefixed_and_referenced():
    text = str(figures.draw(FIGURES[0], WIDE, "ex-1-n"))
    ids = re.findall(r' id="([^"]+)"', text)
    assert ids
    assert len(set(ids)) == len(ids)
    assert all(name.startswith("ex-1-n-") for name in ids)
    assert set(re.findall(r'(?:href="#|url\(#)([\w.-]+)', text)) <= set(ids)


def test_the_same_figure_gives_the_same_bytes_in_any_process():
    code = "from tests.reports import sample; from reports import figures, heatmaps\n" + (
        "print(figures.draw(sample.figures()[1], figures.WIDE, 'x'), heatmaps.draw(sample.heatmaps()[2], 'y'))"
    )
    runs = [
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, cwd=ROOT, capture_output=True, check=True
        )
        for seed in ("1", "2")
    ]
    assert runs[0].stdout == runs[1].stdout
    assert b"<svg" in runs[0].stdout
    assert b"Matplotlib" not in runs[0].stdout


def test_labels_are_text_and_shown_as_they_are():
    root = parse(figures.draw(FIGURES[8], WIDE, "x"))
    assert {"mon", "tue", "wed", "day <i>", "y & z"} <= set(texts(root))
    assert not list(root.iter("script"))
    assert "$x_1$" in root.find("desc").text


def test_points_lie_where_the_numbers_say():
    """The pixel of each point is an affine function of its value: read back from the path."""
    y = (1.0, 4.0, 2.5, 3.0)
    figure = Figure("line", (Series("s", (0.0, 1.0, 2.0, 3.0), y),), "x", "y")
    root = parse(figures.draw(figure, WIDE, "x"))
    line = next(
        p for p in root.iter("path") if "--c1" in p.get("style", "") and p.get("style", "").startswith("fill:none")
    )
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", line.get("d"))[1:]]
    slope = (points[1][1] - points[0][1]) / (y[1] - y[0])
    assert slope < 0  # up is more
    for (_, pixel), value in zip(points, y, strict=True):
        assert pixel == pytest.approx(points[0][1] + slope * (value - y[0]), abs=0.02)


def test_missing_values_leave_a_gap():
    figure = Figure("line", (Series("s", (0, 1, 2, 3, 4), (1.0, 2.0, math.nan, 3.0, math.inf)),), "x", "y")
    line = next(p for p in parse(figures.draw(figure, WIDE, "x")).iter("path") if "--c1" in p.get("style", ""))
    assert line.get("d").count("M") >= 1
    assert "nan" not in line.get("d")
    assert "3 points" in figures.describe(figure)


def test_errors_are_drawn():
    """Few points carry bars of the error's length, many a band."""

    def drawn(points, *errors):
        x = tuple(range(points))
        y = tuple(float(i % 3) for i in x)
        return str(figures.draw(Figure("line", (Series("s", x, y, *errors),), "x", "y"), WIDE, "x"))

    assert "fill-opacity" not in drawn(40)
    assert "fill-opacity:0.15" in drawn(40, (0.5,) * 40)
    assert "fill-opacity" not in drawn(3, (0.5,) * 3)
    root = parse(drawn(3, (0.5, 1.0, 1.5)))
    bars = [p.get("d") for p in root.iter("path") if "stroke-width:1.2" in p.get("style", "")]
    lengths = [abs(float(end.split()[1]) - float(start.split()[1])) for start, end in (d[1:].split("L") for d in bars)]
    assert lengths == pytest.approx([lengths[0], 2 * lengths[0], 3 * lengths[0]], rel=1e-3)


@pytest.mark.parametrize("log", [False, True])
@settings(max_examples=12, deadline=None)
@example(values=[1.0, 5e-324])
@given(values=st.lists(st.floats(-1e12, 1e12), min_size=1, max_size=6))
def test_no_numbers_break_a_chart(log, values):
    figure = Figure("line", (Series("s", tuple(range(len(values))), tuple(values)),), "x", "y", x_log=log, y_log=log)
    parse(figures.draw(figure, NARROW, "x"))


@pytest.mark.parametrize(
    ("locations", "log", "labels"),
    [
        ([0, 0.5, 1.0], False, ["0.0", "0.5", "1.0"]),
        ([-2, 0, 2], False, ["−2", "0", "2"]),
        ([0, 5000, 10000], False, ["0", "5,000", "10,000"]),
        ([0, 1e6, 2e6], False, ["0", "1M", "2M"]),
        ([0.25, 0.5], False, ["0.25", "0.50"]),
        ([1e-8, 1e-4, 1, 100], True, ["10⁻⁸", "10⁻⁴", "1", "100"]),
    ],
)
def test_tick_labels(locations, log, labels):
    assert charts.tick_labels(locations, log) == labels


def test_ticks_stand_at_the_datas_own_few_values():
    figure = Figure("line", (Series("s", (1, 2, 4, 8), (1.0, 2.0, 3.0, 4.0)),), "N", "loss")
    assert {"1", "2", "4", "8"} <= set(texts(parse(figures.draw(figure, WIDE, "x"))))


def test_long_category_names_lie_beside_sideways_bars():
    shown = texts(parse(figures.draw(FIGURES[4], NARROW, "x")))
    assert "greedy" in shown
    assert "temperature, τ=0.7" in shown
    assert not re.search("rotate", str(figures.draw(FIGURES[4], NARROW, "x")))


def test_legends_name_every_mark():
    names = [entry.name for entry in figures.legend(FIGURES[0])]
    assert names == ["small", "medium", "large", "uniform model, ln V"]
    assert figures.legend(Figure("bar", (Series("count", ("a",), (1.0,)),), "x", "count")) == ()


def test_a_file_of_its_own_carries_its_colours():
    text = figures.standalone(FIGURES[0])
    root = parse(text)
    assert "var(" not in text
    assert PALETTE[0] in text
    assert {"small", "medium", "large"} <= set(texts(root))


def test_a_cloud_of_very_many_points_is_thinned():
    many = tuple(float(i) for i in range(20_000))
    root = parse(figures.draw(Figure("scatter", (Series("s", many, many),), "x", "y"), WIDE, "x"))
    assert charts.MOST_POINTS / 2 < len(list(root.iter("use"))) <= charts.MOST_POINTS


# --- Matrices ------------------------------------------------------------------------------------------------


def test_a_cell_is_as_strong_as_its_value():
    heatmap = Heatmap(((0.0, 1.0), (2.0, 4.0)), "x", "y")
    cells = [r for r in parse(heatmaps.draw(heatmap, "x")).iter("rect") if r.get("fill-opacity")]
    assert [float(cell.get("fill-opacity")) for cell in cells] == [0.0, 0.25, 0.5, 1.0]
    assert [cell.find("title").text for cell in cells] == ["0, 0: 0", "0, 1: 1", "1, 0: 2", "1, 1: 4"]


def test_signs_have_colours_of_their_own():
    heatmap = Heatmap(((-2.0, 0.0), (1.0, None)), "x", "y", diverging=True)
    cells = [r for r in parse(heatmaps.draw(heatmap, "x")).iter("rect") if r.get("fill-opacity")]
    assert [(c.get("class"), float(c.get("fill-opacity"))) for c in cells] == [
        ("heat-n", 1),
        ("heat-p", 0),
        ("heat-p", 0.5),
    ]


def test_masked_cells_stay_bare():
    root = parse(heatmaps.draw(sample.heatmaps()[0], "x"))
    assert len([r for r in root.iter("rect") if r.get("fill-opacity")]) == 36
    assert "28 cells masked" in root.find("desc").text


def test_annotations_are_the_values():
    shown = texts(parse(heatmaps.draw(Heatmap(((0.5, None), (0.125, 1.0)), "x", "y", annotate=True), "x")))
    assert {"0.50", "0.12", "1.00"} <= set(shown)
    assert {"0", "7"} <= set(texts(parse(heatmaps.draw(Heatmap(((0.0, 7.0),), "x", "y", annotate=True), "x"))))


def test_large_matrices_are_images_of_their_opacities():
    values = tuple(tuple(float(i * 50 + j) if i != j else None for j in range(50)) for i in range(50))
    root = parse(heatmaps.draw(Heatmap(values, "x", "y"), "x"))
    paper, ink = (image.get("href").partition("base64,")[2] for image in root.iter("image"))
    there = Image.open(io.BytesIO(base64.b64decode(paper)))
    shades = Image.open(io.BytesIO(base64.b64decode(ink)))
    assert (shades.size, shades.mode) == ((50, 50), "L")
    assert there.getpixel((3, 3)) == 0
    assert there.getpixel((3, 4)) == 255
    for i, j in ((0, 1), (20, 30), (49, 0)):
        low, high = 1.0, 2498.0
        assert shades.getpixel((j, i)) == round(255 * (values[i][j] - low) / (high - low))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.lists(st.one_of(st.none(), st.floats()), min_size=3, max_size=3), min_size=1, max_size=4), st.booleans()
)
def test_no_numbers_break_a_matrix(rows, flag):
    heatmap = Heatmap(tuple(map(tuple, rows)), "x", "y", "c", ("a<b", "b", "c"), diverging=flag, annotate=flag)
    parse(heatmaps.draw(heatmap, "x"))
