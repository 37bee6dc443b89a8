import pytest

from tasks.exercises import ex04_norm_placement as ex04
from tests.exercise_context import assert_sound, make_context
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def answer():
    return ex04.EXERCISE.answer(make_context(ex04.EXERCISE))


def test_it_is_sound(answer):
    assert_sound(ex04.EXERCISE, answer)
    assert_formulas(answer)


def test_every_setting_was_measured(answer):
    table = next(b for p in answer.parts for b in p.blocks if getattr(b, "name", "") == "gradients")
    assert len(table.rows) == 2 * 2 * 3
    training = next(b for p in answer.parts for b in p.blocks if getattr(b, "name", "") == "training")
    assert [row[0] for row in training.rows] == list(ex04.LABELLED)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_oracle_tells_the_placements_apart(norm, monkeypatch):
    assert ex04.block_difference(norm) < 1e-4
    original = ex04.torch_block

    def other_way_round(config, block):
        layer = original(config, block)
        layer.norm_first = not layer.norm_first
        return layer

    monkeypatch.setattr(ex04, "torch_block", other_way_round)
    assert ex04.block_difference(norm) > 0.1


def test_the_slope_is_that_of_a_power_law():
    start = ex04.AtStart()
    for layers in (2, 4, 8):
        start.matrices["Xavier", "pre", layers] = [[0.0, 3 * layers**-0.5], [0.0, 3 * layers**-0.5]]
    assert start.slope("Xavier", "pre") == pytest.approx(-0.5)
