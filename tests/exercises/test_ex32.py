import torch

from tasks.exercises import ex32_watermarking as ex32
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex32.EXERCISE.answer(make_context(ex32.EXERCISE))
    assert_sound(ex32.EXERCISE, answer)
    found = [value for name, value in answer.metrics.items() if name.startswith("detection_rate_delta_4")]
    assert max(found) > 0.9
    assert answer.metrics["false_positive_rate_human"] < 0.05


def test_edits_change_the_share_they_should():
    lab = ex32.Lab(make_context(ex32.EXERCISE), 60, 100, 100, torch.zeros(1, 1))
    tokens = torch.full((200, 100), 59)
    assert abs((ex32.edited(lab, tokens, 0.1) != tokens).double().mean() - 0.1 * 59 / 60) < 0.01
