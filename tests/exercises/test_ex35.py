import math
from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.timing import Timing
from reports.types import Prose
from tasks.exercises.ex35_knowledge_distillation.experiment import EXERCISE
from tasks.recipes.catalogue import DISTILLED_2, STUDENT
from tasks.study import _training_step
from tasks.variants import LearningCurve
from tests.exercise_context import answered, assert_sound, make_context, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


def test_the_answer_is_sound(findings):
    answer = answered(EXERCISE, findings)
    assert_sound(EXERCISE, answer)
    assert answer.metrics["step_ms_distilled_2"] > 0


def test_a_distilled_step_costs_a_pass_of_the_teacher_more():
    """Counted and not timed: what else the machine does must not decide."""
    context = make_context(EXERCISE)
    plain, distilled = (context.model(recipe) for recipe in (STUDENT, DISTILLED_2))
    teacher = context.model(DISTILLED_2.teacher).model

    def flops(work) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return counter.get_total_flops()

    costs = [
        flops(_training_step(trained, context, context.generator("step"), recipe.teacher))
        for trained, recipe in ((plain, STUDENT), (distilled, DISTILLED_2))
    ]
    batch = torch.zeros(plain.recipe.train.batch_size, plain.model.config.context, dtype=torch.long)
    with torch.no_grad():
        assert costs[1] - costs[0] == flops(lambda: teacher(batch)) > 0


# Losses of a student without teacher, of which the distilled ones at 2.5 ± 0.01 are said to be …
OTHERS = {"lower": (2.99, 3.0, 3.01), "higher": (1.99, 2.0, 2.01), "noise": (2.4, 2.5, 2.6), "one seed": (2.6,)}


def with_losses(row, losses):
    steps = row.curves[0].steps
    return replace(
        row,
        curves=tuple(LearningCurve(steps, (*(4.0,) * (len(steps) - 1), loss), steps[-1:], (loss,)) for loss in losses),
    )


@pytest.mark.parametrize("steps", ["lower", "higher", "noise", "one seed"])
@pytest.mark.parametrize("time", ["lower", "higher", "noise", "one seed"])
def test_every_outcome_has_its_lesson(findings, steps, time):
    alone, *distilled, longer = findings.rows
    taught = (with_losses(row, (2.49, 2.5, 2.51)) for row in distilled)
    rows = (with_losses(alone, OTHERS[steps]), *taught, with_losses(longer, OTHERS[time]))
    # At exactly equal time, so that no error of timing is in the interval.
    second = Timing(1.0, 1.0, 1.0, 1)
    rows = tuple(
        replace(row, steps=10 * (1 + (row is rows[-1])), step=replace(second, median=1.0 + (row in rows[1:-1])))
        for row in rows
    )
    found = replace(findings, rows=rows, baselines=Baselines(9.0, 9.0, 9.0, 1))
    assert found.longer_ratio == 1.0
    assert (found.at_equal_steps.verdict, found.at_equal_time.verdict) == (steps, time)
    said = next(block.text for block in answered(EXERCISE, found).parts[2].blocks if isinstance(block, Prose))
    assert said.endswith(".")
    assert ("Contrary" in said) == (steps in ("higher", "noise"))
    assert ("A soft target teaches more per step" in said) == (steps == "lower" and time != "lower")
    assert ("decides nothing" in said) == (steps == "one seed")


def test_what_distillation_would_have_to_cost(findings):
    """A slope of one nat for e times the steps: 0.5 nats are worth e^0.5 times the steps."""
    alone, *distilled, longer = findings.rows
    rows = (
        replace(with_losses(alone, (3.0, 3.0, 3.0)), steps=100),
        *(with_losses(row, (2.5, 2.5, 2.5)) for row in distilled),
        replace(with_losses(longer, (2.0, 2.0, 2.0)), steps=round(100 * math.e)),
    )
    found = replace(findings, rows=rows)
    assert found.worth == pytest.approx(math.e**0.5, rel=0.01)
    worse = (replace(row, curves=with_losses(row, (3.5, 3.5, 3.5)).curves) for row in distilled)
    assert replace(found, rows=(rows[0], *worse, rows[-1])).worth is None


def test_a_student_that_does_not_beat_a_bigram_has_no_opinion(findings):
    answer = answered(EXERCISE, replace(findings, baselines=Baselines(3.0, 0.1, 0.1, 2)))
    assert answer.summary.startswith("Not trained far enough to say")
