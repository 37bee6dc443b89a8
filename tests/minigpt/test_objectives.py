"""Each objective against its formula, its limits and its gradients."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.objectives import (
    LARGE_VOCABULARY,
    OBJECTIVES,
    bidirectional,
    causal,
    distill,
    prefix,
    token_cross_entropy,
)

CONFIG = GPTConfig(n_layer=2, n_head=2, d_model=32, context=12, vocab_size=19)


def make(seed: int, **changes: object) -> GPT:
    torch.manual_seed(seed)
    model = GPT(replace(CONFIG, **changes))
    with torch.no_grad():
        for weight in model.blocks.parameters():
            weight.mul_(2)
    return model


@pytest.fixture
def batch(generator: torch.Generator) -> Tensor:
    return torch.randint(19, (4, 13), generator=generator)


def test_causal_is_the_mean_negative_log_likelihood(batch: Tensor) -> None:
    model = make(0)
    nll = [
        -model(batch[b : b + 1, : t + 1])[0, -1].log_softmax(-1)[batch[b, t + 1]] for b in range(4) for t in range(12)
    ]
    assert causal(model, batch).item() == pytest.approx(torch.stack(nll).mean().item(), abs=1e-5)


def test_full_attention_lets_a_position_see_its_answer(batch: Tensor) -> None:
    """The gradient of the loss at one position reaches the embedding of its own target."""
    model = make(0)
    for objective, leaks in ((bidirectional, True), (causal, False)):
        one = torch.arange(13)[None]  # every token once, so each embedding belongs to one position
        inputs: list[Tensor] = []
        model.token_embedding.register_forward_hook(lambda _m, _i, out, store=inputs: store.append(out))
        logits: list[Tensor] = []
        model.unembedding.register_forward_hook(lambda _m, _i, out, store=logits: store.append(out))
        objective(model, one)
        loss_at_5 = F.cross_entropy(logits[-1][0, 5], one[0, 6])
        gradient = torch.autograd.grad(loss_at_5, inputs[-1])[0][0]
        assert (gradient[6].abs().sum() > 0) == leaks
        assert gradient[5].abs().sum() > 0


@pytest.mark.parametrize("length", [0, 1])
def test_a_prefix_of_none_is_causal(length: int, batch: Tensor, generator: torch.Generator) -> None:
    """A prefix of one token, which sees only itself, is none either."""
    model = make(0)
    loss = prefix(model, batch, generator=generator, args={"prefix": length})
    assert loss.item() == pytest.approx(causal(model, batch).item(), abs=1e-6)


def test_prefix_lengths_are_drawn_from_the_generator_alone(batch: Tensor) -> None:
    model = make(0)
    losses = [prefix(model, batch, generator=torch.Generator().manual_seed(s), args={}).item() for s in (1, 1, 2)]
    assert losses[0] == losses[1] != losses[2]


# --- distillation -------------------------------------------------------------------------------------------------


def by_formula(student: GPT, teacher: GPT, batch: Tensor, alpha: float, tau: float) -> Tensor:
    x, y = batch[:, :-1], batch[:, 1:]
    p = (teacher(x) / tau).softmax(-1)
    q = (student(x) / tau).softmax(-1)
    kl = (p * (p.log() - q.log())).sum(-1).mean()  # a sum over the vocabulary, a mean over tokens
    return alpha * F.cross_entropy(student(x).transpose(1, 2), y) + (1 - alpha) * tau**2 * kl


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tau", [1.0, 2.0, 4.0])
def test_distillation_by_its_formula(alpha: float, tau: float, batch: Tensor) -> None:
    student, teacher = make(0), make(1, n_layer=3)
    loss = distill(student, batch, teacher=teacher, args={"alpha": alpha, "tau": tau})
    assert loss.item() == pytest.approx(by_formula(student, teacher, batch, alpha, tau).item(), abs=1e-5)
    if alpha == 1:
        assert loss.item() == pytest.approx(causal(student, batch).item(), abs=1e-6)


@pytest.mark.parametrize("tau", [1.0, 3.0])
def test_a_teacher_has_nothing_to_teach_itself(tau: float, batch: Tensor) -> None:
    model = make(0)
    loss = distill(model, batch, teacher=model, args={"alpha": 0.0, "tau": tau})
    assert loss.item() == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert max(w.grad.abs().max().item() for w in model.parameters() if w.grad is not None) < 1e-6


def test_no_gradient_reaches_the_teacher(batch: Tensor) -> None:
    student, teacher = make(0), make(1)
    distill(student, batch, teacher=teacher, args={}).backward()
    assert all(weight.grad is None for weight in teacher.parameters())


def test_tau_squared_keeps_the_scale_of_the_gradient(batch: Tensor) -> None:
    """With τ² the gradient tends to a limit (Hinton et al., 2015, equation 4); without it, it would fall as 1/τ²."""

    def norm(tau: float) -> float:
        student = make(0)
        distill(student, batch, teacher=make(1), args={"alpha": 0.0, "tau": tau}).backward()
        return math.sqrt(sum(float(w.grad.square().sum()) for w in student.parameters() if w.grad is not None))

    assert norm(50.0) == pytest.approx(norm(100.0), rel=0.02)
    assert 0.3 < norm(100.0) / norm(1.0) < 3


@pytest.mark.parametrize("vocabulary", [LARGE_VOCABULARY - 1, LARGE_VOCABULARY + 3])
def test_the_loss_of_logits_in_bf16_and_its_gradient(vocabulary: int, generator: torch.Generator) -> None:
    """Against float64, a vocabulary that is taken at once and one that is taken piece by piece, with a rest."""
    logits = (4 * torch.randn(3, 7, vocabulary, generator=generator)).bfloat16().requires_grad_()
    targets = torch.randint(vocabulary, (3, 7), generator=generator)
    exact = logits.detach().double().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = token_cross_entropy(logits, targets)
    expected = F.cross_entropy(exact.flatten(0, 1), targets.flatten())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    (3 * loss).backward()
    (3 * expected).backward()
    assert logits.grad is not None
    assert exact.grad is not None
    torch.testing.assert_close(logits.grad.double(), exact.grad, rtol=2**-7, atol=1e-9)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert token_cross_entropy(logits, targets).item() == pytest.approx(expected.item(), abs=1e-5)


def test_objectives_are_found_by_name() -> None:
    assert {"causal", "bidirectional", "prefix", "multi_token", "distill"} <= set(OBJECTIVES)
    assert all(objective.__name__ == name for name, objective in OBJECTIVES.items())
