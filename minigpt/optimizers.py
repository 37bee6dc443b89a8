"""AdamW for everything, or Muon for the matrices inside the blocks and AdamW for the rest.

Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) takes the momentum of a matrix, replaces its
singular values by ones, and steps by the result: all directions that the gradient knows of move equally far, where
Adam's steps are dominated by a few. Singular values are brought near one by products of matrices alone
(``orthogonalized``), which a processor does fast.
"""

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from torch import Tensor, nn

from minigpt.checks import whole
from minigpt.precision import Precision

if TYPE_CHECKING:
    from minigpt.train import TrainConfig

OptimizerName = Literal["adamw", "muon"]
OPTIMIZERS: tuple[OptimizerName, ...] = get_args(OptimizerName)

# Jordan et al. (2024): a x + b x³ + c x⁵ with the steepest slope at 0 that stays within about 0.7 … 1.2 around 1.
QUINTIC = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalized(matrices: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """U S' Vᵀ for each U S Vᵀ of (K, M, N), with S' within about 0.7 … 1.2, (K, M, N).

    Newton and Schulz's iteration with the quintic of Jordan et al. (2024): X ← a X + (b A + c A²) X with A = X Xᵀ is
    the polynomial of each singular value. It starts from X / ‖X‖, Frobenius' norm, so that all of them are at most 1;
    those below about 0.0015 of the norm stay below 0.7 after five rounds. The products cost least for M <= N. bf16
    serves: what it rounds away in one round the next one mends.

    Raises:
        ValueError: fewer than 0 rounds.
    """
    whole("iterations", iterations, 0)
    a, b, c = QUINTIC
    X = matrices / matrices.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(iterations):
        A = X @ X.mT  # (K, M, M)
        X = torch.baddbmm(X, torch.baddbmm(A, A, A, beta=b, alpha=c), X, beta=a)
    return X


class Muon(torch.optim.Optimizer):
    """Orthogonalised Nesterov momentum for matrices (M, N), with decoupled weight decay.

        B ← μ B + (1 - μ) g                                          the running mean of the gradients g
        W ← (1 - η λ) W - η √max(1, M/N) · orth((1 - μ) g + μ B)     g once more: Nesterov's look-ahead

    as ``torch.optim.Muon`` does it by default; orth computes in ``precision``. Matrices of equal shape, transposed
    ones included, are orthogonalised in one batch of products: so many small ones would cost as much again in calls.
    """

    def __init__(
        self,
        matrices: Iterable[Any],
        learning_rate: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        precision: Precision = "fp32",
    ) -> None:
        super().__init__(matrices, {"lr": learning_rate, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            alike: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is not None:
                    rows, columns = weight.shape
                    alike[min(rows, columns), max(rows, columns)].append(weight)
            for weights in alike.values():
                self._update(weights, group)

    def _update(self, weights: list[Tensor], group: dict[str, Any]) -> None:
        rate, decay, momentum = group["lr"], group["weight_decay"], group["momentum"]
        directions = torch.stack([_wide(self._direction(weight, momentum)) for weight in weights])  # (K, M, N)
        orthogonal = orthogonalized(directions.to(self.dtype)).to(weights[0].dtype)
        for weight, direction in zip(weights, orthogonal, strict=True):
            rows, columns = weight.shape
            weight.mul_(1 - rate * decay)
            weight.add_(direction.mT if rows > columns else direction, alpha=-rate * max(1, rows / columns) ** 0.5)

    def _direction(self, weight: Tensor, momentum: float) -> Tensor:
        """Nesterov's look-ahead: the gradient, and the momentum that it has just entered."""
        assert weight.grad is not None
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        mean: Tensor = state["momentum"]
        mean.lerp_(weight.grad, 1 - momentum)
        return weight.grad.lerp(mean, momentum)


def _wide(matrix: Tensor) -> Tensor:
    return matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix


class Joined:
    """Several optimisers that are stepped as one; each weight belongs to one of them."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts
        self.state: defaultdict[Tensor, Any] = defaultdict(dict)  # one for all: it is kept by weight
        for part in parts:
            part.state = self.state

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the parts, in their order."""
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        """One update of all weights."""
        for part in self.parts:
            part.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.parts:
            part.zero_grad(set_to_none)


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """The matrices within the blocks of a ``GPT``: neither embeddings nor the unembedding.

    Raises:
        ValueError: the model has no ``blocks``, so that nobody knows which of its matrices are which.
    """
    if not isinstance(blocks := getattr(model, "blocks", None), nn.ModuleList):
        raise ValueError(f"optimizer 'muon' needs a model with blocks, {type(model).__name__} has none: take 'adamw'")
    return [weight for weight in blocks.parameters() if weight.ndim == 2]


def make_optimizer(model: nn.Module, tc: "TrainConfig") -> torch.optim.AdamW | Joined:
    """AdamW (Loshchilov & Hutter, 2019) or Muon with it; decay on matrices only: norms and biases gain nothing by it.

    Raises:
        ValueError: Muon, and the model has no blocks.
    """
    hidden = hidden_matrices(model) if tc.optimizer == "muon" else []
    taken = {id(weight) for weight in hidden}
    others = [weight for weight in model.parameters() if id(weight) not in taken]
    groups = [
        {"params": [w for w in others if w.ndim >= 2], "weight_decay": tc.weight_decay},
        {"params": [w for w in others if w.ndim < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=tc.learning_rate, betas=(tc.beta1, tc.beta2), fused=True)
    if not hidden:
        return adamw
    ratio = tc.muon_learning_rate / tc.learning_rate if tc.learning_rate else 0.0
    groups = [{"params": hidden, "ratio": ratio}]
    return Joined(Muon(groups, tc.muon_learning_rate, tc.weight_decay, precision=tc.precision), adamw)
