"""Measures 21.29: what first tokens receive, and reading long texts by the number of sinks in a bounded cache."""

import inspect
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from minigpt.analysis.head_scores import share
from minigpt.analysis.sinks import received
from minigpt.decoding import streaming
from minigpt.decoding.sampling import Sampling
from minigpt.decoding.stream_chunks import ChunkReader, chunked_losses
from minigpt.decoding.streaming import ReencodingReader, SinkReader, reencoded_losses, rotation_error, stream_losses
from minigpt.evaluation.diversity import distinct, repetition
from minigpt.evaluation.excerpts import places, windows
from minigpt.pretrained.causal_lm import row_losses
from minigpt.pretrained.learned_positions import learned_positions
from minigpt.pretrained.limits import context_of
from minigpt.pretrained.quick import quick
from tasks.exercise import Context, Exercise, Pretrained
from tasks.exercises.ex29_attention_sinks.attention import (
    attention,
    encoded,
    maps_of,
    materials,
    plant,
    sink_heads,
)
from tasks.exercises.ex29_attention_sinks.findings import (
    REAL,
    TEMPERATURE,
    Curve,
    Exact,
    Findings,
    Model,
    Stream,
    Stretch,
    Window,
    Written,
)
from tasks.exercises.ex29_attention_sinks.own_stream import long_stream
from tasks.exercises.ex29_attention_sinks.stream_study import (
    Bounded,
    StreamStudy,
    Unbounded,
    read_anew,
    read_cached,
    read_in_full,
)
from tasks.exercises.ex29_attention_sinks.streaming_parity import streaming_parity
from tasks.recipes.catalogue import STUDY_ROPE

SINKS = (0, 1, 2, 4, 8)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    rows_of = materials(ctx)
    kinds, planted = attention(ctx, rows_of), plant(ctx)
    study, cached = stream(ctx)
    again, samples = reread(ctx, study) if cached else None, ctx.numbers["samples"] if cached else 1
    found = described(study, cached, again, ctx.pretrained().tokenizer, samples)
    return Findings(
        model=model_of(ctx.pretrained()),
        kinds=kinds,
        planted=planted,
        maps=maps_of(ctx, rows_of[REAL][0], kinds[REAL].heads),
        stream=found,
        long=long_stream(ctx),
        sink_heads=sink_heads(ctx),
        listing=inspect.getsource(streaming.shifted) + "\n\n" + inspect.getsource(streaming.SinkCache.update),
        exact=exact(ctx, rows_of[REAL], study, found),
    )


def model_of(p: Pretrained) -> Model:
    """Its sizes."""
    config = p.model.config.get_text_config()
    return Model(
        name=p.name,
        note=p.note,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        groups=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        width=getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
        context=context_of(p.model),
        learned_positions=learned_positions(p.model) is not None,
    )


# --- Reading long texts -----------------------------------------------------------------------------------------


def stream(ctx: Context) -> tuple[StreamStudy, bool]:
    """Long texts by every number of sinks, and with everything in view; whether the cache was used."""
    model, n = quick(ctx.pretrained().model, ctx.precision), ctx.numbers
    size = min(n["cache"], context_of(model) // 2)
    sinks = tuple(k for k in SINKS if k < size // 2)
    texts = windows(encoded(ctx), n["texts"], n["stream"]).to(ctx.device)
    if texts.shape[1] < 2 * size:
        raise ValueError(f"the held-out text has {texts.shape[1]} tokens: too few to stream through {size} positions")
    cached = rotation_error(ctx.pretrained().model) < 1e-3

    def options(salt: str, start: float, width: float) -> dict[str, Any]:
        def tell(done: float, what: str) -> None:
            ctx.progress(start + width * done, what)

        return {"sampling": Sampling(TEMPERATURE), "generator": ctx.generator(salt), "tell": tell}

    def bounded() -> Bounded:
        shared = options("streams", 0.2, 0.5)
        if cached:
            return read_cached(model, texts, sinks, size, n["new"], samples=n["samples"], **shared)
        few: dict[str, Any] = {"places": places(size, texts.shape[1] - 1, n["reread_places"])}
        few["continued"] = n["reread_texts"]
        return read_anew(model, texts, sinks, size, n["reread_new"], **few, **shared)

    found = Bounded(**ctx.once("streams", bounded))

    def unbounded() -> Unbounded:
        samples = n["samples"] if cached else 1
        shared = options("full context", 0.7, 0.2)
        return read_in_full(model, texts, torch.tensor(found.written), samples=samples, **shared)

    return StreamStudy(sinks, size, texts.cpu(), found, Unbounded(**ctx.once("full context", unbounded))), cached


def reread(ctx: Context, s: StreamStudy) -> tuple[Tensor, list[int]]:
    """Losses (N, P) with the window read again for every token, without sinks, at some places."""
    chosen = places(s.size, s.length - 1, ctx.numbers["places"])

    def compute() -> Any:
        def tell(done: float) -> None:
            ctx.progress(0.9 + 0.09 * done, "reading the window again")

        model, texts = quick(ctx.pretrained().model, ctx.precision), s.texts.to(ctx.device)
        return reencoded_losses(model, texts, [0] * len(texts), s.size, chosen, tell).tolist()

    return torch.tensor(ctx.once("window", compute)), chosen


def described(
    s: StreamStudy, cached: bool, again: tuple[Tensor, list[int]] | None, tokenizer: Any, samples: int = 1
) -> Stream:
    """A study as plain data, and the window that was read ``again`` at some places."""

    def per_text(values: Sequence[float]) -> tuple[float, ...]:
        return tuple(fmean(values[i : i + samples]) for i in range(0, len(values), samples))

    width = max(1, s.size // 4, s.length // 64)
    settings: list[int | None] = [*s.sinks, None]
    return Stream(
        size=s.size,
        texts=len(s.texts),
        length=s.length,
        scored=len(s.bounded.places),
        scored_after=len(s.places),
        in_view=len(s.full.losses[0]) + 1,
        cached=cached,
        buckets=tuple(stretch(s, bucket) for bucket in s.buckets()),
        after=stretch(s, s.places),
        curve_width=width,
        curves=tuple(curve(s, k, width) for k in settings),
        window=window(s, *again) if again else None,
        prompt=tokenizer.decode(s.texts[0, -48:].tolist()),
        new=len(s.full.written[0]),
        samples=samples,
        written=tuple(
            Written(
                sinks=k,
                nll=per_text(nll),
                repeated=per_text([repetition(text, 3) for text in texts]),
                distinct=distinct(texts, 2),
                text=tokenizer.decode(texts[0]),
            )
            for k, texts, nll in zip(settings, [*s.bounded.written, s.full.written], s.full.judged, strict=True)
        ),
    )


def by_sinks(s: StreamStudy, inside: Sequence[int], settings: Sequence[int]) -> dict[int, tuple[float, ...]]:
    """Mean losses per text at some places."""
    return {k: tuple(s.loss(k, inside)) for k in settings}


def in_full(s: StreamStudy, inside: Sequence[int]) -> tuple[float, ...] | None:
    """The same with everything in view."""
    full = s.full_loss(inside)
    return None if full is None else tuple(full)


def stretch(s: StreamStudy, inside: Sequence[int]) -> Stretch:
    """Mean losses of all settings."""
    return Stretch(inside[0], inside[-1], by_sinks(s, inside, s.sinks), in_full(s, inside))


def curve(s: StreamStudy, sinks: int | None, width: int) -> Curve:
    """Loss over position."""
    points = s.curve(sinks, width)
    return Curve(sinks, tuple(x for x, _ in points), tuple(tuple(losses) for _, losses in points))


def window(s: StreamStudy, losses: Tensor, where: list[int]) -> Window:
    """The window read again, and the cache at the same places."""
    return Window(
        places=len(where),
        anew=tuple(losses.mean(-1).tolist()),
        anew_mean=losses.mean().item(),
        by_sinks=by_sinks(s, where, s.sinks),
        full=in_full(s, where),
    )


# --- Checks -----------------------------------------------------------------------------------------------------


def exact(ctx: Context, real: Tensor, s: StreamStudy, found: Stream) -> Exact:
    """The cache on small models, and what was measured with the pretrained one."""
    model = ctx.pretrained().model
    with torch.inference_mode():
        last = model(real[:1, :24].to(ctx.device), output_attentions=True, use_cache=False).attentions[-1].cpu()
    late = last.shape[-1] // 2
    wanted = torch.zeros(1, *last.shape[-2:], dtype=torch.bool)
    wanted[:, late:, :4] = True
    text = s.texts[:1, : s.size + 1].to(ctx.device)
    reader = (SinkReader if found.cached else ReencodingReader)(model, [found.kept], s.size)
    small = streaming_parity(ctx.generator("small models"))
    return Exact(
        small_rotation=small.rotation,
        small_roomy=small.roomy,
        small_one_layer=small.one_layer,
        small_bytes=tuple(sorted(small.n_bytes)),
        small_expected_bytes=small.expected_bytes,
        share_difference=(received(last[0], late)[:, :4].sum(-1) - share(last, wanted)).abs().max().item(),
        full_cache=(stream_losses(reader, text, s.size)[0, 0] - row_losses(model, text)[0, -1]).abs().item(),
        rotation=rotation_error(model) if found.cached else None,
        chunks=chunk_error(model, text, found.kept) if found.cached else None,
    )


def chunk_error(model: Any, text: Tensor, sinks: int) -> float:
    """A short stream through a small cache, in chunks against token by token: largest difference of a loss, nats."""
    size = max(sinks + 2, text.shape[1] // 3)
    slow = stream_losses(SinkReader(model, [sinks], size), text, size)
    quickly = chunked_losses(ChunkReader(model, [sinks], size), text, chunk=size)[:, size - 1 :]
    return (slow - quickly).abs().max().item()


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY_ROPE,),
    sources=("main", "domain", "pretrained"),
    numbers={
        "smoke": {
            "length": 64,
            "rows": 2,
            "planted_length": 64,
            "planted_rows": 1,
            "shown": 16,
            "cache": 32,
            "texts": 2,
            "stream": 128,
            "samples": 2,
            "own_stream": 4_000,
            "own_places": 100,
            "new": 12,
            "places": 8,
            "reread_places": 8,
            "reread_new": 8,
            "reread_texts": 2,
        },
        "laptop": {
            "length": 512,
            "rows": 3,
            "planted_length": 256,
            "planted_rows": 2,
            "shown": 24,
            "cache": 64,
            "texts": 3,
            "stream": 1_280,
            "samples": 3,
            "own_stream": 100_000,
            "own_places": 1_000,
            "new": 96,
            "places": 32,
            "reread_places": 6,
            "reread_new": 12,
            "reread_texts": 4,
        },
        "gpu": {
            "length": 1_024,
            "rows": 8,
            "planted_length": 512,
            "planted_rows": 4,
            "shown": 24,
            "cache": 256,
            "texts": 16,
            "stream": 4_096,
            "samples": 4,
            "own_stream": 200_000,
            "own_places": 4_000,
            "new": 128,
            "places": 64,
            "reread_places": 64,
            "reread_new": 128,
            "reread_texts": 8,
        },
    },
    seconds={"smoke": 3, "laptop": 230, "gpu": 150},
)
