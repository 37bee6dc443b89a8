from dataclasses import replace

import pytest
import torch

from minigpt.evaluation.evaluate import token_losses
from minigpt.masks import causal_mask
from tasks.exercises.ex02_causal_mask import experiment as ex02
from tasks.exercises.ex02_causal_mask.answer import drawn
from tasks.exercises.ex02_causal_mask.experiment import EXERCISE
from tasks.recipes.catalogue import STUDY
from tests.exercise_context import answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas, prose


@pytest.fixture(scope="module")
def context():
    return make_context(EXERCISE)


@pytest.fixture(scope="module")
def findings(context):
    return measured(EXERCISE, context)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


def test_the_metrics_hold_both_indexings_and_the_row_sums(answer):
    assert answer.metrics["attended_keys_position_5_from_1"] == 5
    assert answer.metrics["attended_keys_position_5_from_0"] == 6
    for which in ("smallest", "largest"):
        for name in ("random", "trained"):
            assert answer.metrics[f"{which}_row_sum_{name}_weights"] == pytest.approx(1, abs=1e-6)


def test_the_losses_by_position_add_up(answer, context):
    T, prefix = context.model(STUDY).model.config.context, "validation_loss_trained_full_read_full"
    last, others = (answer.metrics[f"{prefix}_{name}_nats"] for name in ("last_position", "other_positions"))
    assert (last + (T - 1) * others) / T == pytest.approx(answer.metrics[f"{prefix}_nats"])


def test_the_drawing():
    lines = drawn(causal_mask(8).tolist()).splitlines()
    cells = [line.split()[1:] for line in lines[1:]]
    assert [row.count("0") for row in cells] == [1, 2, 3, 4, 5, 6, 7, 8]
    assert all(row == ["0"] * (i + 1) + ["X"] * (7 - i) for i, row in enumerate(cells))


def test_causal_losses_are_those_of_the_evaluation(context):
    trained, tokens = context.model(STUDY), context.tokens(STUDY)
    T = trained.model.config.context
    whole = tokens[: (len(tokens) - 1) // T * T + 1]
    expected = token_losses(trained.model, whole).view(-1, T).double().mean(dim=0)
    torch.testing.assert_close(ex02.losses_by_position(trained, tokens, full=False), expected, rtol=1e-5, atol=1e-5)


def test_full_attention_changes_what_an_early_position_says(context):
    trained, tokens = context.model(STUDY), context.tokens(STUDY)
    causal, full = (ex02.losses_by_position(trained, tokens, full=full) for full in (False, True))
    assert abs(full[0] - causal[0]) > 1e-3


@pytest.mark.parametrize(
    ("broken", "cheating", "verdict", "shown"),
    [
        (3.5, 0.1, "worse than knowing nothing but letter frequencies (3.00 nats);", True),
        (2.8, 0.1, "still better than letter frequencies (3.00 nats);", True),
        (2.5, 2.6, "not worse than the model trained causally", False),
    ],
)
def test_the_verdict_on_the_mistake_follows_the_losses(findings, broken, cheating, verdict, shown):
    edited = replace(
        findings,
        unigram=3.0,
        healthy=replace(findings.healthy, losses=(2.5,)),
        cheating=replace(findings.cheating, losses=(cheating,)),
        broken=replace(findings.broken, losses=(broken,)),
    )
    answer = answered(EXERCISE, edited)
    said = " ".join(" ".join(prose(answer)).split())
    assert ("reads the answer off" in answer.finding) == ("still copies" in said) == (broken > 3)
    assert f"has {broken:.2f} nats per token, {verdict}" in said
    assert ("whose target is outside the window)." in said) == shown
    assert (f"{cheating:.3f} nats as long as it may look ahead." in said) != shown
