"""What the first positions receive in three kinds of text, and what one token receives in two places."""

from typing import Any

import torch
from pydantic import TypeAdapter
from torch import Tensor

from minigpt.analysis.sinks import (
    SinkProfile,
    attention_received,
    planted_shares,
    sink_profile,
    uniform_received,
)
from minigpt.evaluation.excerpts import windows
from minigpt.pretrained.causal_lm import ordinary_tokens
from minigpt.pretrained.gpt2_published import SINK_LENGTH, SINK_THRESHOLD
from minigpt.pretrained.limits import context_of
from minigpt.pretrained.quick import quick
from tasks.exercise import Context
from tasks.exercises.ex29_attention_sinks.findings import FIRST, KINDS, Attention, Maps, Planted, Planting, Share


def encoded(ctx: Context) -> Tensor:
    """The held-out text in the pretrained model's tokens, (N,), on the CPU."""
    return torch.tensor(ctx.pretrained().tokenizer(ctx.text("validation"), add_special_tokens=False)["input_ids"])


def materials(ctx: Context) -> dict[str, Tensor]:
    """Rows of each kind, (R, T)."""
    p, n = ctx.pretrained(), ctx.numbers
    real = windows(encoded(ctx), n["rows"], min(n["length"], context_of(p.model)))
    T, choices = real.shape[1], ordinary_tokens(p.tokenizer)
    random = choices[torch.randint(len(choices), real.shape, generator=ctx.generator("random tokens"))]
    periods = [max(2, T // 16 + i * max(1, T // 64)) for i in range(len(real))]
    repeated = [row[T // 2 : T // 2 + period].repeat(T)[:T] for row, period in zip(real, periods, strict=True)]
    return dict(zip(KINDS, (real, random, torch.stack(repeated)), strict=True))


def attention(ctx: Context, rows_of: dict[str, Tensor]) -> dict[str, Attention]:
    """Attention received in every kind of text."""
    p, found = ctx.pretrained(), {}
    model = quick(p.model, ctx.precision, maps=True)
    for k, (kind, rows) in enumerate(rows_of.items()):

        def compute(k: int = k, kind: str = kind, rows: Tensor = rows) -> Attention:
            def tell(done: float) -> None:
                ctx.progress(0.02 + 0.04 * (k + done), f"attention in {kind}")

            return summary(sink_profile(model, rows, max(FIRST), tell), p.tokenizer)

        found[kind] = TypeAdapter(Attention).validate_python(ctx.once(f"attention {kind}", compute))
    return found


def summary(measured: SinkProfile, tokenizer: Any) -> Attention:
    """A profile as plain data; means in double precision."""
    x = SinkProfile(measured.ids, measured.first.double(), measured.mean.double())
    return Attention(
        first_tokens=tuple(tokenizer.decode([token]) for token in x.ids[:, 0].tolist()),
        begins=tokenizer.decode(x.ids[0, :12].tolist()),
        tokens=x.ids.shape[1],
        begin=x.begin,
        shares=tuple(share(x, n) for n in FIRST),
        heads=tuple(map(tuple, x.heads.tolist())),
        positions=tuple(x.mean.mean(0)[:16].tolist()),
        recurring=tuple(x.recurring()),
        sum_error=(x.mean.sum(-1) - 1).abs().max().item(),
    )


def share(x: SinkProfile, n: int) -> Share:
    """Of the first ``n`` positions."""
    layers = x.first[..., :n].sum(-1).mean(-1)  # (R, L)
    return Share(
        n=n,
        mean=x.share(n),
        rows=tuple(x.rows(n)),
        layers=tuple(layers.mean(0).tolist()),
        layers_std=tuple(layers.std(0).tolist()) if len(layers) > 1 else (),
        uniform=x.uniform(n),
    )


def sink_heads(ctx: Context) -> float:
    """The share of heads with a sink by the measure of Gu et al. (2025), over rows of random tokens."""
    p = ctx.pretrained()
    length, choices = min(SINK_LENGTH, context_of(p.model)), ordinary_tokens(p.tokenizer)
    drawn = torch.randint(len(choices), (ctx.numbers["rows"] * 4, length), generator=ctx.generator("random rows"))
    model = quick(p.model, ctx.precision, maps=True)
    first = [attention_received(model, row.to(ctx.device), begin=0)[..., 0] for row in choices[drawn]]  # (L, H) each
    return (torch.stack(first) > SINK_THRESHOLD).double().mean().item()


def candidates(ctx: Context) -> list[int]:
    """Tokens to plant: the start token where there is one, a few plain ones, a random one."""
    tokenizer = ctx.pretrained().tokenizer
    found = [tokenizer.bos_token_id] if tokenizer.bos_token_id is not None else []
    for text in ("\n", ",", ".", " the", "e"):
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
        if len(tokens) == 1 and tokenizer.decode(tokens) == text:
            found += tokens
    choices = ordinary_tokens(tokenizer)
    found.append(int(choices[torch.randint(len(choices), (1,), generator=ctx.generator("planted"))]))
    return list(dict.fromkeys(found))


def plant(ctx: Context) -> Planting:
    """The same token in two places: is it the token or the place that draws attention?"""
    p, tokens = ctx.pretrained(), candidates(ctx)
    length = min(ctx.numbers["planted_length"], context_of(p.model))
    texts = windows(encoded(ctx), ctx.numbers["planted_rows"], length - 2)

    def compute() -> list[tuple[float, float]]:
        model, found = quick(p.model, ctx.precision, maps=True), []
        for i, token in enumerate(tokens):
            ctx.progress(0.14 + 0.06 * i / len(tokens), "the same token in two places")
            found.append(planted_shares(model, texts, token))
        return found

    shares = ctx.once("planted tokens", compute)
    begin = length * 3 // 4
    uniform = uniform_received(length, begin)
    return Planting(
        tokens=tuple(Planted(p.tokenizer.decode([token]), *both) for token, both in zip(tokens, shares, strict=True)),
        length=length,
        begin=begin,
        uniform_first=uniform[0].item(),
        uniform_middle=uniform[length // 2].item(),
    )


def maps_of(ctx: Context, row: Tensor, shares: tuple[tuple[float, ...], ...]) -> Maps:
    """Maps of a row's beginning, with the heads that look at its first token most by their ``shares`` (L, H)."""
    p, ids = ctx.pretrained(), row[: ctx.numbers["shown"]]
    with torch.inference_mode():
        maps = p.model(ids[None].to(ctx.device), output_attentions=True, use_cache=False).attentions
    layers = sorted({round(i * (len(maps) - 1) / 3) for i in range(4)})
    by_head = torch.tensor(shares, dtype=torch.float64)
    most = min(3, by_head.shape[1])
    heads = [sorted(by_head[layer].topk(most).indices.tolist()) for layer in layers]
    return Maps(
        pieces=tuple(p.tokenizer.decode([token]) for token in ids.tolist()),
        layers=tuple(layers),
        heads=tuple(map(tuple, heads)),
        weights=tuple(
            tuple(tuple(tuple(round(w, 4) for w in row) for row in maps[layer][0, head].tolist()) for head in chosen)
            for layer, chosen in zip(layers, heads, strict=True)
        ),
    )
