import pytest

from tasks.exercises import ex35_knowledge_distillation as ex35
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex35.EXERCISE.answer(make_context(ex35.EXERCISE))
    assert_sound(ex35.EXERCISE, answer)
    assert answer.metrics["step_ms_distilled_2"] > answer.metrics["step_ms_student"]


@pytest.mark.parametrize("steps", ["lower", "higher", "noise", "one seed"])
@pytest.mark.parametrize("time", ["lower", "higher", "noise", "one seed"])
def test_every_outcome_has_its_lesson(steps, time):
    said = ex35.lesson(steps, time)
    assert said.endswith(".")
    assert ("Contrary" in said) == (steps in ("higher", "noise"))
