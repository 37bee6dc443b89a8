"""Part (b) of 21.25: what the rotation gives the attention, and what a cache that restarts positions does to it."""

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.model import GPT, CausalSelfAttention
from minigpt.positions import rope_tables, rotate, sinusoidal
from minigpt.pretrained.parity import with_our_attention
from tasks.exercise import Context
from tasks.exercises.ex25_rotary_positions.findings import Attention, CacheTrap, D

STARTS, DISTANCES = (0, 10, 100, 400), tuple(range(0, 65, 2))
ADDITIVE_DISTANCE = 8


def measure_attention(ctx: Context, model: GPT, tokens: Tensor) -> Attention:
    """Scores of relative position, and the trap."""
    scores = scores_by_distance(STARTS, DISTANCES, ctx.generator("scores"))
    stacked = torch.stack(list(scores.values()))
    additive = additive_spread(STARTS, ADDITIVE_DISTANCE, ctx.generator("scores"))
    trap = cache_trap(model, tokens[None, : ctx.numbers["trap_tokens"] + 1])
    return Attention(
        distances=DISTANCES,
        scores={start: tuple(found.tolist()) for start, found in scores.items()},
        spread=(stacked.max(dim=0).values - stacked.min(dim=0).values).max().item(),
        additive_distance=ADDITIVE_DISTANCE,
        additive_spread=additive,
        from_llama=difference_from_llama_model(ctx.generator("host")),
        code=inspect.getsource(CausalSelfAttention.forward),
        trap=trap,
    )


def scores_by_distance(
    starts: Sequence[int], distances: Sequence[int], generator: torch.Generator
) -> dict[int, Tensor]:
    """q·k of two fixed vectors, the query at start + distance and the key at start; one row for each start."""
    q, k = torch.randn(2, 1, 1, 1, D, generator=generator)
    found = {}
    for start in starts:
        tables = rope_tables(torch.tensor([start, *(start + d for d in distances)]), D)
        key = rotate(k, *(t[:1] for t in tables))[0, 0]
        queries = rotate(q.expand(1, 1, len(distances), D), *(t[1:] for t in tables))[0, 0]
        found[start] = (queries @ key.T)[:, 0]
    return found


def additive_spread(starts: Sequence[int], distance: int, generator: torch.Generator) -> float:
    """The same with sinusoids added to q and k: how much the score at one distance varies with the start."""
    q, k = torch.randn(2, D, generator=generator)
    table = sinusoidal(torch.arange(max(starts) + distance + 1), D)
    scores = torch.stack([(q + table[start + distance]) @ (k + table[start]) for start in starts])
    return (scores.max() - scores.min()).item()


class RestartingCache(KVCache):
    """The usual mistake: it stores every key, but tells the model that each new token is at position 0."""

    filled = 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """As ``KVCache.update``."""
        self.length = self.filled
        found = super().update(layer, k, v)
        self.length = 0
        return found

    def advance(self, count: int) -> None:
        """Count, where the model does not look."""
        self.filled += count


@torch.inference_mode()
def cached_logits(model: GPT, tokens: Tensor, cache: KVCache) -> Tensor:
    """Logits of (1, T) tokens read one by one, (1, T, V)."""
    return torch.cat([model(token, cache=cache) for token in torch.split(tokens, 1, dim=1)], dim=1)


def cache_trap(model: GPT, tokens: Tensor) -> CacheTrap:
    """What restarting positions do to a trained model, on (1, T + 1) tokens."""
    text, targets = tokens[:, :-1], tokens[0, 1:]
    with torch.inference_mode():
        whole = model(text)
    right, wrong = (
        cached_logits(model, text, kind(model.config, 1, text.shape[1], device=text.device))
        for kind in (KVCache, RestartingCache)
    )
    losses = [torch.nn.functional.cross_entropy(logits[0], targets).item() for logits in (whole, wrong)]
    return CacheTrap(text.shape[1], (right - whole).abs().max().item(), (wrong - whole).abs().max().item(), *losses)


def difference_from_llama_model(generator: torch.Generator) -> float:
    """Largest difference of the outputs of a random Llama and the same with our attention in place of its own."""
    from transformers import LlamaConfig, LlamaModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        host = LlamaModel(
            LlamaConfig(vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4)
        )
    config = GPTConfig(n_layer=2, n_head=4, d_model=64, context=64, position="rope", bias=False)
    tokens = torch.randint(50, (2, 48), generator=generator)
    with torch.inference_mode():
        ours, theirs = (model(tokens).last_hidden_state for model in (with_our_attention(host, config), host))
    return float((ours - theirs).abs().max())
