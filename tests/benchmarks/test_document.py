"""docs/performance.md keeps what is not measured anew, and says of each row which run it is from."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from reports.types import Figure, Series
from tests.benchmarks import __main__ as umbrella
from tests.benchmarks.document import BEGIN, END, Page, replaced
from tests.benchmarks.goals import GOALS
from tests.benchmarks.interleaving import Spread
from tests.benchmarks.table import Failed, Measured, Row

FIRST, SECOND = GOALS[0], GOALS[1]
PARTS = ("machine", "table", *(f"figure {name}" for name in umbrella.GROWTH))
MACHINE = {
    "cpu": "A processor",
    "instructions": [],
    "cores": 2,
    "threads": 2,
    "load": 0.0,
    "torch": "2",
    "python": "3",
    "commit": "aaa1111",
    "date": "2026-01-02T03:04:05+00:00",
    "gflops": {},
    "read_gbytes": {},
}
LATER = MACHINE | {"commit": "bbb2222", "date": "2026-02-03T04:05:06+00:00", "threads": 1}
FIGURE = Figure("line", (Series("a", (1.0, 2.0), (1.0, 2.0)),), "things", "seconds", "Doing things")


def measured(ratio: float, note: str = "") -> Measured:
    return Measured(10.0 * ratio, 10.0, Spread.of([ratio, ratio]), note)


@pytest.fixture
def page(tmp_path: Path) -> Page:
    parts = "\n\n".join(f"About {part}.\n\n{BEGIN.format(part)}\nold\n{END.format(part)}" for part in PARTS)
    (tmp_path / "speed.md").write_text(f"# Speed\n\n{parts}\n\nThe end.\n")
    return Page(tmp_path / "speed.md", tmp_path / "speed")


def test_a_part_of_a_document_is_exchanged_and_the_rest_is_not() -> None:
    begin, end = BEGIN.format("table"), END.format("table")
    once = replaced(f"before\n{begin}\nold\n{end}\nafter\n", "table", "new")
    assert once == f"before\n{begin}\n\nnew\n\n{end}\nafter\n"
    assert replaced(once, "table", "new") == once
    for broken in ("nothing", f"{end}{begin}", f"{begin}{begin}{end}"):
        with pytest.raises(ValueError, match="once each"):
            replaced(broken, "table", "new")


def test_rows_that_are_not_measured_anew_stay_and_say_where_they_are_from(page: Page) -> None:
    page.renew(MACHINE, [Row.of(FIRST, measured(1.5, "a remark")), Row.of(SECOND, measured(1.25))], {})
    text = page.document.read_text()
    assert "**1.50**" in text
    assert f"- `{FIRST.name}`: a remark." in text
    assert "from another run" not in text
    page.renew(LATER, [Row.of(SECOND, measured(3.0))], {})
    text = page.document.read_text()
    assert "**1.50**" in text
    assert "**1.25**" not in text
    assert "**3.00**" in text
    note = f"- `{FIRST.name}`: a remark; from another run, of commit aaa1111 on 2026-01-02 (threads: 2)."
    assert note in text
    assert f"- `{SECOND.name}`" not in text
    assert "commit bbb2222" in text.partition("About table")[0], "the machine is told of the newest run"
    missing = text.partition("Not measured yet: ")[2].partition(".\n")[0]
    assert missing.split(", ") == [f"`{goal.name}`" for goal in GOALS[2:]]
    page.renew(LATER, [Row.of(FIRST, Failed("they part")), Row.of(SECOND, "no bf16 here")], {})
    assert "failed: they part" in page.document.read_text()
    assert "skipped: no bf16 here" in page.document.read_text()


def test_verdicts_are_of_todays_goals_and_rows_without_one_go(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    page.renew(MACHINE, [Row.of(FIRST, measured(1.5)), Row.of(SECOND, measured(1.25))], {})
    stricter = replace(FIRST, at_least=2.0, at_most=None)
    monkeypatch.setattr("tests.benchmarks.document.GOALS", (stricter, *GOALS[2:]))
    page.renew(LATER, [Row.of(GOALS[2], measured(1.0))], {})
    text = page.document.read_text()
    (line,) = [line for line in text.splitlines() if line.startswith(f"| `{FIRST.name}`")]
    assert line.endswith("| ≥ 2 | missed |")
    assert f"`{SECOND.name}`" not in text


def test_a_figure_is_shown_once_it_is_drawn_and_stays_when_others_are(page: Page) -> None:
    page.renew(MACHINE, [Row.of(FIRST, measured(1.5))], {})
    assert "![" not in page.document.read_text()
    before = page.document.read_text()
    page.renew(LATER, [], {"token": FIGURE})
    text = page.document.read_text()
    assert "![Doing things: seconds against things](speed/token.svg)" in text
    assert (page.folder / "token.svg").read_text().startswith("<svg")
    assert text.partition("About figure")[0] == before.partition("About figure")[0], "no row was measured"
    page.renew(LATER, [], {"workers": FIGURE})
    assert re.findall(r"\(speed/([\w-]+)\.svg\)", page.document.read_text()) == ["token", "workers"]


def test_a_document_without_a_place_is_refused_and_nothing_is_written(page: Page) -> None:
    page.document.write_text("# Speed\n")
    with pytest.raises(ValueError, match="once each"):
        page.renew(MACHINE, [Row.of(FIRST, measured(1.5))], {})
    assert page.document.read_text() == "# Speed\n"
    assert not page.folder.exists()


def test_the_page_has_a_place_for_each_part_and_shows_no_figure_that_is_not_there() -> None:
    text = umbrella.PAGE.document.read_text(encoding="utf-8")
    for part in PARTS:
        assert replaced(text, part, "x")
    for shown in re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text):
        assert (umbrella.PAGE.document.parent / shown).is_file(), shown


def test_what_is_kept_is_finite_json(page: Page) -> None:
    page.renew(MACHINE, [Row.of(FIRST, measured(1.5))], {})
    kept = json.loads((page.folder / "benchmarks.json").read_text())
    assert kept["machine"] == MACHINE
    assert kept["rows"][FIRST.name]["ours"] == 15.0
    assert kept["rows"][FIRST.name]["run"]["commit"] == "aaa1111"
