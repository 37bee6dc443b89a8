from tasks.exercises import ex31_contrastive_decoding as ex31
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    assert_sound(ex31.EXERCISE, ex31.EXERCISE.answer(make_context(ex31.EXERCISE)))


def test_matched_temperature_of_a_pure_temperature():
    """An amateur that is the expert: α = 0.5 is temperature 2, and that is what the match must find."""
    lab = ex31.prepare(make_context(ex31.EXERCISE))
    lab = ex31.Lab(**{**vars(lab), "heldout": (lab.heldout[0], lab.heldout[0])})
    found = ex31.matched(lab, ex31.Setting(ex31.BOOK, 0.5))
    assert abs(found.temperature - 2.0) < 1e-3
