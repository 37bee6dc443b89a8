"""Citations lead to works that can be found, and every work is cited somewhere."""

import re
from importlib import resources
from pathlib import Path

import pytest

from reports import page, prose
from reports.chapter import QUESTIONS
from reports.story.references import cited, linked, works
from reports.types import Part, Prose, Result
from tests.reports import sample

ROOT = Path(__file__).parent.parent.parent
SAID = [
    *sorted((ROOT / "tasks" / "exercises").glob("*/answer*.md")),
    *sorted((ROOT / "tasks" / "exercises").glob("*/answer*.py")),
    ROOT / "reports" / "data" / "chapter-21.md",
]
# A citation by its looks, whatever the list of works knows: "Name et al., 2020", "Name & Name (2020)", "(Name, 2020".
NAMES = r"[A-Z][\w’-]+(?:(?:, [A-Z][\w’-]+)* & [A-Z][\w’-]+|\s+et\s+al\.)"
LOOKS_CITED = re.compile(rf"{NAMES},?\s+\(?(?:19|20)\d\d|\([A-Z][a-z]+, (?:19|20)\d\d\)")


@pytest.mark.parametrize("path", SAID, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_every_citation_is_in_the_list(path):
    text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8").replace('"\n', "").replace('f"', ""))
    missing = [match[0] for match in LOOKS_CITED.finditer(text) if 'href="#ref-' not in linked(match[0])]
    assert not missing


@pytest.mark.parametrize("id", works())
def test_every_work_can_be_found(id):
    work = works()[id]
    assert re.fullmatch(r"ref-[a-z]+-\d{4}(-[a-z]+)?", id)
    assert id.split("-")[2] == str(work.year)
    assert re.fullmatch(r"\d{4}\.\d{4,5}", work.arxiv or "2000.00000")
    assert re.fullmatch(r"10\.\d{4,}/\S+", work.doi or "10.1000/x")
    assert work.address.startswith("https://")
    assert all((work.authors, work.title, work.venue, work.names))


def test_every_work_is_cited():
    files = [*SAID, *(ROOT / "minigpt").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]
    text = " ".join(path.read_text(encoding="utf-8") for path in files)
    found = {id for id, _ in cited([linked(re.sub(r"\s+", " ", text))])}
    by_number = {id for id, work in works().items() if work.arxiv and work.arxiv in text}
    assert found | by_number == set(works())


def test_citations_become_links_where_they_can():
    text = "As Hoffmann et\nal. (2022) find, larger is better (Kaplan et al., 2020, section 3.1); see exercise 21.4."
    html = str(prose.html(text))
    assert re.findall(r'href="(.*?)"', html) == ["#ref-hoffmann-2022", "#ref-kaplan-2020", "#ex-21-04"]
    assert "Kaplan et al., 2020</a>, section 3.1" in html
    for untouched in (
        "`Kaplan et al., 2020`",
        "[Kaplan et al., 2020](https://arxiv.org/abs/2001.08361)",
        "Nobody, 2020",
    ):
        assert 'class="cite"' not in prose.html(untouched)
    assert 'class="cite"' not in prose.html_inline(text)  # of headings, which are links themselves
    assert linked("<b> \u202e Kaplan et al. (2020)").startswith("&lt;b&gt; <span")


def test_the_page_ends_with_what_it_cites_and_nothing_else():
    one = Result("21.22", "t", "ok", sample.PROVENANCE, parts=(Part("a", (Prose("See Kaplan et al. (2020)."),)),))
    html = page.render(results=[one])
    listed = re.findall(r'<li id="(ref-[\w-]+)">', html)
    linked_to = set(re.findall(r'href="#(ref-[\w-]+)"', html))
    assert "ref-kaplan-2020" in listed
    assert set(listed) == linked_to
    assert "arXiv:2001.08361" in html[html.index('id="references"') :]
    assert len(QUESTIONS) > 30  # their wording cites works, too
    assert resources.files("reports").joinpath("data/references.toml").is_file()
