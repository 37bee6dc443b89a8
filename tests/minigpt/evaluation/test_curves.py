import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.evaluation.curves import mean_between, smoothed

STEPS, LOSSES = [2.0, 4.0, 5.0], [4.0, 2.0, 1.0]  # means over 2, 2 and 1 steps


def test_rows_weigh_as_many_steps_as_they_stand_for():
    assert mean_between(STEPS, LOSSES, 0, 5) == (2 * 4 + 2 * 2 + 1) / 5
    assert mean_between(STEPS, LOSSES, 2, 5) == (2 * 2 + 1) / 3
    with pytest.raises(ValueError, match="no row"):
        mean_between(STEPS, LOSSES, 5, 9)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=40), st.integers(1, 50))
def test_smoothing_keeps_the_mean_and_the_last_step(losses, points):
    steps = [float(i + 1) for i in range(len(losses))]
    ends, means = smoothed(steps, losses, points)
    assert len(ends) == len(means) <= max(points, 1)
    assert ends[-1] == steps[-1]
    widths = [end - before for before, end in zip([0.0, *ends[:-1]], ends, strict=True)]
    mean = sum(w * m for w, m in zip(widths, means, strict=True)) / steps[-1]
    assert mean == pytest.approx(sum(losses) / len(losses))


def test_enough_points_change_nothing():
    assert smoothed(STEPS, LOSSES, 3) == (STEPS, LOSSES)
