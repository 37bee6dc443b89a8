from tasks.exercises import ex34_quantization as ex34
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex34.EXERCISE.answer(make_context(ex34.EXERCISE))
    assert_sound(ex34.EXERCISE, answer)
    assert answer.metrics["file_mib_int8"] < 0.5 * answer.metrics["file_mib_fp32"]


def test_noticeable_means_from_there_on_down():
    def first(*ratios: float) -> int | None:
        return ex34.Curve("", "", 10.0, {"m": tuple(10.0 * r for r in ratios)}).first_noticed("m")

    assert first(1.0, 1.0, 1.0, 1.01, 1.03, 1.5, 9.0) == 4
    assert first(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) is None
    assert first(1.03, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0) == 2  # a bump at 8 bits is noise
    assert first(2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0) == 8
