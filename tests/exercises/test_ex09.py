import functools
import math
from dataclasses import replace

import pytest

from tasks.exercises.ex09_perplexity.experiment import EXERCISE, references
from tests.exercise_context import answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas, prose


@functools.cache
def findings_of(architecture):
    context = make_context(EXERCISE, pretrained=architecture)
    return context, measured(EXERCISE, context)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    _, findings = findings_of(architecture)
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    assert answer.metrics["cross_entropy_at_perplexity_25_nats"] == pytest.approx(3.2188758, abs=1e-7)
    assert answer.metrics["perplexity_uniform_50000"] == pytest.approx(50_000, rel=1e-9)


def tables(answer):
    return {block.name: block for part in answer.parts for block in part.blocks if getattr(block, "name", "")}


@pytest.mark.parametrize("architecture", ["gpt2", "stand-in"])
def test_what_fifty_comes_to_is_of_the_model_that_was_used(architecture):
    """The stand-in reads characters: nothing may speak of byte pairs, and a character and its token are one."""
    context, findings = findings_of(architecture)
    answer = answered(EXERCISE, findings)
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
    _, f = findings_of("gpt2")
    known = replace(f.prose, bits_per_byte=1.5, lzma=2.0)
    f = replace(f, prose=known, code=replace(f.code, bits_per_byte=2.5, lzma=2.0))
    text = " ".join("\n".join(prose(answered(EXERCISE, f))).split())
    assert "it needs 25% fewer bits on prose and 25% more on code, so by that measure it is better at English" in text


def test_the_two_orders_of_the_texts_are_compared():
    _, f = findings_of("gpt2")
    said = []
    for bits in (1.0, 3.0):
        code = replace(f.code, perplexity=2 * f.prose.perplexity, bits_per_byte=bits, other_loss=bits)
        edited = replace(f, prose=replace(f.prose, bits_per_byte=2.0, other_loss=2.0), code=code)
        said.append(" ".join("\n".join(prose(answered(EXERCISE, edited))).split()))
    assert "Per byte the order turns round, to Python source: the unit decided." in said[0]
    assert "Per byte it is English prose, too." in said[1]
    assert "Among the others the order turns round: 2.00 nats per token for prose, 1.00 for code." in said[0]


def test_references_know_no_language():
    frequencies, packed = references("ab" * 5_000)
    assert frequencies == pytest.approx(1)
    assert packed < 0.1


def test_a_text_without_words_has_two_units():
    _, f = findings_of("stand-in")
    answer = answered(EXERCISE, replace(f, study=replace(f.study, words=None)))
    assert_sound(EXERCISE, answer)
    text = " ".join("\n".join(prose(answer)).split())
    assert "A third unit, words, does not apply to this text" in text
    assert "are the same in both rows" in text
    assert tables(answer)["units"].caption == "One model, one text, two perplexities"
    assert [row[0] for row in tables(answer)["units"].rows] == ["per character", "per byte"]
    assert not any("word" in name for name in answer.metrics)
