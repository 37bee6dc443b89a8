import pytest
import torch
from scipy.optimize import minimize

from minigpt.analysis.probe import fit


@pytest.fixture
def data(generator):
    x = torch.randn(400, 5, generator=generator, dtype=torch.float64) * torch.tensor([1.0, 10.0, 0.1, 1.0, 3.0]) + 2
    noise = torch.randn(400, generator=generator, dtype=torch.float64)
    return x, (x[:, 0] - 0.1 * x[:, 1] + noise > 1.8).long()


def test_the_optimum_is_that_of_scipy(data):
    x, y = data
    probe = fit(x, y)
    z = ((x - x.mean(0)) / x.std(0)).numpy()
    signs = 2 * y.numpy() - 1

    def loss(theta):
        import numpy as np

        return np.logaddexp(0, -signs * (z @ theta[:-1] + theta[-1])).mean() + 1e-3 * (theta[:-1] ** 2).sum()

    best = minimize(loss, [0.0] * 6, method="BFGS", options={"gtol": 1e-9}).x
    torch.testing.assert_close(probe.weight, torch.tensor(best[:-1]), rtol=1e-4, atol=1e-5)
    assert probe.bias.item() == pytest.approx(best[-1], abs=1e-5)


def test_features_that_do_not_vary_do_no_harm(data):
    x, y = data
    constant = torch.cat([x, torch.full((400, 1), 7.0)], dim=1)
    assert fit(constant, y).accuracy(constant, y) == fit(x, y).accuracy(x, y)


def test_noise_is_not_learned(generator):
    x, y = torch.randn(4000, 8, generator=generator), torch.randint(2, (4000,), generator=generator)
    accuracy = fit(x[:2000], y[:2000]).accuracy(x[2000:], y[2000:])
    assert accuracy == pytest.approx(0.5, abs=0.05)


def test_separable_classes_are_separated():
    x = torch.tensor([[0.0], [1.0], [2.0], [3.0]])
    y = torch.tensor([0, 0, 1, 1])
    assert fit(x, y).accuracy(x, y) == 1.0
