"""Measures 21.26: masks, the cost of a window with and without skipping, trained windows, and reach by gradient."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from minigpt.analysis.receptive_field import influence, reach
from minigpt.cache import KVCache, RollingKVCache
from minigpt.config import GPTConfig
from minigpt.evaluation import timing
from minigpt.evaluation.evaluate import token_losses
from minigpt.masks import causal_mask, window_mask
from minigpt.model import GPT
from minigpt.pretrained.parity import with_our_attention
from minigpt.window import windowed_attention
from tasks.exercise import Context, Exercise
from tasks.exercises.ex26_sliding_window.findings import (
    BLOCKS,
    CAUSAL,
    DENSE,
    HEADS,
    NARROW,
    WIDTH,
    Cost,
    Findings,
    Influence,
    Masks,
    Reach,
    pairs,
    position_buckets,
)
from tasks.parts import part
from tasks.recipes.catalogue import STUDY_LONG, STUDY_WINDOW_2, STUDY_WINDOW_8, STUDY_WINDOW_32
from tasks.study import variants

TRAINED = {
    "full attention": STUDY_LONG,
    "window 32": STUDY_WINDOW_32,
    "window 8": STUDY_WINDOW_8,
    "window 2": STUDY_WINDOW_2,
}


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    found = ahead(ctx)
    rows = variants(ctx, TRAINED)
    return replace(found, rows=tuple(rows), costs=all_costs(ctx, found.configs[NARROW]))


def ahead(ctx: Context) -> Findings:
    """See ``Exercise.ahead``: all but the rows, whose steps are timed, and the costs."""
    return part(ctx, Findings, "all but rows and costs", lambda: untimed(ctx))


def untimed(ctx: Context) -> Findings:
    """What needs no quiet machine."""
    models = {label: ctx.model(recipe).model for label, recipe in TRAINED.items()}
    narrow = models[NARROW]
    tokens = ctx.tokens(STUDY_WINDOW_8)
    read = tokens[None, : ctx.numbers["rolling_tokens"]]
    return Findings(
        rows=(),
        configs={label: model.config for label, model in models.items()},
        masks=masks(ctx.generator("mistral")),
        timed_window=ctx.numbers["timed_window"],
        costs=(),
        rolling_cache=RollingKVCache(narrow.config, 1).nbytes,
        rolling_tokens=read.shape[1],
        rolling_difference=rolling_difference(narrow, read),
        source=inspect.getsource(windowed_attention),
        reach_tokens=ctx.numbers["reach_tokens"],
        reaches=reaches(ctx.numbers["reach_tokens"], ctx.generator("reach")),
        influence=influences(models, tokens[: ctx.numbers["reach_tokens"]]),
        by_position={
            label: tuple(by_position(ctx.model(recipe, seed).model, tokens) for seed in ctx.seeds(recipe))
            for label, recipe in TRAINED.items()
        },
    )


def by_position(model: GPT, tokens: Tensor) -> tuple[float, ...]:
    """Mean validation loss by position in contiguous windows, in buckets that double."""
    T = model.config.context
    losses = token_losses(model, tokens)
    at = losses[: len(losses) // T * T].view(-1, T).double().mean(dim=0)  # (T,)
    return tuple(at[first - 1 : last].mean().item() for first, last in position_buckets(T))


# --- (a) The mask -----------------------------------------------------------------------------------------------


def masks(generator: torch.Generator) -> Masks:
    """The mask by its definition, by count and by Mistral."""
    grid = [(length, window) for length in range(1, 41) for window in range(1, 45)]
    same, shorter = difference_from_mistral(8, generator)
    return Masks(
        agreeing=sum(int(window_mask(*case).sum()) == pairs(*case) for case in grid),
        counted=len(grid),
        whole_is_causal=torch.equal(window_mask(16, 16), causal_mask(16)),
        mistral=same,
        mistral_shorter=shorter,
        causal=tuple(map(tuple, causal_mask(12).tolist())),
        window=tuple(map(tuple, window_mask(12, 4).tolist())),
        source=inspect.getsource(window_mask),
    )


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


# --- (b) Computation and memory ---------------------------------------------------------------------------------


def ways(length: int, window: int, generator: torch.Generator, device: torch.device) -> dict[str, Callable[[], Tensor]]:
    """Three computations on the same random q, k, v: without a window, masked, and in blocks."""
    q, k, v = torch.randn(3, 1, HEADS, length, WIDTH, generator=generator).to(device).unbind()
    mask = window_mask(length, window, device=device)
    return {
        CAUSAL: lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        DENSE: lambda: F.scaled_dot_product_attention(q, k, v, mask),
        BLOCKS: lambda: windowed_attention(q, k, v, window),
    }


def counted_flops(function: Callable[[], Tensor]) -> int:
    """FLOPs of the matrix products, as torch counts them in the unfused implementation."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        function()
    return int(counter.get_total_flops())


def all_costs(ctx: Context, config: GPTConfig) -> tuple[Cost, ...]:
    """Counted and timed, for each length; the cache is that of the model."""
    found = []
    lengths, window = ctx.numbers["lengths"], ctx.numbers["timed_window"]
    for done, length in enumerate(lengths):
        functions = ways(length, window, ctx.generator(f"length {length}"), ctx.device)
        _, dense, blocks = (function() for function in functions.values())
        flops = {name: counted_flops(function) for name, function in functions.items()}
        times = timing.measure(functions, repeats=ctx.numbers["repeats"], device=ctx.device)
        found.append(
            Cost(
                length,
                flops,
                times,
                float((dense - blocks).abs().max()),
                KVCache(config, 1, length).nbytes,
            )
        )
        ctx.progress(0.1 + 0.9 * (done + 1) / len(lengths), f"timed {length} tokens")
    return tuple(found)


@torch.inference_mode()
def rolling_difference(model: GPT, tokens: Tensor) -> float:
    """Largest difference of the logits of (1, T) tokens: read one by one into a rolling cache, and at once."""
    cache = RollingKVCache(model.config, 1, device=tokens.device)
    found = torch.cat([model(token, cache=cache) for token in torch.split(tokens, 1, dim=1)], dim=1)
    return float((found - model(tokens)).abs().max())


# --- (d) Reach --------------------------------------------------------------------------------------------------


def reaches(length: int, generator: torch.Generator) -> tuple[Reach, ...]:
    """Reach of random models by gradient."""
    found = []
    tokens = torch.randint(11, (length,), generator=generator)
    for layers, window in ((1, 4), (2, 4), (3, 4), (4, 4), (2, 8), (3, 8), (4, 2)):
        config = GPTConfig(
            n_layer=layers, window=window, n_head=2, d_model=16, context=length, vocab_size=11, position="rope"
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(generator.initial_seed())
            model = GPT(config)
        expected = min(layers * (window - 1), length - 1)
        found.append(Reach(layers, window, expected, reach(influence(model, tokens))))
    return tuple(found)


def influences(models: Mapping[str, GPT], tokens: Tensor) -> Influence:
    """Of inputs on outputs in the trained models."""
    sizes = influence(models[NARROW], tokens)
    distance = torch.arange(len(tokens))[:, None] - torch.arange(len(tokens))
    beyond = distance >= (models[NARROW].config.window or 1)
    return Influence(
        tokens=len(tokens),
        reach=reach(sizes),
        relayed=float(sizes[beyond].sum() / sizes.sum()),
        sizes=tuple(map(tuple, sizes[:32, :32].tolist())),
        by_distance={label: by_distance(influence(model, tokens)) for label, model in models.items()},
    )


def by_distance(sizes: Tensor) -> tuple[float, ...]:
    """Means over outputs, for inputs 0, 1, 2, … tokens back."""
    return tuple(sizes.diagonal(-distance).mean().item() for distance in range(len(sizes) // 2))


EXERCISE = Exercise(
    measure=measure,
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
    seconds={"smoke": 1, "laptop": 6, "gpu": 10},
    ahead=ahead,
    seconds_ahead={"smoke": 1, "laptop": 8, "gpu": 8},
)
