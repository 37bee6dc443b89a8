"""What timed exercises do ahead, beside other steps: ``measure`` asks for the same parts, and would find the same."""

from dataclasses import replace

import pytest

from flows.execution.graph import load_exercises
from tasks.exercise import Exercise
from tasks.exercises import modules
from tests.exercise_context import make_context

AHEAD = [exercise for exercise in load_exercises(tuple(modules())) if exercise.ahead]


@pytest.mark.parametrize("exercise", AHEAD, ids=lambda exercise: exercise.id)
def test_measure_finds_what_was_done_ahead(exercise: Exercise) -> None:
    assert exercise.ahead
    before, whole = make_context(exercise), make_context(exercise)
    exercise.ahead(before)
    exercise.measure(whole)
    assert before.parts.keys() == whole.parts.keys(), "a part of another name is found twice, or by nobody"
    assert before.parts, "nothing is done ahead"
    assert before.parts == whole.parts, "parts depend on what is measured before them"


def test_measure_takes_what_was_found_and_finds_it_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the parts passes from one process to the other."""
    exercise = exercise_22()
    assert exercise.ahead
    before, after = make_context(exercise), make_context(exercise)
    exercise.ahead(before)
    monkeypatch.setattr(after, "once", lambda name, compute: before.parts[name])
    untimed = [
        [(run.rescored, run.texts, run.craft) for run in exercise.measure(context).runs.values()]
        for context in (after, make_context(exercise))
    ]
    assert untimed[0] == untimed[1]


def test_only_timed_exercises_do_anything_ahead() -> None:
    with pytest.raises(ValueError, match=r"exercise 21\.22: ahead is for timed exercises"):
        replace(exercise_22(), timed=False)


def test_what_is_done_ahead_has_an_expected_duration_at_each_profile() -> None:
    with pytest.raises(ValueError, match=r"exercise 21\.22: seconds_ahead must name the profiles of seconds"):
        replace(exercise_22(), seconds_ahead={"smoke": 1.0})


def exercise_22() -> Exercise:
    """One of those that do something ahead."""
    [found] = load_exercises(("21.22",))
    return found
