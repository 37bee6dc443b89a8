"""A model whose matrices lie ready for one text, one token at a time, on a CPU.

    fast = pack(model, "int8")
    generate(fast, prompt, 200)  # as with any other model

One token for one text reads every weight once and does two operations with it. Its time is therefore the weights' bytes
over the memory's bandwidth, as long as nothing else takes longer: so matrices are stored smaller, the product is the
kernel that reads them fastest, and between products there are as few operations as possible (gpt-fast,
https://pytorch.org/blog/accelerating-generative-ai-2/, does the same on a GPU).

    float32    the model's own weights, no copy: the same logits up to the order of sums
    bfloat16   half the bytes, 8 significant bits
    int8       a quarter: the whole numbers of ``minigpt.quantize.quantize``, a scale per output channel; the vector
               that they are multiplied with is rounded to 8 bits as it comes, with one scale for all of it

All matrices are stored so, the unembedding too, which is a third of GPT-2's weights. The lookup of a token's embedding
stays exact where it shares the unembedding's weights, and so do norms, biases and the residual stream. Keys and values
are kept in bfloat16, unless the weights are float32.
"""

import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.cache import KVCache, RollingKVCache
from minigpt.config import Activation, GPTConfig
from minigpt.model import GPT, Block, Rope
from minigpt.positions import rope_tables, rotate, sinusoidal
from minigpt.quantize import quantize

Weights = Literal["float32", "bfloat16", "int8"]
Product = Callable[[Tensor], Tensor]  # W x + b for one vector, (K,) → (N,), both fp32

ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": lambda u: F.gelu(u, approximate="tanh"),
    "relu2": lambda u: F.relu(u).square(),
}


def pack(model: GPT, weights: Weights = "float32") -> "PackedGPT":
    """The same model, faster where one token is read for one text. It holds the weights as they are now.

    Raises:
        ValueError: unknown weights, a model that is not in fp32 on the CPU, or one with layers of other kinds.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights must be one of {', '.join(get_args(Weights))}, got {weights!r}")
    for name, parameter in model.named_parameters():
        if parameter.device.type != "cpu" or parameter.dtype != torch.float32:
            kind = f"{parameter.dtype} on {parameter.device}"
            raise ValueError(f"only models in float32 on the CPU can be packed, {name} is {kind}: use .float().cpu()")
    for name, module in model.blocks.named_modules():
        if name.endswith(("qkv", "proj", "up", "down")) and type(module) is not nn.Linear:
            raise ValueError(f"blocks.{name} is {type(module).__name__}, not Linear: pack the model it was made from")
    return PackedGPT(model, weights)


class PackedGPT(GPT):
    """Made by ``pack``. One token for one text, after others in a cache, takes the short way, without gradients.

    Everything else is read by the model as it was, in fp32: prompts, several texts at once, masks, attention maps.
    """

    def __init__(self, model: GPT, weights: Weights) -> None:
        nn.Module.__init__(self)  # no weights of its own: the model's modules are shared
        self.config, self.weights = model.config, weights
        self.position_embedding = None
        for name, module in model.named_children():
            setattr(self, name, module)
        self.eval()
        self._layers = [_Layer(cast(Block, block), self.config, weights) for block in model.blocks]
        self._logits = product(model.unembedding.weight, None, weights)
        self._added: Tensor | None = None  # (positions, C), what is added to a token's embedding
        self._rope: Rope | None = None  # cos and sin, (positions, D)
        self._positions = 0  # for how many there are tables

    @property
    def cache_dtype(self) -> torch.dtype:
        """See ``GPT.cache_dtype``."""
        return torch.float32 if self.weights == "float32" else torch.bfloat16

    def forward(
        self,
        tokens: Tensor,
        *,
        cache: KVCache | None = None,
        prefix: int | Tensor = 0,
        mask: Tensor | None = None,
        maps: list[Tensor] | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """See ``GPT.forward``."""
        plain = isinstance(prefix, int) and not prefix and mask is None and maps is None
        alone = plain and tokens.shape == (1, 1) and not self.training and not torch.is_grad_enabled()
        if alone and cache is not None and cache.length and type(cache) in (KVCache, RollingKVCache):  # not any other
            return self._next(tokens, cache).view(1, 1, -1)
        return super().forward(tokens, cache=cache, prefix=prefix, mask=mask, maps=maps, last_only=last_only)

    def _next(self, token: Tensor, cache: KVCache) -> Tensor:
        """Logits (V,) after one more token (1, 1)."""
        position = cache.length
        if self.position_embedding is not None and position >= self.config.context:
            raise ValueError(f"{position + 1} positions, but only {self.config.context} have a learned embedding")
        if position >= self._positions:
            self._make_tables(max(2 * position, self.config.context))
        x = F.embedding(token.view(()), self.token_embedding.weight)  # (C,)
        if self.config.position == "sinusoidal":
            x = x * math.sqrt(self.config.d_model)
        if self._added is not None:
            x = x + self._added[position]
        rope = None if self._rope is None else (self._rope[0][position], self._rope[1][position])
        for layer, block in enumerate(self._layers):
            x = block(x, rope, cache, layer)
        cache.advance(1)
        return self._logits(self.final_norm(x))

    def _make_tables(self, count: int) -> None:
        config, positions = self.config, torch.arange(count)
        if self.position_embedding is not None:
            self._added, count = self.position_embedding.weight.detach(), config.context
        elif config.position == "sinusoidal":
            self._added = sinusoidal(positions, config.d_model)
        elif config.position == "rope":
            self._rope = rope_tables(positions / config.rope_scale, config.head_dim, config.rope_base)
        self._positions = count


class _Layer:
    """``Block`` for one vector."""

    def __init__(self, block: Block, config: GPTConfig, weights: Weights) -> None:
        self.pre_norm, self.window = block.pre_norm, config.window
        self.heads, self.kv_heads, self.head_dim = config.n_head, config.kv_heads, config.head_dim
        self.qk_norm, self.activation = config.qk_norm, ACTIVATIONS[config.activation]
        self.norm1, self.norm2 = norm(block.norm1), norm(block.norm2)
        linears = (block.attn.qkv, block.attn.proj, block.mlp.up, block.mlp.down)
        self.qkv, self.proj, self.up, self.down = (product(one.weight, one.bias, weights) for one in linears)

    def __call__(self, x: Tensor, rope: Rope | None, cache: KVCache, layer: int) -> Tensor:
        """(C,) → (C,)."""
        if self.pre_norm:
            x = x + self.attend(self.norm1(x), rope, cache, layer)
            return x + self.down(self.activation(self.up(self.norm2(x))))
        x = self.norm1(x + self.attend(x, rope, cache, layer))
        return self.norm2(x + self.down(self.activation(self.up(x))))

    def attend(self, x: Tensor, rope: Rope | None, cache: KVCache, layer: int) -> Tensor:
        """(C,) → (C,)."""
        H, G, D = self.heads, self.kv_heads, self.head_dim
        qkv = self.qkv(x).view(1, H + 2 * G, 1, D)
        if self.qk_norm:
            qkv = torch.cat([F.layer_norm(qkv[:, : H + G], (D,), eps=1e-6), qkv[:, H + G :]], dim=1)
        if rope is not None:
            qkv = torch.cat([rotate(qkv[:, : H + G], *rope), qkv[:, H + G :]], dim=1)
        q, k, v = qkv.to(cache.keys.dtype).split((H, G, G), dim=1)
        k, v = cache.update(layer, k, v)  # (1, G, S, D)
        if self.window:
            k, v = k[:, :, -self.window :], v[:, :, -self.window :]
        # The H/G queries that share a head of keys stand where otherwise the positions of a text do: no key is copied.
        y = F.scaled_dot_product_attention(q.view(1, G, H // G, D), k, v)
        return self.proj(y.view(-1).float())


def norm(module: nn.Module) -> Product:
    """A LayerNorm without the way through ``nn.Module``, which takes as long as the norm."""
    assert isinstance(module, nn.LayerNorm)
    shape, weight, bias, eps = module.normalized_shape, module.weight.detach(), module.bias, module.eps
    return lambda x: torch.layer_norm(x, shape, weight, bias, eps)


def product(weight: Tensor, bias: Tensor | None, weights: Weights) -> Product:
    """W x + b by the kernel that is fastest for one vector: not ``F.linear``, which is made for many."""
    weight, bias = weight.detach(), None if bias is None else bias.detach()
    if weights == "float32":
        return weight.mv if bias is None else lambda x: torch.addmv(bias, weight, x)
    if weights == "bfloat16":
        small = weight.bfloat16()
        zero = torch.zeros(()) if bias is None else bias
        return lambda x: small.mv(x.bfloat16()) + zero
    multiply, packed, reduce = torch.ops.quantized.linear_dynamic, _int8(weight, bias), not _sums_in_int32()
    return lambda x: multiply(x.unsqueeze(0), packed, reduce).view(-1)


def _int8(weight: Tensor, bias: Tensor | None) -> Any:
    """Int8 numbers and scales in the order in which the processor's kernel reads them."""
    found = quantize(weight, 8)
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the type is deprecated, in favour of a library; the kernels are not
        typed = torch._make_per_channel_quantized_tensor(found.values, found.scale[:, 0].double(), zeros, 0)
        return torch.ops.quantized.linear_prepack(typed, bias)


def _sums_in_int32() -> bool:
    """Whether int8 products go straight into int32 (VNNI); else pairs of them must fit int16, and x gets 7 bits."""
    capable = torch.cpu.get_capabilities()
    return any(capable[name] for name in capable if "vnni" in name)
