from dataclasses import replace

import pytest

from minigpt.config import GPTConfig
from tasks.exercises.ex22_model_sizes import answer as ex22
from tasks.exercises.ex22_model_sizes.experiment import EXERCISE, LARGE, SIZES, SMALL, count, instantiated_parameters
from tests.exercise_context import answered, assert_sound, make_context, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


@pytest.mark.slow
def test_the_answer_is_sound(answer):
    assert_sound(EXERCISE, answer)


def test_parameters_of_the_small_model_by_hand():
    # 10,000 x 128 and 256 x 128 in the tables, 12 C² + 13 C in each block, a final norm.
    expected = 10_256 * 128 + 2 * (12 * 128**2 + 13 * 128) + 2 * 128
    assert count("small", "10,000 words", 10_000).closed_form == expected == 1_709_568
    assert instantiated_parameters(replace(SMALL.model, vocab_size=10_000)) == expected


@pytest.mark.slow
def test_the_vocabulary_that_would_agree_does(findings):
    for row in ex22.parameters(findings).rows:
        name, claimed, vocab_size = row[0], row[1], row[-2]
        closed = count(name, "", vocab_size).closed_form
        assert abs(closed - claimed) <= SIZES[name].model.d_model


@pytest.mark.slow
def test_time_per_epoch_is_that_of_a_step(answer):
    characters = make_context(EXERCISE).tokens(SMALL, "train").numel() - 1
    metrics = answer.metrics
    for name in ("small", "large", "medium_longer"):
        seconds = characters / metrics[f"{name}_tokens_per_second"]
        assert metrics[f"{name}_seconds_per_epoch"] == pytest.approx(seconds)


@pytest.mark.slow
def test_the_lettered_parts_have_samples_of_every_run(findings, answer):
    samples = [block for block in answer.parts[3].blocks if block.type == "sample"]
    assert len(samples) == len(findings.runs)
    assert len({sample.prompt for sample in samples}) == 1


def test_the_book_sizes_are_the_book_s():
    shapes = [(r.model.n_layer, r.model.d_model, r.model.n_head) for r in SIZES.values()]
    assert shapes == [(2, 128, 4), (4, 256, 8), (6, 384, 12)]
    assert isinstance(LARGE.model, GPTConfig)
