"""Muon against an SVD, and against PyTorch's own; who updates what."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.optimizers import QUINTIC, Joined, Muon, hidden_matrices, make_optimizer, orthogonalized
from minigpt.precision import Precision
from minigpt.train import TrainConfig, train

CONFIG = GPTConfig(n_layer=3, n_head=2, d_model=32, context=16, vocab_size=29)
TC = TrainConfig(steps=20, batch_size=4, optimizer="muon", learning_rate=3e-3, muon_learning_rate=0.03)
TOKENS = torch.randint(29, (500,), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(4, 24, 24), (3, 16, 40), (1, 8, 64)], ids=str)
def test_singular_values_become_what_the_polynomial_makes_of_them(shape: tuple[int, int, int]) -> None:
    """The singular vectors stay; each singular value goes through a x + b x³ + c x⁵ five times, from its share on."""
    torch.manual_seed(0)
    matrices = torch.randn(shape, dtype=torch.float64)
    U, S, Vh = torch.linalg.svd(matrices, full_matrices=False)
    expected = S / S.square().sum(dim=-1, keepdim=True).sqrt()
    a, b, c = QUINTIC
    for _ in range(5):
        expected = a * expected + b * expected**3 + c * expected**5
    found = U.mT @ orthogonalized(matrices) @ Vh.mT
    assert (found - torch.diag_embed(expected)).abs().max() < 1e-10
    large = S.max() * 0.05 < S
    assert (expected[large] - 0.95).abs().max() < 0.3
    rough = U.mT @ orthogonalized(matrices.bfloat16()).double() @ Vh.mT
    assert (rough.diagonal(dim1=-2, dim2=-1)[large] - 0.95).abs().max() < 0.35


def test_directions_do_not_depend_on_the_size_of_the_gradient() -> None:
    torch.manual_seed(0)
    matrices = torch.randn(2, 8, 12)
    assert torch.equal(orthogonalized(matrices), orthogonalized(matrices * 2.0**40))
    assert torch.equal(orthogonalized(torch.zeros(1, 4, 4)), torch.zeros(1, 4, 4))


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 0.02), ("bf16", 0.01)])
def test_equals_muon_of_torch(precision: Precision, tolerance: float) -> None:
    """Four steps on matrices of which some are alike only after a transposition."""
    torch.manual_seed(0)
    shapes = [(48, 16), (16, 16), (64, 16), (16, 64), (48, 16), (16, 16)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    theirs = [nn.Parameter(weight.detach().clone()) for weight in ours]
    start = [weight.detach().clone() for weight in ours]
    a = Muon(ours, 0.02, weight_decay=0.1, precision=precision)
    b = torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1, momentum=0.95)  # Nesterov, five iterations, √max(1, M/N)
    for _ in range(4):
        for mine, other in zip(ours, theirs, strict=True):
            mine.grad = torch.randn_like(mine)
            other.grad = mine.grad.clone()
        a.step()
        b.step()
    for mine, other, before in zip(ours, theirs, start, strict=True):
        moved = (other - before).norm()
        assert moved > 0.05
        assert (mine - other).norm() < tolerance * moved  # theirs are always products in bf16
        assert torch.allclose(a.state[mine]["momentum"], b.state[other]["momentum_buffer"], atol=1e-6)


def test_weight_decay_alone() -> None:
    weight = nn.Parameter(torch.ones(3, 2))
    weight.grad = torch.zeros(3, 2)
    Muon([weight], 0.5, weight_decay=0.1).step()
    assert torch.allclose(weight, torch.full((3, 2), 0.95))


def test_a_matrix_without_gradient_stays() -> None:
    still, moved = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    moved.grad = torch.eye(2)
    Muon([still, moved], 0.1).step()
    assert torch.equal(still, torch.ones(2, 2))
    assert not torch.equal(moved, torch.ones(2, 2))


@pytest.mark.parametrize("tied", [True, False])
def test_muon_has_the_matrices_in_the_blocks_and_adamw_all_others(tied: bool) -> None:
    model = GPT(replace(CONFIG, tie_weights=tied))
    optimizer = make_optimizer(model, TC)
    assert isinstance(optimizer, Joined)
    muon, decayed, others = optimizer.param_groups
    names = {weight: name for name, weight in model.named_parameters()}
    per_block = ("attn.qkv.weight", "attn.proj.weight", "mlp.up.weight", "mlp.down.weight")
    assert {names[w] for w in muon["params"]} == {f"blocks.{layer}.{m}" for layer in range(3) for m in per_block}
    tables = {"token_embedding.weight", "position_embedding.weight", *([] if tied else ["unembedding.weight"])}
    assert {names[w] for w in decayed["params"]} == tables
    assert all(w.ndim == 1 for w in others["params"])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(names)
    assert (muon["weight_decay"], decayed["weight_decay"], others["weight_decay"]) == (0.1, 0.1, 0.0)


def test_both_rates_follow_the_schedule() -> None:
    """One step without momentum or clipping moves a square matrix by its own rate, in all directions."""
    tc = replace(TC, steps=1, warmup_steps=2, weight_decay=0.0, grad_clip=0.0)
    torch.manual_seed(0)
    fresh = GPT(CONFIG)
    trained = train(CONFIG, tc, TOKENS, TOKENS, seed=0).model
    moved = trained.blocks[0].attn.proj.weight - fresh.blocks[0].attn.proj.weight
    assert torch.linalg.matrix_norm(moved, 2).item() == pytest.approx(0.03 / 2, rel=0.3)
    table: Tensor = trained.token_embedding.weight - fresh.token_embedding.weight
    assert table.abs().max().item() == pytest.approx(3e-3 / 2, rel=1e-3)  # Adam's first step: the sign of the gradient


def test_a_text_is_learned_by_heart() -> None:
    tokens = torch.randint(29, (33,), generator=torch.Generator().manual_seed(0))
    result = train(CONFIG, replace(TC, steps=150, batch_size=8), tokens, tokens, seed=0)
    assert result.history["train_loss"][-1] < 0.3 < math.log(29)


def test_what_has_no_blocks_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a model with blocks, Linear has none: take 'adamw'"):
        hidden_matrices(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"optimizer": "sgd"}, "no optimizer is called 'sgd': adamw, muon"),
        ({"muon_learning_rate": -1.0}, "muon_learning_rate must be a finite number from 0 up, got -1.0"),
        ({"muon_learning_rate": math.inf}, "muon_learning_rate must be a finite number from 0 up, got inf"),
    ],
)
def test_wrong_fields_are_named(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TC, **wrong)
