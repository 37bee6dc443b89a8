"""Post-training quantisation of the weights: 8 to 2 bits simulated, and 8 bits for real.

A weight becomes a whole number times a scale, ``w ≈ q · s`` with q in -(2^(b-1) - 1) … 2^(b-1) - 1 (symmetric, no
zero point). The scale decides everything:

    naive     the same range for every tensor, [-1, 1] whatever is in it: round to the nearest step
    absmax    s = max|w| / (2^(b-1) - 1), per tensor or per output channel (Dettmers et al., 2022,
              https://arxiv.org/abs/2208.07339, section 2)

Only the matrices inside the blocks are quantised, as in LLM.int8(): embeddings, norms and biases stay in fp32.
``fake_quantize`` computes in fp32 with rounded weights, which shows the loss of quality and no gain of speed;
``Int8Linear`` multiplies int8 by int8 and its file really is smaller.
"""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from minigpt.checks import whole
from minigpt.files import blank_model, config_from_json, config_to_json
from minigpt.model import GPT

Scheme = Literal["naive", "absmax"]

NAIVE_RANGE = 1.0


@dataclass(frozen=True)
class Quantized:
    """Whole numbers and their scale: the weight is ``values * scale``."""

    values: Tensor  # (N, K) int8, also for fewer than 8 bits
    scale: Tensor  # (N, 1) per channel, (1, 1) per tensor, fp32
    bits: int

    def dequantize(self) -> Tensor:
        """The weight that the numbers stand for, (N, K) fp32."""
        return self.values.float() * self.scale


def quantize(weight: Tensor, bits: int, scheme: Scheme = "absmax", *, per_channel: bool = True) -> Quantized:
    """Round a weight (N, K) to ``bits`` bits; ties go to the even number.

    The naive range is the same for all channels, so ``per_channel`` makes no difference to it.

    Raises:
        ValueError: bits outside 2 … 8, an unknown scheme, or weights that are not finite.
    """
    whole("bits", bits, 2, 8)
    if weight.ndim != 2 or not weight.numel() or not weight.isfinite().all():
        raise ValueError(f"weights must be a matrix (N, K) of finite numbers, got {tuple(weight.shape)}")
    largest = 2 ** (bits - 1) - 1
    if scheme == "naive":
        reach = torch.full((1, 1), NAIVE_RANGE, device=weight.device)
    elif scheme == "absmax":
        reach = weight.abs().amax(dim=1, keepdim=True) if per_channel else weight.abs().amax().view(1, 1)
        reach = torch.where(reach > 0, reach, 1.0)  # a channel of zeros stays zero
    else:
        raise ValueError(f"unknown scheme {scheme!r}")
    scale = reach.float() / largest
    values = (weight * scale.reciprocal()).round().clamp(-largest, largest)  # not w / s: ties then fall as in torch
    return Quantized(values.to(torch.int8), scale, bits)


def fake_quantize(model: GPT, bits: int, scheme: Scheme = "absmax", *, per_channel: bool = True) -> GPT:
    """A copy whose matrices hold only values that ``bits`` bits can express, still as fp32."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for linear in _block_linears(model):
            linear.weight.copy_(quantize(linear.weight, bits, scheme, per_channel=per_channel).dequantize())
    return model


class Int8Linear(nn.Module):
    """y = x Wᵀ + b with int8 weights and activations, and int32 sums.

    Weights are quantised once, per output channel; activations as they come, per token (LLM.int8()'s vector-wise
    quantisation, section 3.1, without its outlier decomposition). No gradient.
    """

    weight: Tensor
    scale: Tensor
    bias: Tensor | None

    def __init__(self, weight: Tensor, scale: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.register_buffer("weight", weight)  # (N, K) int8
        self.register_buffer("scale", scale)  # (N, 1) fp32
        self.register_buffer("bias", bias)  # (N,) fp32
        self.multiply = int8_matmul

    @classmethod
    def of(cls, linear: nn.Linear) -> "Int8Linear":
        """The int8 version of a layer."""
        found = quantize(linear.weight.detach(), 8)
        bias = None if linear.bias is None else linear.bias.detach().clone()
        return cls(found.values, found.scale, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(…, K) → (…, N)."""
        rows = x.reshape(-1, x.shape[-1])
        reach = rows.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
        whole = (rows * (127.0 / reach)).round().to(torch.int8)
        y = self.multiply(whole, self.weight).to(x.dtype) * (reach * (1.0 / 127.0))
        scale = self.scale.t()
        y = y * scale if self.bias is None else torch.addcmul(self.bias, y, scale)
        return y.view(*x.shape[:-1], -1)


def int8_matmul(x: Tensor, weight: Tensor) -> Tensor:
    """x (M, K) by weight (N, K)ᵀ, int8 → int32 (M, N), by the device's int8 kernel."""
    count = len(x)
    if x.is_cuda and count <= 16:  # cuBLASLt's int8 kernels want more than 16 rows
        x = nn.functional.pad(x, (0, 0, 0, 17 - count))
    return torch._int_mm(x, weight.t())[:count]


EXACT_TERMS = 2**24 // 127**2  # so many products of two int8 numbers sum to less than 2^24: fp32 holds each of them


def int8_matmul_in_fp32(x: Tensor, weight: Tensor) -> Tensor:
    """The same sums, to the last bit, by fp32 products of at most ``EXACT_TERMS`` terms."""
    parts = zip(x.float().split(EXACT_TERMS, dim=1), weight.float().split(EXACT_TERMS, dim=1), strict=True)
    return torch.stack([(a @ b.t()).to(torch.int32) for a, b in parts]).sum(dim=0, dtype=torch.int32)


@contextmanager
def summed_in_fp32(model: GPT) -> Iterator[None]:
    """The same numbers by fp32 products, for scoring: int8 ones take ten times as long without VNNI instructions."""
    layers = [module for module in model.modules() if isinstance(module, Int8Linear)]
    for layer in layers:
        layer.multiply = int8_matmul_in_fp32
    try:
        yield
    finally:
        for layer in layers:
            layer.multiply = int8_matmul


def to_int8(model: GPT) -> GPT:
    """A copy whose block matrices are ``Int8Linear``; for inference only."""
    return _swap_linears(copy.deepcopy(model).eval(), Int8Linear.of)


def int8_bytes(model: GPT) -> bytes:
    """The safetensors file of a model made by ``to_int8``: int8 matrices, their scales, the rest in fp32."""
    tensors = {name: weight.detach().cpu().contiguous() for name, weight in model.named_parameters()}
    tensors |= {name: buffer.cpu().contiguous() for name, buffer in model.named_buffers()}
    return save(tensors, metadata={"config": json.dumps(config_to_json(model.config))})


def load_int8(data: bytes, device: torch.device | str = "cpu") -> GPT:
    """The model that ``int8_bytes`` wrote, in evaluation mode.

    Raises:
        ValueError: the weights do not fit the configuration that came with them.
    """
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    config, tensors = config_from_json(json.loads(header["__metadata__"]["config"])), load(data)
    model = _swap_linears(blank_model(config), Int8Linear.of).to(device)
    if config.tie_weights:
        tensors["unembedding.weight"] = tensors["token_embedding.weight"]
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"the weights do not fit the model: {error}") from error
    return model.eval()


def _block_linears(model: GPT) -> list[nn.Linear]:
    return [module for module in model.blocks.modules() if isinstance(module, nn.Linear)]


def _swap_linears(model: GPT, make: Callable[[nn.Linear], nn.Module]) -> GPT:
    for parent in list(model.blocks.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Linear):
                setattr(parent, name, make(child))
    return model
