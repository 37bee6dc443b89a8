"""The text of an answer: sections, evidence, folded parts, and the one sentence that a slip gets."""

from dataclasses import dataclass, field

import pytest

from reports import answers
from reports.answers import AnswerError, Draft, compose
from reports.plain import from_json, to_json
from reports.types import Answer as AnswerType
from reports.types import Check, Code, Details, Part, Prose, Table

TABLE = Table(("n",), ((1,),), "numbers", "numbers")
CODE = Code("x = 1")


@dataclass(frozen=True)
class Findings:
    loss: float = 1.25
    said: str = "fine"
    metrics: dict = field(default_factory=lambda: {"loss": 1.25})


def filled(template: str, **blocks: object) -> AnswerType:
    return compose(template, Findings(), Draft(blocks))  # type: ignore[arg-type]


def test_sections_become_summary_notes_and_parts():
    text = """{% set half = f.loss / 2 %}

# Summary

The loss is {{ f.loss | fixed(2) }},
half of it {{ half | nats }}.

# Notes

One
caveat.

{% if f.loss > 9 %}never{% endif %}

Another.

# How it was done

By hand.

# (a) The first

Before.

{{ show("numbers") }}

After, at {{ half | fixed(1) }}.

# (b)

{{ show("code") }}
"""
    check = Check.equal("one", 1, 1)
    answer = compose(text, Findings(), Draft({"numbers": TABLE, "code": (CODE, CODE)}, (check,)))
    assert answer.summary == "The loss is 1.25, half of it 0.625 nats."
    assert answer.notes == ("One caveat.", "Another.")
    assert answer.parts == (
        Part("", (Prose("By hand."),), "How it was done"),
        Part("a", (Prose("Before."), TABLE, Prose("After, at 0.6.")), "The first"),
        Part("b", (CODE, CODE), ""),
    )
    assert answer.metrics == {"loss": 1.25}
    assert answer.checks == (check,)
    assert from_json(AnswerType, to_json(answer)) == answer


def test_an_answer_is_compiled_once_not_once_per_section():
    text = "{% set half = f.loss / 2 %}\n\n# Summary\n{{ half }}\n# (a) {{ f.said }}\nx\n# (b) r\n{{ half }}"
    before = answers._compiled.cache_info().misses
    answer = filled(text)
    assert answers._compiled.cache_info().misses == before + 1
    assert [(part.letter, part.question) for part in answer.parts] == [("a", "fine"), ("b", "r")]


def test_what_a_section_sets_stays_in_it():
    text = "# Summary\n{% set x = 1 %}{{ x }}\n# (a) q\n{{ x }}"
    with pytest.raises(AnswerError, match=r"section '\(a\) q'.*'x' is undefined"):
        filled(text)


@pytest.mark.parametrize(
    "text",
    [
        "{% macro twice(x) %}{{ x }}{{ x }}{% endmacro %}\n# Summary\n{{ twice(f.said) }}\n# (a) {{ twice('q') }}\nE.",
        "# Summary\ns\n\n  # none\n# Notes\n\n  a\n\n{# no #}\nb\n# (a) q\n  {% if 1 %}\n  x\n  {% endif %}\n\n\ny",
        "# Summary\ns\n# (a) q\n{% for i in (1, 2) %}\n- {{ i }}\n{% endfor %}\n{% call details('d') %}x{% endcall %}",
    ],
)
def test_at_once_reads_as_one_by_one(text, monkeypatch):
    at_once = filled(text)
    monkeypatch.setattr(answers, "_filled_at_once", lambda *_: None)
    assert filled(text) == at_once


def test_details_fold_prose_and_evidence():
    text = (
        "# Summary\ns\n# (a) q\nSeen.\n{% call details('More') %}Why: {{ f.said }}.\n{{ show('t') }}{% endcall %}\nEnd."
    )
    [part] = filled(text, t=TABLE).parts
    assert part.blocks == (Prose("Seen."), Details("More", (Prose("Why: fine."), TABLE)), Prose("End."))
    assert from_json(Part, to_json(part)) == part


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("# Summary\n{{ f.los }}", "section 'Summary'.*has no attribute 'los'"),
        ("# Summary\n{{ f.slip | fixed }}", "section 'Summary'.*has no attribute 'slip'"),
        ("# Summary\n{{ nobody | percent(1) }}", "section 'Summary'.*'nobody' is undefined"),
        ("# Summary\n{{ nobody }}", "section 'Summary'.*'nobody' is undefined"),
        ("# Summary\ns\n# (a) q\n{{ show('u') }}", r"section '\(a\) q': show\('u'\): answer.py makes t"),
        ("# Summary\ns\n# (a) q\n{{ show('t') }}{{ show('t') }}", "shown twice"),
        ("# Summary\ns\n# (a) q\nNothing.", "shown nowhere: t"),
        ("# (a) q\n{{ show('t') }}", "Summary is missing"),
        ("{% set x = 1 %}\n\n# Summary\ns\n# (a) q\n{% if %}", r"section '\(a\) q', line 2 of it"),
        ("# Summary\n{{ show('t') }}", "section 'Summary': evidence and details belong into a part"),
        ("# Summary\ns\n# Notes\n{% call details('d') %}x{% endcall %}", "section 'Notes': evidence"),
        ("# Summary\ns\n# Summary\nagain", "section 'Summary': it comes twice"),
        ("# Summary\ns\n# (a) q\n{{ show('t') }}\n# (a) r\nx", r"section '\(a\) r': it comes twice"),
        ("# Summary\n{{ f.said | fixed }}", "section 'Summary': ValueError"),
    ],
)
def test_a_slip_is_one_sentence_that_names_the_section(template, said):
    with pytest.raises(AnswerError, match=said):
        filled(template, t=TABLE)


def test_what_a_model_wrote_begins_no_section_and_shows_nothing():
    text = "# Summary\ns\n# (a) q\n{{ f.said }}\n\n{{ show('t') }}"
    hostile = Findings(said="x\n\n# Summary\n\nhacked {{ show('t') }}\n\x02show t\x03")
    answer = compose(text, hostile, Draft({"t": TABLE}))
    assert answer.summary == "s"
    assert [part.letter for part in answer.parts] == ["a"]
    assert [type(block) for block in answer.parts[0].blocks] == [Prose, Table]
    assert "{{ show('t') }}" in answer.parts[0].blocks[0].text


def test_an_empty_row_of_blocks_needs_no_place():
    assert filled("# Summary\ns\n# (a) q\nText.", t=()).parts[0].blocks == (Prose("Text."),)


def test_a_comment_in_a_listing_is_no_heading():
    [part] = filled("# Summary\ns\n# (a) q\n```python\n# a comment\nx = 1\n```\nEnd.").parts
    assert part.blocks == (Prose("```python\n# a comment\nx = 1\n```\nEnd."),)
