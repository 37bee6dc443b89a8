"""Measures 21.16: that the cache changes nothing but the time, that time, and what should be expected of it.

Two models of the time: one that counts FLOPs, and one that also knows that a step costs something however small it is.
"""

import inspect
import statistics
import time
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minigpt.cache import KVCache
from minigpt.cost.counting import kv_cache_bytes
from minigpt.cost.generation import CostModel, generation_flops, step_flops
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.evaluation.timing import measure as time_in_turn
from minigpt.model import GPT
from tasks.exercise import Context, Exercise
from tasks.exercises.ex16_kv_cache.findings import Cost, Findings, Flops, PerToken, Run
from tasks.exercises.ex16_kv_cache.loops import (
    Loop,
    generate_cached,
    generate_uncached,
    largest,
    restarted_positions,
    top_left_alignment,
)
from tasks.recipes.catalogue import TIMING

STEADY = 32  # steps timed together: a single one after a long pass would find the weights gone from the caches
WARM = 32  # tokens that a loop writes before it is timed; the cost model's passes have been over the whole context


def counted_flops(model: GPT, tokens: Tensor) -> tuple[int, int]:
    """FLOPs that torch counts of a pass over all tokens (1, T), and of one more after them in a cache."""
    cache = KVCache(model.config, 1, tokens.shape[1], device=tokens.device)
    counts = []
    with torch.inference_mode():
        for piece in (tokens[:, :-1], tokens[:, -1:]):
            with FlopCounterMode(display=False) as counter:
                model(piece, cache=cache, last_only=True, maps=[])  # with maps: the counter misses fused attention
            counts.append(counter.get_total_flops())
    return counts[0], counts[1]


def flops(model: GPT, tokens: Tensor, n_new: int) -> Flops:
    """The counted FLOPs beside those in closed form, and those of a cached step halfway through ``n_new`` tokens."""
    config, T = model.config, tokens.shape[1]
    return Flops(
        counted=counted_flops(model, tokens),
        closed_form=(step_flops(config, T - 1, T - 1), step_flops(config, 1, T)),
        step=step_flops(config, 1, n_new // 2),
    )


def fit_cost_model(model: GPT, device: torch.device, repeats: int) -> CostModel:
    """A cost model from two kinds of forward pass, never from a generation."""
    T = model.config.context
    tokens = torch.zeros(1, T, dtype=torch.long, device=device)
    weight = model.token_embedding.weight
    cache = KVCache(model.config, 1, T, device=device, dtype=weight.dtype)
    with torch.inference_mode():
        model(tokens[:, : T // 2 - 1], cache=cache)

    def steps() -> None:
        for _ in range(STEADY):
            model(tokens[:, :1], cache=cache, last_only=True)
            cache.rewind(T // 2 - 1)

    passes = {"steps": steps, "all": lambda: model(tokens, last_only=True)}
    seconds = time_in_turn(passes, repeats=repeats, warmup=1, device=device)
    return CostModel.fit(model.config, seconds["steps"].median / STEADY, seconds["all"].median)


def watched(loop: Loop, model: GPT, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor, list[float]]:
    """Run a loop; also the milliseconds of each of its steps, from forward pass to forward pass."""
    stamps: list[float] = []
    events: list[torch.cuda.Event] = []

    def stamp(*_: object) -> None:
        if prompt.is_cuda:  # without waiting for the GPU, which is to go on as it would unwatched
            events.append(torch.cuda.Event(enable_timing=True))
            events[-1].record()
        else:
            stamps.append(time.perf_counter() * 1e3)

    stamp()
    handle = model.register_forward_hook(stamp)
    try:
        tokens, logits = loop(model, prompt, n_new)
    finally:
        handle.remove()
    if events:
        torch.cuda.synchronize(prompt.device)
        stamps = [events[0].elapsed_time(event) for event in events]
    return tokens, logits, [after - before for before, after in pairwise(stamps)]


def per_token(milliseconds: list[float], prompt_tokens: int) -> PerToken:
    """Medians of consecutive groups of steps, as a single slow one says nothing, against the tokens so far."""
    width = max(1, len(milliseconds) // 25)
    groups = [sorted(milliseconds[i : i + width]) for i in range(0, len(milliseconds), width)]
    lengths = (float(prompt_tokens + width * i + width // 2) for i in range(len(groups)))
    return PerToken(tuple(lengths), tuple(group[len(group) // 2] for group in groups))


def time_length(ctx: Context, model: GPT, prompt: Tensor, n: int, cost: CostModel) -> tuple[Run, Tensor, Tensor]:
    """Both loops at one length, timed in turn and compared; tokens (1, P + n) and logits (n, V) with cache."""
    P = prompt.shape[1]
    rounds: dict[str, list[tuple[Tensor, Tensor, list[float]]]] = {"uncached": [], "cached": []}

    def timed(name: str, loop: Loop) -> Callable[[], None]:
        loop(model, prompt, min(n, WARM))
        return lambda: rounds[name].append(watched(loop, model, prompt, n))

    loops = {"uncached": timed("uncached", generate_uncached), "cached": timed("cached", generate_cached)}
    seconds = time_in_turn(loops, repeats=ctx.numbers["repeats"], warmup=0, device=ctx.device)
    steps = {
        name: [statistics.median(step) for step in zip(*(milliseconds for *_, milliseconds in found), strict=True)]
        for name, found in rounds.items()
    }
    tokens, logits, _ = rounds["uncached"][-1]
    cached_tokens, cached_logits, _ = rounds["cached"][-1]
    uncached_flops, cached_flops = generation_flops(model.config, P, n)
    run = Run(
        n_new=n,
        uncached=seconds["uncached"],
        cached=seconds["cached"],
        flop_ratio=uncached_flops / cached_flops,
        predicted_seconds=cost.seconds(model.config, P, n),
        same_tokens=torch.equal(tokens, cached_tokens),
        logits_difference=largest(logits - cached_logits),
        cache_bytes=KVCache(model.config, 1, P + n - 1).nbytes,
        uncached_steps=per_token(steps["uncached"], P),
        cached_steps=per_token(steps["cached"], P),
    )
    return run, cached_tokens, cached_logits


@torch.inference_mode()
def read_real_text(model: GPT, tokens: Tensor) -> float:
    """Largest difference of any logit between one pass over a text (1, T) and reading it token by token."""
    cache = KVCache(model.config, 1, tokens.shape[1], device=tokens.device)
    steps = torch.cat([model(token, cache=cache) for token in tokens.split(1, dim=1)], dim=1)
    return largest(steps - model(tokens))


def same_samples(ctx: Context, model: GPT, prompt: Tensor, n_new: int) -> bool:
    """Whether sampling at temperature 1 writes the same text with and without cache."""
    texts = [
        generate(model, prompt, n_new, generator=ctx.generator("samples"), use_cache=use_cache)
        for use_cache in (True, False)
    ]
    return torch.equal(*texts)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    trained = ctx.model(TIMING)
    model, lengths, P = trained.model, sorted(ctx.numbers["lengths"]), ctx.numbers["prompt"]
    start = ctx.text().find("\n") + 1  # one character is one token
    start = min(start, max(0, len(ctx.text()) - model.config.context))
    passage = ctx.tokens(TIMING)[None, start : start + model.config.context]
    prompt = passage[:, :P]
    cost = fit_cost_model(model, ctx.device, 5 * ctx.numbers["repeats"])
    runs = []
    for i, n in enumerate(lengths):
        ctx.progress(i / len(lengths), f"{n} tokens with and without cache")
        run, tokens, logits = time_length(ctx, model, prompt, n, cost)
        runs.append(run)
    broken_tokens, broken_logits = restarted_positions(model, prompt, n)  # from here on, the longest
    differs = (broken_tokens != tokens)[0].nonzero()
    best = logits.topk(2, dim=-1).values
    return Findings(
        n_layer=model.config.n_layer,
        d_model=model.config.d_model,
        vocab_size=model.config.vocab_size,
        prompt=trained.tokenizer.decode(prompt[0].tolist()),
        text=trained.tokenizer.decode(tokens[0, P:].tolist()),
        prompt_tokens=P,
        runs=tuple(runs),
        cost=Cost(cost.overhead, cost.rate),
        flops=flops(model, passage, n),
        cache_bytes=kv_cache_bytes(model.config, 1, P + n - 1),
        real_text=(passage.shape[1], read_real_text(model, passage)),
        smallest_gap=(best[:, 0] - best[:, 1]).min().item(),
        library_agrees=torch.equal(generate(model, prompt, n, sampling=GREEDY), tokens),
        samples_agree=same_samples(ctx, model, prompt, lengths[0]),
        top_left=top_left_alignment(ctx.generator()),
        restart_difference=largest(broken_logits[:2] - logits[:2]),
        restart_agrees=int(differs[0]) - P if len(differs) else n,
        repeats=ctx.numbers["repeats"],
        sources={one.__qualname__: inspect.getsource(one) for one in (KVCache.update, generate_cached)},
    )


EXERCISE = Exercise(
    measure=measure,
    recipes=(TIMING,),
    numbers={
        "smoke": {"lengths": (100, 200, 500), "repeats": 1, "prompt": 8},
        "laptop": {"lengths": (100, 200, 500), "repeats": 3, "prompt": 8},
        "gpu": {"lengths": (100, 200, 500, 1000), "repeats": 3, "prompt": 8},
    },
    timed=True,
    seconds={"smoke": 4, "laptop": 45, "gpu": 60},
)
