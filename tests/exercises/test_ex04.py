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


def test_what_is_said_of_the_gradient_by_block_is_what_was_measured():
    start = ex04.AtStart()
    start.blocks["Xavier", "pre", 8] = [[6.0, 3.0, 2.0]]
    start.blocks["Xavier", "post", 8] = [[1.0, 1.0, 1.0]]
    said = ex04.by_block_prose(start, 8)
    assert "3.0 times that of the last in pre-norm and 1.0 times in post-norm" in said
    assert "does not die out" in said
    start.blocks["Xavier", "post", 8] = [[0.1, 0.5, 1.0]]
    assert "fades" in ex04.by_block_prose(start, 8)


def test_one_seed_gives_no_verdict_on_the_warm_up(answer):
    said = " ".join(block.text for block in answer.parts[1].blocks if hasattr(block, "text"))
    assert "One seed cannot confirm or refute" in said
    assert "is not what these models show" not in said


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
