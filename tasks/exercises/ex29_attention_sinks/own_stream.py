"""A stream far beyond the training length of 21.29: read by this project's own model with rotary positions.

Its texts were ``context`` characters long in training. Here it reads tens of thousands, in a cache of that size.
"""

from typing import Any

import torch
from torch import Tensor

from minigpt.analysis.sinks import attention_received, uniform_received
from minigpt.decoding.stream_chunks import ChunkReader, chunked_losses
from minigpt.model import GPT
from minigpt.pretrained.full_context import FullReader
from minigpt.pretrained.neox import to_neox, why_not_neox
from tasks.exercise import Context
from tasks.exercises.ex29_attention_sinks.findings import KEPT, LongStream
from tasks.recipes.catalogue import STUDY_ROPE

BUCKETS = 50
DENSE = 64  # training lengths that are read with everything in view, at most: its cost grows with the square


def long_stream(ctx: Context) -> LongStream | None:
    """The whole of it; None where there is too little text, or no counterpart of the model that can be streamed."""
    trained = ctx.model(STUDY_ROPE)
    config = trained.model.config
    if why_not_neox(config):
        return None
    model: Any = to_neox(trained.model)
    model.to(ctx.device)
    tokens, size = unread(ctx)[: ctx.numbers["own_stream"]], config.context
    if len(tokens) < 2 * size + BUCKETS:
        return None
    ctx.progress(0.99, f"streaming {len(tokens):,} characters")
    sinks = (0, 1, min(KEPT, size - 2))
    losses = chunked_losses(ChunkReader(model, sinks, size), tokens.expand(len(sinks), -1)).double()  # of token i + 1
    width = (len(tokens) - size - 1) // BUCKETS
    starts = [size + 1 + i * width for i in range(BUCKETS)]
    per_bucket = max(1, ctx.numbers["own_places"] // BUCKETS)
    anew = [read_again(trained.model, tokens, start, width, per_bucket) for start in starts]
    share, uniform = first_share(model, tokens, size)
    with torch.inference_mode():
        row = tokens[None, :size]
        export = (model(row, use_cache=False).logits - trained.model(row)).abs().max().item()
    return LongStream(
        model=STUDY_ROPE.name,
        context=size,
        length=len(tokens),
        width=width,
        starts=tuple(starts),
        by_sinks={
            k: tuple(row[start - 1 : start - 1 + width].mean().item() for start in starts)
            for k, row in zip(sinks, losses, strict=True)
        },
        anew=tuple(anew),
        places=per_bucket * BUCKETS,
        dense=dense(model, tokens[: min(len(tokens), DENSE * size)], size),
        share=share,
        uniform=uniform,
        export=export,
    )


def unread(ctx: Context) -> Tensor:
    """Text that the model was not trained on, in its characters: the domain corpus, whose others are left out.

    Nothing where they are most of it, as after a text in another script.
    """
    tokenizer = ctx.model(STUDY_ROPE).tokenizer
    known = set(ctx.text("train"))
    text = ctx.text("train", "domain") + ctx.text("validation", "domain")
    kept = "".join(c for c in text if c in known)
    return torch.tensor(tokenizer.encode(kept) if 2 * len(kept) > len(text) else [], device=ctx.device)


@torch.inference_mode()
def read_again(model: GPT, tokens: Tensor, start: int, width: int, places: int) -> float:
    """Mean loss at some places of a bucket with the last ``context`` characters read from scratch."""
    size = model.config.context
    chosen = start + (torch.arange(places, device=tokens.device) * width) // places
    rows = tokens[chosen[:, None] - size + torch.arange(size, device=tokens.device)]
    logits = model(rows, last_only=True)[:, -1].float()
    return torch.nn.functional.cross_entropy(logits, tokens[chosen]).item()


def dense(model: Any, tokens: Tensor, size: int) -> tuple[tuple[float, float], ...]:
    """Loss over position with everything in view, in stretches of half a training length."""
    reader, width = FullReader(model), size // 2
    reader.read(tokens[None, :1])
    losses = reader.score(tokens[None, 1:])[0].double()
    return tuple(
        (start + width / 2, piece.mean().item())
        for start, piece in zip(range(0, len(tokens), width), losses.split(width), strict=False)
    )


def first_share(model: Any, tokens: Tensor, size: int) -> tuple[float, float]:
    """Attention that the first token of a text of the training's length receives, mean of a few; and if uniform."""
    own = model.config._attn_implementation
    model.set_attn_implementation("eager")
    rows = tokens[: 8 * size].view(8, size)
    shares = [attention_received(model, row, size // 2)[..., 0].double().mean().item() for row in rows]
    model.set_attn_implementation(own)
    return sum(shares) / len(shares), uniform_received(size, size // 2)[0].item()
