"""What is computed in bf16 where a recipe says ``precision="bf16"``: products, and on a GPU attention, too.

Weights, gradients and the optimiser's state stay in fp32; PyTorch's autocast rounds the operands of matrix products to
bf16 (8 bits of precision, the range of fp32; Kalamkar et al., 2019, https://arxiv.org/abs/1905.12322).
On a processor with instructions for them (AMX, ``avx512_bf16``) such products run several times as fast as in fp32; on
one without, several times slower. ``flows.machine`` finds out which.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

Precision = Literal["fp32", "bf16"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def computed_in(precision: Precision, device: torch.device) -> AbstractContextManager[None]:
    """The context of a forward pass in ``precision``; the backward pass follows it by itself."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext()


def attend(
    q: Tensor,  # (B, H, T, D)
    k: Tensor,  # (B, G, S, D)
    v: Tensor,  # (B, G, S, D)
    mask: Tensor | None = None,
    dropout: float = 0.0,
    *,
    is_causal: bool = False,
    enable_gqa: bool = False,
) -> Tensor:
    """PyTorch's ``scaled_dot_product_attention``, in fp32 on a CPU whatever the operands, (B, H, T, D) like ``v``.

    The kernel for bf16 takes eight times as long as the one for fp32 (PyTorch 2.13, 8 × 12 heads of 64 × 32). Left
    to autocast it is more than a third of a step of the 10 M model.
    """
    if v.device.type != "cpu" or v.dtype != torch.bfloat16:
        return F.scaled_dot_product_attention(q, k, v, mask, dropout, is_causal=is_causal, enable_gqa=enable_gqa)
    with torch.autocast("cpu", enabled=False):
        y = F.scaled_dot_product_attention(
            q.float(), k.float(), v.float(), mask, dropout, is_causal=is_causal, enable_gqa=enable_gqa
        )
    return y.to(v.dtype)
