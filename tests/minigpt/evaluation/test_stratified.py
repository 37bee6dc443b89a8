import numpy as np
import pytest
import torch

from minigpt.evaluation.stratified import stratified_difference


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def test_it_is_the_coefficient_of_a_regression() -> None:
    rng = np.random.default_rng(0)
    strata, group = rng.integers(4, size=300), rng.random(300) < 0.3
    values = rng.normal(size=300) + 0.7 * group + strata
    found = stratified_difference(values, group, strata, np.arange(300) // 5, generator=generator())
    design = np.column_stack([group, *(strata == s for s in range(4))]).astype(float)
    assert found is not None
    assert found.difference == pytest.approx(np.linalg.lstsq(design, values, rcond=None)[0][0], abs=1e-12)
    assert found.counts == (int((~group).sum()), int(group.sum()))
    assert found.means == pytest.approx((values[~group].mean(), values[group].mean()))


def test_a_difference_of_positions_alone_is_none() -> None:
    """Group 1 stands early, where values are high; within strata there is nothing."""
    early, values, group = [True] * 8 + [False] * 8, [5.0] * 8 + [1.0] * 8, [True] * 6 + [False] * 9 + [True]
    raw = stratified_difference(values, group, [0] * 16, range(16), generator=generator())
    held = stratified_difference(values, group, early, range(16), generator=generator())
    assert raw is not None
    assert held is not None
    assert raw.difference > 2
    assert held.difference == 0


def test_the_interval_covers_as_often_as_promised() -> None:
    """Values share a part with their cluster: an interval that resampled values would be far too short."""
    rng, hits = np.random.default_rng(1), 0
    for _ in range(150):
        clusters = np.repeat(np.arange(40), 6)
        group = np.repeat(rng.random(40) < 0.5, 6)
        values = np.repeat(rng.normal(size=40), 6) + 0.3 * rng.normal(size=240) + 0.5 * group
        found = stratified_difference(values, group, [0] * 240, clusters, draws=400, generator=generator())
        assert found is not None
        hits += found.interval[0] <= 0.5 <= found.interval[1]
    assert 0.88 <= hits / 150 <= 0.99


def test_verdicts() -> None:
    values, group = [3.0, 3.1, 2.9, 1.0, 1.1, 0.9] * 5, [True, True, True, False, False, False] * 5
    high = stratified_difference(values, group, [0] * 30, range(30), generator=generator())
    low = stratified_difference(values, [not g for g in group], [0] * 30, range(30), generator=generator())
    assert high is not None
    assert low is not None
    assert (high.verdict, low.verdict) == ("higher", "lower")
    none = stratified_difference(values, [True, False] * 15, [0] * 30, range(30), generator=generator())
    assert none is not None
    assert none.verdict == "noise"
    few = stratified_difference(values, group, [0] * 30, [i // 5 for i in range(30)], generator=generator())
    assert few is not None
    assert (few.verdict, few.clusters) == ("too few", 6)
    small = stratified_difference(values[:16], group[:16], [0] * 16, range(16), generator=generator())
    assert small is not None
    assert (small.verdict, small.counts) == ("too few", (7, 9))


def test_nothing_to_compare() -> None:
    assert stratified_difference([], [], [], [], generator=generator()) is None
    assert stratified_difference([1.0, 2.0], [True, True], [0, 0], [0, 1], generator=generator()) is None
    assert stratified_difference([1.0, 2.0], [True, False], [0, 1], [0, 1], generator=generator()) is None
    assert stratified_difference([1.0, 2.0], [True, False], [0, 0], [0, 0], generator=generator()) is None
