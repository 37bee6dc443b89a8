"""Editions: a page per exercise, folded or without answers, to share; their links lead somewhere."""

import re
from dataclasses import replace

import pytest

from reports import page
from reports.chapter import CHAPTER, QUESTIONS
from reports.run import RunInfo
from reports.story.editions import WHOLE, Edition, relocated
from reports.types import Provenance, Result
from reports.write import write_outputs
from tests.reports import sample
from tests.reports.test_blocks import Page
from tests.reports.test_page import words

RESULTS = sample.results()


@pytest.fixture(scope="module")
def split(cache) -> dict[str, str]:
    return page.pages(CHAPTER, RESULTS, sample.RUN, sections_cache=cache, edition=Edition(split=True), others=(WHOLE,))


def render(cache, **edition) -> str:
    return page.render(CHAPTER, RESULTS, sample.RUN, sections_cache=cache, edition=Edition(**edition))


def ids(html: str) -> set[str]:
    return {value for _, name, value in Page(html.replace("<!doctype html>", "")).attributes if name == "id"}


def test_a_page_per_exercise_and_an_index(split):
    assert set(split) == {"index.html", *(f"{id}.html" for id in QUESTIONS)}
    for name, html in split.items():
        assert html.count('<section class="exercise') == (0 if name == "index.html" else 1)
    assert "What we found" in split["index.html"]
    assert "What we found" not in split["21.01.html"]
    assert split["21.02.html"].count('class="block block-heatmap"') == 3


def test_every_link_of_a_split_edition_leads_somewhere(split):
    places = {name: ids(html) for name, html in split.items()}
    for name, html in split.items():
        for link in re.findall(r'href="([^"]*)"', html):
            if link.startswith(("http", "data:")) or link == "../report.html":
                continue
            page_name, _, place = link.partition("#")
            assert place in places[page_name or name], (name, link)
    assert '<a rel="prev" href="21.01.html#ex-21-01">' in split["21.02.html"]


def test_links_within_a_page_stay():
    assert relocated('href="#ex-21-04-a-0" href="#ref-x-2020"', "21.04") == (
        'href="#ex-21-04-a-0" href="index.html#ref-x-2020"'
    )
    assert relocated('href="#top" href="#ex-21-04"') == 'href="#top" href="21.04.html#ex-21-04"'
    assert relocated('href="#main" href="#plateau"', "21.04") == 'href="#main" href="index.html#plateau"'
    assert relocated("plain #ex-21-04 text") == "plain #ex-21-04 text"


def test_what_is_shared_leads_to_no_machine(cache):
    shared = render(cache, share=True)
    for private in ("127.0.0.1", "outputs/models", sample.PROVENANCE.mlflow_run_id, "aaaa-bbbb"):
        assert private in render(cache)
        assert private not in shared
    assert "https://arxiv.org/abs/1706.03762" in shared
    assert "1.62345678901234" in shared


def test_local_links_are_marked(cache):
    local = re.findall(r"<a[^>]*127\.0\.0\.1[^>]*>", render(cache))
    assert local
    assert all('class="local"' in link for link in local)
    remote = replace(sample.RUN, links={"MLflow": "https://mlflow.example.org"})
    assert '<a href="https://mlflow.example.org">' in page.render(CHAPTER, RESULTS, remote, sections_cache=cache)


def test_questions_only(cache):
    html = render(cache, answers="none")
    text = words(html)
    assert all(question.title in text for question in QUESTIONS.values())
    for answer in ("Six conditional distributions", "Three sizes, one data set", "What we found", "1.62345678901234"):
        assert answer in words(render(cache))
        assert answer not in text


def test_folded_answers_are_there_and_closed(cache):
    html = render(cache, answers="folded")
    assert html.count('<details class="answer">') == len(RESULTS)
    assert "What we found" not in html
    folded = r'<details class="answer">.*?(?=<section class="exercise|<section class="references)'
    outside = re.sub(folded, "", html, flags=re.DOTALL)
    assert "Six conditional distributions" not in outside
    assert "Six conditional distributions" in html


def test_editions_are_written_beside_the_report_and_linked(cache, tmp_path):
    wanted = (Edition(split=True), Edition(share=True), Edition(answers="folded"))
    folder = write_outputs(tmp_path / "run", RESULTS, sample.RUN, sections_cache=cache, editions=wanted)
    for edition in wanted:
        assert (folder / edition.entry).is_file()
        assert f'href="{edition.entry}"' in (folder / "report.html").read_text()
    assert (folder / "report" / "21.22.html").is_file()
    assert 'href="../report.html"' in (folder / "report" / "index.html").read_text()
    assert 'href="report.html"' not in (folder / "report-share.html").read_text()


def test_names_of_editions_differ():
    every = [Edition(s, a, h) for s in (False, True) for a in ("shown", "folded", "none") for h in (False, True)]
    assert len({edition.entry for edition in every}) == len({edition.title for edition in every}) == len(every)


def test_a_page_to_share_has_no_paths_of_this_machine() -> None:
    """``chapter report --share``: "leave out links to, and paths on, this machine"."""
    error = 'Traceback (most recent call last):\n  File "/home/ann/chapter/tasks/steps.py", line 1\nValueError: no'
    run = RunInfo("smoke", command="chapter run --profile smoke --corpus /home/ann/thesis.txt")
    result = Result("21.1", "Factorization", "failed", Provenance(profile="smoke"), error=error)
    html = page.render(results=[result], run=run, edition=Edition(share=True))
    assert [text for text in ("/home/ann/thesis.txt", "/home/ann/chapter") if text in html] == []
    assert "…/thesis.txt" in html
