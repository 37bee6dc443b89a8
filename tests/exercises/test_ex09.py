import functools
import math

import pytest

from tasks.exercises import ex09_perplexity as ex09
from tests.exercise_context import assert_sound, make_context
from tests.exercises.formulas import assert_formulas


@functools.cache
def answered(architecture):
    context = make_context(ex09.EXERCISE, pretrained=architecture)
    return context, ex09.EXERCISE.answer(context)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    _, answer = answered(architecture)
    assert_sound(ex09.EXERCISE, answer)
    assert_formulas(answer)
    assert answer.metrics["cross_entropy_at_perplexity_25_nats"] == pytest.approx(3.2188758, abs=1e-7)
    assert answer.metrics["perplexity_uniform_50000"] == pytest.approx(50_000, rel=1e-9)


def tables(answer):
    return {block.name: block for part in answer.parts for block in part.blocks if getattr(block, "name", "")}


@pytest.mark.parametrize("architecture", ["gpt2", "stand-in"])
def test_what_fifty_comes_to_is_of_the_model_that_was_used(architecture):
    """The stand-in reads characters: nothing may speak of byte pairs, and a character and its token are one."""
    context, answer = answered(architecture)
    characters, tokens, words = tables(answer)["fifty"].rows
    model = context.pretrained().model
    assert tokens[1] == model.config.vocab_size
    assert tokens[0] == f"those of {context.pretrained().name}"
    for _, _, _, n_bytes, bits in (characters, tokens, words):
        assert bits * n_bytes == pytest.approx(math.log2(50))
    text = context.text()
    assert characters[3] == pytest.approx(len(text.encode()) / (len(text) - 1))
    if architecture == "stand-in":
        assert tokens[3] == pytest.approx(characters[3], rel=0.01)
    for key, row in zip(("character", "pretrained_token", "word"), (characters, tokens, words), strict=True):
        assert answer.metrics[f"bits_per_byte_at_perplexity_50_per_{key}"] == row[4]


def test_a_model_that_loses_against_the_compressor_needs_more_bits():
    assert ex09.more_or_fewer(0.25) == "25% fewer"
    assert ex09.more_or_fewer(-0.25) == "25% more"


def test_references_know_no_language():
    frequencies, packed = ex09.references("ab" * 5_000)
    assert frequencies == pytest.approx(1)
    assert packed < 0.1
