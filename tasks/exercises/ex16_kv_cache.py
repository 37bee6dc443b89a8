"""Exercise 21.16: generation with and without a key/value cache: the same tokens, and what the cache saves.

The model's ``CausalSelfAttention`` takes a cache as an argument; here are the loop that uses it, the proof that
nothing changes but the time, and two models of that time: one that counts FLOPs, and one that also knows that a step
costs something however small it is.
"""

import copy
import inspect
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.cost.counting import kv_cache_bytes
from minigpt.cost.generation import CostModel, generation_flops, step_flops
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.evaluation.timing import Timing
from minigpt.evaluation.timing import measure as time_in_turn
from minigpt.model import GPT
from reports.types import Answer, Block, Check, Code, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import TIMING

KIB = 2**10
STEADY = 32  # steps timed together: a single one after a long pass would find the weights gone from the caches


@torch.inference_mode()
def generate_uncached(model: GPT, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor]:
    """Greedy, all tokens read again for each new one: (1, P) → tokens (1, P + n), logits (n, V)."""
    tokens, logits = prompt, []
    for _ in range(n_new):
        last = model(tokens, last_only=True)[:, -1]  # (1, V)
        logits.append(last)
        tokens = torch.cat([tokens, last.argmax(dim=-1, keepdim=True)], dim=1)
    return tokens, torch.cat(logits)


@torch.inference_mode()
def generate_cached(model: GPT, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor]:
    """Greedy, each token read once: (1, P) → tokens (1, P + n), logits (n, V)."""
    weight = model.token_embedding.weight
    capacity = prompt.shape[1] + n_new - 1  # the last token is never read
    cache = KVCache(model.config, 1, capacity, device=weight.device, dtype=weight.dtype)
    tokens, logits, unread = prompt, [], prompt
    for _ in range(n_new):
        last = model(unread, cache=cache, last_only=True)[:, -1]
        logits.append(last)
        unread = last.argmax(dim=-1, keepdim=True)
        tokens = torch.cat([tokens, unread], dim=1)
    return tokens, torch.cat(logits)


Loop = Callable[[GPT, Tensor, int], tuple[Tensor, Tensor]]


# --- What it should cost --------------------------------------------------------------------------------------


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


# --- The traps ------------------------------------------------------------------------------------------------


def largest(values: Tensor) -> float:
    """max |x|."""
    return values.abs().max().item()


def top_left_alignment(generator: torch.Generator) -> tuple[float, float]:
    """One cached query with ``is_causal=True``: how far its output is from the right one, and from the first value."""
    q, k, v = (torch.randn(1, 1, n, 16, generator=generator) for n in (1, 8, 8))
    right = F.scaled_dot_product_attention(q, k, v)  # the newest query may see every key
    wrong = F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return largest(wrong - right), largest(wrong - v[:, :, :1])


def restarted_positions(model: GPT, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor]:
    """The cached loop with the mistake that every cached step counts its positions from 0 again."""
    broken = copy.copy(model)
    embed = model._embed
    broken._embed = lambda tokens, start: embed(tokens, 0)  # type: ignore[method-assign]
    return generate_cached(broken, prompt, n_new)


@dataclass(frozen=True)
class Run:
    """One length."""

    n_new: int
    uncached: Timing
    cached: Timing
    flop_ratio: float
    predicted: float  # by the cost model
    same_tokens: bool
    logits_difference: float
    cache_bytes: int
    per_token: tuple[Series, Series]  # milliseconds of each new token
    tokens: Tensor  # (1, P + n), with cache
    logits: Tensor  # (n, V)

    @property
    def speedup(self) -> float:
        """Of the medians."""
        return self.uncached.median / self.cached.median

    @property
    def spread(self) -> float:
        """Half the range of the speed-up between the quartiles."""
        return (self.uncached.high / self.cached.low - self.uncached.low / self.cached.high) / 2


@dataclass(frozen=True)
class Findings:
    """All that was measured; the answer only words it."""

    config: GPTConfig
    prompt: str
    text: str
    prompt_tokens: int
    runs: tuple[Run, ...]
    cost: CostModel
    counted: tuple[int, int]  # FLOPs by torch: of the context but its last token, of that token after them
    real_text: tuple[int, float]  # tokens, largest difference of any logit
    smallest_gap: float  # between the two largest logits of any step
    library_agrees: bool
    samples_agree: bool
    top_left: tuple[float, float]
    restart_difference: float
    restart_agrees: int  # tokens before the first that differs
    repeats: int

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for run in self.runs:
            metrics |= {
                f"seconds_uncached_{run.n_new}": run.uncached.median,
                f"seconds_cached_{run.n_new}": run.cached.median,
                f"speedup_{run.n_new}": run.speedup,
                f"flop_ratio_{run.n_new}": run.flop_ratio,
                f"predicted_speedup_{run.n_new}": run.predicted,
                f"cache_{run.n_new}_kib": run.cache_bytes / KIB,
            }
        return metrics | {
            "real_text_logits_max_difference": self.real_text[1],
            "logits_max_difference": max(run.logits_difference for run in self.runs),
            "smallest_logit_gap": self.smallest_gap,
            "step_overhead_ms": self.cost.overhead * 1e3,
            "gflops_per_second": self.cost.rate / 1e9,
        }


def watched(loop: Loop, model: GPT, prompt: Tensor, n_new: int) -> tuple[Tensor, Tensor, list[float]]:
    """Run a loop; also the milliseconds of each of its steps, from forward pass to forward pass."""
    stamps = [time.perf_counter()]

    def stamp(*_: object) -> None:
        if prompt.is_cuda:
            torch.cuda.synchronize(prompt.device)
        stamps.append(time.perf_counter())

    handle = model.register_forward_hook(stamp)
    try:
        tokens, logits = loop(model, prompt, n_new)
    finally:
        handle.remove()
    return tokens, logits, [(after - before) * 1e3 for before, after in pairwise(stamps)]


def per_token(name: str, milliseconds: list[float], prompt_tokens: int) -> Series:
    """Medians of consecutive groups of steps, as a single slow one says nothing, against the tokens so far."""
    width = max(1, len(milliseconds) // 25)
    groups = [sorted(milliseconds[i : i + width]) for i in range(0, len(milliseconds), width)]
    lengths = (float(prompt_tokens + width * i + width // 2) for i in range(len(groups)))
    return Series(name, tuple(lengths), tuple(group[len(group) // 2] for group in groups))


def time_length(ctx: Context, model: GPT, prompt: Tensor, n: int, cost: CostModel) -> Run:
    """Both loops at one length, compared and then timed in turn."""
    P = prompt.shape[1]
    tokens, logits, slow = watched(generate_uncached, model, prompt, n)  # these two are also the warm-up
    cached_tokens, cached_logits, fast = watched(generate_cached, model, prompt, n)
    loops = {
        "uncached": lambda: generate_uncached(model, prompt, n),
        "cached": lambda: generate_cached(model, prompt, n),
    }
    seconds = time_in_turn(loops, repeats=ctx.numbers["repeats"], warmup=0, device=ctx.device)
    uncached_flops, cached_flops = generation_flops(model.config, P, n)
    return Run(
        n_new=n,
        uncached=seconds["uncached"],
        cached=seconds["cached"],
        flop_ratio=uncached_flops / cached_flops,
        predicted=cost.speedup(model.config, P, n),
        same_tokens=torch.equal(tokens, cached_tokens),
        logits_difference=largest(logits - cached_logits),
        cache_bytes=KVCache(model.config, 1, P + n - 1).nbytes,
        per_token=(per_token("without cache", slow, P), per_token("with cache", fast, P)),
        tokens=cached_tokens,
        logits=cached_logits,
    )


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
    passage = ctx.tokens(TIMING)[None, start : start + model.config.context]
    prompt = passage[:, :P]
    cost = fit_cost_model(model, ctx.device, 5 * ctx.numbers["repeats"])
    runs = []
    for i, n in enumerate(lengths):
        ctx.progress(i / len(lengths), f"{n} tokens with and without cache")
        runs.append(time_length(ctx, model, prompt, n, cost))
    longest = runs[-1]
    broken_tokens, broken_logits = restarted_positions(model, prompt, longest.n_new)
    differs = (broken_tokens != longest.tokens)[0].nonzero()
    best = longest.logits.topk(2, dim=-1).values
    return Findings(
        config=model.config,
        prompt=trained.tokenizer.decode(prompt[0].tolist()),
        text=trained.tokenizer.decode(longest.tokens[0, P:].tolist()),
        prompt_tokens=P,
        runs=tuple(runs),
        cost=cost,
        counted=counted_flops(model, passage),
        real_text=(passage.shape[1], read_real_text(model, passage)),
        smallest_gap=(best[:, 0] - best[:, 1]).min().item(),
        library_agrees=torch.equal(generate(model, prompt, longest.n_new, sampling=GREEDY), longest.tokens),
        samples_agree=same_samples(ctx, model, prompt, lengths[0]),
        top_left=top_left_alignment(ctx.generator()),
        restart_difference=largest(broken_logits[:2] - longest.logits[:2]),
        restart_agrees=int(differs[0]) - P if len(differs) else longest.n_new,
        repeats=ctx.numbers["repeats"],
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    first, last = f.runs[0], f.runs[-1]
    exact = [
        check
        for run in f.runs
        for check in (
            Check.equal(f"{run.n_new} greedy tokens with cache are those without", run.same_tokens, True),
            Check.at_most(f"largest difference of any logit over {run.n_new} steps", run.logits_difference, 1e-3),
        )
    ]
    T, difference = f.real_text
    read, step = step_flops(f.config, T - 1, T - 1), step_flops(f.config, 1, T)
    size = kv_cache_bytes(f.config, 1, f.prompt_tokens + last.n_new - 1)
    return (
        *exact,
        Check.at_most(f"the same over {T} characters of real text, read one by one and at once", difference, 1e-3),
        Check.equal(f"sampling at temperature 1 writes the same {first.n_new} tokens", f.samples_agree, True),
        Check.equal("the loop agrees with minigpt.decoding.sampling.generate", f.library_agrees, True),
        Check.equal(f"FLOPs of a pass over {T - 1} tokens, counted by torch", f.counted[0], read),
        Check.equal("FLOPs of one more after them, counted by torch", f.counted[1], step),
        Check.equal(f"bytes of the cache after {last.n_new} tokens: 2·L·G·D·T·4", last.cache_bytes, size),
        Check.at_least("positions that restart at 0 change the logits at once, by", f.restart_difference, 1e-3),
        Check.at_least("speed-up at the longest length", last.speedup, 1.0, "empirical"),
        Check.at_least(
            f"the speed-up grows with length: {last.n_new} against {first.n_new} tokens",
            last.speedup,
            first.speedup,
            "empirical",
        ),
        Check.close(
            "cost model from passes over one token and over all, against the measured speed-up at the longest length",
            last.predicted / last.speedup,
            1.0,
            0.3,
            "empirical",
        ),
        Check.at_most("is_causal=True with one cached query gives the first value", f.top_left[1], 1e-6, "empirical"),
    )


def extension(f: Findings) -> tuple[Block, ...]:
    """What changes in the attention layer, and the loop."""
    return (
        Prose(
            "`CausalSelfAttention` changes in one line: new keys and values go through the cache, which appends them "
            "and returns all there are. Two things follow from it. A step's queries are the *last* positions, so their "
            "mask is aligned at the lower right, and a single new query needs no mask at all. And the position "
            "embedding goes on from the length of the cache."
        ),
        Code(inspect.getsource(KVCache.update), "KVCache.update: the whole of the mechanism."),
        Code(inspect.getsource(generate_cached), "The loop: the prompt in one pass, then one token at a time."),
    )


def agreement(f: Findings) -> tuple[Block, ...]:
    """That the cache changes nothing but the time, and what would."""
    longest = f.runs[-1]
    same = sum(run.same_tokens for run in f.runs)
    rows = (
        (
            "positions restart at 0 in cached steps",
            f.restart_difference,
            f"only the first {f.restart_agrees} of {longest.n_new} tokens are right"
            if f.restart_agrees < longest.n_new
            else f"other logits; the greedy tokens are the same, all {longest.n_new}",
        ),
        (
            "is_causal=True with one query and 8 keys",
            f.top_left[0],
            f"the output is the first value, to {f.top_left[1]:.1g}",
        ),
    )
    return (
        Prose(
            f"Same tokens at {same} of {len(f.runs)} lengths; over {longest.n_new} steps no logit differs by more than "
            f"{longest.logits_difference:.1g}, while the best token leads the second by at least {f.smallest_gap:.1g}. "
            f"Over {f.real_text[0]} characters of real text, read one by one and all at once, the logits agree to "
            f"{f.real_text[1]:.1g}."
        ),
        Sample("Greedy, with cache", f.prompt, f.text, f"{longest.n_new} characters; without cache the same."),
        Table(("mistake", "largest difference", "what it does"), rows, "Two usual mistakes, made on purpose.", "traps"),
    )


def timings(f: Findings) -> tuple[Block, ...]:
    """The table, the figures and their reading."""
    last = f.runs[-1]
    rows = tuple(
        (
            run.n_new,
            run.uncached.median,
            (run.uncached.high - run.uncached.low),
            run.cached.median,
            (run.cached.high - run.cached.low),
            run.speedup,
            run.predicted,
            run.flop_ratio,
            run.cache_bytes / KIB,
        )
        for run in f.runs
    )
    columns = (
        "new tokens",
        "without cache, s",
        "quartile range, s",
        "with cache, s",
        "quartile range, s ",
        "speed-up",
        "predicted by cost model",
        "FLOP ratio",
        "cache, KiB",
    )
    x = tuple(float(run.n_new) for run in f.runs)
    series = (
        Series("measured", x, tuple(run.speedup for run in f.runs), tuple(run.spread for run in f.runs)),
        Series("predicted by cost model", x, tuple(run.predicted for run in f.runs)),
    )
    L, C, V = f.config.n_layer, f.config.d_model, f.config.vocab_size
    caption = f"Medians of {f.repeats} runs from a prompt of {f.prompt_tokens} tokens; {L} layers, width {C}, V = {V}."
    return (
        Table(columns, rows, caption, "timings"),
        Figure("line", series, "new tokens", "speed-up by the cache", "Time without cache over time with cache."),
        Figure(
            "line", last.per_token, "tokens so far", "ms per new token", "Time of each new token (medians of groups)."
        ),
        Prose(reading(f)),
    )


def reading(f: Findings) -> str:
    """What the timings say, chosen by what they are."""
    first, last = f.runs[0], f.runs[-1]
    if last.speedup <= 1:
        verdict = f"At this size the cache does not pay: {last.speedup:.2f} times the speed at {last.n_new} tokens. "
    elif last.speedup > first.speedup:
        verdict = (
            f"The cache makes generation {first.speedup:.1f} times as fast at {first.n_new} tokens and "
            f"{last.speedup:.1f} times at {last.n_new}. "
        )
    else:
        verdict = (
            f"The cache makes generation {first.speedup:.1f} times as fast at {first.n_new} tokens and, against the "
            f"expectation that it helps more with length, {last.speedup:.1f} times at {last.n_new}. "
        )
    overhead = f.cost.overhead * 1e3
    share = overhead / (overhead + step_flops(f.config, 1, last.n_new // 2) / f.cost.rate * 1e3)
    error = last.predicted / last.speedup - 1
    return (
        verdict + f"The arithmetic saved is far more: without cache a generation of {last.n_new} tokens does "
        f"{last.flop_ratio:.0f} times the FLOPs. What a step costs however little it computes makes the difference: "
        f"fitted to passes over one token and over the whole context, {overhead:.2f} ms a step and "
        f"{f.cost.rate / 1e9:.0f} GFLOP/s beyond that, so that {share:.0%} of a cached step is overhead. This predicts "
        f"a speed-up of {last.predicted:.1f} at {last.n_new} tokens, {abs(error):.0%} "
        f"{'more' if error > 0 else 'less'} than measured: a model of two numbers knows nothing of how the rate varies "
        f"with the length. The price is memory: {last.cache_bytes / KIB:,.0f} KiB for one sequence."
    )


def answer(ctx: Context) -> Answer:
    """The extension, the proof and the timings."""
    f = measure(ctx)
    first, last = f.runs[0], f.runs[-1]
    return Answer(
        summary=f"Same greedy tokens; the cache is {first.speedup:.1f} times as fast at {first.n_new} tokens and "
        f"{last.speedup:.1f} times at {last.n_new}.",
        parts=(Part("", (*extension(f), *agreement(f), *timings(f))),),
        checks=checks(f),
        metrics=f.metrics,
    )


EXERCISE = Exercise(
    id="21.16",
    title="KV Cache Implementation",
    recipes=(TIMING,),
    numbers={
        "smoke": {"lengths": (100, 200, 500), "repeats": 1, "prompt": 8},
        "laptop": {"lengths": (100, 200, 500), "repeats": 3, "prompt": 8},
        "gpu": {"lengths": (100, 200, 500, 1000), "repeats": 5, "prompt": 8},
    },
    timed=True,
    seconds={"smoke": 6, "laptop": 47, "gpu": 120},
    answer=answer,
)
