"""21.30: what a prefix model pays for is shown by the control beside the causal model, and not by noise."""

from types import SimpleNamespace as Any

import pytest

from minigpt.evaluation.statistics import compare_paired
from tasks.exercises.ex30_prefix_language_model.answer import fewer_targets
from tests.exercises.test_conclusions import said

FOLDER = "ex30_prefix_language_model"
CAUSAL, PREFIX = (2.0, 2.01, 2.02), (2.1, 2.111, 2.119)
NEAR = (1.97, 2.08, 2.14)  # in the noise beside both
FEWER = (2.11, 2.101, 2.121)  # beside the prefix model only


def losses(control, causal=CAUSAL, prefix=PREFIX, bigram=3.0):
    """Findings as far as the three models at half of the context go."""
    read = {"causal model": {32: causal}, "control": {32: control}, "prefix model": {32: prefix}}
    return Any(
        half=32,
        losses=read,
        rows=[Any(baselines=Any(bigram=bigram))],
        against_causal=compare_paired(causal, prefix),
        against_control=compare_paired(control, prefix),
    )


def told(first, last, f):
    names = {"f": f, "fewer": fewer_targets(f), "quantity": "suffix loss", "show": lambda name: ""}
    return said(FOLDER, first, last, **names)


@pytest.mark.parametrize(("control", "claimed"), [(NEAR, False), (FEWER, True)])
def test_what_a_prefix_model_pays_for_was_tested(control, claimed):
    f = losses(control)
    assert (f.against_causal.verdict, f.against_control.verdict) == ("higher", "noise")
    text = told("{{ f.against_causal | describe", '{{ show("losses") }}', f)
    assert ("what the prefix model pays for is its fewer targets" in text) == claimed
    assert "The suffix loss of the control" in text
    missed = told("{% if f.against_causal.verdict", "{% endif %}\n{% endif %}", f)
    assert ("so they are what it pays for" in missed or "are a likely reason" in missed) == claimed


@pytest.mark.parametrize(
    ("control", "causal", "prefix", "expected", "not_said"),
    [
        (PREFIX, CAUSAL, NEAR, "So the missing targets cost something", "neither the open prefix"),
        ((2.3, 2.311, 2.319), (2.1, 2.6, 2.3), PREFIX, "the seeds do not show", "makes up for the missing targets"),
        ((2.3, 2.311, 2.319), CAUSAL, (1.97, 2.08, 2.04), "makes up for the missing targets, as far", "do not show"),
    ],
)
def test_missing_targets_that_cost_are_told_from_those_that_may_not(control, causal, prefix, expected, not_said):
    f = losses(control, causal, prefix)
    assert f.against_causal.verdict == "noise"
    text = told("{{ f.against_causal | describe", '{{ show("losses") }}', f)
    assert expected in text
    assert not_said not in text


def test_models_that_do_not_beat_the_bigram_say_nothing_of_targets():
    assert fewer_targets(losses(FEWER, bigram=2.05)).verdict == "untrained"
    assert fewer_targets(losses(FEWER)).verdict == "higher"


@pytest.mark.parametrize(
    ("little", "all_", "of_noise"),
    [
        ((0.3,), (0.31,), False),
        ((0.3, 0.32, 0.31), (0.31, 0.3, 0.32), True),
        ((0.3, 0.32, 0.31), (0.2, 0.22, 0.209), False),
        ((0.2, 0.22, 0.209), (0.3, 0.32, 0.31), False),
    ],
)
def test_one_seed_does_not_show_what_completes_a_word(little, all_, of_noise):
    words = Any(after_all={"causal": all_}, paragraph=lambda label: compare_paired(little, all_))
    text = said(FOLDER, "{% set shares", "{% endif %}", w=words, chosen=compare_paired(all_, all_))
    assert "it is the last letters that complete a word" not in text
    assert ("is not shown here" in text) == of_noise


@pytest.mark.parametrize(("prefix", "told_apart"), [((0.01, 0.011, 0.012), False), ((0.02, 0.021, 0.022), True)])
def test_few_words_may_tell_readings_apart(prefix, told_apart):
    causal = (0.011, 0.01, 0.012)
    words = Any(after_all={"causal": causal}, paragraph=lambda label: compare_paired(causal, causal))
    text = said(FOLDER, "{% set shares", "{% endif %}", w=words, chosen=compare_paired(causal, prefix))
    assert ("cannot tell one reading from the other" in text) != told_apart


CHOICES = (0.308, 0.317, 0.325)


@pytest.mark.parametrize(
    ("prefix", "windows", "expected"),
    [
        ((0.333, 0.342, 0.351), 120, "That is a matter of 3 cases, and other cases may decide otherwise."),
        ((0.333, 0.342, 0.351), 1000, ""),
        (CHOICES, 120, ""),
    ],
)
def test_a_choice_of_few_cases_is_called_so(prefix, windows, expected):
    f = Any(chosen=compare_paired(CHOICES, prefix), windows=windows)
    assert said(FOLDER, "{% set cases", "{% endif %}", f=f) == expected


@pytest.mark.parametrize(
    ("guessing", "expected"),
    [
        ([], ""),
        (["the causal model"], "What the causal model gets right lies inside what guessing may give."),
        (["A", "B"], "What A and B get right lies inside what guessing may give."),
    ],
)
def test_what_guessing_may_give_is_called_so(guessing, expected):
    assert said(FOLDER, "{% if guessing %}", "{% endif %}", guessing=guessing) == expected


@pytest.mark.parametrize(
    ("opened", "expected"),
    [
        ((2.11, 2.12, 2.131), "has not learned to use"),
        (NEAR, "is not shown"),
        ((2.0, 2.01, 2.021), ""),
        ((2.1,), ""),
    ],
)
def test_an_opened_prefix_is_used_where_it_lowers_the_loss(opened, expected):
    read = compare_paired(PREFIX[: len(opened)], opened)
    text = said(FOLDER, "{% if f.opened.verdict", "{% endif %}", f=Any(opened=read))
    assert expected in text
    assert bool(text) == bool(expected)
