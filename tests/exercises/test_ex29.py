import functools
from dataclasses import replace

import pytest
import torch

from minigpt.pretrained.limits import context_of
from reports.types import Prose, Table, flattened
from tasks.exercises.ex29_attention_sinks import answer as ex29
from tasks.exercises.ex29_attention_sinks import experiment, own_stream
from tasks.exercises.ex29_attention_sinks.attention import candidates, encoded, materials
from tasks.exercises.ex29_attention_sinks.experiment import EXERCISE, described
from tasks.exercises.ex29_attention_sinks.findings import Findings
from tasks.exercises.ex29_attention_sinks.stream_study import Bounded, StreamStudy, Unbounded
from tests.any_text import KINDS
from tests.exercise_context import answered, assert_sound, make_context, measured, tiny_pretrained
from tests.exercises.formulas import assert_formulas


def prose(part) -> str:
    """Its text, with single spaces, as folded lines are no matter."""
    return " ".join(" ".join(block.text for block in flattened(part.blocks) if isinstance(block, Prose)).split())


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    context = make_context(EXERCISE, pretrained=architecture)
    answer = answered(EXERCISE, measured(EXERCISE, context))
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)
    told = [fraction for fraction, _ in context.told]
    assert told == sorted(told)
    text = prose(answer.parts[2])
    assert ("`ReencodingReader` is used" in text) == (architecture != "llama")
    assert ("`SinkReader` is used" in text) == (architecture == "llama")
    assert ("loss_full_context_nats" in answer.metrics) == (architecture != "stand-in"), "its context is too short"
    assert "**No sink.**" in answer.parts[1].blocks[0].text, "random weights have none"
    assert "No effect beyond noise" in prose(answer.parts[3])


SMALL = {"rows": 1, "planted_length": 16, "stream": 96, "new": 4, "places": 3}


def test_parts_are_kept_as_json_and_taken_up_again():
    context = make_context(EXERCISE, pretrained="llama", **SMALL)
    first = measured(EXERCISE, context)
    kept = context.parts
    again = make_context(EXERCISE, pretrained="llama", **SMALL)
    again.once = lambda name, compute: kept[name]
    assert measured(EXERCISE, again) == first
    half = make_context(EXERCISE, pretrained="llama", **SMALL)
    half.once = lambda name, compute: kept[name] if name == "streams" else type(half).once(half, name, compute)
    assert measured(EXERCISE, half) == first, "what is drawn does not depend on what was drawn before"
    assert answered(EXERCISE, measured(EXERCISE, again)) == answered(EXERCISE, first)


def test_what_is_read():
    context = make_context(EXERCISE, pretrained="gpt2", rows=3, length=64)
    real, random, repeated = materials(context).values()
    ids = encoded(context)
    assert real.shape == random.shape == repeated.shape == (3, 64)
    assert torch.equal(real[0], ids[:64])
    assert torch.equal(real[2], ids[-64:])
    for row, period in zip(repeated, (4, 5, 6), strict=True):
        assert torch.equal(row[period:], row[:-period])
        assert len(set(row[:period].tolist())) > 1
    assert not torch.equal(random[0], random[1])


def test_planted_tokens_are_what_they_seem():
    context = make_context(EXERCISE, pretrained="stand-in")
    tokenizer = context.pretrained().tokenizer
    pieces = [tokenizer.decode([token]) for token in candidates(context)]
    assert {"\n", ",", ".", "e"} <= set(pieces)
    assert " the" not in pieces, "several tokens in characters"
    assert tokenizer.unk_token not in pieces
    assert len(set(pieces)) == len(pieces)


def study(none: list[float], four: list[float], full: list[float]) -> StreamStudy:
    """Losses per text for 0, 1 and 4 sinks (1 as good as 4), and with everything in view; 8 positions kept of 32."""
    places = list(range(8, 32))
    losses = [[[loss] * len(places) for loss in losses] for losses in (none, four, four)]
    texts = torch.zeros(len(none), 32, dtype=torch.long)
    written = [[[0] * 5 for _ in none] for _ in range(3)]
    unbounded = Unbounded([[loss] * 31 for loss in full], written[0], [[1.0] * len(none)] * 4)
    return StreamStudy((0, 1, 4), 8, texts, Bounded(places, losses, written), unbounded)


@functools.cache
def smallest() -> Findings:
    return measured(EXERCISE, make_context(EXERCISE, pretrained="llama", **SMALL))


def findings(s: StreamStudy) -> Findings:
    """The rest is of no account here."""
    window = torch.tensor(s.bounded.losses[0]), s.bounded.places
    return replace(smallest(), stream=described(s, True, window, tiny_pretrained("llama").tokenizer))


@pytest.mark.parametrize(
    ("none", "four", "full", "expected"),
    [
        ([4.0, 4.1, 4.3], [3.0, 3.1, 3.2], [2.9, 3.1, 3.2], ["Sinks help", "−1.033", "A single sink brings 100%"]),
        ([3.0, 3.1, 3.2], [4.0, 4.1, 4.3], [2.0, 2.1, 2.2], ["Sinks harm", "+1.033", "is higher, +2.033"]),
        ([4.0], [3.0], [2.9], ["With one text, whether sinks help is open", "(one text)"]),
        ([3.0, 4.0, 5.0], [3.5, 3.9, 4.9], [1.0, 6.0, 5.0], ["No effect beyond noise", "no more than noise"]),
    ],
)
def test_the_sentence_follows_the_data(none, four, full, expected):
    told = prose(answered(EXERCISE, findings(study(none, four, full))).parts[3])
    assert all(piece in told for piece in expected), told


def test_the_loss_table_compares_texts_in_pairs():
    """Texts differ by 10 nats, settings by 1: only pairs can show it."""
    table = ex29.loss_table(findings(study([1.0, 11.0, 21.0], [0.0, 10.01, 20.0], [0.0, 10.0, 20.0])).stream)
    rows = {(row[0], row[1]): row for row in table.rows}
    last = rows["all after eviction", "4"]
    assert last[2] == pytest.approx(10.00333, abs=1e-4)
    assert last[3] == pytest.approx(0.00333, abs=1e-4)
    assert last[4] == pytest.approx(-0.99667, abs=1e-4)
    assert last[5] < last[4] < last[6] < 0
    assert last[7] == "lower"
    assert [row[0] for row in table.rows if row[1] == "0"] == ["9–16", "17–24", "25–31", "all after eviction"]


def test_memory_is_what_the_cache_takes():
    part = answered(EXERCISE, findings(study([1.0], [1.0], [1.0]))).parts[2]
    table = next(block for block in part.blocks if isinstance(block, Table))
    config = tiny_pretrained("llama").model.config
    per_token = 2 * config.num_hidden_layers * 2 * 8 * 4 / 2**20  # 2 groups of 8 dimensions
    assert [row[1] for row in table.rows] == [4, 8, 8, 8, 8]
    assert table.rows[-1][2] == pytest.approx(8 * per_token)
    assert table.rows[-1][3] == pytest.approx(1_000_000 * per_token)


def test_a_text_that_is_too_short_is_refused():
    context = make_context(EXERCISE, pretrained="gpt2", stream=40, cache=32)
    assert context_of(context.pretrained().model) == 512
    with pytest.raises(ValueError, match="too few to stream"):
        experiment.stream(context)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([0.1, 0.2], "None of the 4 heads spends more than half of its attention"),
        ([0.1, 0.6], "1 of the 4 heads spends more than half of its attention"),
        ([0.7, 0.6], "3 of the 4 heads spend more than half of their attention"),
    ],
)
def test_heads_are_counted_in_words_that_agree(shares, expected):
    found = smallest()
    real = replace(found.real, heads=((0.1, shares[0]), (shares[0], shares[1])))
    text = prose(answered(EXERCISE, replace(found, kinds={**found.kinds, "real text": real})).parts[1])
    assert expected in text


def test_a_text_in_another_script_has_no_stream_of_other_text():
    context = make_context(EXERCISE)
    poems = context.text("train", "domain") + context.text("validation", "domain")
    known = set(context.text("train"))
    assert len(own_stream.unread(context)) == sum(letter in known for letter in poems)
    of_poems = context.text
    context.text = lambda split="validation", corpus="main": (
        of_poems(split, corpus) if corpus == "domain" else KINDS["chinese"](2_000)
    )
    assert len(own_stream.unread(context)) == 0
    assert own_stream.long_stream(context) is None
