"""The distillation objective against the formula, its limits, and the mistakes that are easy to make."""

import copy
import math

import pytest
import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.objectives import causal, distill
from minigpt.train import TrainConfig, train

V, B, T = 30, 4, 12


def model(seed: int, n_layer: int = 2, dropout: float = 0.0) -> GPT:
    torch.manual_seed(seed)
    return GPT(GPTConfig(n_layer=n_layer, n_head=2, d_model=16, context=16, vocab_size=V, dropout=dropout)).eval()


@pytest.fixture
def batch(generator) -> Tensor:
    return torch.randint(V, (B, T + 1), generator=generator)


def loss(student: GPT, batch: Tensor, teacher: GPT, alpha: float, tau: float) -> Tensor:
    return distill(student, batch, teacher=teacher, args={"alpha": alpha, "tau": tau})


def gradient(student: GPT, value: Tensor) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(value, list(student.parameters()))])


@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
def test_soft_loss_is_the_mean_over_tokens_of_the_summed_kl(batch, tau):
    """A token at a time, in Python floats: ``batchmean`` over the wrong axis would be off by T or by V."""
    student, teacher = model(0), model(1, n_layer=4)
    p = (teacher(batch[:, :-1]) / tau).softmax(-1).tolist()
    q = (student(batch[:, :-1]) / tau).softmax(-1).tolist()
    kl = [sum(a * math.log(a / b) for a, b in zip(p[i][t], q[i][t], strict=True)) for i in range(B) for t in range(T)]
    assert loss(student, batch, teacher, 0.0, tau).item() == pytest.approx(tau**2 * sum(kl) / (B * T), rel=1e-4)


def test_mixing(batch):
    student, teacher = model(0), model(1)
    hard, soft = loss(student, batch, teacher, 1.0, 2.0), loss(student, batch, teacher, 0.0, 2.0)
    assert hard.item() == pytest.approx(causal(student, batch).item(), abs=1e-6)
    assert loss(student, batch, teacher, 0.3, 2.0).item() == pytest.approx(
        0.3 * hard.item() + 0.7 * soft.item(), abs=1e-5
    )


def test_a_teacher_has_nothing_to_teach_itself(batch):
    teacher = model(1)
    own = copy.deepcopy(teacher)
    value = loss(own, batch, teacher, 0.0, 2.0)
    assert abs(value.item()) < 1e-6
    assert gradient(own, value).abs().max() < 1e-6
    assert gradient(own, loss(own, batch, model(2), 0.0, 2.0)).abs().max() > 1e-4  # another teacher has


def test_no_gradient_reaches_the_teacher(batch):
    student, teacher = model(0), model(1)
    loss(student, batch, teacher, 0.0, 2.0).backward()
    assert all(weight.grad is None for weight in teacher.parameters())
    assert all(weight.grad is not None for weight in student.parameters())


def test_tau_squared_keeps_the_scale_of_the_gradient(batch):
    """Hinton et al. (2015), section 2.1: for large τ the gradient tends to that of matching centred logits."""
    student, teacher = model(0).double(), model(1).double()
    with torch.no_grad():
        for weight in teacher.parameters():
            weight.mul_(1.5)
    matching = (student(batch[:, :-1]) - teacher(batch[:, :-1])).detach()
    matching = matching - matching.mean(-1, keepdim=True)
    # d/dz of τ² KL → (z_s - z_t) / V per token: the same gradient as half the squared distance.
    limit = gradient(student, (student(batch[:, :-1]) * matching).sum() / (V * B * T))
    far = gradient(student, loss(student, batch, teacher, 0.0, 1e4))
    assert (far - limit).norm() < 1e-3 * limit.norm()
    norms = [gradient(student, loss(student, batch, teacher, 0.0, tau)).norm().item() for tau in (1, 4, 16)]
    assert max(norms) / min(norms) < 3  # and without the factor they would fall by 256


def test_training_puts_the_teacher_into_evaluation_mode():
    """A teacher with dropout, handed over in training mode, gives the same student every time."""
    tokens = torch.randint(V, (400,), generator=torch.Generator().manual_seed(0))
    config = model(0).config
    tc = TrainConfig(steps=4, batch_size=2, objective="distill", objective_args=(("alpha", 0.0), ("tau", 2.0)))
    teacher = model(1, dropout=0.5)
    students = []
    for mode in (True, True, False):
        torch.manual_seed(len(students))
        teacher.train(mode)
        students.append(train(config, tc, tokens, tokens[:50], seed=0, teacher=teacher).model)
    for other in students[1:]:
        assert all(torch.equal(a, b) for a, b in zip(students[0].parameters(), other.parameters(), strict=True))


def test_a_student_that_is_trained_on_the_teacher_alone_approaches_it():
    tokens = torch.randint(V, (2_000,), generator=torch.Generator().manual_seed(0))
    teacher = model(1)
    with torch.no_grad():
        teacher.token_embedding.weight.mul_(3)
    tc = TrainConfig(steps=150, batch_size=8, objective="distill", objective_args=(("alpha", 0.0), ("tau", 1.0)))
    batch = tokens[:130].view(10, 13)
    student = model(0)
    before = loss(student, batch, teacher, 0.0, 1.0).item()
    after = loss(
        train(student.config, tc, tokens, tokens[:50], seed=0, teacher=teacher).model, batch, teacher, 0.0, 1.0
    )
    assert after.item() < 0.3 * before
