from tasks.exercises import ex31_contrastive_decoding as ex31
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    assert_sound(ex31.EXERCISE, ex31.EXERCISE.answer(make_context(ex31.EXERCISE)))


def test_matched_temperature_of_a_pure_temperature():
    """An amateur that is the expert: α = 0.5 is temperature 2, and that is what the match must find."""
    lab = ex31.prepare(make_context(ex31.EXERCISE))
    lab = ex31.Lab(**{**vars(lab), "heldout": (lab.heldout[0], (lab.heldout[0],))})
    found = ex31.matched(lab, ex31.Setting(ex31.BOOK, 0.5))
    assert abs(found.temperature - 2.0) < 1e-3


def test_the_entropy_is_the_mean_over_the_amateurs():
    lab = ex31.prepare(make_context(ex31.EXERCISE))
    expert, amateurs = lab.heldout
    other = expert.roll(1, dims=-1)
    both = ex31.Lab(**{**vars(lab), "heldout": (expert, (amateurs[0], other))})
    setting = ex31.Setting(ex31.PAPER, 0.7)
    alone = [
        ex31.heldout_entropy(ex31.Lab(**{**vars(lab), "heldout": (expert, (a,))}), setting) for a in both.heldout[1]
    ]
    assert abs(ex31.heldout_entropy(both, setting) - sum(alone) / 2) < 1e-6
    assert abs(alone[0] - alone[1]) > 1e-3
