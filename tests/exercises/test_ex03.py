from dataclasses import replace

import pytest

from minigpt.cost.published import GPT1, GPT2, GPT3, MODELS
from tasks.exercises.ex03_architectures import arithmetic
from tasks.exercises.ex03_architectures.experiment import EXERCISE, instantiated
from tasks.exercises.ex03_architectures.findings import slug
from tests.exercise_context import answered, assert_sound
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def answer():
    return answered(EXERCISE)


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


def test_well_known_counts(answer):
    assert answer.metrics["parameters_gpt_1"] == 116_534_784
    assert answer.metrics["parameters_gpt_2_small"] == 124_439_808
    assert answer.metrics["parameters_gpt_2_xl"] == 1_557_611_200
    assert len([name for name in answer.metrics if name.startswith("parameters_")]) == 13


def test_published_numbers_stand_beside_the_computed_ones(answer):
    for model in MODELS:
        published = answer.metrics[f"published_parameters_millions_{slug(model.name)}"]
        assert abs(answer.metrics[f"parameters_{slug(model.name)}"] / 1e6 / published - 1) < 0.07
    assert answer.metrics["as_printed_parameters_gpt_3_xl"] > answer.metrics["parameters_gpt_3_xl"]
    assert len([name for name in answer.metrics if name.startswith("lambada")]) == len(arithmetic.PAIRS)


def test_what_gpt3_read_is_not_all_different():
    whole, different = arithmetic.mix_tokens()
    assert whole == pytest.approx(499e9)
    assert different < arithmetic.tokens_of("GPT-3") < whole
    # By hand: 0.44 of Common Crawl, all of WebText2 and Books1, 0.43 of Books2, all of Wikipedia.
    assert different == pytest.approx((0.44 * 410 + 19 + 12 + 0.43 * 55 + 3) * 1e9)


def test_the_compute_of_gpt1_counts_its_epochs():
    tokens = arithmetic.tokens_of("GPT-1") * arithmetic.GPT1_EPOCHS
    assert arithmetic.training_flops(GPT1) == pytest.approx(6 * 116_534_784 * tokens)
    assert arithmetic.training_flops(GPT3[-1]) == pytest.approx(3.14e23, rel=0.005)


def test_read_again_as_new_text_gpt1_has_more_data_than_gpt2():
    """131 billion tokens against 10: by every law the first step then loses by its data."""
    assert arithmetic.GPT1_EPOCHS * arithmetic.tokens_of("GPT-1") > arithmetic.tokens_of("GPT-2")
    for law in arithmetic.LAWS.values():
        (n0, d0), (n1, d1) = (arithmetic.scale_for(law, model) for model in arithmetic.STEPS[0])
        d0 *= arithmetic.GPT1_EPOCHS
        by_hand = (law(n0, d0) - law(n0, d1) + law(n1, d0) - law(n1, d1)) / 2
        assert arithmetic.data_if_read_again(law) == pytest.approx(by_hand)
        assert by_hand < 0 < arithmetic.shares(law)[0][1]


def test_the_table_has_every_attribute_the_question_names(answer):
    table = next(block for block in answer.parts[0].blocks if getattr(block, "name", "") == "comparison")
    assert len(table.rows) == 13
    wanted = ["parameters", "layers", "hidden", "heads", "head", "context", "vocabulary", "training", "norm"]
    assert all(any(word in column for column in table.columns) for word in wanted)


def test_a_literal_count_differs_where_the_heads_do_not_fit():
    for model in MODELS:
        assert (arithmetic.count_as_printed(model) == arithmetic.count(model.consistent_config())) == model.heads_fit


def test_the_formula_is_that_of_the_built_model():
    small = replace(GPT2[0].consistent_config(), n_layer=2, d_model=96, n_head=3, vocab_size=11, context=7)
    for config in (small, replace(small, norm="post")):
        assert arithmetic.count(config) == instantiated(config)
