"""Counts for 21.8: buffers that are really allocated, a loop over steps, and passes of a real attention layer."""

from collections.abc import Sequence

import torch
from torch.utils.flop_counter import FlopCounterMode

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.masks import visible_keys
from minigpt.model import GPT, CausalSelfAttention
from tasks.exercise import Context, Exercise
from tasks.exercises.ex08_kv_cache.findings import BATCH, CONFIG, NEW, PROMPT, Buffer, Counts, Findings

DTYPES = {"float32": torch.float32, "float16": torch.float16}


def measure(ctx: Context) -> Findings:
    """Everything the answer holds against its closed forms."""
    with torch.device("meta"):
        weights = sum(p.numel() for p in GPT(CONFIG).parameters())
    return Findings(
        weights=weights,
        buffers=tuple(allocated(precision, batch) for precision in DTYPES for batch in (1, BATCH)),
        looped_pairs=pairs_by_loop(),
        counts=count_passes(ctx),
    )


def allocated(precision: str, batch: int) -> Buffer:
    """A cache's buffers on the meta device: shapes and types, no memory."""
    cache = KVCache(CONFIG, batch, CONFIG.context, device="meta", dtype=DTYPES[precision])
    return Buffer(precision, batch, cache.nbytes)


def pairs_by_loop() -> dict[str, int]:
    """Query-key pairs of a whole generation, step by step."""
    pairs = {
        "without cache": 0,
        "with cache": 0,
        "without cache, causal half only": 0,
        "with cache, causal half only": 0,
    }
    for step in range(NEW):
        n = PROMPT + step  # tokens known when this one is generated
        queries = n if step == 0 else 1
        pairs["without cache"] += n * n
        pairs["with cache"] += queries * n
        pairs["without cache, causal half only"] += sum(range(1, n + 1))
        pairs["with cache, causal half only"] += sum(range(n - queries + 1, n + 1))
    return pairs


def count_passes(ctx: Context) -> Counts:
    """What torch counts in real forward passes of one attention layer."""
    every, last = ctx.numbers["every"], PROMPT + NEW - 1
    lengths = range(PROMPT, PROMPT + NEW, every)
    ctx.progress(0.1, "counting FLOPs without a cache")
    products, projections = counted([(n, 0) for n in lengths], "meta")
    ctx.progress(0.6, "counting FLOPs with a cache")
    cached, _ = counted([(PROMPT, 0), *((1, n - 1) for n in lengths[1:])], "meta")
    both, _ = counted([(last, 0), (1, last - 1)], "cpu")
    return Counts(every, products, projections, cached, both)


@torch.inference_mode()
def counted(passes: Sequence[tuple[int, int]], device: str) -> tuple[int, int]:
    """FLOPs that torch counts in one attention layer: of products of activations, and of projections.

    Each pass is (tokens read, tokens in the cache before). Attention maps are asked for, because that computes the
    two products in the open: the fused CPU kernel is not among those the counter knows.
    """
    single = GPTConfig(n_layer=1, n_head=CONFIG.n_head, d_model=CONFIG.d_model, context=CONFIG.context)
    with torch.device(device):
        layer = CausalSelfAttention(single).eval()
    cache = KVCache(single, 1, CONFIG.context, device=device)
    with FlopCounterMode(display=False) as counter:
        for tokens, before in passes:
            cache.length = before
            visible = visible_keys(tokens, cache.keys_seen(tokens), maps=True, device=device)
            layer(torch.zeros(1, tokens, CONFIG.d_model, device=device), visible=visible, cache=cache, maps=[])
    counts = counter.get_flop_counts()["Global"]
    return counts[torch.ops.aten.bmm], counts[torch.ops.aten.addmm]


EXERCISE = Exercise(
    measure=measure,
    numbers={"smoke": {"every": 64}, "laptop": {"every": 8}, "gpu": {"every": 1}},
    seconds={"smoke": 2, "laptop": 2, "gpu": 30},
)
