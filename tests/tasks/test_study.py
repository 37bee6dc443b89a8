from dataclasses import replace

import pytest
import torch

from minigpt.evaluation.timing import Timing
from minigpt.model import GPT
from tasks.comparison import curves, sentences, table
from tasks.exercise import TrainedModel
from tasks.recipes.catalogue import STUDY_MQA_WIDE, STUDY_ROPE
from tasks.recipes.profiles import PROFILES
from tasks.study import variant as of_models
from tasks.variants import Variant, at_equal_time, metrics


def variant(label: str, finals: list[float], step_seconds: float) -> Variant:
    """Losses that fall in a straight line from 4 at step 0 to their last value at step 100."""
    recipe = replace(STUDY_ROPE, name=label, train=replace(STUDY_ROPE.train, steps=100))
    model = GPT(replace(STUDY_ROPE.model, vocab_size=5))
    models = tuple(
        TrainedModel(
            recipe=recipe.with_seed(seed),
            model=model,
            tokenizer=None,  # type: ignore[arg-type]
            history={},
            evaluations={"step": [0, 50, 100], "validation_loss": [4.0, (4.0 + final) / 2, final]},
            seconds=1.0,
            tokens_per_second=1.0,
            snapshot_steps=(),
            load_snapshot=lambda _: model,
        )
        for seed, final in enumerate(finals)
    )
    return of_models(label, models, Timing(step_seconds, step_seconds * 0.9, step_seconds * 1.1, 7))


PARAMETERS = sum(w.numel() for w in GPT(replace(STUDY_ROPE.model, vocab_size=5)).parameters())
BASE = variant("base", [2.0, 2.01, 1.99], 0.1)
SLOW = variant("slow", [1.5, 1.51, 1.49], 0.2)


def test_equal_time_is_where_the_first_one_ends():
    base, slow = at_equal_time([BASE, SLOW])
    assert base == (2.0, 2.01, 1.99)
    assert slow == pytest.approx((2.75, 2.755, 2.745))  # half its steps, half its way


def test_the_table_says_what_the_data_say():
    rows = table([BASE, SLOW], name="trained").rows
    assert rows[0][5] == "baseline"
    assert rows[1][2] == pytest.approx(1.5)
    assert rows[1][4] == pytest.approx(-0.5)
    assert rows[1][5] == "lower"
    assert rows[1][6] == pytest.approx(200.0)
    single = table([variant("base", [2.0], 0.1), variant("other", [1.0], 0.1)], name="trained").rows
    assert single[1][3] is None
    assert single[1][5] == "one seed"


def test_sentences_tell_when_time_turns_the_verdict():
    said = sentences([BASE, SLOW])
    assert "slow is 0.500 nats lower than that of base" in said
    assert "At equal time: The validation loss of slow is 0.750 nats higher" in said
    assert "equal time" not in sentences([BASE, variant("better", [1.5, 1.51, 1.49], 0.1)])
    barely = variant("barely", [1.985, 1.975, 1.965], 0.102)  # better, and slower within what was measured
    assert at_equal_time([BASE, barely])[1][0] > 2.0
    assert "equal time" not in sentences([BASE, barely])


def test_curves_and_metrics():
    series = curves([BASE, SLOW]).series
    assert series[1].x == (50.0, 100.0)
    assert series[1].y == pytest.approx((2.75, 1.5))
    assert series[1].error == pytest.approx((0.005, 0.01))
    found = metrics([BASE, SLOW])
    assert found["validation_loss_nats_slow_equal_time"] == pytest.approx(2.75)
    assert found["step_ms_slow"] == pytest.approx(200.0)
    assert found["parameters_base"] == PARAMETERS


@pytest.mark.parametrize("profile", PROFILES.values(), ids=PROFILES)
def test_wider_multi_query_attention_has_the_parameters_of_multi_head_attention(profile):
    with torch.device("meta"):
        wide, whole = (
            sum(w.numel() for w in GPT(replace(profile.resolve(recipe).model, vocab_size=70)).parameters())
            for recipe in (STUDY_MQA_WIDE, STUDY_ROPE)
        )
    assert abs(wide - whole) / whole < 0.005
