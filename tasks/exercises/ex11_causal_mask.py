"""Exercise 21.11: the causal mask from scratch, and what shows that nothing leaks from the future.

Four tokens are enough to see it; a perturbation, a gradient and a second implementation prove it. Then the
usual mistakes are made on purpose, and what each of them lets through is measured.
"""

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.masks import causal_mask
from minigpt.model import GPT
from reports.types import Answer, Block, Check, Code, Heatmap, Part, Prose, Table
from tasks.exercise import Context, Exercise

TOKENS = ("the", "cat", "sat", "down")  # names for the rows and columns; the vectors are random


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


Way = Callable[[Tensor, Tensor], Tensor]
WAYS: dict[str, Way] = {
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

    def __call__(self, x: Tensor, mask: Tensor, way: Way = masked_softmax) -> Tensor:
        """(T, C) → (T, C)."""
        return way(self.scores(x), mask) @ (x @ self.w_v.to(x.dtype))


def largest(values: Tensor) -> float:
    """max |x| over the values that are numbers; 0 if there are none."""
    return values.float().nan_to_num(0.0).abs().max().item() if values.numel() else 0.0


def printed(matrix: Tensor) -> str:
    """A matrix as a person would print it."""
    return "\n".join("  ".join(f"{value:6.3f}" for value in row) for row in matrix.tolist())


def heatmap(matrix: Tensor, caption: str, mask: Tensor | None = None) -> Heatmap:
    """An annotated square matrix, query rows by key columns; what the mask hides is drawn as hidden."""
    seen = torch.ones_like(matrix, dtype=torch.bool) if mask is None else mask
    rows = zip(matrix.tolist(), seen.tolist(), strict=True)
    values = tuple(tuple(v if s else None for v, s in zip(row, shown, strict=True)) for row, shown in rows)
    return Heatmap(values, "key", "query", caption, TOKENS, TOKENS, annotate=True)


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


def mistakes(attend: Attention, x: Tensor, altered: Tensor, mask: Tensor) -> tuple[Table, dict[str, float]]:
    """Each way of masking in two precisions, and what it tells earlier positions about the last token.

    Also the change of earlier outputs in fp32, by way of masking.
    """
    rows: list[tuple[str, str, float, float, float, int]] = []
    leaks: dict[str, float] = {}
    for name, way in WAYS.items():
        for dtype, precision in ((torch.float32, "fp32"), (torch.float16, "fp16")):
            weights = way(attend.scores(x.to(dtype)), mask)
            outputs, others = (attend(inputs.to(dtype), mask, way) for inputs in (x, altered))
            nan_rows = weights.isnan().any(dim=-1)
            row_sum = weights[~nan_rows].float().sum(dim=-1).min().item()
            leak = largest(outputs[:-1] - others[:-1])
            leaks.setdefault(name, leak)
            rows.append((name, precision, row_sum, largest(weights[~mask]), leak, int(nan_rows.sum())))
    columns = (
        "way of masking",
        "precision",
        "smallest row sum",
        "largest weight on the future",
        "change of earlier outputs when the last token changes",
        "rows of NaN",
    )
    caption = "Six ways to apply one mask. Only zeros in the fifth column are causal."
    return Table(columns, tuple(rows), caption, "ways"), leaks


def empty_rows(attend: Attention, x: Tensor, mask: Tensor) -> tuple[Table, float]:
    """A first token that is padding leaves the first query without any key to attend to.

    Also the weight it then gives to the last token, with -1e9 in fp32.
    """
    no_padding = mask & (torch.arange(len(x)) > 0)
    future = math.nan
    rows: list[tuple[str | float, ...]] = []
    for name, way in (("−∞", masked_softmax), ("−1e9", minus_1e9)):
        for dtype, precision in ((torch.float32, "fp32"), (torch.float16, "fp16")):
            first = way(attend.scores(x.to(dtype)), no_padding)[0]
            if way is minus_1e9 and dtype is torch.float32:
                future = first[-1].item()
            rows.append((name, precision, *("NaN" if math.isnan(weight) else weight for weight in first.tolist())))
    columns = ("filled with", "precision", *(f"weight on {token!r}" for token in TOKENS))
    caption = "The weights of a query whose keys are all hidden (left padding)."
    return Table(columns, tuple(rows), caption, "padding"), future


def half_precision_fill() -> str:
    """What torch says to masked_fill(-1e9) in half precision."""
    try:
        torch.zeros(1, dtype=torch.float16).masked_fill(torch.tensor([True]), -1e9)
    except RuntimeError as error:
        return str(error)
    return "nothing: the value was accepted"


@dataclass(frozen=True)
class Findings:
    """All that was measured; the answer only words it."""

    mask: Tensor
    before: Tensor  # attention weights, (T, T)
    after: Tensor
    gradients: Tensor
    renormalised: Tensor  # before, restricted to the past
    sdpa_difference: float
    inverted_sdpa_norm: float  # of an output whose keys are all hidden
    length: int
    leaks: int
    seen: int
    ways: Table
    after_leak: float
    renormalised_leak: float
    padding: Table
    padding_future: float

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        future = ~self.mask
        return {
            "future_weight_before_mean": (self.before * future).sum(dim=-1).mean().item(),
            "future_weight_after_max": self.after[future].max().item(),
            "row_sum_after_min": self.after.sum(dim=-1).min().item(),
            "sdpa_max_difference": self.sdpa_difference,
            "future_gradient_max": self.gradients[future].max().item(),
            "past_gradient_min": self.gradients[self.mask].min().item(),
            "positions_leaking": self.leaks,
            "perturbations_seen": self.seen,
            "softmax_then_mask_leak": self.after_leak,
            "softmax_then_mask_renormalised_leak": self.renormalised_leak,
            "minus_1e9_fp32_padding_future_weight": self.padding_future,
        }


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    generator, length = ctx.generator(), ctx.numbers["length"]
    T, C = len(TOKENS), 8
    attend = Attention(C, generator)
    x = torch.randn(T, C, generator=generator)
    altered = torch.cat([x[:-1], torch.randn(1, C, generator=generator)])
    mask = create_causal_mask(T)
    before = attend.scores(x).softmax(dim=-1)
    q, k, v = ((x @ w)[None] for w in (attend.w_q, attend.w_k, attend.w_v))
    leaks, seen = model_leaks(length, generator)
    ways, leak = mistakes(attend, x, altered, mask)
    padding, padding_future = empty_rows(attend, x, mask)
    return Findings(
        mask=mask,
        before=before,
        after=masked_softmax(attend.scores(x), mask),
        gradients=gradient_norms(attend, x, mask),
        renormalised=masked_after_renormalised(attend.scores(x), mask),
        sdpa_difference=largest(attend(x, mask) - F.scaled_dot_product_attention(q, k, v, is_causal=True)[0]),
        inverted_sdpa_norm=F.scaled_dot_product_attention(q, k, v, attn_mask=~mask)[0, -1].norm().item(),
        length=length,
        leaks=leaks,
        seen=seen,
        ways=ways,
        after_leak=leak["softmax, then mask"],
        renormalised_leak=leak["softmax, then mask, then renormalise"],
        padding=padding,
        padding_future=padding_future,
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims, against independent oracles."""
    T, m = len(f.mask), f.metrics
    same = all(torch.equal(create_causal_mask(n), causal_mask(n)) for n in range(1, f.length + 1))
    return (
        Check.equal("the mask is torch.tril of ones", torch.equal(f.mask, torch.ones(T, T).tril().bool()), True),
        Check.equal(f"the mask is the model's own at lengths 1 to {f.length}", same, True),
        Check.equal("largest attention weight on a future position", m["future_weight_after_max"], 0.0),
        Check.close("each row still sums to 1 (the smallest)", m["row_sum_after_min"], 1.0, 1e-6),
        Check.at_most(
            "after = before, restricted to the past and renormalised", largest(f.after - f.renormalised), 1e-6
        ),
        Check.at_most("difference from scaled_dot_product_attention(is_causal=True)", f.sdpa_difference, 1e-6),
        Check.equal(
            f"earlier positions of a 3-layer model that change by a bit when token j changes, over {f.length} j",
            f.leaks,
            0,
        ),
        Check.equal("… and the changed position itself always sees it", f.seen, f.length),
        Check.equal("largest gradient of an output with respect to a later input", m["future_gradient_max"], 0.0),
        Check.at_least("smallest gradient with respect to an earlier input or the own", m["past_gradient_min"], 1e-9),
        Check.at_least("masking after the softmax leaks: change of earlier outputs", f.after_leak, 1e-4, "empirical"),
    )


RULE = Prose(
    "A query $i$ may attend to the keys $j \\le i$. The others get the score $-\\infty$ *before* the softmax, "
    "so their weight is $e^{-\\infty} = 0$ and the rest still sums to 1:\n\n"
    "$$A_{ij} = \\frac{\\exp(s_{ij})\\,[j \\le i]}{\\sum_{m \\le i} \\exp(s_{im})}, \\qquad "
    "s_{ij} = \\frac{q_i \\cdot k_j}{\\sqrt{d}}$$\n\n"
    "In this project a mask is boolean and `True` means *attend*, as in `scaled_dot_product_attention`."
)


def before_and_after(f: Findings) -> tuple[Block, ...]:
    """The function, the weights before and after, and the proofs."""
    m, T = f.metrics, len(f.mask)
    source = inspect.getsource(create_causal_mask)
    return (
        RULE,
        Code(
            f"{source}\n>>> create_causal_mask({T}).int()\n{f.mask.int().numpy()}",
            "The function and what it prints (1 = attend, 0 = masked).",
        ),
        Code(
            f"before masking\n{printed(f.before)}\n\nafter masking\n{printed(f.after)}",
            f"Attention weights of {T} random token vectors (seeded), queries in rows, keys in columns.",
        ),
        heatmap(f.before, "Attention weights before masking."),
        heatmap(f.after, "After masking: nothing above the diagonal.", f.mask),
        Prose(
            f"Before masking, a query spends {m['future_weight_before_mean']:.1%} of its attention on the future "
            f"(mean over the {T} rows); after it, the largest weight above the diagonal is "
            f"{m['future_weight_after_max']:g}. What is left of each row is its old weights divided by their "
            "sum: the mask redistributes in proportion, and the first row has a single choice.\n\n"
            "Weights of zero could still hide a leak elsewhere, so two more tests look at outputs. *Gradient*: the "
            f"output at $i$ does not depend on the input at any $j > i$: the largest such derivative is "
            f"{m['future_gradient_max']:g}. *Perturbation*: in a whole 3-layer model each of {f.length} tokens "
            f"is replaced in turn; {f.leaks} earlier outputs change by as much as a bit, while the replaced position "
            f"notices in {f.seen} of {f.length} cases."
        ),
        heatmap(f.gradients, "Norm of the gradient of the output at the query with respect to the input at the key."),
    )


def what_goes_wrong(f: Findings) -> tuple[Block, ...]:
    """The mistakes, measured."""
    rounding = "rounding that still depends on the future" if f.renormalised_leak else "nothing that rounding shows"
    return (
        Prose("### What goes wrong\n\nThe same scores and the same mask, applied in six ways."),
        f.ways,
        Prose(
            "Masking *after* the softmax hides the weights but not their denominator: earlier outputs move by up to "
            f"{f.after_leak:.2g} when only the last token changes. Renormalising repairs that in real numbers; in "
            f"floating point the change is {f.renormalised_leak:.1g}, {rounding}. Multiplying scores by the mask "
            "leaves $e^0 = 1$ for every forbidden key. A mask of the opposite convention (`nn.MultiheadAttention` "
            "reads `True` as *hidden*) attends to nothing but the future, and its last row, where everything is "
            "hidden, is not a number; in `scaled_dot_product_attention` the same row comes out with norm "
            f"{f.inverted_sdpa_norm:g} and no warning.\n\n"
            "With $-10^9$ in place of $-\\infty$ the table above shows no difference. It appears where a row has no "
            "key at all, as under left padding:"
        ),
        f.padding,
        Prose(
            "In fp32, $-10^9$ swallows the scores and the empty row attends to the future with weight "
            f"{f.padding_future:.3f} per token. In fp16 the number does not exist: "
            "converted it is $-\\infty$, and `masked_fill(-1e9)` answers:"
        ),
        Code(half_precision_fill(), "torch on masked_fill(-1e9) in fp16."),
    )


def answer(ctx: Context) -> Answer:
    """The mask, the weights before and after it, the proofs, and the mistakes."""
    found = measure(ctx)
    m = found.metrics
    return Answer(
        summary=f"{m['future_weight_before_mean']:.0%} of the attention lies on the future before masking and "
        f"{m['future_weight_after_max']:.0%} after; {found.leaks or 'no'} earlier outputs change in "
        f"{found.length} perturbations.",
        parts=(Part("", (*before_and_after(found), *what_goes_wrong(found))),),
        checks=checks(found),
        metrics=m,
    )


EXERCISE = Exercise(
    id="21.11",
    title="Implement Causal Masking from Scratch",
    numbers={"smoke": {"length": 24}, "laptop": {"length": 64}, "gpu": {"length": 64}},
    seconds={"smoke": 0.5, "laptop": 1, "gpu": 1},
    answer=answer,
)
