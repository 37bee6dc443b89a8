"""Measures 21.11: the mask, weights before and after it, and what shows that nothing leaks from the future.

Four tokens are enough to see it; a perturbation, a gradient and a second implementation prove it. Then the
usual mistakes are made on purpose, and what each of them lets through is measured.
"""

import inspect
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.masks import causal_mask
from minigpt.model import GPT
from tasks.exercise import Context, Exercise
from tasks.exercises.ex11_causal_mask.findings import TOKENS, EmptyRow, Findings, Matrix, Way


def create_causal_mask(seq_len: int) -> Tensor:
    """Whether query i (row) may attend to key j (column): j <= i, (seq_len, seq_len) bool."""
    position = torch.arange(seq_len)
    return position[:, None] >= position[None, :]


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """The right order: forbidden scores become -inf, so that exp makes them 0 and each row still sums to 1."""
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)


# --- The usual mistakes: (scores, mask) -> weights ------------------------------------------------------------


def masked_after(scores: Tensor, mask: Tensor) -> Tensor:
    """The denominator of the softmax has seen the future, and rows no longer sum to 1."""
    return scores.softmax(dim=-1) * mask


def masked_after_renormalised(scores: Tensor, mask: Tensor) -> Tensor:
    """Equal to the right order in real numbers; in floating point the rounding depends on the future."""
    weights = scores.softmax(dim=-1) * mask
    return weights / weights.sum(dim=-1, keepdim=True)


def multiplied_scores(scores: Tensor, mask: Tensor) -> Tensor:
    """A score of 0 is no prohibition: exp(0) = 1."""
    return (scores * mask).softmax(dim=-1)


def inverted(scores: Tensor, mask: Tensor) -> Tensor:
    """A boolean mask read as "True is hidden", the convention of nn.MultiheadAttention."""
    return masked_softmax(scores, ~mask)


def minus_1e9(scores: Tensor, mask: Tensor) -> Tensor:
    """A large negative number for -inf, added in the precision of the scores."""
    return (scores + torch.where(mask, 0.0, -1e9).to(scores.dtype)).softmax(dim=-1)


Masking = Callable[[Tensor, Tensor], Tensor]
WAYS: dict[str, Masking] = {
    "mask, then softmax (right)": masked_softmax,
    "softmax, then mask": masked_after,
    "softmax, then mask, then renormalise": masked_after_renormalised,
    "scores × mask, then softmax": multiplied_scores,
    "inverted mask": inverted,
    "−1e9 for −∞": minus_1e9,
}


class Attention:
    """softmax(q kᵀ / √D) v of one head with fixed random projections; the way of masking is an argument."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        self.w_q, self.w_k, self.w_v = torch.randn(3, width, width, generator=generator).div(math.sqrt(width)).unbind()

    def scores(self, x: Tensor) -> Tensor:
        """(T, C) → (T, T)."""
        q, k = x @ self.w_q.to(x.dtype), x @ self.w_k.to(x.dtype)
        return q @ k.T / math.sqrt(x.shape[-1])

    def __call__(self, x: Tensor, mask: Tensor, way: Masking = masked_softmax) -> Tensor:
        """(T, C) → (T, C)."""
        return way(self.scores(x), mask) @ (x @ self.w_v.to(x.dtype))


def largest(values: Tensor) -> float:
    """max |x| over the values that are numbers; 0 if there are none."""
    return values.float().nan_to_num(0.0).abs().max().item() if values.numel() else 0.0


def rows_of(matrix: Tensor) -> Matrix:
    """A matrix as plain data."""
    return tuple(map(tuple, matrix.tolist()))


def gradient_norms(attend: Attention, x: Tensor, mask: Tensor) -> Tensor:
    """‖∂ output_i / ∂ input_j‖ (Frobenius), (T, T)."""
    x = x.clone().requires_grad_()
    rows = []
    for output in attend(x, mask):  # (C,) of one position
        gradients = [torch.autograd.grad(component, x, retain_graph=True)[0] for component in output]
        rows.append(torch.stack(gradients).norm(dim=(0, 2)))  # (C, T, C) -> (T,)
    return torch.stack(rows)


@torch.inference_mode()
def model_leaks(length: int, generator: torch.Generator) -> tuple[int, int]:
    """Change each token of a text in turn and compare a whole model's logits bit for bit.

    Returns how many earlier positions changed, which should be none, and at how many of the places themselves
    the change was seen, which should be all: a test that sees nothing proves nothing.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        model = GPT(GPTConfig(n_layer=3, n_head=4, d_model=32, context=length, vocab_size=16)).eval()
    tokens = torch.randint(16, (1, length), generator=generator)
    before = model(tokens)[0]
    leaks = seen = 0
    for j in range(length):
        altered = tokens.clone()
        altered[0, j] = (altered[0, j] + 1) % 16
        changed = (model(altered)[0] != before).any(dim=-1)
        leaks += int(changed[:j].sum())
        seen += int(changed[j])
    return leaks, seen


def mistakes(attend: Attention, x: Tensor, altered: Tensor, mask: Tensor) -> tuple[Way, ...]:
    """Each way of masking in two precisions, and what it tells earlier positions about the last token."""
    found = []
    for name, way in WAYS.items():
        for dtype, precision in ((torch.float32, "fp32"), (torch.float16, "fp16")):
            weights = way(attend.scores(x.to(dtype)), mask)
            outputs, others = (attend(inputs.to(dtype), mask, way) for inputs in (x, altered))
            nan_rows = weights.isnan().any(dim=-1)
            found.append(
                Way(
                    name=name,
                    precision=precision,
                    row_sum=weights[~nan_rows].float().sum(dim=-1).min().item(),
                    future_weight=largest(weights[~mask]),
                    leak=largest(outputs[:-1] - others[:-1]),
                    nan_rows=int(nan_rows.sum()),
                )
            )
    return tuple(found)


def empty_rows(attend: Attention, x: Tensor, mask: Tensor) -> tuple[EmptyRow, ...]:
    """A first token that is padding leaves the first query without any key to attend to."""
    no_padding = mask & (torch.arange(len(x)) > 0)
    found = []
    for name, way in (("−∞", masked_softmax), ("−1e9", minus_1e9)):
        for dtype, precision in ((torch.float32, "fp32"), (torch.float16, "fp16")):
            first = way(attend.scores(x.to(dtype)), no_padding)[0]
            found.append(EmptyRow(name, precision, tuple(first.tolist())))
    return tuple(found)


def half_precision_fill() -> str:
    """What torch says to masked_fill(-1e9) in half precision."""
    try:
        torch.zeros(1, dtype=torch.float16).masked_fill(torch.tensor([True]), -1e9)
    except RuntimeError as error:
        return str(error)
    return "nothing: the value was accepted"


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    generator, length = ctx.generator(), ctx.numbers["length"]
    T, C = len(TOKENS), 8
    attend = Attention(C, generator)
    x = torch.randn(T, C, generator=generator)
    altered = torch.cat([x[:-1], torch.randn(1, C, generator=generator)])
    mask = create_causal_mask(T)
    before, after = attend.scores(x).softmax(dim=-1), masked_softmax(attend.scores(x), mask)
    gradients = gradient_norms(attend, x, mask)
    q, k, v = ((x @ w)[None] for w in (attend.w_q, attend.w_k, attend.w_v))
    leaks, seen = model_leaks(length, generator)
    return Findings(
        source=inspect.getsource(create_causal_mask),
        mask=tuple(map(tuple, mask.tolist())),
        is_lower_triangle=torch.equal(mask, torch.ones(T, T).tril().bool()),
        is_the_models_own=all(torch.equal(create_causal_mask(n), causal_mask(n)) for n in range(1, length + 1)),
        before=rows_of(before),
        after=rows_of(after),
        gradients=rows_of(gradients),
        future_weight_before=(before * ~mask).sum(dim=-1).mean().item(),
        future_weight_after=after[~mask].max().item(),
        row_sum_after=after.sum(dim=-1).min().item(),
        future_gradient=gradients[~mask].max().item(),
        past_gradient=gradients[mask].min().item(),
        renormalised_difference=largest(after - masked_after_renormalised(attend.scores(x), mask)),
        sdpa_difference=largest(attend(x, mask) - F.scaled_dot_product_attention(q, k, v, is_causal=True)[0]),
        inverted_sdpa_norm=F.scaled_dot_product_attention(q, k, v, attn_mask=~mask)[0, -1].norm().item(),
        length=length,
        leaks=leaks,
        seen=seen,
        ways=mistakes(attend, x, altered, mask),
        padding=empty_rows(attend, x, mask),
        fp16_fill=half_precision_fill(),
    )


EXERCISE = Exercise(
    measure=measure,
    numbers={"smoke": {"length": 24}, "laptop": {"length": 64}, "gpu": {"length": 64}},
    seconds={"smoke": 0.5, "laptop": 1, "gpu": 1},
)
