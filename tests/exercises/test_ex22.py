import pytest

from minigpt.config import GPTConfig
from tasks.exercises import ex22_model_sizes as ex22
from tests.exercise_context import assert_sound, make_context


@pytest.fixture(scope="module")
def answer():
    return ex22.EXERCISE.answer(make_context(ex22.EXERCISE))


@pytest.mark.slow
def test_the_answer_is_sound(answer):
    assert_sound(ex22.EXERCISE, answer)


def test_parameters_of_the_small_model_by_hand():
    # 10,000 x 128 and 256 x 128 in the tables, 12 C² + 13 C in each block, a final norm.
    expected = 10_256 * 128 + 2 * (12 * 128**2 + 13 * 128) + 2 * 128
    assert ex22.book_parameters(ex22.SMALL.model, 10_000) == expected == 1_709_568
    assert ex22.instantiated_parameters(ex22.SMALL.model, 10_000) == expected


@pytest.mark.slow
def test_the_vocabulary_that_would_agree_does(answer):
    table = next(block for block in answer.parts[0].blocks if block.type == "table")
    for row in table.rows:
        name, claimed, vocab_size = row[0], row[1], row[-2]
        recipe = ex22.SIZES[name]
        assert abs(ex22.book_parameters(recipe.model, vocab_size) - claimed) <= recipe.model.d_model


@pytest.mark.slow
def test_time_per_epoch_is_that_of_a_step(answer):
    characters = make_context(ex22.EXERCISE).tokens(ex22.SMALL, "train").numel() - 1
    metrics = answer.metrics
    for name in ("small", "large", "medium_longer"):
        seconds = characters / metrics[f"{name}_tokens_per_second"]
        assert metrics[f"{name}_seconds_per_epoch"] == pytest.approx(seconds)


@pytest.mark.slow
def test_the_lettered_parts_have_samples_of_every_run(answer):
    samples = [block for block in answer.parts[3].blocks if block.type == "sample"]
    assert len(samples) == len(ex22.RUNS)
    assert len({sample.prompt for sample in samples}) == 1


def test_the_book_sizes_are_the_book_s():
    shapes = [(r.model.n_layer, r.model.d_model, r.model.n_head) for r in ex22.SIZES.values()]
    assert shapes == [(2, 128, 4), (4, 256, 8), (6, 384, 12)]
    assert isinstance(ex22.LARGE.model, GPTConfig)
