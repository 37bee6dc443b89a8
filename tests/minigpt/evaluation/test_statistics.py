import math

import numpy as np
import pytest
from scipy import stats

from minigpt.evaluation.statistics import (
    Comparison,
    binomial_interval,
    compare,
    compare_blocks,
    compare_paired,
    holm,
    mean_std,
    student_t_quantile,
    widened,
)


def integrated_quantile(probability: float, freedom: float) -> float:
    """With t = √ν tan θ the density is proportional to cos^(ν-1) θ on (-π/2, π/2): the trapezoidal rule, inverted."""
    theta = np.linspace(-math.pi / 2, math.pi / 2, 20_001)
    density = np.exp((freedom - 1.0) * np.log(np.clip(np.cos(theta), 1e-300, None)))
    cumulative = np.concatenate([[0.0], np.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(np.interp(probability, cumulative / cumulative[-1], theta))


@pytest.mark.parametrize("freedom", [1.0, 2.0, 2.7, 4.0, 11.3, 200.0])
@pytest.mark.parametrize("probability", [0.025, 0.5, 0.9, 0.975, 0.995])
def test_student_t_quantile_inverts_the_integral(probability: float, freedom: float) -> None:
    expected = integrated_quantile(probability, freedom)
    assert student_t_quantile(probability, freedom) == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("probability", [0.025, 0.5, 0.9, 0.975, 0.995])
def test_student_t_quantile_in_closed_form(probability: float) -> None:
    """Cauchy's distribution is the one of ν = 1; for ν = 2 the integral can be solved, too."""
    middle = 2 * probability - 1
    assert student_t_quantile(probability, 1) == pytest.approx(math.tan(math.pi * middle / 2), rel=1e-12, abs=1e-12)
    expected = middle * math.sqrt(2 / (1 - middle**2))
    assert student_t_quantile(probability, 2) == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.706), (2, 4.303), (4, 2.776), (10, 2.228), (30, 2.042)])
def test_student_t_quantile_is_the_one_of_the_tables(freedom: int, value: float) -> None:
    assert student_t_quantile(0.975, freedom) == pytest.approx(value, abs=5e-4)


@pytest.mark.parametrize(("probability", "freedom"), [(0.0, 3), (1.0, 3), (float("nan"), 3), (0.5, 0.9)])
def test_student_t_quantile_refuses_what_is_none(probability: float, freedom: float) -> None:
    with pytest.raises(ValueError, match="need 0 < probability < 1"):
        student_t_quantile(probability, freedom)


@pytest.mark.parametrize("chance", [0.001, 1 / 65, 0.5, 0.9])
@pytest.mark.parametrize("trials", [1, 2, 30, 320, 5_000])
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_binomial_interval_equals_scipy(trials: int, chance: float, confidence: float) -> None:
    assert binomial_interval(trials, chance, confidence) == stats.binom.interval(confidence, trials, chance)


@pytest.mark.parametrize(
    ("trials", "chance", "confidence"), [(0, 0.5, 0.95), (3, 1.0, 0.95), (3, math.nan, 0.95), (3, 0.5, 1.0)]
)
def test_binomial_interval_refuses_what_is_none(trials: int, chance: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="need trials >= 1"):
        binomial_interval(trials, chance, confidence)


def test_welch_interval_equals_scipy() -> None:
    rng = np.random.default_rng(0)
    for n, m in [(2, 3), (3, 3), (5, 2), (10, 4)]:
        a, b = rng.normal(1.0, 0.1, n), rng.normal(1.2, 0.4, m)
        expected = stats.ttest_ind(b, a, equal_var=False)
        interval = expected.confidence_interval(0.95)
        found = compare(list(a), list(b))
        assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-4)
        assert found.std_error == pytest.approx(found.difference / expected.statistic)
        assert found.p_value == pytest.approx(expected.pvalue)
        assert (found.verdict == "noise") == (expected.pvalue > 0.05)


def test_paired_interval_equals_scipy() -> None:
    rng = np.random.default_rng(2)
    for n in (2, 5, 40):
        a = rng.normal(1.0, 3.0, n)
        b = a + rng.normal(0.2, 0.1, n)
        expected = stats.ttest_rel(b, a)
        interval = expected.confidence_interval(0.95)
        found = compare_paired(list(a), list(b))
        assert found.interval == pytest.approx((interval.low, interval.high), rel=1e-4)
        assert (found.verdict == "noise") == (expected.pvalue > 0.05)
        assert found.p_value == pytest.approx(expected.pvalue)
    assert compare_paired([1.0], [2.0]).verdict == "one seed"
    with pytest.raises(ValueError, match="pairs"):
        compare_paired([1.0, 2.0], [1.0])


def test_false_alarms_are_as_rare_as_promised() -> None:
    rng = np.random.default_rng(1)
    alarms = sum(compare(list(rng.normal(size=3)), list(rng.normal(size=3))).verdict != "noise" for _ in range(400))
    assert alarms / 400 < 0.08  # Welch with three seeds is slightly conservative


def test_verdicts() -> None:
    assert compare([1.0, 1.01, 0.99], [2.0, 2.01, 1.99]).verdict == "higher"
    assert compare([2.0, 2.01, 1.99], [1.0, 1.01, 0.99]).verdict == "lower"
    assert compare([1.0, 1.5, 0.5], [1.1, 1.6, 0.6]).verdict == "noise"
    assert compare([1.0], [2.0]).verdict == "one seed"
    assert compare([1.0, 1.0], [1.0, 1.0]).verdict == "noise"
    assert compare([1.0, 1.0], [0.5, 0.5]).verdict == "lower"


@pytest.mark.parametrize("bad", [[], [float("nan"), 1.0], [float("inf"), 1.0]])
def test_what_is_no_measurement_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError):
        compare([1.0, 2.0], bad)


def test_blocks_of_two_groups_are_pairs() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(2.0, 0.1, 4), rng.normal(1.9, 0.1, 4)
    (found,) = compare_blocks([list(a), list(b)])
    expected = compare_paired(list(a), list(b))
    assert found.interval == pytest.approx(expected.interval)
    assert (found.p_value, found.freedom) == (pytest.approx(expected.p_value), 3)
    assert compare_blocks([[1.0], [2.0]])[0].verdict == "one seed"


def test_blocks_equal_a_regression_on_groups_and_seeds() -> None:
    """Least squares with a dummy variable for each group and seed: coefficients, their errors, degrees of freedom."""
    rng = np.random.default_rng(5)
    groups, seeds = 4, 3
    table = 9 * rng.normal(size=(groups, 1)) + 0.5 * rng.normal(size=seeds) + 0.1 * rng.normal(size=(groups, seeds))
    group, seed = np.indices((groups, seeds)).reshape(2, -1)
    design = np.column_stack(
        [np.ones(groups * seeds), *(group == g for g in range(1, groups)), *(seed == s for s in (1, 2))]
    )
    coefficients, squares, rank, _ = np.linalg.lstsq(design, table.ravel(), rcond=None)
    freedom = groups * seeds - rank
    errors = np.sqrt(squares[0] / freedom * np.diag(np.linalg.inv(design.T @ design)))
    found = compare_blocks(table.tolist())
    assert [c.difference for c in found] == pytest.approx(coefficients[1:groups])
    assert [c.std_error for c in found] == pytest.approx(errors[1:groups])
    assert {c.freedom for c in found} == {freedom}
    half = stats.t.ppf(0.975, freedom) * errors[1]
    assert found[0].interval == pytest.approx((coefficients[1] - half, coefficients[1] + half))
    with pytest.raises(ValueError, match="equally many"):
        compare_blocks([[1.0, 2.0], [1.0]])


def test_a_group_that_scatters_further_raises_no_more_false_alarms() -> None:
    """Four variants without a difference, of which the second scatters three times as far, as one near a plateau."""
    rng = np.random.default_rng(6)
    alarms = pooled = 0
    for table in rng.normal(size=(600, 4, 3)) * np.array([1.0, 3.0, 1.0, 1.0])[:, None]:
        found = compare_blocks(table.tolist())[0]
        alarms += found.verdict != "noise"
        assert (found.interval[0] < 0 < found.interval[1]) == (found.verdict == "noise") == (found.p_value > 0.05)
        residuals = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        error = np.sqrt(2 * (residuals**2).sum() / 6 / 3)
        pooled += 2 * stats.t.sf(abs(table[1].mean() - table[0].mean()) / error, 6) < 0.05
    assert pooled / 600 > 0.10, "the scatter of all groups alone would not do"
    assert alarms / 600 < 0.065


def test_where_all_scatter_alike_the_others_still_sharpen_a_verdict() -> None:
    """After Holm for three, blocks find what pairs alone do not."""
    rng = np.random.default_rng(7)
    tables = rng.normal(size=(200, 4, 3)) + np.array([0.0, 4.0, 4.0, 4.0])[:, None]
    blocks = sum(holm(compare_blocks(t.tolist()))[0].verdict == "higher" for t in tables)
    pairs = sum(holm([compare_paired(t[0], t[k]) for k in (1, 2, 3)])[0].verdict == "higher" for t in tables)
    assert blocks > 1.3 * pairs


def test_a_difference_that_is_not_known_widens_the_interval() -> None:
    one = compare_paired([2.0, 2.01, 1.99], [1.9, 1.911, 1.89])
    wide = widened(one, [-0.12, -0.02])
    half = one.interval[1] - one.difference
    assert wide.interval == pytest.approx((-0.12 - half, -0.02 + half))
    assert wide.verdict == "lower"
    assert wide.p_value == pytest.approx(2 * stats.t.sf(0.02 / one.std_error, 2))
    both = widened(one, [-0.12, 0.02])
    assert (both.verdict, both.p_value) == ("noise", 1.0)
    assert widened(compare([1.0], [2.0]), [0.5]).verdict == "one seed"


def of_p(p: float) -> Comparison:
    """A comparison of three pairs whose p-value is this one: two degrees of freedom, so that t has a closed form."""
    middle = 1 - p
    t = middle * math.sqrt(2 / (1 - middle**2))
    spread = [-1.0, 0.0, 1.0]  # of standard deviation 1, so that the mean has an error of 1/√3
    return compare_paired([0.0] * 3, [t / math.sqrt(3) + x for x in spread])


@pytest.mark.parametrize(
    ("p_values", "corrected"),
    [
        # Holm (1979): the smallest times m, the next times m - 1, …, and never smaller than the one before.
        ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),
        ([0.01, 0.02, 0.03, 0.04, 0.06], [0.05, 0.08, 0.09, 0.09, 0.09]),  # as R's p.adjust(…, "holm") gives it
        ([0.6, 0.7], [1.0, 1.0]),
        ([0.04], [0.04]),
    ],
)
def test_holm_corrects_for_the_number_of_comparisons(p_values: list[float], corrected: list[float]) -> None:
    before = [of_p(p) for p in p_values]
    assert [c.p_value for c in before] == pytest.approx(p_values, rel=1e-9)
    after = holm(before)
    assert [c.p_value for c in after] == pytest.approx(corrected, rel=1e-9)
    assert [c.interval for c in after] == [c.interval for c in before]
    assert {c.among for c in after} == {len(p_values)}
    for one, p, now in zip(after, p_values, corrected, strict=True):
        if now < 0.0499:
            assert one.verdict == "higher"
        elif now > 0.0501:
            assert one.verdict == ("one of many" if p < 0.05 else "noise")


def test_holm_counts_only_what_can_be_tested() -> None:
    single = compare([1.0], [2.0])
    assert holm([single, of_p(0.04)])[0] == single
    assert holm([single, of_p(0.04)])[1].verdict == "higher"
    assert holm([]) == []


def test_holm_keeps_the_promise_for_the_whole_family() -> None:
    """Of many families without any difference, no more than a share of 5 % raises a single alarm."""
    rng = np.random.default_rng(3)
    families = [[compare_paired([0.0] * 4, list(rng.normal(size=4))) for _ in range(5)] for _ in range(400)]
    plain = sum(any(c.verdict in ("lower", "higher") for c in family) for family in families) / 400
    corrected = sum(any(c.verdict in ("lower", "higher") for c in holm(family)) for family in families) / 400
    assert plain > 0.15
    assert corrected < 0.08


def test_mean_std() -> None:
    assert mean_std([1.0, 2.0, 3.0]) == (2.0, 1.0)
    assert mean_std([4.0]) == (4.0, 0.0)
