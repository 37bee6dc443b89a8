"""Words explained once: linked where an exercise first uses them, and nowhere else."""

import re
from pathlib import Path

import pytest

from reports import page
from reports.beside.glossary import Term, linked, parse, terms
from reports.chapter import QUESTIONS
from reports.types import Check, Code, Part, Prose, Provenance, Result, Sample, Table, TokenScores
from tests.reports.test_page import words

ROOT = Path(__file__).parent.parent.parent.parent
PLATEAU = Term("Plateau", ("plateau", "plateaus"), "Flat.")
WELCH = Term("Welch's interval", ("Welch's interval", "95% interval"), "Wide.")
EXACT = Term("Exact", ("exact check",), "Must hold.", label="exact")
KNOWN = (PLATEAU, WELCH, EXACT)


def targets(html: str) -> list[tuple[str, str]]:
    return re.findall(r'<a class="term" href="#([\w-]+)">([^<]*)</a>', html)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<p>A plateau, and a plateau.</p>", [("read-plateau", "plateau")]),
        ("<p>Plateaus\nend.</p><p>A plateau.</p>", [("read-plateau", "Plateaus")]),
        ("<p>Welch&#39;s interval</p>", [("read-welch-s-interval", "Welch&#39;s interval")]),
        ("<p>Welch’s\ninterval</p>", [("read-welch-s-interval", "Welch’s\ninterval")]),
        ("<p>plateauing, un-plateau, plateau-like</p>", []),
        ("plateau <div>plateau</div>", []),
        ("<li><b>plateau</b></li>", [("read-plateau", "plateau")]),
        ("<p><code>plateau</code> <a href='#x'>plateau</a> plateau</p>", [("read-plateau", "plateau")]),
        ("<pre>plateau</pre><table><tr><td><p>plateau</p></td></tr></table>", []),
        ('<p title="a plateau">x</p><svg><text><p>plateau</p></text></svg><h3>plateau</h3>', []),
        ('<details class="question" open><p>plateau</p></details><p>plateau</p>', [("read-plateau", "plateau")]),
        ('<p class="tokens"><span>plateau</span></p>', []),
        ("<p>It is exact.</p>", []),
        ("<p>an exact check</p>", [("read-exact", "exact check")]),
        ('<li>it <span class="kind">exact</span></li>', [("read-exact", "exact")]),
        ("<p>one<br>two <img src='x'/> plateau</p>", [("read-plateau", "plateau")]),
    ],
)
def test_links_stand_where_they_help(html: str, expected: list[tuple[str, str]]) -> None:
    found = str(linked(html, KNOWN))
    assert targets(found) == expected
    assert re.sub(r'<a class="term"[^>]*>(.*?)</a>', r"\1", found, flags=re.DOTALL) == html, "nothing else is changed"


def test_links_may_lead_to_another_page() -> None:
    assert '<a class="term" href="index.html#read-plateau">' in linked("<p>plateau</p>", KNOWN, page="index.html")


@pytest.mark.parametrize(
    "text",
    ["## A\n\nNo words.", "## A\n\nwords: x\n\n", "## A\n\nwords: x\n\nOne.\n\n## B\n\nwords: X\n\nTwo."],
    ids=["no words", "no explanation", "a word for two"],
)
def test_terms_that_explain_nothing_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"words that lead to two|needs a line"):
        parse(text)


def result(*blocks: object, **fields: object) -> Result:
    return Result("21.1", "t", "ok", Provenance("smoke"), parts=(Part("", blocks),), **fields)  # type: ignore[arg-type]


def test_a_section_is_linked_once_per_term_in_its_order() -> None:
    blocks = (
        Prose("The loss stays on a plateau (95% interval −0.1 to 0.2). Then the plateau ends; `plateau`."),
        Sample("Text", "a plateau", "the plateau"),
        Code("plateau"),
        TokenScores(("plateau", " baseline"), (1.0, 2.0), "loss"),
        Table(("plateau",), (("baseline",),), "Rows against the baseline. Explained."),
    )
    checks = (Check.equal("a", 1, 1), Check.equal("b", 1, 1), Check.at_least("c", 1, 0, "empirical"))
    html = str(page.section(QUESTIONS["21.1"], result(*blocks, checks=checks)))
    assert targets(html) == [
        ("read-plateau", "plateau"),
        ("read-95-interval", "95% interval"),
        ("read-baseline", "baseline"),
        ("read-exact", "exact"),
        ("read-empirical", "empirical"),
    ]


def test_every_link_leads_to_its_explanation() -> None:
    html = page.render(results=[result(Prose("A plateau."), checks=(Check.equal("a", 1, 1),))])
    reading = html[html.index('id="how-to-read"') : html.index('<section class="exercise')]
    for term in terms():
        assert f'<dt id="{term.anchor}">{term.name.replace(chr(39), "&#39;")}</dt>' in reading
    assert {anchor for anchor, _ in targets(html)} == {"read-plateau", "read-exact"}
    assert "n−1" in words(reading).replace(" ", "")  # formulas in explanations are formulas


def test_every_term_is_a_word_that_the_project_uses() -> None:
    """An explanation of a word that nothing says any more is dead weight."""
    said = " ".join(
        path.read_text(encoding="utf-8")
        for pattern in ("tasks/**/*.py", "tasks/**/answer.md", "reports/*.py", "reports/templates/*.html")
        for path in ROOT.glob(pattern)
    ).lower()
    said = " ".join(said.split())
    for term in terms():
        assert any(word.lower() in said for word in (*term.words, term.label) if word), term.name
