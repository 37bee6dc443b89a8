"""The recipe that nanoGPT publishes for a CPU, written anew from its description: the yardstick of our trainer.

Source: https://github.com/karpathy/nanoGPT, README "quick start, I only have a macbook" (device=cpu, compile=False,
4 layers, 4 heads, width 128, context 64, batch 12, 2,000 steps, dropout 0) on top of config/train_shakespeare_char.py
(AdamW at 1e-3 with a cosine down to 1e-4, 100 steps of warm-up, betas 0.9 and 0.99) and the defaults of train.py
(weight decay 0.1 on matrices, gradients clipped to 1.0, no biases). It trains in fp32 on random windows.
"""

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Shape:
    """The published sizes."""

    vocab_size: int
    context: int = 64
    n_layer: int = 4
    n_head: int = 4
    width: int = 128


class Attention(nn.Module):
    """Fused causal attention behind one projection for queries, keys and values."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.n_head
        self.qkv = nn.Linear(shape.width, 3 * shape.width, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2) for part in self.qkv(x).split(C, dim=2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).contiguous().view(B, T, C))


class Layer(nn.Module):
    """Pre-norm block with the exact GELU; norms have a gain and no bias."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(shape.width, bias=False) for _ in range(2))
        self.attention = Attention(shape)
        self.up = nn.Linear(shape.width, 4 * shape.width, bias=False)
        self.out = nn.Linear(4 * shape.width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.out(F.gelu(self.up(self.norm2(x))))


class NanoGPT(nn.Module):
    """Learned positions, tied embeddings, every weight from N(0, 0.02²), residual outputs divided by √(2L)."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.config = shape
        self.tokens = nn.Embedding(shape.vocab_size, shape.width)
        self.positions = nn.Embedding(shape.context, shape.width)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.n_layer))
        self.norm = nn.LayerNorm(shape.width, bias=False)
        for name, weight in self.named_parameters():
            if weight.ndim == 2:
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * shape.n_layer) if "out" in name else 0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits, (B, T) → (B, T, V)."""
        x = self.tokens(tokens) + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for layer in self.layers:
            x = layer(x)
        return self.norm(x) @ self.tokens.weight.T


class NanoGPTTraining:
    """The published training, a step at a time. ``seconds`` counts nothing but the steps."""

    batch, peak, low, warmup = 12, 1e-3, 1e-4, 100

    def __init__(self, tokens: Tensor, vocab_size: int, steps: int = 2000, seed: int = 1337) -> None:
        torch.manual_seed(seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.model = NanoGPT(Shape(vocab_size))
        self.tokens, self.steps, self.step, self.seconds, self.loss = tokens, steps, 0, 0.0, math.nan
        matrices = [weight for weight in self.model.parameters() if weight.ndim >= 2]
        others = [weight for weight in self.model.parameters() if weight.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": 0.1},
            {"params": others, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=self.peak, betas=(0.9, 0.99))  # fused on CUDA only

    def rate(self) -> float:
        """Learning rate of the next step."""
        if self.step < self.warmup:
            return self.peak * (self.step + 1) / (self.warmup + 1)
        progress = (self.step - self.warmup) / (self.steps - self.warmup)
        return self.low + 0.5 * (1 + math.cos(math.pi * progress)) * (self.peak - self.low)

    def advance(self) -> None:
        """One step."""
        started = time.perf_counter()
        T = self.model.config.context
        starts = torch.randint(len(self.tokens) - T, (self.batch,), generator=self.generator).tolist()
        x = torch.stack([self.tokens[i : i + T] for i in starts])
        y = torch.stack([self.tokens[i + 1 : i + 1 + T] for i in starts])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        logits = self.model(x)
        loss = F.cross_entropy(logits.view(-1, logits.shape[-1]), y.view(-1))
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.loss = loss.item()
        self.step += 1
        self.seconds += time.perf_counter() - started
