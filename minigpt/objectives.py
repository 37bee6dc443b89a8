"""What a model is trained to do: each objective turns a batch into one loss, in nats per token.

``objective(model, batch, teacher=…, generator=…, args=…)`` with ``batch`` (B, T + 1) int64 of which the
first T tokens are read and the last T predicted. ``generator`` lives on the CPU and is seeded anew for
each step; ``args`` are the recipe's own numbers for this objective.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.checks import flag, named, number, positive, share, whole
from minigpt.model import GPT

Objective = Callable[..., Tensor]
LARGE_VOCABULARY = 2**13  # tokens; from so many on, the loss of bf16 logits is made a few rows at a time


def token_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean negative log-likelihood of targets (B, T) under logits (B, T, V), in nats."""
    rows, targets = logits.flatten(0, 1), targets.flatten()
    if rows.dtype == torch.bfloat16 and rows.device.type == "cpu" and rows.shape[1] >= LARGE_VOCABULARY:
        loss: Tensor = _PiecewiseCrossEntropy.apply(rows, targets)  # type: ignore[no-untyped-call]
        return loss
    return F.cross_entropy(rows, targets)


class _PiecewiseCrossEntropy(torch.autograd.Function):
    """``F.cross_entropy`` of logits (N, V) in bf16, computed in fp32 for a few rows at a time, gradient included.

    At once it takes five tensors of N · V numbers in fp32, 100 MB each for 512 tokens of a vocabulary of 50,000: the
    logits, their log-softmax and what leads back from them. A few rows stay in the processor's caches, and that takes
    half the time. The rounding is the same: the gradient, as the logits, is bf16.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, targets: Tensor) -> Tensor:
        """(N, V), (N,) → ()."""
        count, gradient = len(logits), torch.empty_like(logits)
        losses = logits.new_empty(count, dtype=torch.float32)
        pieces = (tensor.split(16) for tensor in (logits, targets, losses, gradient))
        for x, target, loss, slope in zip(*pieces, strict=True):
            log_p, target = x.float().log_softmax(dim=-1), target[:, None]
            loss.copy_(-log_p.gather(1, target)[:, 0])
            p = log_p.exp_() / count
            slope.copy_(p.scatter_add_(1, target, p.new_full(target.shape, -1 / count)))  # (softmax - one-hot) / N
        ctx.save_for_backward(gradient)
        return losses.mean()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None]:
        """The gradient was made on the way."""
        [gradient] = ctx.saved_tensors
        return (gradient * grad_output).to(gradient.dtype), None


def causal(model: GPT, batch: Tensor, **_: Any) -> Tensor:
    """Each token from those before it (Radford et al., 2018, equation 1)."""
    return token_cross_entropy(model(batch[:, :-1]), batch[:, 1:])


def bidirectional(model: GPT, batch: Tensor, **_: Any) -> Tensor:
    """The same targets under full attention: every position but the last can see its answer.

    The mistake that exercise 21.2 (d) asks about, not a way to train.
    """
    T = batch.shape[1] - 1
    everything = torch.ones(T, T, dtype=torch.bool, device=batch.device)
    return token_cross_entropy(model(batch[:, :-1], mask=everything), batch[:, 1:])


def masked(model: GPT, batch: Tensor, *, generator: torch.Generator, args: Mapping[str, Any], **_: Any) -> Tensor:
    """Hidden tokens from both sides, as BERT does (Devlin et al., 2019, section 3.1): T tokens in, the same T out.

    A share ``args["rate"]`` (0.15) of the tokens is scored. Of these, 80 % are read as ``args["mask_token"]`` (0, the
    unknown token of the character and word tokenizers), 10 % as a random token, 10 % as they are; the mean is
    over the scored tokens of the batch.
    """
    rate, mask_token = float(args.get("rate", 0.15)), int(args.get("mask_token", 0))
    targets = batch[:, 1:]
    T = targets.shape[1]
    draws = torch.rand(2, *targets.shape, generator=generator).to(batch.device)
    noise = torch.randint(model.config.vocab_size, targets.shape, generator=generator).to(batch.device)
    scored, fate = draws[0] < rate, draws[1]
    inputs = torch.where(scored & (fate < 0.8), mask_token, targets)
    inputs = torch.where(scored & (fate >= 0.9), noise, inputs)
    everything = torch.ones(T, T, dtype=torch.bool, device=batch.device)
    logits = model(inputs, mask=everything)  # (B, T, V)
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return (losses * scored).sum() / scored.sum().clamp(min=1)


def prefix(model: GPT, batch: Tensor, *, generator: torch.Generator, args: Mapping[str, Any], **_: Any) -> Tensor:
    """A bidirectional prefix of random length per sequence, loss on what follows (Raffel et al., 2020, section 3.2.1).

    Lengths are uniform on 0 … T - 1, or all ``args["prefix"]``. Targets inside the prefix are visible, so only
    tokens from position P on are scored; the mean is over the scored tokens of the batch. With
    ``args["bidirectional"]`` False the same tokens are scored under the causal mask: a control that differs from the
    prefix model in attention and from the causal model in supervision.
    """
    B, T = batch.shape[0], batch.shape[1] - 1
    fixed = args.get("prefix")
    lengths = torch.randint(T, (B,), generator=generator) if fixed is None else torch.full((B,), int(fixed))
    lengths = lengths.to(batch.device)
    opened = lengths if args.get("bidirectional", True) else 0
    logits = model(batch[:, :-1], prefix=opened)  # (B, T, V)
    losses = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten(), reduction="none").view(B, T)
    scored = torch.arange(1, T + 1, device=batch.device) >= lengths[:, None]  # position of the target, (B, T)
    return (losses * scored).sum() / scored.sum()


def multi_token(model: GPT, batch: Tensor, *, args: Mapping[str, Any], **_: Any) -> Tensor:
    """The next n tokens by n heads on one trunk (Gloeckle et al., 2024, equation 2).

    ``args["reduction"]`` is "sum" as in the paper or "mean" (the default), which keeps the scale of one head.

    Raises:
        ValueError: the batch is shorter than what the last head predicts.
    """
    n, T = model.config.n_future, batch.shape[1] - 1
    if n > T:
        raise ValueError(f"{T + 1} tokens per sequence are too few for {n} heads: n_future needs {n + 1}")
    hidden = model.hidden(batch[:, :-1])  # (B, T, C)
    losses = [
        token_cross_entropy(model.future_logits(hidden[:, : T + 1 - step], step), batch[:, step:])
        for step in range(1, n + 1)
    ]
    total = torch.stack(losses).sum()
    return total if args.get("reduction", "mean") == "sum" else total / n


def distill(model: GPT, batch: Tensor, *, teacher: GPT, args: Mapping[str, Any], **_: Any) -> Tensor:
    """α · CE + (1 - α) · τ² · KL(teacher ‖ student) (Hinton et al., 2015, section 2).

    CE is that of the true tokens at temperature 1; in the KL both distributions are softened by τ. The factor τ² keeps
    the size of the soft gradients, which scale as 1/τ². Both terms are means over tokens.
    ``args``: ``alpha`` (0.5) and ``tau`` (2.0).
    """
    alpha, tau = float(args.get("alpha", 0.5)), float(args.get("tau", 2.0))
    logits = model(batch[:, :-1])
    with torch.no_grad():
        soft_targets = (teacher(batch[:, :-1]) / tau).log_softmax(dim=-1).flatten(0, 1)  # (B·T, V)
    soft = F.kl_div(
        (logits / tau).log_softmax(dim=-1).flatten(0, 1), soft_targets, reduction="batchmean", log_target=True
    )
    return alpha * token_cross_entropy(logits, batch[:, 1:]) + (1 - alpha) * tau**2 * soft


OBJECTIVES: Mapping[str, Objective] = {
    objective.__name__: objective for objective in (causal, bidirectional, masked, prefix, multi_token, distill)
}

# What each number of an objective must be; an objective takes its own and leaves the others.
ARGUMENTS: Mapping[str, Callable[[str, Any], object]] = {
    "rate": lambda name, value: number(name, value, lambda x: 0 < x <= 1, "in (0, 1]"),
    "mask_token": lambda name, value: whole(name, value, 0),
    "prefix": lambda name, value: whole(name, value, 0),
    "bidirectional": flag,
    "reduction": lambda name, value: named(name, value, ("sum", "mean")),
    "alpha": share,
    "tau": positive,
}


def check_args(args: Any) -> None:
    """Refuse numbers for an objective, as pairs of name and value, that no objective has or that cannot be.

    Raises:
        ValueError: names the number and what it must be.
    """
    if not isinstance(args, tuple) or not all(isinstance(pair, tuple) and len(pair) == 2 for pair in args):
        raise ValueError(f"objective_args must be a tuple of pairs of a name and a value, got {args!r}")
    for name, value in args:
        named("objective_args", name, ARGUMENTS)
        ARGUMENTS[name](f"objective_args {name}", value)
