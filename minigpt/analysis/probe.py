"""Linear probes: what can be read off a frozen representation by a logistic regression."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Probe:
    """A linear classifier of two classes on standardised features."""

    mean: Tensor
    deviation: Tensor
    weight: Tensor
    bias: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Log-odds of class 1, (N, F) → (N,)."""
        return ((features.double() - self.mean) / self.deviation) @ self.weight + self.bias

    def accuracy(self, features: Tensor, labels: Tensor) -> float:
        """Share of labels (N,) in {0, 1} that are given right."""
        return ((self.scores(features) > 0) == labels.bool()).double().mean().item()


def fit(features: Tensor, labels: Tensor, *, penalty: float = 1e-3) -> Probe:
    """Minimise logistic loss + penalty · ‖w‖² over weights and bias: convex, so the result depends on nothing else.

    Features (N, F) are standardised first; those that do not vary are left at 0. Source: Alain & Bengio (2017).
    """
    x, y = features.double(), labels.double()
    mean, deviation = x.mean(dim=0), x.std(dim=0)
    deviation = torch.where(deviation > 1e-9, deviation, torch.ones_like(deviation))
    x = (x - mean) / deviation
    weight = torch.zeros(x.shape[1], dtype=torch.float64, device=x.device, requires_grad=True)
    bias = torch.zeros((), dtype=torch.float64, device=x.device, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=500, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.binary_cross_entropy_with_logits(x @ weight + bias, y) + penalty * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return Probe(mean, deviation, weight.detach(), bias.detach())
