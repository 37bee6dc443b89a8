"""Exercise 21.8: what a key/value cache costs in memory and saves in arithmetic, in closed form and counted."""

from collections.abc import Iterable, Sequence
from itertools import accumulate

import torch
from torch.utils.flop_counter import FlopCounterMode

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.model import GPT, CausalSelfAttention
from reports.types import Answer, Block, Check, Figure, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise

CONFIG = GPTConfig(n_layer=12, n_head=12, d_model=768, context=1024, vocab_size=50_257)  # GPT-2 small
BATCH, PROMPT, NEW = 8, 256, 512
PRECISIONS = (("float32", torch.float32, 4), ("float16", torch.float16, 2))
MIB = 2**20


def cache_bytes(batch: int, tokens: int, bytes_per_number: int) -> int:
    """2 · L · B · T · H · D · bytes: a key and a value of width H · D per layer and token."""
    return 2 * CONFIG.n_layer * batch * tokens * CONFIG.kv_heads * CONFIG.head_dim * bytes_per_number


def pair_flops(pairs: int) -> int:
    """4 · L · H · D per query-key pair: D multiply-adds for the score, D for the value, in each head and layer."""
    return 4 * CONFIG.n_layer * CONFIG.n_head * CONFIG.head_dim * pairs


def projection_flops(tokens: int) -> int:
    """8 · L · C² per token: the matrices for query, key, value and output."""
    return 8 * CONFIG.n_layer * CONFIG.d_model**2 * tokens


def sum_to(n: int) -> int:
    """1 + 2 + … + n."""
    return n * (n + 1) // 2


def squares_to(n: int) -> int:
    """1² + 2² + … + n²."""
    return n * (n + 1) * (2 * n + 1) // 6


def pairs_in_closed_form() -> dict[str, int]:
    """Query-key pairs of a whole generation. The first new token comes out of reading the prompt."""
    last = PROMPT + NEW - 1  # the last new token is never read
    lengths = sum_to(last) - sum_to(PROMPT - 1)
    squares = squares_to(last) - squares_to(PROMPT - 1)
    return {
        "without cache": squares,
        "with cache": PROMPT**2 + lengths - PROMPT,
        "without cache, causal half only": (squares + lengths) // 2,
        "with cache, causal half only": sum_to(PROMPT) + lengths - PROMPT,
    }


def pairs_by_loop() -> dict[str, int]:
    """The same, step by step."""
    pairs = dict.fromkeys(pairs_in_closed_form(), 0)
    for step in range(NEW):
        n = PROMPT + step  # tokens known when this one is generated
        queries = n if step == 0 else 1
        pairs["without cache"] += n * n
        pairs["with cache"] += queries * n
        pairs["without cache, causal half only"] += sum(range(1, n + 1))
        pairs["with cache, causal half only"] += sum(range(n - queries + 1, n + 1))
    return pairs


def answer(context: Context) -> Answer:
    """All three parts."""
    flops = {name: pair_flops(pairs) for name, pairs in pairs_in_closed_form().items()}
    without, cached = flops["without cache"], flops["with cache"]
    reads = sum_to(PROMPT + NEW - 1) - sum_to(PROMPT - 1)  # tokens read without a cache
    projections = projection_flops(reads), projection_flops(PROMPT + NEW - 1)
    metrics: dict[str, float | int] = {}
    for name, _, size in PRECISIONS:
        short = name.replace("float", "fp")
        metrics |= {
            f"kv_cache_{short}_bytes": cache_bytes(1, CONFIG.context, size),
            f"kv_cache_{short}_mib": cache_bytes(1, CONFIG.context, size) / MIB,
            f"kv_cache_batch_{BATCH}_{short}_bytes": cache_bytes(BATCH, CONFIG.context, size),
            f"kv_cache_batch_{BATCH}_{short}_mib": cache_bytes(BATCH, CONFIG.context, size) / MIB,
            f"kv_cache_per_token_{short}_bytes": cache_bytes(1, 1, size),
        }
    metrics |= {
        "attention_flops_without_cache": without,
        "attention_flops_with_cache": cached,
        "attention_flops_ratio": without / cached,
        "attention_flops_without_cache_causal_half": flops["without cache, causal half only"],
        "attention_flops_with_cache_causal_half": flops["with cache, causal half only"],
        "projection_flops_without_cache": projections[0],
        "projection_flops_with_cache": projections[1],
        "attention_and_projection_flops_ratio": (without + projections[0]) / (cached + projections[1]),
    }
    return Answer(
        summary=f"{metrics['kv_cache_fp32_mib']:g} MiB in fp32, {metrics['kv_cache_fp16_mib']:g} MiB in fp16 per "
        f"sequence; without a cache attention costs {without / cached:.0f} times the FLOPs.",
        parts=(
            Part("a", part_a(), "memory in fp32 and fp16"),
            Part("b", part_b(), f"memory of {BATCH} sequences"),
            Part("c", part_c(flops, projections), f"FLOPs of {NEW} new tokens after a prompt of {PROMPT}"),
        ),
        checks=(*memory_checks(), *flop_checks(context)),
        metrics=metrics,
    )


def part_a() -> tuple[Block, ...]:
    """One sequence."""
    c = CONFIG
    rows = []
    for name, _, size in PRECISIONS:
        token, total = cache_bytes(1, 1, size), cache_bytes(1, c.context, size)
        rows.append((name, token // c.n_layer, token, total, total / MIB))
    return (
        Prose(
            "For every layer and token the cache keeps one key and one value of width $H D$:"
            r"$$\text{bytes} = 2 \cdot L \cdot H \cdot D \cdot T \cdot b = "
            rf"2 \cdot {c.n_layer} \cdot {c.n_head} \cdot {c.head_dim} \cdot {c.context} \cdot b$$"
            "with $b = 4$ bytes per number in float32 and $b = 2$ in float16. 1 MiB is $2^{20}$ bytes. The size is "
            "linear in the tokens, and the whole is allocated ahead when the buffer has a fixed capacity."
        ),
        Table(
            columns=("precision", "bytes per token and layer", "bytes per token", f"bytes, {c.context} tokens", "MiB"),
            rows=tuple(rows),
            caption="Key/value cache of one sequence",
            name="memory",
        ),
    )


def part_b() -> tuple[Block, ...]:
    """A batch, beside the weights."""
    with torch.device("meta"):
        weights = sum(p.numel() for p in GPT(CONFIG).parameters())
    sizes = (1, 2, 4, BATCH, 16, 32)
    rows = tuple((batch, *(cache_bytes(batch, CONFIG.context, b) / MIB for _, _, b in PRECISIONS)) for batch in sizes)
    half, whole = (cache_bytes(BATCH, CONFIG.context, b) / MIB for b in (2, 4))
    equal = weights * 2 / cache_bytes(1, CONFIG.context, 2)
    return (
        Prose(
            f"Sequences share nothing, so the size is multiplied by the batch: {whole:g} MiB in float32 and {half:g} "
            f"MiB in float16 for {BATCH}. The weights of a model with these dimensions and GPT-2's vocabulary, "
            f"{weights:,} numbers, are read by all of them and take {weights * 2 / MIB:.1f} MiB in float16: from a "
            f"batch of {int(equal) + 1} full contexts on, the cache is larger than the model. That is what "
            "grouped-query attention (Ainslie et al., 2023) shrinks."
        ),
        Table(
            columns=("sequences", "float32 (MiB)", "float16 (MiB)"),
            rows=rows,
            caption=f"Key/value cache for {CONFIG.context} tokens each",
            name="batch",
        ),
    )


def part_c(flops: dict[str, int], projections: tuple[int, int]) -> tuple[Block, ...]:
    """FLOPs of the whole generation."""
    without, cached = flops["without cache"], flops["with cache"]
    half = flops["without cache, causal half only"], flops["with cache, causal half only"]
    rows = (
        ("scores and values, full matrix", without, cached, without / cached),
        ("scores and values, causal half only", *half, half[0] / half[1]),
        ("projections to q, k, v and output", *projections, projections[0] / projections[1]),
        (
            "full matrix and projections",
            without + projections[0],
            cached + projections[1],
            (without + projections[0]) / (cached + projections[1]),
        ),
    )
    return (
        Prose(
            "Convention: one multiply-add is 2 FLOPs; softmax, scaling and masking are left out. For $n_q$ queries and "
            r"$n_k$ keys the scores $QK^\top$ and the weighted values take $2 n_q n_k D$ FLOPs each per head, so "
            r"$4 \, n_q n_k \, L H D$ in all layers. Attention is computed as a full matrix whose upper half is "
            "masked; a kernel that skips that half needs the second row of the table. The first new token comes out "
            f"of reading the prompt, and the last is never read again, so $N = {NEW}$ tokens after $P = {PROMPT}$ "
            r"take $N$ passes, over $n = P, \dots, P + N - 1$ tokens."
        ),
        Prose(
            "Without a cache each pass reads all $n$ tokens again; with one, the first reads the prompt and every "
            r"later pass is one query against $n$ keys:"
            r"$$F_{\text{without}} = 4LHD \sum_{n=P}^{P+N-1} n^2, \qquad "
            r"F_{\text{with}} = 4LHD \left( P^2 + \sum_{n=P+1}^{P+N-1} n \right).$$"
            f"That is {without:.4g} against {cached:.4g} FLOPs, a factor of {without / cached:.1f}. The first grows "
            "with the cube of the length, the second with its square. The projections, linear in the tokens read, are "
            f"saved too, by a factor of {projections[0] / projections[1]:.1f}: keys and values of old tokens need not "
            "be made again, and their queries and outputs are not needed at all."
        ),
        Table(
            columns=("FLOPs of", "without cache", "with cache", "ratio"),
            rows=rows,
            caption=f"{NEW} tokens generated after a prompt of {PROMPT}, batch 1, {CONFIG.n_layer} layers",
            name="flops",
        ),
        flops_figure(),
        Prose(
            "A ratio of FLOPs is not a ratio of seconds. A cached step multiplies matrices by single vectors and "
            "waits for memory, as every weight and the whole cache are read for one token; how much faster it really "
            "is, exercise 21.16 measures."
        ),
    )


def flops_figure() -> Figure:
    """FLOPs spent up to each new token."""
    steps = range(NEW)
    without = accumulate(pair_flops((PROMPT + i) ** 2) for i in steps)
    cached = accumulate(pair_flops((PROMPT if i == 0 else 1) * (PROMPT + i)) for i in steps)
    every = 8
    x = tuple(float(i + 1) for i in steps)[::every]
    return Figure(
        kind="line",
        series=(
            Series("without cache", x, tuple(map(float, without))[::every]),
            Series("with cache", x, tuple(map(float, cached))[::every]),
        ),
        x_label="new tokens",
        y_label="attention FLOPs so far",
        y_log=True,
        caption="Scores and weighted values, accumulated over the generation",
    )


def memory_checks() -> list[Check]:
    """The formula against buffers that are really allocated (on the meta device: shapes and types, no memory)."""
    checks = []
    for name, dtype, size in PRECISIONS:
        for batch in (1, BATCH):
            cache = KVCache(CONFIG, batch, CONFIG.context, device="meta", dtype=dtype)
            claim = f"bytes of a {name} cache for {batch} × {CONFIG.context} tokens equal the formula"
            checks.append(Check.equal(claim, cache.nbytes, cache_bytes(batch, CONFIG.context, size)))
    return checks


def flop_checks(context: Context) -> list[Check]:
    """Closed forms against a loop, and against what torch counts in real forward passes of one attention layer."""
    closed, looped = pairs_in_closed_form(), pairs_by_loop()
    checks = [
        Check.equal(f"query-key pairs {name}: the closed form equals a loop over steps", closed[name], looped[name])
        for name in closed
    ]
    lengths = range(PROMPT, PROMPT + NEW, context.numbers["every"])
    passes = f"{len(lengths)} of the {NEW} passes"
    context.progress(0.1, "counting FLOPs without a cache")
    products, projections = counted([(n, 0) for n in lengths], "meta")
    checks.append(Check.equal(f"without cache, {passes}: counted FLOPs", products, per_layer(n * n for n in lengths)))
    checks.append(
        Check.equal(
            f"projections, {passes}: counted FLOPs", projections, projection_flops(sum(lengths)) // CONFIG.n_layer
        )
    )
    context.progress(0.6, "counting FLOPs with a cache")
    products, _ = counted([(PROMPT, 0), *((1, n - 1) for n in lengths[1:])], "meta")
    pairs = [PROMPT**2, *lengths[1:]]
    checks.append(Check.equal(f"with cache, {passes}: counted FLOPs", products, per_layer(pairs)))
    last = PROMPT + NEW - 1
    products, _ = counted([(last, 0), (1, last - 1)], "cpu")
    checks.append(
        Check.equal("the last pass computed on the CPU, both ways: counted FLOPs", products, per_layer((last**2, last)))
    )
    return checks


def per_layer(pairs: Iterable[int]) -> int:
    """FLOPs of these query-key pairs in one layer."""
    return pair_flops(sum(pairs)) // CONFIG.n_layer


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
            layer(torch.zeros(1, tokens, CONFIG.d_model, device=device), cache=cache, maps=[])
    counts = counter.get_flop_counts()["Global"]
    return counts[torch.ops.aten.bmm], counts[torch.ops.aten.addmm]


EXERCISE = Exercise(
    id="21.8",
    title="KV Cache Computation",
    answer=answer,
    numbers={"smoke": {"every": 64}, "laptop": {"every": 8}, "gpu": {"every": 1}},
    seconds={"smoke": 2, "laptop": 2, "gpu": 30},
)
