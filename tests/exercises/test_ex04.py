from dataclasses import replace

import pytest

from reports.types import flattened
from tasks.exercises.ex04_norm_placement import experiment as ex04
from tasks.exercises.ex04_norm_placement.experiment import EXERCISE
from tests.exercise_context import answered, assert_sound, make_context, measured
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
    settings = {
        (init, f"{norm}-norm", warm) for init in ("Xavier", "GPT-2") for norm in ("pre", "post") for warm in WARM
    }
    assert {row[:3] for row in training.rows[:8]} == settings
    assert [row[0] for row in training.rows[8:]][:2] == ["unigram", "bigram"]


def test_what_is_said_of_the_gradient_by_block_is_what_was_measured(findings):
    findings = edited(findings, "pre", blocks=((6.0, *[3.0] * 6, 2.0),))
    text = said(edited(findings, "post", blocks=((1.0,) * 8,)))
    assert "3.0 times that of the last in pre-norm and 1.0 times in post-norm" in text
    assert "does not die out" in text
    assert "fades" not in text
    assert "fades" in said(edited(findings, "post", blocks=((0.1, *[0.5] * 6, 1.0),)))


def test_the_sweep_chooses_the_rate_and_fresh_seeds_are_compared(findings):
    for setting in findings.settings:
        sweep = dict(zip(findings.rates, findings.swept(setting), strict=True))
        rate = min(sweep, key=sweep.get)
        assert {run.rate for run in findings.fresh(setting)} == {rate}
        assert {run.seed for run in findings.fresh(setting)} == {1}
    for norm, setting in findings.chosen.items():
        assert setting.norm == norm
        lowest = min(min(findings.swept(one)) for one in findings.settings if one.norm == norm)
        assert min(findings.swept(setting)) == lowest


def test_the_same_training_twice_gives_the_blocks_of_its_model(findings):
    """Weights are not kept in an exercise's parts: the model whose blocks are left out is trained again."""
    context = make_context(EXERCISE)
    trainings = ex04.Trainings(context)
    run = findings.fresh(findings.chosen["pre"])[0]
    assert trainings.run(run.setting, run.rate, run.seed) == run


def test_one_seed_gives_no_verdict_on_the_warm_up(findings):
    text = said(with_losses(findings, bigram=9.0))
    assert text.count("one seed cannot confirm or refute the picture") == 2
    assert "the picture appears" not in text
    assert "the picture does not appear" not in text


def test_models_that_have_not_beaten_the_bigram_say_nothing_of_the_warm_up(findings):
    same = {f"{norm}_{start}": (2.0, 2.1) for norm in ("pre", "post") for start in ("warm", "cold")}
    text = said(with_losses(findings, bigram=0.1, **same))
    assert text.count("weights:* not trained far enough to say whether the picture appears.") == 2
    assert "cannot be said: not both are trained far enough" in text


WARM = ("with", "without")
WARMTHS = ("warm", "cold")


def with_losses(findings, bigram=3.0, **losses):
    """The findings with last losses of the fresh seeds, by placement and warm-up, such as ``pre_cold=(2.0, 2.1)``."""
    sweep = [run for run in findings.runs if run.seed == 0]
    fresh = []
    for run in (run for run in findings.runs if run.seed != 0):
        found = losses.get(f"{run.setting.norm}_{'warm' if run.setting.warmup else 'cold'}", (run.loss,))
        fresh += [replace(run, seed=seed, loss=loss) for seed, loss in enumerate(found, start=1)]
    return replace(findings, runs=(*sweep, *fresh), baselines=replace(findings.baselines, bigram=bigram))


@pytest.mark.parametrize(
    ("warm", "conclusion", "picture"),
    [
        (1.0, "the picture appears. The validation loss of post-norm with warm-up is 0.99", "yes"),
        (2.0, "the picture does not appear, and is not refuted either. The validation loss of post-norm with", "no"),
        (2.5, "the picture does not appear; post-norm even trains worse with the warm-up.", "no"),
    ],
)
def test_the_conclusion_on_the_warm_up_follows_the_losses(findings, warm, conclusion, picture):
    same, post = (2.0, 2.01, 2.02), (warm + 0.001, warm + 0.01, warm + 0.021)
    found = with_losses(findings, pre_warm=same, pre_cold=(2.01, 2.0, 2.02), post_warm=post, post_cold=same)
    assert conclusion in said(found)
    assert {found.picture(init) for init in ("Xavier", "GPT-2")} == {picture}


def test_a_placement_that_never_trains_is_said_to_be_less_stable(findings):
    stuck, good = (3.1, 3.11, 3.12), (2.0, 2.01, 2.02)
    text = said(with_losses(findings, pre_warm=good, pre_cold=good, post_warm=stuck, post_cold=stuck))
    assert (
        "Post-norm does not get past the bigram in any of 6 trainings, with warm-up or without; pre-norm does in 6."
        in text
    )


def test_post_norm_that_stays_at_letter_frequencies_is_said_to(findings):
    """Without a training past the bigram, the placements can still be told apart: by whether anything is learned."""
    untrained = {f"{norm}_{start}": (loss,) * 2 for norm, loss in (("pre", 2.5), ("post", 3.06)) for start in WARMTHS}
    found = with_losses(findings, bigram=2.2, **untrained)
    runs = tuple(
        replace(run, loss=2.4 if run.setting.norm == "pre" else 3.07) if run.seed == 0 else run for run in found.runs
    )
    found = replace(found, runs=runs, baselines=replace(found.baselines, unigram=3.05))
    assert said(found).count("post-norm learns no more than letter frequencies (3.060 to 3.070 nats") == 2
    assert said(found).count("while pre-norm gets below them (2.400 to 2.500)") == 2
    missed = " ".join(answered(EXERCISE, found).unexpected.split())
    assert "The prediction was not put to the test" in missed
    assert "does not die out" not in missed
    slow = [run.setting.norm == "pre" and run.rate == found.rates[0] for run in runs]
    high = tuple(replace(run, loss=3.08) if late else run for run, late in zip(runs, slow, strict=True))
    assert "The placements still differ" not in said(replace(found, runs=high))


def test_the_band_of_rates_is_counted_over_the_sweep(findings):
    losses = [run.loss for run in findings.runs if run.seed == 0 and run.setting.norm == "pre"]
    middle = sorted(losses)[len(losses) // 2]
    found = replace(findings, baselines=replace(findings.baselines, bigram=middle))
    counts = [found.band(init, "pre") for init in ("Xavier", "GPT-2")]
    assert sum(past for past, _ in counts) == sum(loss < middle for loss in losses)
    assert counts[0][1] == counts[1][1] == 2 * len(findings.rates)


def test_a_side_that_never_trains_is_an_answer(findings):
    """Past the bigram with warm-up and stuck without it: what is compared is whether they train."""
    same, stuck = (2.0, 2.01, 2.02), (3.1, 3.11, 3.12)
    found = with_losses(findings, pre_warm=same, pre_cold=(2.01, 2.0, 2.02), post_warm=same, post_cold=stuck)
    assert found.picture("Xavier") == "yes"
    setting = next(s for s in found.settings if (s.norm, s.init, s.warmup) == ("post", "Xavier", False))
    assert found.past_bigram(setting) == 0


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
