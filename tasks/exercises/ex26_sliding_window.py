"""Exercise 21.26: sliding-window attention: the mask, what it saves when blocks are really skipped, and its reach."""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt.analysis.receptive_field import influence, reach
from minigpt.cache import KVCache, RollingKVCache
from minigpt.config import GPTConfig
from minigpt.evaluation.statistics import format_mean_std, mean_std
from minigpt.evaluation.timing import Timing, measure
from minigpt.masks import causal_mask, window_mask
from minigpt.model import GPT
from minigpt.pretrained.parity import with_our_attention
from minigpt.window import windowed_attention
from reports.types import Answer, Block, Cell, Check, Code, Figure, Heatmap, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import STUDY_ROPE, STUDY_WINDOW_2, STUDY_WINDOW_8, STUDY_WINDOW_32
from tasks.study_legacy import Variant, comparisons, curves, metrics, sentences, table, variants

TRAINED = {
    "full attention": STUDY_ROPE,
    "window 32": STUDY_WINDOW_32,
    "window 8": STUDY_WINDOW_8,
    "window 2": STUDY_WINDOW_2,
}
HEADS, WIDTH = 4, 32  # of the attention that is counted and timed


def pairs(length: int, window: int) -> int:
    """Query-key pairs in the mask: W for each query, less what the first W - 1 queries lack."""
    window = min(window, length)
    return length * window - window * (window - 1) // 2


# --- (a) The mask -----------------------------------------------------------------------------------------------


def picture(mask: Tensor, caption: str) -> Heatmap:
    """A boolean mask as a heatmap: 1 where a query attends."""
    values = tuple(tuple(1.0 if seen else None for seen in row) for row in mask.tolist())
    names = tuple(map(str, range(len(mask))))
    return Heatmap(values, "key", "query", caption, names, names)


def difference_from_mistral(window: int, generator: torch.Generator) -> tuple[float, float]:
    """Our attention in the place of Mistral's, with its window and with one key less: largest differences."""
    from transformers import MistralConfig, MistralModel

    shape = MistralConfig(
        vocab_size=50,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        sliding_window=window,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        host = MistralModel(shape)
    host.set_attn_implementation("eager")
    config = GPTConfig(n_layer=2, n_head=4, n_kv_head=2, d_model=64, context=64, position="rope", bias=False)
    tokens = torch.randint(50, (2, 48), generator=generator)
    with torch.inference_mode():
        expected = host(tokens).last_hidden_state
        found = [
            with_our_attention(host, replace(config, window=w))(tokens).last_hidden_state for w in (window, window - 1)
        ]
    same, shorter = (float((ours - expected).abs().max()) for ours in found)
    return same, shorter


def part_a(ctx: Context) -> tuple[tuple[Block, ...], list[Check]]:
    """The mask by its definition, by count and by Mistral."""
    grid = [(length, window) for length in range(1, 41) for window in range(1, 45)]
    counted = sum(int(window_mask(*case).sum()) == pairs(*case) for case in grid)
    same, shorter = difference_from_mistral(8, ctx.generator("mistral"))
    checks = [
        Check.equal("masks whose entries are as many as the closed form says", counted, len(grid)),
        Check.equal(
            "a window as long as the text is the causal mask", torch.equal(window_mask(16, 16), causal_mask(16)), True
        ),
        Check.at_most("a Mistral with our attention in place of its own, W = 8 (max difference)", same, 1e-5),
        Check.at_least("… and it would notice a window of 7", shorter, 1e-3),
    ]
    blocks = (
        Prose(
            "Query $i$ attends to the keys $i - W < j \\le i$: at most $W$ of them, *itself included*. That is "
            "Mistral's convention (Jiang et al., 2023, section 2) and the one meant everywhere in this project. The "
            "textbook's “previous $W$ positions” can be read as one key more."
        ),
        Code(inspect.getsource(window_mask), "minigpt/masks.py"),
        picture(causal_mask(12), "The causal mask of 12 tokens."),
        picture(window_mask(12, 4), "The same with a window of 4: a band."),
    )
    return blocks, checks


# --- (b) Computation and memory ---------------------------------------------------------------------------------


def ways(length: int, window: int, generator: torch.Generator, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Three computations on the same random q, k, v: without a window, masked, and in blocks."""
    q, k, v = torch.randn(3, 1, HEADS, length, WIDTH, generator=generator).to(device).unbind()
    mask = window_mask(length, window, device=device)
    return {
        "causal, no window": lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        "dense product, window as a mask": lambda: F.scaled_dot_product_attention(q, k, v, mask),
        "blocks, masked ones skipped": lambda: windowed_attention(q, k, v, window),
    }


def counted_flops(function: Callable[[], Tensor]) -> int:
    """FLOPs of the matrix products, as torch counts them in the unfused implementation."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


@dataclass(frozen=True)
class Cost:
    """What one length costs."""

    length: int
    flops: Mapping[str, int]
    timings: Mapping[str, Timing]
    difference: float  # largest, between the blocks and the dense mask


def costs(ctx: Context, window: int) -> list[Cost]:
    """Counted and timed, for each length."""
    found = []
    lengths = ctx.numbers["lengths"]
    for done, length in enumerate(lengths):
        functions = ways(length, window, ctx.generator(f"length {length}"), ctx.device)
        _, dense, blocks = (function() for function in functions.values())
        found.append(
            Cost(
                length,
                {name: counted_flops(function) for name, function in functions.items()},
                measure(functions, repeats=ctx.numbers["repeats"], device=ctx.device),
                float((dense - blocks).abs().max()),
            )
        )
        ctx.progress(0.1 + 0.5 * (done + 1) / len(lengths), f"timed {length} tokens")
    return found


def cost_tables(found: Sequence[Cost], window: int) -> tuple[Table, Table]:
    """Pairs and FLOPs; milliseconds."""
    counted: list[tuple[Cell, ...]] = []
    timed: list[tuple[Cell, ...]] = []
    for cost in found:
        full, kept = pairs(cost.length, cost.length), pairs(cost.length, window)
        counted.append((cost.length, full, kept, kept / full, *(flops / 1e6 for flops in cost.flops.values())))
        timed.append((cost.length, *(timing.median * 1000 for timing in cost.timings.values())))
    names = tuple(found[0].flops)
    shape = f"W = {window}, {HEADS} heads of width {WIDTH}, batch 1"
    columns = ("tokens T", "pairs, causal", "pairs, window", "share kept", *(f"MFLOPs: {name}" for name in names))
    caption = f"{shape}. One multiply-add is 2 FLOPs, counted by torch on the unfused products."
    return (
        Table(columns, tuple(counted), caption, "counted"),
        Table(("tokens T", *names), tuple(timed), f"Milliseconds, median. {shape}.", "timed"),
    )


def cost_figure(found: Sequence[Cost]) -> Figure:
    """Milliseconds against length."""
    x = tuple(float(cost.length) for cost in found)
    series = tuple(
        Series(
            name,
            x,
            tuple(cost.timings[name].median * 1000 for cost in found),
            tuple((cost.timings[name].high - cost.timings[name].low) * 500 for cost in found),
        )
        for name in found[0].timings
    )
    caption = "Measured time of one attention layer, median; the bar is half the distance of the quartiles."
    return Figure("line", series, "tokens T", "milliseconds", caption, x_log=True, y_log=True)


def memory_table(config: GPTConfig, lengths: Sequence[int], window: int) -> tuple[Table, int]:
    """Bytes of the two caches, measured on real ones; also how many of them differ from the closed form."""
    config = replace(config, window=window)
    rolling = RollingKVCache(config, 1).nbytes
    rows, wrong = [], 0
    for length in lengths:
        whole = KVCache(config, 1, length).nbytes
        per_token = 2 * config.n_layer * config.kv_heads * config.head_dim * 4
        wrong += (whole != per_token * length) + (rolling != per_token * window)
        rows.append((length, whole, rolling, whole / rolling, HEADS * length**2, HEADS * 2 * window * length))
    columns = (
        "tokens T",
        "cache, all keys (bytes)",
        "cache, rolling (bytes)",
        "ratio",
        "scores, dense (numbers)",
        "scores, blocks (numbers)",
    )
    caption = f"Key/value caches of the trained model in fp32, W = {window}, and the scores one layer holds if unfused."
    return Table(columns, tuple(rows), caption, "memory"), wrong


@torch.inference_mode()
def rolling_difference(model: GPT, tokens: Tensor) -> float:
    """Largest difference of the logits of (1, T) tokens: read one by one into a rolling cache, and at once."""
    cache = RollingKVCache(model.config, 1, device=tokens.device)
    found = torch.cat([model(token, cache=cache) for token in torch.split(tokens, 1, dim=1)], dim=1)
    return float((found - model(tokens)).abs().max())


def part_b(ctx: Context, row: Variant) -> tuple[tuple[Block, ...], list[Check], dict[str, float | int]]:
    """What a window saves, counted and timed."""
    window, model = ctx.numbers["timed_window"], row.models[0].model
    found = costs(ctx, window)
    dense, blocks = list(found[0].flops)[1:]
    memory, wrong = memory_table(model.config, ctx.numbers["lengths"], model.config.window or 1)
    tokens = ctx.tokens(STUDY_WINDOW_8)[None, : ctx.numbers["rolling_tokens"]]
    last = found[-1]
    by_hand = all(
        cost.flops[dense] == 4 * HEADS * WIDTH * cost.length**2
        and cost.flops[blocks] == 4 * HEADS * WIDTH * 2 * window * math.ceil(cost.length / window) * window
        for cost in found
    )
    speedup = last.timings[dense].median / last.timings[blocks].median
    over_causal = last.timings["causal, no window"].median / last.timings[blocks].median
    checks = [
        Check.at_most(
            "attention in blocks = attention under the dense mask (max difference)",
            max(cost.difference for cost in found),
            1e-5,
        ),
        Check.equal("counted FLOPs are 4·H·D·T² dense and 4·H·D·2W·T in blocks", by_hand, True),
        Check.equal("cache sizes that differ from the closed form", wrong, 0),
        Check.at_most(
            f"decoding {tokens.shape[1]} tokens with the rolling cache = reading them at once (max difference)",
            rolling_difference(model, tokens),
            1e-3,
        ),
        Check.at_least(
            f"blocks are faster than the dense masked product at {last.length} tokens", speedup, 1.0, "empirical"
        ),
    ]
    kept = pairs(last.length, window) / pairs(last.length, last.length)
    blocks_said = (
        Prose(
            "The band holds $\\sum_i \\min(i, W) = TW - W(W-1)/2$ pairs instead of $T(T+1)/2$, so that cost per token "
            "stops growing with the text. Masking saves none of it: the product is computed and thrown away. Here the "
            "sequence is cut into blocks of $W$ queries, each with its own keys and those of the block before, $2W$ "
            "keys a query: twice the band, but $O(TW)$."
        ),
        cost_figure(found),
        *cost_tables(found, window),
        Prose(
            f"At {last.length} tokens the window keeps {kept:.1%} of the pairs. The blocks take "
            f"{last.timings[blocks].median * 1000:.2f} ms, the dense masked product "
            f"{last.timings[dense].median * 1000:.2f} ms, {speedup:.1f} times as long; causal attention without a "
            f"window, whose fused kernel skips the upper half, {over_causal:.1f} times."
        ),
        Code(inspect.getsource(windowed_attention), "minigpt/window.py"),
        memory,
        Prose(
            "In decoding the gain is memory: position $i$ is stored in slot $i \\bmod W$ of a ring (Jiang et al., "
            "2023, section 2), which never grows. The rolling cache of this project really holds $W$ positions."
        ),
    )
    measured: dict[str, float | int] = {
        f"attention_ms_{name.split(',')[0].replace(' ', '_')}_{cost.length}": cost.timings[name].median * 1000
        for cost in found
        for name in cost.timings
    }
    measured |= {f"flops_{name.split(',')[0].replace(' ', '_')}_{last.length}": n for name, n in last.flops.items()}
    measured |= {
        "speedup_over_dense_mask": speedup,
        "speedup_over_causal": over_causal,
        f"pairs_share_kept_{last.length}": kept,
        "rolling_cache_bytes": RollingKVCache(model.config, 1).nbytes,
    }
    return blocks_said, checks, measured


# --- (c) Trained ------------------------------------------------------------------------------------------------


def part_c(rows: Sequence[Variant]) -> tuple[Block, ...]:
    """Loss against window."""
    context = rows[0].models[0].model.config.context
    by_window = sorted(rows, key=lambda row: row.models[0].model.config.window or context)
    x = tuple(float(row.models[0].model.config.window or context) for row in by_window)
    means, spreads = zip(*(mean_std(row.losses) for row in by_window), strict=True)
    error = spreads if len(rows[0].models) > 1 else ()
    best = min(rows, key=lambda row: mean_std(row.losses)[0])
    found = {row.label: comparison.verdict for row, comparison in zip(rows[1:], comparisons(rows), strict=True)}
    as_good = [label for label, verdict in found.items() if verdict in ("noise", "lower")]
    worse = [label for label, verdict in found.items() if verdict == "higher"]
    said = [f"The lowest mean is that of {best.label}."]
    if as_good:
        said.append(f"No worse than full attention, as far as the seeds can tell: {', '.join(as_good)}.")
    if "lower" in found.values():
        said.append(
            "A likely reason, not tested here: a narrow window forces what a small model has to learn first anyway, to "
            f"look at its neighbours, and what full attention could gain from {context} tokens it has to learn in "
            f"{rows[0].steps} steps."
        )
    if worse:
        said.append(f"Too narrow, whatever the relay of part (d) brings: {', '.join(worse)}.")
    return (
        Figure(
            "line",
            (Series("after the last step", x, means, error),),
            f"window W ({context}: full attention)",
            "validation loss (nats/token)",
            "Validation loss by window, mean ± standard deviation over seeds.",
            x_log=True,
        ),
        table(rows, name="trained", caption="The rotary study model with one window in all layers."),
        curves(rows, caption="Validation loss in training, by window."),
        Prose(f"{sentences(rows)} {' '.join(said)}"),
    )


# --- (d) Reach --------------------------------------------------------------------------------------------------


def reaches(ctx: Context) -> tuple[Table, int]:
    """Reach of random models by gradient; also how many differ from L(W - 1)."""
    rows, wrong = [], 0
    length, generator = ctx.numbers["reach_tokens"], ctx.generator("reach")
    tokens = torch.randint(11, (length,), generator=generator)
    for layers, window in ((1, 4), (2, 4), (3, 4), (4, 4), (2, 8), (3, 8), (4, 2)):
        config = GPTConfig(
            n_layer=layers, window=window, n_head=2, d_model=16, context=length, vocab_size=11, position="rope"
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            model = GPT(config)
        found, expected = reach(influence(model, tokens)), min(layers * (window - 1), length - 1)
        wrong += found != expected
        rows.append((layers, window, expected, found))
    caption = f"How far back an output depends on an input: by gradient, in random models, on {length} tokens."
    return Table(("layers L", "window W", "L(W − 1)", "measured"), tuple(rows), caption, "reach"), wrong


def fading(rows: Sequence[Variant], tokens: Tensor) -> Figure:
    """Influence of inputs by distance in the trained models, mean over outputs."""
    series = []
    for row in rows:
        sizes = influence(row.models[0].model, tokens)
        means = [sizes.diagonal(-distance).mean().item() for distance in range(len(tokens) // 2)]
        shown = [(float(distance), mean) for distance, mean in enumerate(means) if mean > 0]
        series.append(Series(row.label, tuple(x for x, _ in shown), tuple(y for _, y in shown)))
    caption = (
        "Mean gradient of an output with respect to the input at a distance, in the trained models; zeros not drawn."
    )
    return Figure("line", tuple(series), "distance back (tokens)", "‖∂ output / ∂ input‖", caption, y_log=True)


def part_d(ctx: Context, rows: Sequence[Variant]) -> tuple[tuple[Block, ...], list[Check], dict[str, float | int]]:
    """Whether information still crosses the sequence."""
    found, wrong = reaches(ctx)
    tokens = ctx.tokens(STUDY_WINDOW_8)[: ctx.numbers["reach_tokens"]]
    row = next(row for row in rows if row.label == "window 8")
    config = row.models[0].model.config
    sizes = influence(row.models[0].model, tokens)
    window, layers = config.window or 1, config.n_layer
    expected, measured = min(layers * (window - 1), len(tokens) - 1), reach(sizes)
    distance = torch.arange(len(tokens))[:, None] - torch.arange(len(tokens))
    relayed = float(sizes[distance >= window].sum() / sizes.sum())
    needed = math.ceil((config.context - 1) / (window - 1))
    checks = [
        Check.equal("random models whose reach differs from L(W − 1)", wrong, 0),
        Check.equal(f"reach of the trained model with window {window} and {layers} layers", measured, expected),
    ]
    values = tuple(tuple(math.log10(x) if x else None for x in line) for line in sizes[:32, :32].tolist())
    blocks = (
        Prose(
            "It can, by relay: a layer moves information at most $W - 1$ places, the next layer moves it on, so that "
            "after $L$ layers an output depends on the $L(W-1)$ tokens before it and on no other. Across a text of "
            f"{config.context} tokens a window of {window} needs {needed} layers. The gradient of every output with "
            "respect to every input proves it, as it is exactly zero where there is no path:"
        ),
        found,
        Heatmap(
            values,
            "input position",
            "output position",
            f"Gradient sizes (log₁₀) in the trained model with window {window} and {layers} layers (first 32 "
            f"positions); blank is exactly 0. Its reach is {measured}.",
        ),
        fading(rows, tokens),
        Prose(
            f"Being reachable is not being used: in the trained model with window {window} {relayed:.1%} of the "
            "influence (the sum of these gradient sizes) comes from beyond the window, by relay. What cannot pass in "
            "one reading still passes through the text itself, as every generated token carries what led to it."
        ),
    )
    return blocks, checks, {"reach_trained_window_8": measured, "influence_share_relayed": relayed}


def answer(ctx: Context) -> Answer:
    """All four parts."""
    rows = variants(ctx, TRAINED)
    narrow = next(row for row in rows if row.label == "window 8")
    a, checks_a = part_a(ctx)
    b, checks_b, measured_b = part_b(ctx, narrow)
    d, checks_d, measured_d = part_d(ctx, rows)
    return Answer(
        summary=f"Skipping masked blocks is {measured_b['speedup_over_dense_mask']:.1f} times as fast as masking at "
        f"{ctx.numbers['lengths'][-1]} tokens. Validation loss in nats: "
        + ", ".join(f"{row.label} {format_mean_std(row.losses)}" for row in rows)
        + ". Reach is L(W − 1), proved by gradients.",
        parts=(
            Part("a", a, "The mask"),
            Part("b", b, "Computation and memory"),
            Part("c", part_c(rows), "Window sizes, trained"),
            Part("d", d, "Does information still propagate?"),
        ),
        checks=(*checks_a, *checks_b, *checks_d),
        metrics=metrics(rows) | measured_b | measured_d,
    )


EXERCISE = Exercise(
    id="21.26",
    title="Sliding Window Attention",
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {
            "lengths": (128, 256, 512),
            "timed_window": 32,
            "repeats": 3,
            "rolling_tokens": 60,
            "reach_tokens": 40,
        },
        "laptop": {
            "lengths": (256, 512, 1024, 2048, 4096),
            "timed_window": 64,
            "repeats": 7,
            "rolling_tokens": 300,
            "reach_tokens": 64,
        },
        "gpu": {
            "lengths": (1024, 2048, 4096, 8192, 16384),
            "timed_window": 128,
            "repeats": 15,
            "rolling_tokens": 300,
            "reach_tokens": 64,
        },
    },
    timed=True,
    seconds={"smoke": 2, "laptop": 8, "gpu": 15},
    answer=answer,
)
