from dataclasses import replace

import pytest

from reports.types import flattened
from tasks.exercises.ex04_norm_placement import experiment as ex04
from tasks.exercises.ex04_norm_placement.experiment import EXERCISE
from tests.exercise_context import answered, assert_sound, measured
from tests.exercises.formulas import assert_formulas, prose


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


def said(findings):
    return " ".join(" ".join(prose(answered(EXERCISE, findings))).split())


def edited(findings, norm, **fields):
    """The findings with other untrained models of a placement, with Xavier weights and 8 layers."""
    settings = [s for s in findings.start if (s.init, s.norm, s.layers) == ("Xavier", norm, 8)]
    assert len(settings) == 1
    return replace(findings, start=tuple(replace(s, **fields) if s in settings else s for s in findings.start))


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


def test_every_setting_was_measured(answer):
    table = next(b for p in answer.parts for b in flattened(p.blocks) if getattr(b, "name", "") == "gradients")
    assert len(table.rows) == 2 * 2 * 3
    training = next(b for p in answer.parts for b in flattened(p.blocks) if getattr(b, "name", "") == "training")
    assert [row[0] for row in training.rows] == list(ex04.LABELLED)


def test_what_is_said_of_the_gradient_by_block_is_what_was_measured(findings):
    findings = edited(findings, "pre", blocks=((6.0, *[3.0] * 6, 2.0),))
    text = said(edited(findings, "post", blocks=((1.0,) * 8,)))
    assert "3.0 times that of the last in pre-norm and 1.0 times in post-norm" in text
    assert "does not die out" in text
    assert "fades" not in text
    assert "fades" in said(edited(findings, "post", blocks=((0.1, *[0.5] * 6, 1.0),)))


def test_one_seed_gives_no_verdict_on_the_warm_up(answer):
    text = " ".join(block.text for block in answer.parts[1].blocks if hasattr(block, "text"))
    assert "One seed cannot confirm or refute" in text
    assert "is not what these models show" not in text


def with_losses(findings, **losses):
    """The findings with last validation losses by placement and warm-up, such as ``pre_cold=(2.0, 2.1)``."""
    runs = []
    for run in findings.runs:
        key = f"{run.norm}_{'warm' if run.warmup == 'warm-up' else 'cold'}"
        curve = run.variant.curves[0]
        curves = tuple(replace(curve, losses=(*curve.losses[:-1], loss)) for loss in losses[key])
        runs.append(replace(run, variant=replace(run.variant, curves=curves)))
    return replace(findings, runs=tuple(runs))


@pytest.mark.parametrize(
    ("warm", "conclusion"),
    [
        (1.0, "That is the textbook's picture: post-norm needs the warm-up and pre-norm does not."),
        (2.0, "is not what these models show. They are shallow"),
        (2.5, "is not what these models show: post-norm even trains worse with it. They are shallow"),
    ],
)
def test_the_conclusion_on_the_warm_up_follows_the_losses(findings, warm, conclusion):
    same, post = (2.0, 2.01, 2.02), (warm, warm + 0.01, warm + 0.02)
    text = said(with_losses(findings, pre_warm=same, pre_cold=same, post_warm=post, post_cold=same))
    assert conclusion in text
    assert "All are past letter frequencies" in text
    stuck = with_losses(findings, pre_warm=same, pre_cold=(2.0, 9.0, 9.0), post_warm=same, post_cold=same)
    assert "at the end: 2 of 3 in pre-norm without warm-up." in said(stuck)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_oracle_tells_the_placements_apart(norm, monkeypatch):
    assert ex04.block_difference(norm) < 1e-4
    original = ex04.torch_block

    def other_way_round(config, block):
        layer = original(config, block)
        layer.norm_first = not layer.norm_first
        return layer

    monkeypatch.setattr(ex04, "torch_block", other_way_round)
    assert ex04.block_difference(norm) > 0.1


def test_the_slope_is_that_of_a_power_law(findings):
    assert len({s.layers for s in findings.start}) == 3
    start = tuple(replace(s, matrices=((0.0, 3 * s.layers**-0.5), (0.0, 3 * s.layers**-0.5))) for s in findings.start)
    assert ex04.slope(start, "Xavier", "pre") == pytest.approx(-0.5)
