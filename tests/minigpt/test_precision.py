"""bf16: what is rounded and what is not, against the same computation written out."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F

from minigpt.config import GPTConfig
from minigpt.masks import window_mask
from minigpt.model import GPT
from minigpt.precision import attend, computed_in

CPU = torch.device("cpu")


def operands(dtype: torch.dtype, kv_heads: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, heads, 9, 8, generator=generator).to(dtype) for heads in (4, kv_heads, kv_heads)]


def by_hand(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """softmax(q kᵀ / √D) v in double precision."""
    q, k, v = (
        x.double() for x in (q, k.repeat_interleave(4 // k.shape[1], 1), v.repeat_interleave(4 // v.shape[1], 1))
    )
    scores = (q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5).masked_fill(~mask, float("-inf"))
    return scores.softmax(dim=-1) @ v


@pytest.mark.parametrize(("kv_heads", "causal"), list(product((4, 2, 1), (True, False))))
def test_attention_of_rounded_operands_is_summed_in_fp32(kv_heads: int, causal: bool) -> None:
    q, k, v = operands(torch.bfloat16, kv_heads)
    mask = torch.ones(9, 9).tril().bool() if causal else window_mask(9, 3)
    given = {"is_causal": True} if causal else {"mask": mask}
    with computed_in("bf16", CPU):
        y = attend(q, k, v, enable_gqa=kv_heads != 4, **given)  # type: ignore[arg-type]
    assert y.dtype == torch.bfloat16
    exact = by_hand(q, k, v, mask)
    # Nothing but the result is rounded: to the nearest of bf16's 8 bits, half a unit in the last place.
    assert ((y.double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()


def test_in_fp32_it_is_pytorchs_own() -> None:
    q, k, v = operands(torch.float32)
    assert torch.equal(attend(q, k, v, is_causal=True), F.scaled_dot_product_attention(q, k, v, is_causal=True))


@pytest.mark.parametrize("fields", [{}, {"position": "rope"}, {"n_kv_head": 1}, {"window": 4}], ids=str)
def test_a_model_in_bf16_is_near_the_same_in_fp32(fields: dict[str, object]) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=4, d_model=32, context=16, vocab_size=11, **fields))  # type: ignore[arg-type]
    tokens = torch.randint(11, (3, 16))

    def loss_and_gradient(precision: str) -> tuple[float, torch.Tensor]:
        model.zero_grad()
        with computed_in(precision, CPU):  # type: ignore[arg-type]
            loss = F.cross_entropy(model(tokens).flatten(0, 1).float(), tokens.flatten())
        loss.backward()
        assert {weight.dtype for weight in model.parameters()} == {torch.float32}
        gradient = torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])
        return loss.item(), gradient

    (loss, gradient), (rounded, rounded_gradient) = loss_and_gradient("fp32"), loss_and_gradient("bf16")
    assert loss != rounded
    assert rounded == pytest.approx(loss, rel=5e-3)
    assert F.cosine_similarity(gradient, rounded_gradient, dim=0) > 0.995
    assert rounded_gradient.norm() == pytest.approx(gradient.norm().item(), rel=0.05)
