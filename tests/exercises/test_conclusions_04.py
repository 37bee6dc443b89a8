"""21.4: which effects of warm-up and placement are more than noise, and which of them have a reason."""

from dataclasses import replace

import pytest

from minigpt.evaluation.ngrams import Baselines
from reports.answers import compose
from tasks.exercises.ex04_norm_placement.answer import answer
from tasks.exercises.ex04_norm_placement.findings import INITS, PLACEMENTS, Findings, Run, Setting, Start, Step, Trained
from tests.exercises.formulas import prose
from tests.exercises.test_conclusions import EXERCISES

STEP = Step(1.0, 0.5, 0.9)
SAME, OTHER = (2.0, 2.01, 2.02), (2.01, 2.0, 2.02)
STUCK = (3.1, 3.11, 3.12)
NEVER = (4.3, 4.31, 4.32)


def start(init, norm, layers):
    return Start(init, norm, layers, ((1.0,) * layers,), ((1.0,) * layers,), ((STEP,) * layers,), (0.5,), ((1.0, 1.0),))


def made(*, rates=(0.1, 0.1), inner=((0.1, 0.12, 0.11), (0.01, 0.02, 0.01)), chosen=(True, True), **losses):
    """Findings with these losses of the fresh seeds, by placement and warm-up; the bigram has 3 nats.

    ``rates`` are the better ones of pre- and post-norm, ``inner`` what their inner blocks are worth.
    """
    best, runs = dict(zip(PLACEMENTS, rates, strict=True)), []
    for setting in (Setting(norm, init, warmup) for init in INITS for norm in PLACEMENTS for warmup in (True, False)):
        name = f"{setting.norm}_{'warm' if setting.warmup else 'cold'}"
        found = losses.get(f"{name}_{setting.init.lower().replace('-', '')}", losses.get(name, SAME))
        rate = best[setting.norm]
        runs += [Run(setting, r, 0, found[0] + (r != rate), (1.0, 2.0), (4.0, 3.0)) for r in (0.1, 0.2)]
        runs += [Run(setting, rate, i, loss, (1.0, 2.0), (4.0, 3.0)) for i, loss in enumerate(found, start=1)]
    return Findings(
        start=tuple(start(init, norm, n) for n in (3, 4) for init in INITS for norm in PLACEMENTS),
        slopes={init: {"pre": -0.5, "post": 0.0} for init in INITS},
        runs=tuple(runs),
        trained={
            norm: Trained(tuple((0.5, cost, cost, 0.5) for cost in costs), ((STEP,) * 4,) * len(costs))
            for norm, costs in zip(PLACEMENTS, inner, strict=True)
        },
        chosen={norm: Setting(norm, "Xavier", warm) for norm, warm in zip(PLACEMENTS, chosen, strict=True)},
        baselines=Baselines(unigram=4.0, bigram=3.0, ngram=2.8, n=5),
        layers=4,
        width=8,
        steps=100,
        warmup_steps=10,
        block_differences={"pre": 0.0, "post": 0.0},
    )


def answered(f):
    return compose((EXERCISES / "ex04_norm_placement" / "answer.md").read_text(encoding="utf-8"), f, answer(f))


def said(f):
    return " ".join(" ".join(prose(answered(f))).split())


@pytest.mark.parametrize(
    ("pre", "post", "stable"),
    [
        (SAME, STUCK, "So pre-norm is the more stable here (−1.100 nats, 95% interval"),
        ((2.99,), (3.1,), "One seed cannot show which is the more stable."),
        ((2.9, 3.4, 3.0), (3.1, 3.12, 3.3), "Their losses do not show which is the more stable"),
    ],
)
def test_more_stable_is_what_differs_beyond_noise(pre, post, stable):
    text = said(made(pre_warm=pre, pre_cold=pre, post_warm=post, post_cold=post))
    assert stable in text
    assert ("So pre-norm is the more stable" in text) == stable.startswith("So")
    assert ("post-norm lacks is not this warm-up alone" in text) == stable.startswith("So")


def test_an_effect_beside_noise_is_no_picture():
    """Post-norm gains 0.1 surely; pre-norm's gain is 0.1 at the mean, in noise: they do not differ."""
    cold = (2.3, 2.31, 2.32)
    found = made(post_cold=cold, post_warm=(2.2, 2.211, 2.219), pre_cold=cold, pre_warm=(2.1, 2.33, 2.2))
    assert {found.picture(init) for init in INITS} == {"yes"}
    text = said(found)
    assert "the picture appears." not in text
    assert text.count("that it gains more from it than pre-norm does is not shown (95% interval") == 2
    clear = said(made(post_cold=cold, post_warm=(2.1, 2.111, 2.119), pre_cold=OTHER))
    assert clear.count("the picture appears.") == 2


def test_one_of_many_decides_nothing():
    found = made(pre_cold=OTHER, post_cold=(2.3, 2.31, 2.32), post_warm=(2.2, 2.23, 2.27))
    assert {found.warmup_effects[init, "post"].verdict for init in INITS} == {"one of many"}
    text = said(found)
    assert "the picture does not appear" not in text
    assert text.count("whether the picture appears is not decided.") == 2


@pytest.mark.parametrize(
    ("warm", "reason"), [((2.005, 2.012, 2.011), False), ((2.5, 2.511, 2.519), True), ((1.5, 1.511, 1.519), False)]
)
def test_only_what_is_shown_is_explained(warm, reason):
    """The gradients explain why warm-up harms; where its effect is noise, there is nothing to explain."""
    found = made(pre_cold=OTHER, post_cold=SAME, post_warm=warm)
    assert ("The gradients above suggest a reason" in said(found)) == reason
    missed = answered(found).unexpected
    assert ("A likely reason" in missed) == reason
    assert ("is not shown, and not refuted either" in missed) == (warm[0] == 2.005)


@pytest.mark.parametrize(
    ("post", "expected"), [(STUCK, "says nothing about effective depth"), (SAME, "no smaller effective depth is seen")]
)
def test_blocks_of_models_that_learned_nothing_are_worth_nothing(post, expected):
    text = said(made(post_warm=post, post_cold=post))
    assert expected in text
    assert ("inner blocks of pre-norm are worth more" in text) == (post == SAME)


def test_what_else_differs_between_the_placements_is_said():
    assert "The two models differ in their" not in said(made())
    assert "differ in their warm-up and learning rate, too" in said(made(rates=(0.1, 0.2), chosen=(False, True)))
    found = made()
    other = replace(found, chosen={**found.chosen, "pre": Setting("pre", "GPT-2", True)})
    assert "The two models differ in their initial weights, too" in said(other)


def test_placements_differ_still_only_where_nothing_else_told_them_apart():
    """That pre-norm is the more stable is a difference already."""

    def shown(pre):
        found = made(post_warm=NEVER, post_cold=NEVER, pre_warm=pre, pre_cold=pre)
        return said(replace(found, baselines=replace(found.baselines, unigram=4.2)))

    learned, slow = shown(SAME), shown(STUCK)
    assert learned.count("So pre-norm is the more stable here") == learned.count(" At every rate and with every") == 2
    assert "So pre-norm" not in slow
    assert slow.count("The placements still differ: at every rate and with every seed") == 2


def test_weights_that_let_post_norm_train_are_set_beside_what_goes_straight_through():
    """Only where it learns with one kind of weights and stays at letter frequencies with the other."""
    stuck = {f"post_{warm}_xavier": NEVER for warm in ("warm", "cold")}
    found = made(**stuck)
    reason = "So post-norm learns more than letter frequencies only with GPT-2's weights here."
    assert reason in said(replace(found, baselines=replace(found.baselines, unigram=4.2)))
    assert reason not in said(made())
    assert reason not in said(made(post_warm=NEVER, post_cold=NEVER))
