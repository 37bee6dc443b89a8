"""21.29: what a long stream shows, and what two models' sinks are made to explain."""

import random
from dataclasses import replace
from statistics import fmean
from types import SimpleNamespace as Any

import pytest

from minigpt.evaluation.statistics import compare, compare_paired
from tasks.exercises.ex29_attention_sinks.answer import dense_growth
from tasks.exercises.ex29_attention_sinks.findings import Attention, LongStream, Share
from tests.exercises.test_conclusions import HIGH, LOW, said

NOISE = [3.0, 4.0, 5.2]
REASON = "distances that no training text had"


def stream(dense, share=0.5, by_sinks=None):
    """64 characters of context, in stretches of 32."""
    return LongStream(
        model="small",
        context=64,
        length=8192,
        width=100,
        starts=(65, 165, 265),
        by_sinks=by_sinks or {0: tuple(HIGH), 4: tuple(LOW)},
        anew=tuple(LOW),
        places=50,
        dense=tuple((32 * i + 16.0, loss) for i, loss in enumerate(dense)),
        share=share,
        uniform=0.02,
        export=0.0,
    )


def of_stream(x, **names):
    """What is said of it; its effect on the streams of the larger model and that model's sink may be given."""
    return said(
        "ex29_attention_sinks",
        "{% set x = f.long %}",
        '{{ show("long losses") }}',
        f=Any(long=x),
        model="GPT-2",
        several=5,
        show=lambda name: "",
        **({"first": Any(ratio=20.0), "effect": compare_paired(HIGH, LOW), "growth": dense_growth(x)} | names),
    )


def test_a_loss_that_does_not_move_is_seldom_said_to_rise():
    """Stretches of 32 characters whose losses have a deviation of 1.4: the last is far above the lowest of 128."""
    rng = random.Random(0)
    draws = [[fmean(rng.gauss(2.0, 1.4) for _ in range(32)) for _ in range(128)] for _ in range(40)]
    assert sum(dense_growth(stream(losses)).verdict == "higher" for losses in draws) <= 3
    assert sum(REASON in of_stream(stream(losses)) for losses in draws[:8]) <= 2


def test_a_loss_that_rises_after_the_training_length_is_said_to():
    text = of_stream(stream([2.0 + 0.01 * i + 0.05 * (i % 2) for i in range(128)]))
    assert REASON in text
    assert "the loss rises from the first quarter of the stretches" in text
    assert "31 stretches each" in text
    assert "falls from the first quarter" in of_stream(stream([4.0 - 0.01 * i for i in range(128)]))
    few = of_stream(stream([2.0, 2.0, 2.1, 2.9]))
    assert "too few to compare" in few
    assert REASON not in few
    assert "inf" not in few.partition("With everything in view")[2]


@pytest.mark.parametrize(
    ("brought", "effect", "shares", "reason", "open_"),
    [
        ((HIGH, NOISE), (HIGH, LOW), (0.03, 20.0), False, True),
        ((HIGH, LOW), (HIGH, NOISE), (0.5, 2.0), False, True),
        ((LOW, HIGH), (HIGH, LOW), (0.03, 20.0), True, False),
        ((LOW, HIGH), (HIGH, LOW), (0.5, 20.0), False, True),
        ((HIGH, LOW), (HIGH, LOW), (0.03, 20.0), False, False),
    ],
)
def test_a_sink_is_a_reason_only_for_effects_that_differ(brought, effect, shares, reason, open_):
    x = stream([2.0] * 64, share=shares[0], by_sinks={0: tuple(brought[0]), 4: tuple(brought[1])})
    text = of_stream(x, first=Any(ratio=shares[1]), effect=compare_paired(*effect), growth=compare(LOW, HIGH))
    assert ("only one of them has much of a sink" in text) == reason
    assert ("does not show that they do more there" in text) == open_


@pytest.mark.parametrize(("scatter", "told"), [(0.0001, True), (1.0, False)])
def test_units_explain_no_difference_that_would_take_a_token_of_hundreds_of_characters(scatter, told):
    """A nat per token against some ten thousandths per character, or against what may be a nat."""
    x = stream([2.0] * 64, by_sinks={0: (3.0, 3.0, 3.0), 4: (3.0 - scatter, 3.0 + scatter, 3.0)})
    assert x.sinks_bring.verdict == "noise"
    effect = compare_paired(HIGH, LOW)
    text = of_stream(x, effect=effect, growth=compare(LOW, HIGH))
    assert ("does not explain it: a token would have to" in text) == told
    assert ("does not show that they do more there" in text) != told
    if told:
        most = effect.interval[1] / x.sinks_bring.interval[0]
        assert f"more than {round(most / 10) * 10:,} characters" in text


def test_places_beside_the_first_that_get_several_times_their_share_are_named():
    """Uniform attention gives each of the early positions the same, here 0.01; several is 5 times."""
    one = Share(n=1, mean=0.4, rows=(0.4,), layers=(0.4,), layers_std=(), uniform=0.01)
    x = Attention(("a",), "a", 64, 32, (one,), ((0.4,),), (0.4, 0.07, 0.01, 0.055, 0.05), (), 0.0)
    assert x.others_above == pytest.approx({1: 7.0, 3: 5.5})
    text = said(
        "ex29_attention_sinks",
        "{% set beyond = ",
        "**Beside GPT-2.**",
        f=Any(kinds={"random tokens": x, "real text": replace(x, positions=(0.4, 0.01))}),
        ratios=[40.0],
        several=5,
    )
    assert "too: in random tokens position 1 gets 7.0 times, position 3 gets 5.5 times." in " ".join(text.split())
    assert "real text" not in text
