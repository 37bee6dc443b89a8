import math

import numpy as np
import pytest
from scipy import stats

from minigpt.evaluation.pooled import compare_pooled


def test_two_groups_are_students_test():
    groups = {"a": (1.0, 1.2, 1.1), "b": (1.5, 1.6)}
    found = compare_pooled(groups, "a", "b")
    expected = stats.ttest_ind(groups["b"], groups["a"], equal_var=True)
    low, high = expected.confidence_interval()
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.interval == pytest.approx((low, high))
    assert found.verdict == "higher"


def test_other_groups_add_what_they_know_of_the_scatter():
    rng = np.random.default_rng(0)
    groups = {"a": (1.0, 1.02), "b": (1.1, 1.13), "c": tuple(2 + 0.02 * rng.standard_normal(30))}
    alone = compare_pooled({name: groups[name] for name in "ab"}, "a", "b")
    together = compare_pooled(groups, "a", "b")
    assert together.difference == alone.difference == pytest.approx(0.105)
    assert together.interval[0] > alone.interval[0]
    square = sum((len(g) - 1) * np.var(g, ddof=1) for g in groups.values()) / 31
    assert together.std_error == pytest.approx(math.sqrt(square))  # 1/2 + 1/2


def test_one_value_carries_no_claim():
    groups = {"a": (1.0,), "b": (2.0, 2.1), "c": (3.0, 3.1)}
    found = compare_pooled(groups, "a", "b")
    assert found.verdict == "one seed"
    assert found.interval == (-math.inf, math.inf)
    assert compare_pooled(groups, "b", "c").verdict == "higher"


def test_equal_values_are_told_apart_without_error():
    assert compare_pooled({"a": (1.0, 1.0), "b": (2.0, 2.0)}, "a", "b").p_value == 0.0
    assert compare_pooled({"a": (1.0, 1.0), "b": (1.0, 1.0)}, "a", "b").verdict == "noise"


def test_what_is_not_finite_is_refused():
    with pytest.raises(ValueError, match="not finite"):
        compare_pooled({"a": (1.0, math.nan), "b": (1.0, 2.0)}, "a", "b")
