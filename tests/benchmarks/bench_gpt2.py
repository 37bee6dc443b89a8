"""A step of our trainer against one of Transformers' GPT-2 on the same batches, from the same weights.

Theirs is ``GPT2LMHeadModel`` in its fastest setting for a CPU: fused attention (sdpa), no dropout, no key/value cache,
a plain cross-entropy on its logits, fused AdamW with the same groups, clipping and learning rates; in fp32 and
in bf16 autocast. As ours has GPT-2's architecture here, both compute the same function: in fp32 their losses must
agree step by step, or the comparison is refused.
"""

import copy
import time
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.config import GPTConfig
from minigpt.data import Windows
from minigpt.model import GPT
from minigpt.pretrained.export import to_gpt2
from minigpt.train import TrainConfig, train
from tests.benchmarks.interleaving import interleaved

Precision = Literal["fp32", "bf16"]
VOCABULARY = 65  # tiny Shakespeare's characters
AGREEMENT = 1e-3  # nats between the losses of the two, in fp32

# name -> model, batch size, steps of a turn
SHAPES: dict[str, tuple[GPTConfig, int, int]] = {
    "0.8M": (GPTConfig(n_layer=4, n_head=4, d_model=128, context=64, vocab_size=VOCABULARY), 12, 10),
    "10M": (GPTConfig(n_layer=6, n_head=6, d_model=384, context=256, vocab_size=VOCABULARY), 8, 2),
}


def text(length: int = 50_000) -> Tensor:
    """Token ids (length,) that speed does not depend on."""
    return torch.randint(VOCABULARY, (length,), generator=torch.Generator().manual_seed(0))


class Ours:
    """``minigpt.train.train``, as anybody calls it. A call trains a turn and returns its seconds."""

    def __init__(self, start: GPT, tokens: Tensor, tc: TrainConfig, precision: Precision) -> None:
        self.start, self.tokens, self.tc = start, tokens, replace(tc, precision=precision)
        self.losses: list[float] = []

    def __call__(self) -> float:
        model = copy.deepcopy(self.start)
        result = train(model.config, self.tc, self.tokens, self.tokens[:2], seed=0, start=model)
        self.losses = result.history["train_loss"]
        return result.history["seconds"][-1] - result.history["seconds"][0]  # the first step allocates


class Theirs:
    """The same training of Transformers' model, written as its users write it."""

    def __init__(self, start: GPT, tokens: Tensor, tc: TrainConfig, precision: Precision) -> None:
        self.start, self.tc, self.precision = to_gpt2(start), tc, precision
        self.start.set_attn_implementation("sdpa")
        self.windows = Windows(tokens, start.config.context, 0)
        self.losses: list[float] = []

    def __call__(self) -> float:
        model: Any = copy.deepcopy(self.start).train()
        tc, weights = self.tc, list(model.parameters())
        groups: list[dict[str, Any]] = [
            {"params": [w for w in weights if w.ndim >= 2], "weight_decay": tc.weight_decay},
            {"params": [w for w in weights if w.ndim < 2], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=tc.learning_rate, betas=(tc.beta1, tc.beta2), fused=True)
        self.losses, first = [], 0.0
        started = time.perf_counter()
        for step in range(tc.steps):
            batch = self.windows.batch(step, tc.batch_size)
            for group in optimizer.param_groups:
                group["lr"] = tc.learning_rate_at(step)
            with torch.autocast("cpu", torch.bfloat16) if self.precision == "bf16" else nullcontext():
                logits = model(batch[:, :-1], use_cache=False).logits
                loss = F.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
            loss.backward()
            nn.utils.clip_grad_norm_(weights, tc.grad_clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            self.losses.append(loss.item())
            if step == 0:
                first = time.perf_counter() - started
        return time.perf_counter() - started - first


def compare(shape: str, rounds: int, threads: int, precisions: tuple[Precision, ...]) -> dict[str, list[float]]:
    """Tokens per second of each side and precision, round by round: {"ours fp32": […], "theirs fp32": […], …}.

    Raises:
        ArithmeticError: in fp32 the losses of the two part, so that they do not do the same work.
    """
    torch.set_num_threads(threads)
    config, batch_size, steps = SHAPES[shape]
    torch.manual_seed(0)
    start, tokens = GPT(config), text()
    tc = TrainConfig(steps=steps + 1, batch_size=batch_size, learning_rate=1e-3, threads=threads, eval_every=10**9)
    sides: dict[str, Any] = {"ours": Ours, "theirs": Theirs}
    runs = {
        f"{side} {precision}": make(start, tokens, tc, precision)
        for precision in precisions
        for side, make in sides.items()
    }
    seconds = interleaved(rounds, runs, warmup=0)  # each call has a step of its own that does not count
    apart = max(abs(a - b) for a, b in zip(runs["ours fp32"].losses, runs["theirs fp32"].losses, strict=True))
    if not apart < AGREEMENT:
        raise ArithmeticError(f"{shape}: losses of the two trainings are {apart:.2g} nats apart, so they differ")
    count = steps * batch_size * config.context
    return {name: [count / each for each in values] for name, values in seconds.items()}
