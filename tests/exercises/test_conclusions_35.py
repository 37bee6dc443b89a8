"""21.35 says what its intervals carry: nothing of what was not taught, and no bargain that timing leaves open."""

import pytest

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.timing import Timing
from reports.types import Prose, flattened
from tasks.answers import answer_of
from tasks.exercises.ex35_knowledge_distillation.findings import (
    Agreement,
    Findings,
    Model,
    Oracles,
    Settings,
    Temperature,
)
from tasks.variants import LearningCurve, Variant

COUNTED = Baselines(3.3, 3.0, 2.0, 4)
SEEDS = (-0.010, 0.001, 0.009)  # what a seed adds
MIXTURES = {"τ = 1": (0.5, 1.0), "τ = 2": (0.5, 2.0), "τ = 4": (0.5, 4.0), "soft": (0.0, 2.0), "hard": (0.9, 2.0)}


def student(label, losses, *, steps=100, second=1.0, spread=0.0) -> Variant:
    curves = tuple(
        LearningCurve((0.0, float(steps)), (4.0, loss), (float(steps),), (loss,), seed=i)
        for i, loss in enumerate(losses)
    )
    step = Timing(second, second * (1 - spread), second * (1 + spread), 9)
    return Variant(label, label, steps, 1_000, curves, step, 1_000, 50_000, COUNTED)


def around(mean, add=SEEDS):
    return tuple(mean + one for one in add)


def made_of(*, alone, longer, distilled, teacher=1.5, spread=0.0, second=1.3) -> Findings:
    """Distilled steps take ``second``; the longer training has 130 steps to their 100."""
    rows = (
        student("alone", alone),
        *(student(name, losses, second=second, spread=spread) for name, losses in distilled.items()),
        student("longer", longer, steps=130, spread=spread),
    )
    agreed = Agreement((0.3,), (0.6,))
    model = Model(2, 64, 1_000, 100, 100_000)
    return Findings(
        rows=rows,
        settings={row.label: Settings(*MIXTURES.get(row.label, (1.0, None))) for row in rows},
        agreement={row.label: agreed for row in rows},
        teacher=model,
        student=model,
        longer_student=model,
        teacher_steps=(0.0, 100.0),
        teacher_losses=(4.0, teacher),
        temperatures=(Temperature(1.0, 1.0, 0.5, 0.5), Temperature(4.0, 2.0, 0.6, 0.1)),
        oracles=Oracles(0.0, 0.0, 0.0, 0.0, 0.0),
        source="",
        baselines=COUNTED,
    )


def alike(mean, add=SEEDS):
    """Distilled students that differ by next to nothing, τ = 2 the best of them."""
    return {name: around(mean + 1e-5 * (name != "τ = 2") * i, add) for i, name in enumerate(MIXTURES, 1)}


def part(found: Findings, letter: str) -> str:
    parts = {one.letter: one for one in answer_of("21.35", found).parts}
    return " ".join(" ".join(b.text.split()) for b in flattened(parts[letter].blocks) if isinstance(b, Prose))


@pytest.mark.parametrize(
    "options",
    [
        {"teacher": 3.2},
        {"distilled": alike(2.99, (-0.1, 0.0, 0.1))},  # on average they beat the bigram, with one of three seeds not
    ],
)
def test_who_was_not_taught_has_no_opinion_in_any_part(options):
    found = made_of(**{"alone": around(2.4), "longer": around(2.3), "distilled": alike(2.2), **options})
    assert found.untaught
    assert "Not trained far enough" in answer_of("21.35", found).summary
    assert "This run cannot say" in part(found, "c")
    for claim in ("*At equal steps.*", "teaches more per step,", "What would have to be true", "confidence"):
        assert claim not in part(found, "c")
    assert "Here the temperature" not in part(found, "d")
    assert "no temperature stands out" not in part(found, "d")
    assert "95%" not in part(found, "d")


NOISY = (-0.03, 0.005, 0.028)


@pytest.mark.parametrize(
    ("longer", "said"),
    [
        (around(2.35), "it is cheap enough"),
        (around(2.25, NOISY), "whether it is cheap enough lies inside what seeds and timing leave open"),
        (around(2.1), "times as cheap"),
        (around(2.401), "what the teacher's signal is worth in steps cannot be said"),
    ],
)
def test_distillation_pays_where_the_interval_at_equal_time_says_so(longer, said):
    found = made_of(alone=around(2.4, (-0.012, 0.001, 0.008)), longer=longer, distilled=alike(2.25))
    assert found.at_equal_steps.verdict == "lower"
    text = part(found, "c")
    assert said in text
    assert ("cheap enough." in text) == (said == "it is cheap enough")
    assert "costs about what it gains" not in text
    assert "here it is not" not in text


def test_what_step_times_leave_open_is_in_the_interval_at_equal_time():
    """A longer training 0.02 nats worse, on a slope of 0.3: a tenth of the time is worth more than that."""
    sure, unsure = (
        made_of(alone=around(2.4), longer=around(2.32), distilled=alike(2.3), spread=spread) for spread in (0.0, 0.2)
    )
    assert sure.longer_ratio == pytest.approx(1.0)
    assert sure.at_equal_time.verdict == "lower"
    assert unsure.at_equal_time.verdict == "noise"
    low, high = unsure.at_equal_time.interval
    assert low < unsure.at_equal_time.difference < 0 < high


def test_several_students_are_corrected_for_after_what_timing_leaves_open():
    """No verdict outlives its correction: p and interval both know of the timing."""
    for spread in (0.0, 0.02, 0.05, 0.1, 0.2):
        found = made_of(
            alone=around(2.4), longer=around(2.32, (0.02, 0.0, -0.01)), distilled=alike(2.25), spread=spread
        ).at_equal_time
        assert (found.verdict == "noise") == (found.interval[1] > 0)
        assert (found.verdict == "lower") == (found.interval[1] < 0 and found.p_value <= 0.05)


def test_the_best_temperature_was_picked_from_all():
    """Enough for one pair named beforehand (p = 0.03), and not for the widest of three."""
    taus = {"τ = 1": (2.3, 2.31, 2.29), "τ = 2": (2.23, 2.21, 2.158), "τ = 4": (2.25, 2.261, 2.24)}
    found = made_of(alone=around(2.5), longer=around(2.4), distilled={**alike(2.3), **taus})
    widest = found.judged(found.by_tau[0][1], found.by_tau[1][1])
    assert widest.verdict == "lower"
    assert widest.p_value == pytest.approx(0.03, abs=0.002)
    text = part(found, "d")
    assert "Here no temperature stands out" in text
    assert "enough alone, but not as one of 3 comparisons" in text
    sure = {**taus, "τ = 2": (2.2, 2.212, 2.19)}
    assert "Here the temperature matters" in part(
        made_of(alone=around(2.5), longer=around(2.4), distilled={**alike(2.3), **sure}), "d"
    )


def test_one_seed_says_nothing_of_temperatures():
    one = (0.0,)
    found = made_of(alone=around(2.5, one), longer=around(2.4, one), distilled=alike(2.3, one))
    assert "stands out" not in part(found, "d")
    assert "which carries no claim" in part(found, "d")


def test_temperatures_inside_the_noise_are_told_in_a_whole_sentence():
    taus = {"τ = 1": (2.3, 2.32, 2.28), "τ = 2": (2.31, 2.29, 2.27), "τ = 4": (2.29, 2.3, 2.3)}
    text = part(made_of(alone=around(2.5), longer=around(2.4), distilled={**alike(2.3), **taus}), "d")
    assert "of τ = 2, the best tried, and that of τ = 1, the worst, differ by 0.010 nats at the mean" in text


def test_what_noise_gives_confirms_nothing():
    """The best distilled student is ahead on average, but not with every seed."""
    wide = (-0.3, 0.02, 0.2)
    found = answer_of("21.35", made_of(alone=around(2.0), longer=around(2.0), distilled=alike(1.95, wide)))
    checks = [check for check in found.checks if "distilled minus alone" in check.claim]
    assert [(check.measured < 0, check.passed) for check in checks] == [(True, False)] * 2
    said = " ".join(found.unexpected.split())
    for when in ("steps", "time"):
        assert f"That distillation gains anything at equal {when} is not shown, and not refuted either" in said
