"""Measures 21.12: the layer's shapes and weights, and its differences from other implementations."""

import inspect
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.masks import visible_keys
from minigpt.model import CausalSelfAttention
from tasks.exercise import Context, Exercise
from tasks.exercises.ex12_attention_layer.findings import SHOWN, Findings, Parity, Shapes
from tasks.exercises.ex12_attention_layer.layer import SingleHeadAttention


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
    with torch.random.fork_rng(devices=[]):  # its weights are replaced, but drawing them must not disturb ours
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
        shape=(B, T, C),
        source=inspect.getsource(SingleHeadAttention),
        parameters={name: tuple(weight.shape) for name, weight in layer.named_parameters()},
        shapes=shapes,
        weights=tuple(tuple(row) for row in weights[0, :SHOWN, :SHOWN].tolist()),
        sdpa=fused,
        gradients=sdpa_gradients(layer, x),
        gpt2=gpt2(layer, x),
        minigpt=minigpt_attention(layer, x),
        batch=difference(output, alone),
        above_diagonal=weights.triu(1).abs().max().item(),
        lower_triangular=torch.equal(weights, weights.tril()),
        smallest_on_diagonal=weights.diagonal(dim1=-2, dim2=-1).min().item(),
        row_sums=(sums.min().item(), sums.max().item()),
    )


EXERCISE = Exercise(
    measure=measure,
    numbers={"smoke": {"shape": (2, 16, 32)}, "laptop": {"shape": (8, 64, 64)}, "gpu": {"shape": (8, 64, 64)}},
    seconds={"smoke": 3, "laptop": 1, "gpu": 3},
)
