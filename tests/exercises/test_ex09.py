import pytest

from tasks.exercises import ex09_perplexity as ex09
from tests.exercise_context import assert_sound, make_context
from tests.exercises.formulas import assert_formulas


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    answer = ex09.EXERCISE.answer(make_context(ex09.EXERCISE, pretrained=architecture))
    assert_sound(ex09.EXERCISE, answer)
    assert_formulas(answer)
    assert answer.metrics["cross_entropy_at_perplexity_25_nats"] == pytest.approx(3.2188758, abs=1e-7)
    assert answer.metrics["perplexity_uniform_50000"] == pytest.approx(50_000, rel=1e-9)


def test_references_know_no_language():
    frequencies, packed = ex09.references("ab" * 5_000)
    assert frequencies == pytest.approx(1)
    assert packed < 0.1
