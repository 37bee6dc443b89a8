"""A pretrained model that answers sooner: attention fused, and products in bf16 where that is asked for.

    model = quick(pretrained.model, context.precision)

It is called as the model itself is. Models are loaded with attention spelled out, for their maps to be read; one that
shares key/value heads copies them for every query head and every token it writes, and at 40 texts of 136 tokens that
takes seven times as long as the fused kernel. What the kernel answers differs by rounding.
"""

import copy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.precision import Precision

_ONEDNN = torch.ops.mkldnn  # what torch.compile calls; PyTorch has no public name for a packed bf16 weight


class RoundedLinear(nn.Module):
    """A linear layer with weight and input rounded to bf16, for reading; its output has the type of its input.

    The weight is rounded once, where autocast would do it at each call. All between such layers stays in fp32: the
    residual stream, norms, rotations, attention and its cache. On a processor for which oneDNN has bf16 kernels, the
    weight is also laid out once as they want it: ``F.linear`` does so at each call, and a product for one token takes
    up to twice as long for it. A packed weight can be read from, not moved, copied or trained.
    """

    weight: Tensor  # (out, in) bf16; in oneDNN's own layout if ``packed``
    bias: Tensor | None  # (out,) bf16

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        rounded = weight.detach().to(torch.bfloat16).contiguous()
        self.packed = rounded.device.type == "cpu" and _packs()
        self.register_buffer("weight", _ONEDNN._reorder_linear_weight(rounded) if self.packed else rounded)
        self.register_buffer("bias", None if bias is None else bias.detach().to(torch.bfloat16))

    def forward(self, x: Tensor) -> Tensor:
        """(…, in) → (…, out)."""
        rounded = x.to(torch.bfloat16)
        if self.packed:
            return _ONEDNN._linear_pointwise(rounded, self.weight, self.bias, "none", [], "").to(x.dtype)
        return F.linear(rounded, self.weight, self.bias).to(x.dtype)


def quick(model: Any, precision: Precision = "fp32", *, maps: bool = False) -> Any:
    """The same model for reading and writing, not for training; weights that are not rounded are shared with it.

    Args:
        model: of Transformers' interface.
        precision: of the products with weights. In bf16 each ``Linear`` becomes a ``RoundedLinear``, and so does
            GPT-2's ``Conv1D``, which is one with its weight transposed.
        maps: leave attention as it is, so that ``output_attentions`` works.
    """
    other = copy.deepcopy(model, {id(weight): weight for weight in model.parameters()}).eval()
    if not maps and getattr(other, "_supports_sdpa", False):
        other.set_attn_implementation("sdpa")
    if precision == "bf16":
        for name, module in list(other.named_modules()):
            parent, _, child = name.rpartition(".")
            if (weight := _matrix(module)) is not None:
                setattr(other.get_submodule(parent), child, RoundedLinear(weight, module.bias))
    return other


def _packs() -> bool:
    """Whether oneDNN has bf16 kernels for this processor, and this PyTorch gives access to packed weights."""
    names = ("_is_mkldnn_bf16_supported", "_reorder_linear_weight", "_linear_pointwise")
    return all(hasattr(_ONEDNN, name) for name in names) and bool(_ONEDNN._is_mkldnn_bf16_supported())


def _matrix(module: Any) -> Tensor | None:
    """The weight of a linear layer, (out, in); None of any other module."""
    weight: Tensor | None = None
    if type(module) is nn.Linear:
        weight = module.weight
    elif type(module).__name__ == "Conv1D":
        weight = module.weight.T
    return weight
