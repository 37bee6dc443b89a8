"""The whole page: complete, self-contained, safe, the same every time."""

import base64
import hashlib
import html as markup
import os
import re
from dataclasses import replace

import pytest

from reports import page, write
from reports.cache import DirectoryCache, key
from reports.chapter import CHAPTER, QUESTIONS
from reports.run import Machine, RunInfo, Score
from reports.types import Check, Details, Part, Prose, Result, Table, TokenScores
from tests.reports import sample
from tests.reports.test_blocks import Page


def words(text: str) -> str:
    return " ".join(markup.unescape(re.sub(r"<[^>]+>", " ", text)).split())


def section(html: str, identifier: str) -> str:
    start = html.index('<section class="exercise', html.index(f'id="ex-{identifier}"') - 60)
    return html[start : html.find('<section class="exercise', start + 10)]


def test_it_nests_and_its_ids_are_unique(html):
    parsed = Page(html.replace("<!doctype html>", ""))
    ids = [value for _, name, value in parsed.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    fragments = {value[1:] for _, name, value in parsed.attributes if name == "href" and value.startswith("#")}
    labels = {
        part
        for _, name, value in parsed.attributes
        if name in ("aria-labelledby", "aria-controls", "for")
        for part in value.split()
    }
    assert fragments | labels <= set(ids)


def test_it_asks_the_network_for_nothing(html):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe-inline" not in policy.split("style-src")[0]
    for _, name, value in Page(html).attributes:
        if name in ("src", "srcset", "poster", "data"):
            raise AssertionError(value)
        if name == "href":
            assert value.startswith(("#", "data:", "http://127.0.0.1", "https://arxiv.org"))
    assert not re.search(r"@import|url\((?!#|data:)", re.search(r"<style>(.*?)</style>", html, re.DOTALL)[1])


def test_the_policy_names_the_one_script_that_runs(html):
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html
    assert all('type="application/json"' in tag for tag in re.findall(r"<script [^>]*>", html))


def test_every_exercise_is_there_with_its_question(html):
    for question in QUESTIONS.values():
        text = words(re.sub(r'<a class="cite"[^>]*>(.*?)</a>', r"\1", section(html, question.id.replace(".", "-"))))
        assert question.title in text
        for wording in (question.stem, *question.parts.values(), question.closing):
            if "$" not in wording:
                plain = " ".join(line.removeprefix("- ") for line in wording.splitlines())
                assert " ".join(plain.split()) in text


def test_the_score_is_counted():
    results = sample.results()
    score = Score.of(results, len(QUESTIONS))
    exact = sum(check.kind == "exact" for result in results for check in result.checks)
    assert (score.answered, score.failed, score.total, score.exact, score.exact_held) == (
        6,
        1,
        len(QUESTIONS),
        exact,
        exact,
    )
    assert score.empirical_confirmed == score.empirical / 2
    assert score.sentence == (
        f"6 of {len(QUESTIONS)} exercises answered, 1 failed; exact checks {exact} of {exact} hold; "
        "empirical 5 of 10 confirmed"
    )


def test_the_top_says_what_was_run(html):
    top = words(html[: html.index('class="overview"')])
    for fact in (
        f"6 of {len(QUESTIONS)} exercises answered, 1 failed",
        "laptop",
        "public domain",
        "23.4 GiB",
        "80 models trained",
        "28 min 32 s",
    ):
        assert fact in top
    assert "2026-11-24 03:30 UTC" in top
    assert sample.RUN.command in top
    assert "javascript:" not in html.split("<script>")[0]


def test_a_failed_exercise_keeps_its_traceback_and_the_others_stay(html):
    failed = section(html, "21-27")
    assert "This exercise failed" in failed
    assert "γ &lt;must&gt; be positive" in failed
    assert "Six conditional distributions" in words(section(html, "21-01"))


def test_a_block_that_cannot_be_drawn_costs_itself_alone(tmp_path):
    broken = TokenScores(("a", "b", "c"), (1.0,), "loss")  # three tokens, one score
    result = Result("21.1", "t", "ok", sample.PROVENANCE, parts=(Part("", (Prose("before"), broken, Prose("after"))),))
    text = words(page.render(results=[result, sample.results()[5]], sections_cache=DirectoryCache(tmp_path)))
    assert "before A block could not be drawn (token scores)" in text
    assert "zip() argument 2 is shorter" in text
    assert "after" in text
    assert len(list(tmp_path.iterdir())) == 1  # of the other exercise: what failed is not remembered


def test_exercises_not_run_say_how_to_run_them(html):
    assert "chapter run --only 21.35" in section(html, "21-35")
    assert html.count('class="badge not-run">not run') == 2 * (len(QUESTIONS) - 7)  # in the overview and at its place


def test_checks_show_verdict_measured_and_bound():
    checks = (
        Check.at_most("near <b>", 2e-7, 1e-5),
        Check.at_most("far", 1.0, 1e-5),
        Check.at_least("predicted", 2.0, 1.0, "empirical"),
        Check.at_least("refuted", 0.0, 1.0, "empirical"),
    )
    text = page.section(QUESTIONS["21.1"], Result("21.1", "t", "ok", sample.PROVENANCE, checks=checks))
    shown = words(text)
    for line in (
        "holds near <b> measured 2×10⁻⁷ bound ≤ 1×10⁻⁵ exact",
        "does not hold far measured 1 bound ≤ 1×10⁻⁵ exact",
        "confirmed predicted measured 2 expected ≥ 1 empirical",
        "not confirmed refuted measured 0 expected ≥ 1 empirical",
    ):
        assert line in shown


def test_an_unanswered_part_is_said_to_be():
    result = Result("21.2", "t", "ok", sample.PROVENANCE, parts=(Part("a", (Prose("x"),)), Part("c", (Prose("y"),))))
    text = str(page.section(QUESTIONS["21.2"], result))
    assert text.count("This part has no answer.") == 2
    letters = re.findall(r'<h3><a [^>]*><span class="letter">\((\w)\)', text)
    assert letters == ["a", "b", "c", "d"]


def test_metrics_and_provenance_are_complete(html):
    text = words(section(html, "21-01"))
    for fact in (
        "1.62345678901234",
        "124439808",
        "9f2c1ab0e4d7",
        "b4abc9e",
        "CPU, 2 threads",
        "Intel Xeon, 2 cores",
        "0, 1, 2",
        "Apache-2.0",
    ):
        assert fact in text
    assert 'href="http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef"' in html
    assert 'href="http://127.0.0.1:4200/runs/flow-run/aaaa-bbbb"' in html


def test_the_page_depends_on_its_arguments_alone(html, tmp_path):
    again = page.render(results=sample.results(), run=sample.RUN, sections_cache=DirectoryCache(tmp_path))
    assert again == html
    assert (
        page.render(results=tuple(reversed(sample.results())), run=sample.RUN, sections_cache=DirectoryCache(tmp_path))
        == html
    )


def test_an_empty_run_is_a_page_too():
    text = page.render()
    Page(text.replace("<!doctype html>", ""))
    assert f"0 of {len(QUESTIONS)}" in words(text)
    assert page.render(results=(), run=RunInfo("smoke", machine=Machine()))


def test_two_results_of_one_exercise_are_refused():
    result = sample.results()[0]
    with pytest.raises(ValueError, match=r"two results for exercise 21\.01"):
        page.render(results=(result, replace(result, id="21.01")))
    with pytest.raises(ValueError, match=r"no question for exercise 21\.40"):
        page.render(results=(replace(result, id="21.40"),))


# --- The cache -----------------------------------------------------------------------------------------------


def test_a_page_of_which_nothing_changed_draws_nothing(html, cache, monkeypatch):
    monkeypatch.setattr("reports.charts.to_svg", None)
    assert page.render(CHAPTER, sample.results(), sample.RUN, sections_cache=cache) == html


def test_new_links_and_times_draw_nothing(cache, html, monkeypatch):
    monkeypatch.setattr("reports.charts.to_svg", None)
    result = sample.results()[4]
    provenance = replace(result.provenance, seconds=99.0, mlflow_url="http://127.0.0.1:5999/#/x")
    rendered = page.section(QUESTIONS[result.id], replace(result, provenance=provenance), sections_cache=cache)
    assert "99 s" not in html
    assert "http://127.0.0.1:5999/#/x" in rendered
    assert "1 min 39 s" in rendered


def test_a_changed_block_is_drawn_anew(cache):
    result = replace(sample.results()[5], parts=(Part("a", (Prose("Something else."),)),))
    assert "Something else." in page.section(QUESTIONS["21.24"], result, sections_cache=cache)


def test_keys_follow_the_data_and_the_renderer(monkeypatch):
    before = key({"a": 1})
    assert key({"a": 1}) == before
    assert key({"a": 2}) != before
    monkeypatch.setattr("reports.cache.renderer_digest", lambda: "another")
    assert key({"a": 1}) != before


def test_a_damaged_or_missing_file_is_made_again(tmp_path):
    cache = DirectoryCache(tmp_path / "deep" / "er")
    assert cache("k", lambda: "é") == "é"
    assert cache("k", lambda: "never called") == "é"
    (tmp_path / "deep" / "er" / "k.html").write_bytes(b"\xff\xfe\xff")
    assert cache("k", lambda: "again") == "again"
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["k.html"]


def test_old_files_are_pruned(tmp_path):
    cache = DirectoryCache(tmp_path, most=2)
    for age, name in enumerate("abc"):
        cache(name, lambda: "x")
        os.utime(tmp_path / f"{name}.html", (age, age))
    cache("a", lambda: "never called")  # used: the newest now
    assert cache.prune() == 1
    assert {path.stem for path in tmp_path.iterdir()} == {"a", "c"}


def test_details_are_folded_and_their_tables_are_found():
    inner = Table(("n",), ((1,),), "numbers", "inner")
    folded = Details("Why <b> and $x^2$", (Prose("Because."), inner))
    result = Result("21.1", "t", "ok", sample.PROVENANCE, parts=(Part("", (Prose("Seen."), folded)),))
    text = section(page.render(results=[result]), "21-01")
    assert '<details class="block folded">' in text
    assert "Why &lt;b&gt;" in text
    assert "<math" in text
    assert text.index("Seen.") < text.index("<summary>Why") < text.index("Because.")
    assert list(write.tables(result)) == ["21.01-inner"]
