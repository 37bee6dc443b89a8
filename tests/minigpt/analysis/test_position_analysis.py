"""The analysis on tables whose geometry is known: a helix, waves, noise, a shuffled order; and on GPT-2's own."""

import math
import os

import numpy as np
import pytest
import torch
from torch import Tensor

from minigpt.analysis.position_analysis import (
    adjacent_share,
    analyse,
    cosine_matrix,
    distance_correlation,
    half_distance,
    mean_by_distance,
    nearest_positions,
    principal_components,
    rotation,
    sinusoidal_cosine,
    stationary_share,
    strongest_wave,
)
from minigpt.positions import sinusoidal

T, C = 60, 24


@pytest.fixture
def noise(generator: torch.Generator) -> Tensor:
    return torch.randn(T, C, generator=generator, dtype=torch.float64) + 0.5


def helix(turns: float = 3.0) -> Tensor:
    """A circle in two dimensions and a straight line in a third, turned at random into C dimensions."""
    t = torch.arange(T, dtype=torch.float64)
    angle = 2 * math.pi * turns * t / (T - 1)
    curve = torch.stack([6 * angle.cos(), 6 * angle.sin(), 3 * t / T - 1.5], dim=1)
    basis = torch.linalg.qr(torch.randn(C, C, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    return curve @ basis[:3]


def test_cosines_against_torch(noise: Tensor) -> None:
    expected = torch.cosine_similarity(noise[:, None], noise[None], dim=-1)
    torch.testing.assert_close(cosine_matrix(noise), expected)


def test_components_against_numpy_and_pca_lowrank(noise: Tensor) -> None:
    variance, coordinates = principal_components(noise)
    values, vectors = np.linalg.eigh(np.cov(noise.numpy().T))
    order = values.argsort()[::-1]
    np.testing.assert_allclose(variance.numpy(), values[order] / values.sum(), atol=1e-12)
    projected = (noise - noise.mean(0)).numpy() @ vectors[:, order]
    np.testing.assert_allclose(np.abs(coordinates.numpy()), np.abs(projected), atol=1e-9)
    _, singular, _ = torch.pca_lowrank(noise, q=C, niter=8)
    torch.testing.assert_close(variance, singular.square() / singular.square().sum())
    assert (coordinates.amax(0) >= -coordinates.amin(0)).all(), "signs are fixed"


def test_nearest_on_a_shuffled_arc(generator: torch.Generator) -> None:
    """Points of an arc with growing gaps, in a random order: the nearest is the one before on the arc."""
    angle = torch.arange(1, T + 1).double().square() * (math.pi / 4 / T**2)
    order = torch.randperm(T, generator=generator)
    points = torch.stack([angle.cos(), angle.sin()], dim=1)[order]
    expected = (order - 1).clamp_min(0) + (order == 0).long()
    place = order.argsort()
    assert torch.equal(nearest_positions(cosine_matrix(points)), place[expected])


def test_adjacent_share_by_hand() -> None:
    assert adjacent_share(torch.tensor([1, 2, 0, 2, 0])) == 3 / 5
    chance = sum((2 if 0 < t < T - 1 else 1) / (T - 1) for t in range(T)) / T
    assert chance == pytest.approx(2 / T)


def test_mean_by_distance_by_hand() -> None:
    matrix = torch.tensor([[1.0, 2.0, 5.0], [2.0, 3.0, 4.0], [5.0, 4.0, 8.0]])
    assert mean_by_distance(matrix).tolist() == [4.0, 3.0, 5.0]


def test_distance_measures(noise: Tensor) -> None:
    i = torch.arange(T).double()
    falling = 1 - (i[:, None] - i).abs() / T
    assert distance_correlation(falling) == pytest.approx(-1)
    assert stationary_share(falling) == pytest.approx(1)
    bumped = torch.where((i[:, None] - i).abs() > 10, 2.0, falling)
    assert distance_correlation(bumped, 10) == pytest.approx(-1)
    assert distance_correlation(bumped) > 0
    assert stationary_share(cosine_matrix(noise)) < 0.1
    assert stationary_share(torch.outer(i, i)) < 0.9


def test_half_distance() -> None:
    assert half_distance(torch.tensor([1.0, 0.75, 0.25, 0.9])) == 1.5
    assert half_distance(torch.tensor([1.0, 0.0])) == 0.5
    assert half_distance(torch.tensor([1.0, 0.9, 0.8])) == 2


@pytest.mark.parametrize("cycles", [1, 7, 25])
def test_waves_are_found(cycles: int) -> None:
    t = torch.arange(T).double()
    wave = strongest_wave(3 + (2 * math.pi * cycles * t / T + 0.4).sin())
    assert (wave.cycles, wave.period) == (cycles, T / cycles)
    assert wave.share == pytest.approx(1)
    mixed = (2 * math.pi * cycles * t / T).sin() * 2 + (2 * math.pi * 12 * t / T).sin()
    assert strongest_wave(mixed).share == pytest.approx(4 / 5)


@pytest.mark.parametrize("turns", [3.0, -5.0])
def test_a_helix_is_one(turns: float) -> None:
    found = analyse(helix(turns)).rotation
    assert abs(found.turns) == pytest.approx(abs(turns), abs=0.05)
    assert found.steady == 1
    assert found.advance > 0.95, "its axes are a little tilted: over few turns, sine and line correlate"


def test_rotation_in_any_plane() -> None:
    t = torch.arange(T).double()
    angle = -0.3 * t
    found = rotation(torch.stack([angle.cos(), 5 - t, angle.sin()], dim=1))
    assert found.components == (0, 2)
    assert found.turns == pytest.approx(-0.3 * (T - 1) / (2 * math.pi))
    assert (found.steady, found.advance) == (1, pytest.approx(1))


def test_turning_back_and_forth_is_no_rotation(generator: torch.Generator) -> None:
    angle = (torch.arange(T).double() / 4).sin() * 2
    swing = torch.stack([angle.cos(), angle.sin(), torch.randn(T, generator=generator).double()], dim=1)
    assert rotation(swing).steady < 0.8


def test_noise_shows_nothing(noise: Tensor) -> None:
    found = analyse(noise - 0.5)
    assert found.adjacent < 0.2
    assert found.by_distance[1].abs() < 0.1
    assert found.reach < 0.6
    assert found.dimensions() > 12
    assert found.rotation.steady < 0.75


@pytest.mark.parametrize(("length", "width"), [(50, 16), (512, 128)])
def test_sinusoids_in_closed_form(length: int, width: int) -> None:
    table = sinusoidal(torch.arange(length), width).double()
    torch.testing.assert_close(sinusoidal_cosine(length, width), cosine_matrix(table), rtol=0, atol=1e-5)
    found = analyse(table)
    assert found.adjacent == 1
    assert stationary_share(found.cosine) == pytest.approx(1)
    with pytest.raises(ValueError, match="even"):
        sinusoidal_cosine(length, width + 1)


def test_summaries_by_hand() -> None:
    found = analyse(helix())
    i, j = torch.triu_indices(T, T, 1)
    assert found.near == pytest.approx(torch.stack([found.cosine[t, t + 1] for t in range(T - 1)]).mean().item())
    assert found.far == pytest.approx(found.cosine[i, j][j - i >= T // 2].mean().item())
    assert found.top == pytest.approx(1)
    assert found.dimensions() == 2
    assert found.dimensions(0.9999) == 3
    assert found.nearest_within(1) == found.adjacent


def test_bad_input() -> None:
    with pytest.raises(ValueError, match="at least 8 positions"):
        analyse(torch.ones(7, 16))


# --- GPT-2's own table, where it is at hand -------------------------------------------------------------------


@pytest.fixture(scope="module")
def gpt2_table() -> Tensor:
    """The first of GPT-2's two embedding tables, 1,024 × 768, as a .npy file of float32."""
    if not (file := os.environ.get("CHAPTER_GPT2_WPE")):
        pytest.skip("CHAPTER_GPT2_WPE names no file")
    table = torch.from_numpy(np.load(file, allow_pickle=False))
    assert table.shape == (1024, 768)
    return table


def test_gpt2_is_a_helix(gpt2_table: Tensor) -> None:
    """Yedidia (2023): three dimensions hold nearly all; two of them go round, the third goes on."""
    found = analyse(gpt2_table)
    assert found.variance[:3].sum() == pytest.approx(0.904, abs=0.002)
    assert found.variance[3] < 0.05
    assert found.rotation.components == (0, 1)
    assert found.rotation.steady > 0.99
    assert found.rotation.advance > 0.95
    assert 3 < abs(found.rotation.turns) < 4
    assert [found.wave(k).cycles for k in range(3)] == [2, 2, 1]
    in_the_middle = rotation(found.components[16:1000, :3])
    assert 2 < abs(in_the_middle.turns) < 2.5, "outside the first and last positions it turns as its waves say"


def test_gpt2_neighbours_are_alike(gpt2_table: Tensor) -> None:
    found = analyse(gpt2_table)
    assert 0.8 < found.adjacent < 0.9
    assert (found.nearest - torch.arange(1024))[:1023].abs().max() < 10
    assert found.by_distance[1] > 0.99
    assert 80 < found.reach < 110
    assert found.by_distance[256] < -0.4, "half a period away it points the other way"
    assert found.by_distance[512] > 0.25, "and a period away back again"


def test_gpt2_has_odd_ends(gpt2_table: Tensor) -> None:
    found = analyse(gpt2_table)
    assert torch.equal(found.norms.argsort(descending=True)[:5], torch.arange(5)), "the first are the longest"
    assert found.norms[0] > 2.5 * found.norms.median()
    assert found.norms.argmin() == 1023
    assert found.norms[1023] < 0.05 * found.norms.median(), "the last was hardly ever trained"
    assert found.cosine[1023, :1023].abs().max() < 0.1
    assert found.cosine[0, 1] < 0.6 < 0.95 < found.cosine[2, 3]
