"""Exercises that read a pretrained model in bf16 where that pays: what is exact holds there, too."""

import pytest

from flows.execution.graph import load_exercises
from tests.exercise_context import answered, assert_sound, make_context, measured


@pytest.mark.parametrize("exercise_id", ["21.9", "21.17", "21.18", "21.19", "21.29"])
def test_exact_checks_hold(exercise_id: str) -> None:
    [exercise] = load_exercises((exercise_id,))
    context = make_context(exercise, pretrained="llama")
    context.precision = "bf16"
    assert_sound(exercise, answered(exercise, measured(exercise, context)))


def test_a_perplexity_hardly_depends_on_the_precision() -> None:
    [exercise] = load_exercises(("21.9",))
    found = []
    for precision in ("fp32", "bf16"):
        context = make_context(exercise, pretrained="llama")
        context.precision = precision
        found.append(measured(exercise, context).prose.perplexity)
    exact, rounded = found
    assert rounded == pytest.approx(exact, rel=1e-3)
    assert rounded != exact, "bf16 was not used"
