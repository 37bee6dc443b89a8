import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
from transformers import TemperatureLogitsWarper

from tasks.exercises.ex06_temperature_analysis.experiment import EXERCISE, bisected_temperature, threshold_temperature
from tests.exercise_context import answered, assert_sound
from tests.exercises.formulas import assert_formulas

LOGITS = np.array([2.0, 1.0, 0.5, -1.0])


@pytest.fixture(scope="module")
def answer():
    return answered(EXERCISE)


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


@pytest.mark.parametrize("tau", [0.5, 1.0, 2.0])
def test_metrics_agree_with_scipy(answer, tau):
    p = scipy.special.softmax(LOGITS / tau)
    for i in range(4):
        assert answer.metrics[f"probability_token_{i + 1}_tau_{tau}"] == pytest.approx(p[i], rel=1e-12)
    assert answer.metrics[f"entropy_nats_tau_{tau}"] == pytest.approx(scipy.stats.entropy(p), rel=1e-12)
    assert answer.metrics[f"entropy_bits_tau_{tau}"] == pytest.approx(scipy.stats.entropy(p, base=2), rel=1e-12)
    assert answer.metrics[f"entropy_normalised_tau_{tau}"] == pytest.approx(scipy.stats.entropy(p, base=4), rel=1e-12)


def test_both_limits_are_among_the_metrics(answer):
    assert answer.metrics["largest_probability_tau_0.01"] == pytest.approx(1)
    assert answer.metrics["entropy_nats_tau_0.01"] == pytest.approx(0, abs=1e-30)
    assert answer.metrics["smallest_probability_tau_10000"] == pytest.approx(1 / 4, abs=1e-4)
    assert answer.metrics["entropy_nats_tau_10000"] == pytest.approx(answer.metrics["entropy_nats_uniform"])


def test_transformers_refuses_temperature_zero_as_the_text_says():
    with pytest.raises(ValueError, match="strictly positive"):
        TemperatureLogitsWarper(0.0)


@pytest.mark.parametrize("threshold", [0.5, 0.9, 0.999])
def test_the_root_is_a_root(threshold):
    tau = threshold_temperature(threshold)
    assert scipy.stats.entropy(scipy.special.softmax(LOGITS / tau)) / math.log(4) == pytest.approx(threshold, abs=1e-12)
    assert bisected_temperature(threshold) == pytest.approx(tau, abs=1e-9)
