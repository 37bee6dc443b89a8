import pytest
import torch

from minigpt.evaluation.evaluate import evaluate
from minigpt.quantize import fake_quantize
from tasks.exercises import ex34_quantization as ex34
from tasks.recipes.catalogue import STUDENT
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex34.EXERCISE.answer(make_context(ex34.EXERCISE))
    assert_sound(ex34.EXERCISE, answer)
    assert answer.metrics["file_mib_int8"] < 0.5 * answer.metrics["file_mib_fp32"]


def test_noticeable_means_from_there_on_down():
    def first(*ratios: float) -> int | None:
        return ex34.Curve("", "", 10.0, {"m": tuple(10.0 * r for r in ratios)}).first_noticed("m")

    assert first(1.0, 1.0, 1.0, 1.01, 1.03, 1.5, 9.0) == 4
    assert first(1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0) is None
    assert first(1.03, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0) == 2  # a bump at 8 bits is noise
    assert first(2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0) == 8


def test_a_curve_over_seeds_is_the_mean_and_its_spread_that_of_the_ratios():
    context = make_context(ex34.EXERCISE)
    tokens = context.tokens(STUDENT)[:600]
    one = context.model(STUDENT)
    other = ex34.TrainedModel(**{**vars(one), "model": fake_quantize(one.model, 5)})  # as if of another seed
    found = ex34.curve([one, other], "two", [ex34.CHANNEL], tokens)
    four = ex34.BITS.index(4)
    whole = [evaluate(m.model, tokens).perplexity for m in (one, other)]
    coarse = [evaluate(fake_quantize(m.model, 4), tokens).perplexity for m in (one, other)]
    assert found.fp32 == pytest.approx(sum(whole) / 2)
    assert found.methods[ex34.CHANNEL][four] == pytest.approx(sum(coarse) / 2)
    ratios = torch.tensor([c / w for c, w in zip(coarse, whole, strict=True)], dtype=torch.float64)
    assert found.spread[ex34.CHANNEL][four] == pytest.approx(ratios.std().item())
    assert ex34.curve([one], "one", [ex34.CHANNEL], tokens).spread == {}


def test_small_changes_are_not_minus_nothing():
    assert ex34.change(-6e-6) == "less than 0.01%"
    assert ex34.change(0.0123) == "+1.23%"
    assert ex34.change(-0.0123) == "-1.23%"
