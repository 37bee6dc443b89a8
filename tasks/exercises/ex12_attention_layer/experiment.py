"""Measures 21.12: the layer, on several shapes and against three other implementations."""

import inspect
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.config import GPTConfig
from minigpt.masks import visible_keys
from minigpt.model import CausalSelfAttention
from tasks.exercise import Context, Exercise
from tasks.exercises.ex12_attention_layer.findings import SHOWN, Findings, Parameter, Parity, Shapes


class SingleHeadAttention(nn.Module):
    """softmax(q kᵀ / √C + mask) v with learned projections (Vaswani et al., 2017, equation 1)."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.query = nn.Linear(d_model, d_model)
        self.key = nn.Linear(d_model, d_model)
        self.value = nn.Linear(d_model, d_model)
        self.out = nn.Linear(d_model, d_model)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, C) → output (B, T, C) and attention weights (B, T, T)."""
        _, T, C = x.shape
        q, k, v = self.query(x), self.key(x), self.value(x)  # (B, T, C) each
        scores = q @ k.transpose(-2, -1) / math.sqrt(C)  # (B, T, T)
        allowed = torch.ones(T, T, dtype=torch.bool, device=x.device).tril()
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
        return self.out(weights @ v), weights


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest absolute difference."""
    return (ours - theirs).abs().max().item()


def sdpa(layer: SingleHeadAttention, x: Tensor) -> Tensor:
    """The layer's output through torch's fused attention."""
    mixed = F.scaled_dot_product_attention(layer.query(x), layer.key(x), layer.value(x), is_causal=True)
    return layer.out(mixed)  # type: ignore[no-any-return]


def sdpa_gradients(layer: SingleHeadAttention, x: Tensor) -> float:
    """Largest difference of any gradient, of input and weights, between the two ways along one random direction."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    gradients = []
    for attend in (lambda inputs: layer(inputs)[0], lambda inputs: sdpa(layer, inputs)):
        inputs = x.clone().requires_grad_()
        loss = (attend(inputs) * direction).sum()
        gradients.append(torch.autograd.grad(loss, [inputs, *layer.parameters()]))
    return max(difference(a, b) for a, b in zip(*gradients, strict=True))


@torch.no_grad()
def gpt2(layer: SingleHeadAttention, x: Tensor) -> Parity:
    """Differences of output and weights from the attention of a Transformers GPT-2 with one head.

    The library builds its own mask: a whole one-layer model runs, and what enters and leaves its attention is kept.
    """
    from transformers import GPT2Config, GPT2Model

    d_model = x.shape[-1]
    config = GPT2Config(
        n_layer=1, n_head=1, n_embd=d_model, n_positions=x.shape[1], vocab_size=8, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng(devices=[]):  # drawing its weights must not disturb ours
        torch.manual_seed(0)  # most are replaced; the position embeddings stay as drawn
        model: Any = GPT2Model(config).eval()
    model.set_attn_implementation("eager")  # the fused kernels return no weights
    attention = model.h[0].attn
    projections = (layer.query, layer.key, layer.value)
    # Transformers' Conv1D keeps the transpose of Linear's matrix, and the three projections side by side.
    attention.c_attn.weight.copy_(torch.cat([p.weight.T for p in projections], dim=1))
    attention.c_attn.bias.copy_(torch.cat([p.bias for p in projections]))
    attention.c_proj.weight.copy_(layer.out.weight.T)
    attention.c_proj.bias.copy_(layer.out.bias)
    kept: dict[str, Any] = {}
    attention.register_forward_hook(lambda _, inputs, outputs: kept.update(x=inputs[0], outputs=outputs))
    model(inputs_embeds=x)
    output, weights = layer(kept["x"])
    return Parity(difference(output, kept["outputs"][0]), difference(weights, kept["outputs"][1][:, 0]))


@torch.no_grad()
def minigpt_attention(layer: SingleHeadAttention, x: Tensor) -> Parity:
    """Differences of output and weights from the project's own multi-head layer with one head."""
    ours = CausalSelfAttention(GPTConfig(n_layer=1, n_head=1, d_model=x.shape[-1], context=x.shape[1]))
    projections = (layer.query, layer.key, layer.value)
    ours.qkv.weight.copy_(torch.cat([p.weight for p in projections]))
    ours.qkv.bias.copy_(torch.cat([p.bias for p in projections]))
    ours.proj.load_state_dict(layer.out.state_dict())
    maps: list[Tensor] = []
    other = ours(x, visible=visible_keys(x.shape[1], x.shape[1], maps=True), maps=maps)
    output, weights = layer(x)
    return Parity(difference(output, other), difference(weights, maps[0][:, 0]))


def try_shapes(generator: torch.Generator, sizes: tuple[tuple[int, int, int], ...]) -> tuple[Shapes, ...]:
    """The layer on inputs of several shapes, down to a single token."""
    found = []
    for shape in sizes:
        output, weights = SingleHeadAttention(shape[-1])(torch.randn(shape, generator=generator))
        found.append(Shapes(shape, tuple(output.shape), tuple(weights.shape)))
    return tuple(found)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    generator = ctx.generator()
    B, T, C = ctx.numbers["shape"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        layer = SingleHeadAttention(C)
        shapes = try_shapes(generator, ((1, 1, C), (2, 6, C), (B, T, C)))
    x = torch.randn(B, T, C, generator=generator)
    with torch.no_grad():
        output, weights = layer(x)
        alone = torch.cat([layer(sequence[None])[0] for sequence in x])
        fused = difference(output, sdpa(layer, x))
    sums = weights.sum(dim=-1)
    return Findings(
        source=inspect.getsource(SingleHeadAttention),
        shape=(B, T, C),
        shapes=shapes,
        parameters=tuple(Parameter(name, tuple(w.shape), w.numel()) for name, w in layer.named_parameters()),
        example=tuple(map(tuple, weights[0, :SHOWN, :SHOWN].tolist())),
        above_diagonal=weights.triu(1).abs().max().item(),
        is_lower_triangle=torch.equal(weights, weights.tril()),
        every_token_sees_itself=bool((weights.diagonal(dim1=-2, dim2=-1) > 0).all()),
        row_sums=(sums.min().item(), sums.max().item()),
        sdpa=fused,
        gradients=sdpa_gradients(layer, x),
        gpt2=gpt2(layer, x),
        minigpt=minigpt_attention(layer, x),
        batch=difference(output, alone),
    )


EXERCISE = Exercise(
    measure=measure,
    numbers={"smoke": {"shape": (2, 16, 32)}, "laptop": {"shape": (8, 64, 64)}, "gpu": {"shape": (8, 64, 64)}},
    seconds={"smoke": 3, "laptop": 1, "gpu": 3},
)
