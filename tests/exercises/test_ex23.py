import itertools
import math
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPT2TokenizerFast

from minigpt.tokenizers import CharTokenizer, WordTokenizer
from reports.types import flattened
from tasks.exercises.ex23_tokenizers.experiment import (
    EXERCISE,
    choose_paragraph,
    cost_by_rarity,
    spelling_bits,
    transformers_agrees,
)
from tasks.exercises.ex23_tokenizers.spans import bpe_spans, char_spans, word_spans
from tests.any_text import KINDS
from tests.exercise_context import answered, assert_sound, gpt2_bpe, make_context, measured
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def context():
    return make_context(EXERCISE)


@pytest.fixture(scope="module")
def found(context):
    return measured(EXERCISE, context)


@pytest.fixture(scope="module")
def answer(found):
    return answered(EXERCISE, found)


def tables(answer):
    return {block.name: block for part in answer.parts for block in part.blocks if getattr(block, "name", "")}


def prose(answer, part):
    """The sentences of a part on one line."""
    texts = (block.text for block in flattened(answer.parts[part].blocks) if block.type == "prose")
    return " ".join(" ".join(texts).split())


def theirs():
    ours = gpt2_bpe()
    return GPT2TokenizerFast(vocab=ours.encoder, merges=list(ours.ranks))


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


def test_the_lengths_are_those_of_other_implementations(answer, found):
    """Characters by counting, byte pairs by Transformers, words by a split that knows nothing of tokens."""
    m, text = answer.metrics, found.text
    assert m["characters_paragraph_tokens"] == len(text)
    assert m["byte_pairs_paragraph_tokens"] == len(theirs()(text).input_ids)
    assert m["paragraph_bytes"] == len(text.encode())
    split = re.findall(r"\w+(?:’\w+)*|[^\w\s]|\n", text)  # in this paragraph a space always stands before a word
    assert not re.search(r" [^\w]|[^\w\s]\w|\s\s", text.replace("’", ""))
    assert m["words_paragraph_tokens"] == len(split)


def test_context_use_follows_from_the_lengths(answer):
    m = answer.metrics
    for kind in ("characters", "byte_pairs", "words"):
        assert m[f"{kind}_contexts_of_1024_per_paragraph"] == m[f"{kind}_paragraph_tokens"] / 1024
        words = m[f"{kind}_words_in_a_context_of_1024"]
        assert words * m[f"{kind}_tokens_per_word"] == pytest.approx(1024)
        assert m[f"{kind}_tokens_per_word"] * m["paragraph_words"] == pytest.approx(m[f"{kind}_paragraph_tokens"])


def test_bits_per_byte_are_the_recorded_losses_over_the_bytes(answer, found, context):
    """The last validation loss of the training, times the tokens that another tokenizer counts, over the bytes."""
    text = context.text()
    tokens = len(theirs()(text).input_ids)
    losses = found.kinds["byte pairs"].variant.losses
    expected = sum(losses) / len(losses) * (tokens - 1) / math.log(2) / len(text.encode())
    assert answer.metrics["byte_pairs_bits_per_byte"] == pytest.approx(expected, rel=1e-5)
    assert answer.metrics["byte_pairs_bits_per_byte_spelled"] == answer.metrics["byte_pairs_bits_per_byte"]
    assert answer.metrics["words_bits_per_byte_spelled"] > answer.metrics["words_bits_per_byte"]


def test_equal_time_is_that_of_the_shortest_training(answer, found):
    """The shortest is at its end; of the others there are finished trainings as short, or their shortest counts."""
    budget = answer.metrics["equal_time_seconds"]
    shortest = min(found.kinds.values(), key=lambda kind: kind.seconds)
    assert shortest.seconds == budget
    assert shortest.spelled_at_equal_time == pytest.approx(shortest.spelled, rel=1e-5)
    for kind in found.kinds.values():
        curve, step = kind.variant.curves[0], budget / kind.variant.step_seconds
        assert step <= kind.variant.steps + 1e-9
        after = next(i for i, at in enumerate(curve.finished_steps) if at >= step - 1e-9)
        around = [curve.finished_losses[i] for i in (max(0, after - 1), after)]
        assert min(around) - 1e-9 <= kind.late[0] <= max(around) + 1e-9


def test_spelling_by_hand():
    """Counts of "aab": a 2, b 1, one more kind for what is not there; a word is ended by a space."""
    expected = -math.log2(3 / 6) - math.log2(2 / 6) - math.log2(1 / 6)
    assert spelling_bits("aab", ["ab"]) == pytest.approx(expected)
    assert spelling_bits("aab", []) == 0


def test_cost_by_rarity_by_hand():
    text = "the cat the"
    spans, bits = [(i, i + 1) for i in range(len(text))], torch.ones(len(text))
    costs, sizes = cost_by_rarity(text, spans, bits, {4: 8.0}, Counter({"the": 5}))
    assert sizes == (1, 2, 0, 0)
    assert costs == ((4 + 8) / 4, (3 + 4) / 8, 0.0, 0.0)  # a word has its letters and the space before it


@given(st.text("ab ,.'\n(é🙂", min_size=1, max_size=40))
@settings(max_examples=150, deadline=None)
def test_spans_cover_the_text_in_order(text):
    words = WordTokenizer.train(text)
    for tokenizer, spans in ((CharTokenizer.train(text), char_spans), (words, word_spans)):
        ids = tokenizer.encode(text)
        found = spans(text, tokenizer, ids)
        assert len(found) == len(ids)
        assert [found[0][0], found[-1][1]] == [0, len(text)]
        assert all(end == start for (_, end), (start, _) in itertools.pairwise(found))
        for token, (start, end) in zip(ids, found, strict=True):
            piece = tokenizer.decode([token])
            assert text[start:end] in (piece, f" {piece}")


@given(st.text("ab ,.'\n(é🙂日", min_size=1, max_size=30))
@settings(max_examples=30, deadline=None)
def test_spans_of_byte_pairs_hold_the_bytes_of_their_tokens(text):
    tokenizer = gpt2_bpe()
    ids, sizes = tokenizer.encode(text), {i: len(token) for token, i in tokenizer.encoder.items()}
    spans = bpe_spans(text, tokenizer, ids)
    at = 0
    for token, (start, end) in zip(ids, spans, strict=True):
        begin = len(text[:start].encode())
        assert begin <= at < at + sizes[token] <= begin + len(text[start:end].encode())
        at += sizes[token]
    assert at == len(text.encode())


def test_other_byte_pairs_are_noticed():
    ours = gpt2_bpe()

    class Wrong:
        to_json = ours.to_json

        def encode(self, text):
            return [i for character in text for i in ours.encode(character)]  # nothing is merged

    assert transformers_agrees(ours, ("some words",))
    assert not transformers_agrees(Wrong(), ("some words",))


def test_the_paragraph_is_of_whole_lines():
    text = "cut off\nfirst line.\nsecond line. And more.\nthird is too long for it"
    assert choose_paragraph(text, 40) == "first line.\nsecond line. And more."
    assert choose_paragraph("x\nOne. Two. Three is cut", 15) == "One. Two."


def test_the_sign_of_the_unknown_is_explained(answer):
    captions = {name: table.caption for name, table in tables(answer).items() if name.startswith("rare-")}
    assert "part of a character" in captions["rare-byte-pairs"]
    assert all("unknown token" in captions[f"rare-{kind}"] for kind in ("characters", "words"))


def test_what_is_said_of_rare_words_follows_the_numbers(found):
    def with_costs(sizes=None, **rows):
        kinds = {
            name: replace(kind, by_rarity=tuple((value,) for value in rows[name.replace(" ", "_")]))
            for name, kind in found.kinds.items()
        }
        return prose(answered(EXERCISE, replace(found, kinds=kinds, rarity_sizes=sizes or (5, 5, 5, 5))), 3)

    dear, flat = (6.0, 4.0, 3.0, 2.0), (1.0, 1.0, 1.0, 1.5)
    said = with_costs(characters=dear, byte_pairs=dear, words=dear)
    assert "under every tokenizer" in said
    assert "3.0 times as much" in said
    said = with_costs(characters=dear, byte_pairs=flat, words=dear)
    assert "under characters and words only" in said
    assert "cheapest in byte pairs, 1.00 bits per byte" in said
    said = with_costs((0, 5, 5, 5), characters=flat, byte_pairs=flat, words=flat)
    assert "no word that the training text lacks" in said
    assert "under no tokenizer here" in said


def test_shares_of_the_vocabulary(found, context):
    kind = found.kinds["byte pairs"]
    ids = theirs()(context.text("train")).input_ids
    assert kind.entries_below[1] == pytest.approx(1 - len(set(ids)) / 50_257)
    seldom = sum(n < 10 for n in Counter(ids).values())
    assert kind.entries_below[10] == pytest.approx(1 - (len(set(ids)) - seldom) / 50_257)


@pytest.mark.parametrize("kind", KINDS)
def test_words_of_any_script_cover_the_text(kind):
    text = KINDS[kind](3_000)
    tokenizer = WordTokenizer.train(text)
    ids = tokenizer.encode(text)
    spans = word_spans(text, tokenizer, ids)
    assert len(spans) == len(ids)
    assert "".join(text[start:end] for start, end in spans) == text
    words = tokenizer.to_json()["words"]
    for (start, end), token in zip(spans, ids, strict=True):
        assert text[start:end] in (words[token], f" {words[token]}") or words[token] == "<glue>"


def test_a_paragraph_of_a_text_whose_only_line_ends_it():
    assert choose_paragraph("no sentence and one line\n", 10) == "no sentenc"
