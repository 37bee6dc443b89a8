from tasks.exercises import ex27_speculative_decoding as ex27
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex27.EXERCISE.answer(make_context(ex27.EXERCISE))
    assert_sound(ex27.EXERCISE, answer)
    assert answer.metrics["alpha_itself"] > 0.999
    assert answer.metrics["tokens_per_pass_itself_gamma_4"] > answer.metrics["tokens_per_pass_untrained_gamma_4"]
