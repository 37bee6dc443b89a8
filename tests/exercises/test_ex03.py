from dataclasses import replace

import pytest

from tasks.exercises import ex03_architectures as ex03
from tests.exercise_context import assert_sound, make_context
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def answer():
    return ex03.EXERCISE.answer(make_context(ex03.EXERCISE))


def test_it_is_sound(answer):
    assert_sound(ex03.EXERCISE, answer)
    assert_formulas(answer)


def test_well_known_counts(answer):
    assert answer.metrics["parameters_gpt_1"] == 116_534_784
    assert answer.metrics["parameters_gpt_2_small"] == 124_439_808
    assert answer.metrics["parameters_gpt_2_xl"] == 1_557_611_200
    assert len([name for name in answer.metrics if name.startswith("parameters_")]) == 13


def test_the_table_has_every_attribute_the_question_names(answer):
    table = next(block for block in answer.parts[0].blocks if getattr(block, "name", "") == "comparison")
    assert len(table.rows) == 13
    wanted = ["parameters", "layers", "hidden", "heads", "head", "context", "vocabulary", "training", "norm"]
    assert all(any(word in column for column in table.columns) for word in wanted)


def test_a_literal_count_differs_where_the_heads_do_not_fit():
    for model in ex03.MODELS:
        assert (ex03.count_as_printed(model) == ex03.count(model.consistent_config())) == model.heads_fit


def test_the_formula_is_that_of_the_built_model():
    small = replace(ex03.GPT2[0].consistent_config(), n_layer=2, d_model=96, n_head=3, vocab_size=11, context=7)
    for config in (small, replace(small, norm="post")):
        assert ex03.count(config) == ex03.instantiated(config)
