"""Exercise 21.12: one head of causal self-attention as a layer of its own, equal to two other implementations."""

import inspect
import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.config import GPTConfig
from minigpt.model import CausalSelfAttention
from reports.types import Answer, Check, Code, Heatmap, Part, Prose, Table
from tasks.exercise import Context, Exercise


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
def gpt2(layer: SingleHeadAttention, x: Tensor) -> tuple[float, float]:
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
    return difference(output, kept["outputs"][0]), difference(weights, kept["outputs"][1][:, 0])


@torch.no_grad()
def minigpt_attention(layer: SingleHeadAttention, x: Tensor) -> tuple[float, float]:
    """Differences of output and weights from the project's own multi-head layer with one head."""
    ours = CausalSelfAttention(GPTConfig(n_layer=1, n_head=1, d_model=x.shape[-1], context=x.shape[1]))
    projections = (layer.query, layer.key, layer.value)
    ours.qkv.weight.copy_(torch.cat([p.weight for p in projections]))
    ours.qkv.bias.copy_(torch.cat([p.bias for p in projections]))
    ours.proj.load_state_dict(layer.out.state_dict())
    maps: list[Tensor] = []
    other = ours(x, maps=maps)
    output, weights = layer(x)
    return difference(output, other), difference(weights, maps[0][:, 0])


@dataclass(frozen=True)
class Findings:
    """All that was measured; the answer only words it."""

    layer: SingleHeadAttention
    x: Tensor
    weights: Tensor  # (B, T, T)
    shapes: Table
    sdpa: float
    gradients: float
    gpt2: tuple[float, float]  # output, weights
    minigpt: tuple[float, float]
    batch: float  # a sequence alone against the same sequence in a batch
    above_diagonal: float
    row_sums: tuple[float, float]

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        return {
            "weight_above_diagonal_max": self.above_diagonal,
            "row_sum_min": self.row_sums[0],
            "row_sum_max": self.row_sums[1],
            "parameters": sum(weight.numel() for weight in self.layer.parameters()),
            "sdpa_output_max_difference": self.sdpa,
            "sdpa_gradient_max_difference": self.gradients,
            "gpt2_output_max_difference": self.gpt2[0],
            "gpt2_weights_max_difference": self.gpt2[1],
            "minigpt_output_max_difference": self.minigpt[0],
            "minigpt_weights_max_difference": self.minigpt[1],
        }


def try_shapes(generator: torch.Generator, sizes: tuple[tuple[int, int, int], ...]) -> Table:
    """The layer on inputs of several shapes, down to a single token."""
    rows = []
    for shape in sizes:
        output, weights = SingleHeadAttention(shape[-1])(torch.randn(shape, generator=generator))
        rows.append((str(shape), str(tuple(output.shape)), str(tuple(weights.shape))))
    columns = ("input (batch, seq_len, d_model)", "output", "attention weights")
    return Table(columns, tuple(rows), "What goes in and what comes out.", "shapes")


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
        layer=layer,
        x=x,
        weights=weights,
        shapes=shapes,
        sdpa=fused,
        gradients=sdpa_gradients(layer, x),
        gpt2=gpt2(layer, x),
        minigpt=minigpt_attention(layer, x),
        batch=difference(output, alone),
        above_diagonal=weights.triu(1).abs().max().item(),
        row_sums=(sums.min().item(), sums.max().item()),
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims, against independent oracles."""
    positive = bool((f.weights.diagonal(dim1=-2, dim2=-1) > 0).all())
    return (
        Check.equal("the largest weight above the diagonal", f.above_diagonal, 0.0),
        Check.equal("the weights equal their own lower triangle", torch.equal(f.weights, f.weights.tril()), True),
        Check.equal("every token attends to itself", positive, True),
        Check.close("smallest sum of a row", f.row_sums[0], 1.0, 1e-5),
        Check.close("largest sum of a row", f.row_sums[1], 1.0, 1e-5),
        Check.at_most("output against scaled_dot_product_attention, max difference", f.sdpa, 1e-5),
        Check.at_most("gradients of input and weights against the same", f.gradients, 1e-4),
        Check.at_most("output against GPT-2's attention in Transformers, same weights", f.gpt2[0], 1e-5),
        Check.at_most("attention weights against the same", f.gpt2[1], 1e-5),
        Check.at_most("output against the mini-GPT's layer with one head", f.minigpt[0], 1e-5),
        Check.at_most("a sequence alone gives what it gives in a batch", f.batch, 1e-5),
    )


def printed(matrix: Tensor) -> str:
    """A matrix as a person would print it."""
    return "\n".join("  ".join(f"{value:.3f}" for value in row) for row in matrix.tolist())


def part_a(f: Findings) -> Part:
    """Shapes in and out."""
    text = "Each position of each sequence is a vector of `d_model` numbers; the layer mixes positions, never sequences"
    exact = f"to {f.batch:.1g}" if f.batch else "bit for bit"
    alone = f": run alone, a sequence gives the same output as in the batch, {exact}."
    return Part("a", (Prose(text + alone), f.shapes), "Input of shape (batch, seq_len, d_model)")


def part_b(f: Findings) -> Part:
    """The code and its parameters."""
    C = f.x.shape[-1]
    rows = tuple((name, str(tuple(w.shape)), w.numel()) for name, w in f.layer.named_parameters())
    total = f.metrics["parameters"]
    equation = "$$Q = X W_Q^\\top + b_Q, \\quad K = X W_K^\\top + b_K, \\quad V = X W_V^\\top + b_V$$"
    return Part(
        "b",
        (
            Prose(f"Three linear maps of the same input, and a fourth for the output:\n\n{equation}"),
            Code(inspect.getsource(SingleHeadAttention), "The whole layer."),
            Table(("parameter", "shape", "numbers"), rows, f"{total} parameters at d_model = {C}.", "parameters"),
            Prose(f"Four matrices and four biases: $4C^2 + 4C = {4 * C * C + 4 * C}$ at $C = {C}$; counted, {total}."),
        ),
        "Q, K and V projections",
    )


def part_c(f: Findings) -> Part:
    """The mask, seen."""
    T = min(8, f.x.shape[1])
    values = tuple(tuple(row) for row in f.weights[0, :T, :T].tolist())
    ticks = tuple(str(i) for i in range(T))
    caption = f"Weights of the first {T} positions of one random sequence, as returned."
    text = (
        "Scores of later keys become $-\\infty$ before the softmax (why before, and what else goes wrong, is exercise "
        "21.11). Row $i$ therefore has $i + 1$ non-zero weights when positions count from 0."
    )
    return Part(
        "c", (Prose(text), Heatmap(values, "key", "query", caption, ticks, ticks, annotate=True)), "The causal mask"
    )


def part_d(f: Findings) -> Part:
    """What is returned, and that it is right."""
    T = min(6, f.x.shape[1])
    rows = (
        ("torch scaled_dot_product_attention(is_causal=True)", f.sdpa, None, f.gradients),
        ("Transformers GPT-2 attention, n_head = 1, same weights", *f.gpt2, None),
        ("this project's CausalSelfAttention, n_head = 1", *f.minigpt, None),
    )
    columns = ("compared with", "output", "attention weights", "gradients")
    shape = " × ".join(str(n) for n in f.x.shape)
    return Part(
        "d",
        (
            Prose(
                f"On random input of shape {shape}, the largest weight above the diagonal is {f.above_diagonal:g} over "
                f"all {f.weights.numel():,} weights, and the rows sum to between {f.row_sums[0]:.7f} and "
                f"{f.row_sums[1]:.7f}: the matrix is lower-triangular and each row is a probability distribution."
            ),
            Code(printed(f.weights[0, :T, :T]), f"The returned weights of the first sequence, first {T} positions."),
            Table(
                columns, rows, "Largest absolute differences (fp32). Empty: the other side does not give it.", "parity"
            ),
        ),
        "Output and attention weights",
    )


def answer(ctx: Context) -> Answer:
    """The layer, part by part."""
    f = measure(ctx)
    worst = max(f.sdpa, *f.gpt2, *f.minigpt)
    return Answer(
        summary=f"The largest weight on a later token is {f.above_diagonal:g}; output and weights agree with torch's, "
        f"GPT-2's and the mini-GPT's attention to {worst:.1g}.",
        parts=(part_a(f), part_b(f), part_c(f), part_d(f)),
        checks=checks(f),
        metrics=f.metrics,
    )


EXERCISE = Exercise(
    id="21.12",
    title="Build a Minimal Attention Layer",
    numbers={"smoke": {"shape": (2, 16, 32)}, "laptop": {"shape": (8, 64, 64)}, "gpu": {"shape": (8, 64, 64)}},
    seconds={"smoke": 3, "laptop": 1, "gpu": 3},
    answer=answer,
)
