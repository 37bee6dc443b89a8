"""Blocks that move: what they show as set, against the project's own sampler and masks; listings and their colours."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from minigpt.decoding.sampling import Sampling, warp
from minigpt.masks import causal_mask, prefix_mask, window_mask
from reports.blocks import render
from reports.live import views
from reports.live.listings import ROOT, coloured, line_of, listing
from reports.plain import from_json, to_json
from reports.types import Code, Distribution, Heatmap, Mask, Round, Setting, Speculation, TokenScores

LOGITS = (2.0, 1.0, 0.5, -1.0, 1.0)
BLOCKS = (
    Distribution(tuple("abcde"), LOGITS, (Setting("k = 2", k=2), Setting("hot", 2.0)), ("temperature", "k", "p"), "D"),
    Mask(6, ("length", "window"), window=3, caption="M"),
    Mask(6, ("length", "prefix"), prefix=2, caption="M"),
    Speculation(
        "ab",
        (
            Round(("c", "d", "e"), (0.5, 0.2, 0.9), (0.25, 0.4, 0.9), 1, "x"),
            Round(("f", " "), (0.5, 0.5), (0.5, 0.25), 2, "\n"),
            Round((), (), (), 0, "z"),
        ),
        "S",
    ),
    TokenScores(("p", "a", "b"), (None, 1.0, 0.0), "list", "T", ("red", "green"), (None, 1.0, 0.0), "z so far"),
)


SCALED = Heatmap(((1.0,),), "x", "y", baseline=(0.1, "uniform"), threshold=(1.0, "named"))


@pytest.mark.parametrize("block", [*BLOCKS, SCALED], ids=lambda block: block.type)
def test_they_survive_json(block):
    assert from_json(type(block), to_json(block)) == block


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(-6, 6), min_size=1, max_size=12),
    st.floats(0.05, 20),
    st.integers(1, 12),
    st.floats(0.01, 1),
)
def test_a_turned_distribution_is_the_samplers(logits, temperature, k, p):
    k = min(k, len(logits))
    block = Distribution(tuple(map(str, range(len(logits)))), tuple(logits), (Setting("s", temperature, k, p),))
    found = views.turned(block, block.settings[0])
    expected = warp(torch.tensor(logits, dtype=torch.float64), Sampling(temperature, k, p)).softmax(-1)
    sums = warp(torch.tensor(logits, dtype=torch.float64), Sampling(temperature, k)).softmax(-1).sort(descending=True)
    if bool((sums.values.cumsum(-1) - p).abs().min() < 1e-9):
        return  # there rounding decides who is in the nucleus
    after = sorted(token.after for token in found.tokens)  # which of two equal tokens is the last one, nobody says
    assert after == pytest.approx(sorted(expected.tolist()), abs=1e-12)
    assert found.kept == int((expected > 0).sum())
    assert found.entropy == pytest.approx(float(torch.special.entr(expected).sum()), abs=1e-12)


def test_a_nucleus_that_p_meets_exactly_keeps_no_token_more():
    logits = tuple(math.log(p) for p in (0.1, 0.2, 0.7))
    block = Distribution(tuple("abc"), logits, (Setting("s", p=0.9),))
    assert views.turned(block, block.settings[0]).kept == 2


@pytest.mark.parametrize("length", [1, 2, 7, 12])
def test_masks_are_the_models(length):
    assert views.seen(length, None, 0) == causal_mask(length).tolist()
    for size in range(1, length + 1):
        assert views.seen(length, size, 0) == window_mask(length, size).tolist()
        assert views.seen(length, None, size) == prefix_mask(length, size).tolist()


def test_every_drafted_token_has_a_verdict():
    kinds = [(step.round, step.label, step.kind) for step in views.steps(BLOCKS[3])]
    assert [kind for _, _, kind in kinds] == [
        *("accepted", "rejected", "unread", "replaced"),
        *("accepted", "accepted", "bonus"),
        "bonus",
    ]
    assert [step.note for step in views.steps(BLOCKS[3])][1] == ("draft 0.4, target 0.2, accepted with probability 0.5")


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.type)
def test_they_are_complete_as_set(block):
    html = str(render(block, "x"))
    if block.type == "distribution":
        assert html.count("<tr") == 6
        assert html.count('class="removed"') == 2  # the second and the third tie: both stay
    elif block.type == "mask":
        assert html.count("●</td>") == sum(map(sum, views.seen(block.length, block.window, block.prefix)))
    elif block.type == "speculation":
        assert "3 passes of the target wrote 6 tokens; 3 of them were drafted." in html
    else:
        assert html.count('class="tok side1"') == html.count('class="tok side0"') == 1
        assert "green, z so far 1" in html


def test_a_listing_says_where_it_stands():
    found = listing("def causal_mask(n_query: int, n_key: int | None = None, *, device", "minigpt/masks.py")
    lines = (ROOT / "minigpt/masks.py").read_text().splitlines()
    assert found.line is None  # cut in the middle of a line
    source = "\n".join(lines[29:33])
    assert listing(source, "minigpt/masks.py").line == 30
    assert listing("nowhere = 1", "minigpt/masks.py").line is None
    assert listing(source, "minigpt/no_such_file.py").line is None


def test_a_line_is_found_at_any_indent_and_only_where_there_is_one():
    source = "a\nb\n  def f():\n      return 1\n  def g():\n      return 1\n"
    assert line_of("def f():\n    return 1", source) == 3
    assert line_of("return 1", source) is None
    assert line_of("", source) is None


def test_colours_change_no_letter():
    text = (ROOT / "minigpt/masks.py").read_text() + "\n'unfinished <b>\n\t\u202e & §"
    html = coloured(Code(text, language="python"))
    plain = coloured(Code(text))
    assert html.striptags() == plain.striptags()
    assert '<span class="k">def</span> <span class="f">causal_mask</span>' in html
    assert "<b>" not in html
    assert "<span" not in str(coloured(Code("def f(): pass")))
