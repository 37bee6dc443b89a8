"""Exercise 21.29: attention sinks, and reading a long text with and without them in the cache."""

import inspect
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.analysis.head_scores import share
from minigpt.analysis.sinks import SinkProfile, planted_shares, received, sink_profile, uniform_received
from minigpt.decoding import streaming
from minigpt.decoding.sampling import Sampling
from minigpt.decoding.streaming import ReencodingReader, SinkReader, reencoded_losses, rotation_error, stream_losses
from minigpt.evaluation.diversity import distinct, repetition
from minigpt.evaluation.excerpts import places, windows
from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std
from minigpt.plain import from_plain, to_plain
from minigpt.pretrained.causal_lm import ordinary_tokens, row_losses
from minigpt.pretrained.learned_positions import learned_positions
from minigpt.pretrained.limits import context_of
from minigpt.stream_study import Bounded, StreamStudy, Unbounded, read_anew, read_cached, read_in_full
from minigpt.streaming_parity import streaming_parity
from reports.types import Answer, AttentionMaps, Block, Check, Code, Figure, Heatmap, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise, Pretrained

SINKS = (0, 1, 2, 4, 8)
KEPT = 4  # sinks in Xiao et al. (2023)
FIRST = 8  # positions of which every head's share is kept
SEVERAL = 5  # times the uniform share
KINDS = ("real text", "random tokens", "repeated text")
TEMPERATURE = 0.8


@dataclass(frozen=True)
class Planted:
    """One token, first and in the middle of the same texts."""

    piece: str
    first: float  # share of position 0, mean over layers, heads and texts
    middle: float  # share of the same token in the middle


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    p: Pretrained
    kinds: dict[str, SinkProfile]
    planted: list[Planted]
    planted_length: int  # tokens
    study: StreamStudy
    cached: bool  # the cache was used; else the kept tokens were read again
    window: Tensor  # (N, P) losses with the window read again, without sinks
    window_places: list[int]

    @property
    def real(self) -> SinkProfile:
        """Of real text."""
        return self.kinds[KINDS[0]]

    @property
    def kept(self) -> int:
        """The paper's number of sinks, or the largest that fits."""
        return KEPT if KEPT in self.study.sinks else self.study.sinks[-1]


# --- Measuring attention ----------------------------------------------------------------------------------------


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


def attention(ctx: Context) -> dict[str, SinkProfile]:
    """Attention received in every kind of text."""
    model, found = ctx.pretrained().model, {}
    for k, (kind, rows) in enumerate(materials(ctx).items()):

        def compute(k: int = k, kind: str = kind, rows: Tensor = rows) -> Any:
            def tell(done: float) -> None:
                ctx.progress(0.02 + 0.04 * (k + done), f"attention in {kind}")

            return to_plain(sink_profile(model, rows, FIRST, tell))

        found[kind] = from_plain(SinkProfile, ctx.once(f"attention {kind}", compute))
    return found


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


def plant(ctx: Context, length: int) -> list[Planted]:
    """The same token in two places: is it the token or the place that draws attention?"""
    p, tokens = ctx.pretrained(), candidates(ctx)
    texts = windows(encoded(ctx), ctx.numbers["planted_rows"], length - 2)

    def compute() -> Any:
        found = []
        for i, token in enumerate(tokens):
            ctx.progress(0.14 + 0.06 * i / len(tokens), "the same token in two places")
            found.append(planted_shares(p.model, texts, token))
        return found

    shares = ctx.once("planted tokens", compute)
    return [Planted(p.tokenizer.decode([token]), *both) for token, both in zip(tokens, shares, strict=True)]


def stream(ctx: Context) -> tuple[StreamStudy, bool]:
    """Long texts by every number of sinks, and with everything in view; whether the cache was used."""
    model, n = ctx.pretrained().model, ctx.numbers
    size = min(n["cache"], context_of(model) // 2)
    sinks = tuple(k for k in SINKS if k < size // 2)
    texts = windows(encoded(ctx), n["texts"], n["stream"]).to(ctx.device)
    if texts.shape[1] < 2 * size:
        raise ValueError(f"the held-out text has {texts.shape[1]} tokens: too few to stream through {size} positions")
    cached = rotation_error(model) < 1e-3

    def options(salt: str, start: float, width: float) -> dict[str, Any]:
        def tell(done: float, what: str) -> None:
            ctx.progress(start + width * done, what)

        return {"sampling": Sampling(TEMPERATURE), "generator": ctx.generator(salt), "tell": tell}

    def bounded() -> Any:
        shared = options("streams", 0.2, 0.5)
        if cached:
            return to_plain(read_cached(model, texts, sinks, size, n["new"], **shared))
        few: dict[str, Any] = {"places": places(size, texts.shape[1] - 1, n["reread_places"])}
        few["continued"] = n["reread_texts"]
        return to_plain(read_anew(model, texts, sinks, size, n["reread_new"], **few, **shared))

    found = from_plain(Bounded, ctx.once("streams", bounded))

    def unbounded() -> Any:
        return to_plain(read_in_full(model, texts, found.written, **options("full context", 0.7, 0.2)))

    full = from_plain(Unbounded, ctx.once("full context", unbounded))
    return StreamStudy(sinks, size, texts.cpu(), found, full), cached


def reread(ctx: Context, s: StreamStudy, cached: bool) -> tuple[Tensor, list[int]]:
    """Losses with the window read again for every token, without sinks, at some places."""
    chosen = places(s.size, s.length - 1, ctx.numbers["places"])
    if not cached:
        return s.bounded.losses[0], s.bounded.places

    def compute() -> Any:
        def tell(done: float) -> None:
            ctx.progress(0.9 + 0.09 * done, "reading the window again")

        texts = s.texts.to(ctx.device)
        return reencoded_losses(ctx.pretrained().model, texts, [0] * len(texts), s.size, chosen, tell).tolist()

    return torch.tensor(ctx.once("window", compute)), chosen


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    p, length = ctx.pretrained(), min(ctx.numbers["planted_length"], context_of(ctx.pretrained().model))
    kinds, found = attention(ctx), plant(ctx, length)
    study, cached = stream(ctx)
    return Findings(p, kinds, found, length, study, cached, *reread(ctx, study, cached))


# --- Parts (a) and (b) ------------------------------------------------------------------------------------------


def part_a(f: Findings) -> Part:
    """The model and the sequences."""
    decode, config = f.p.tokenizer.decode, f.p.model.config.get_text_config()
    T, maps = f.real.ids.shape[1], config.num_hidden_layers * config.num_attention_heads
    rows = tuple(
        (
            *(kind, len(x.ids), T, " · ".join(repr(decode([token])) for token in x.ids[:, 0].tolist())),
            decode(x.ids[0, :12].tolist()),
        )
        for kind, x in f.kinds.items()
    )
    text = (
        f"{f.p.name}: {config.num_hidden_layers} layers of {config.num_attention_heads} heads, a context of "
        f"{context_of(f.p.model):,} tokens. It reads rows of {T} tokens with `output_attentions=True`, one at a time: "
        f"the {maps} maps of one row hold {maps * T * T:,} numbers, of which only what each position receives is kept. "
        "No start token is put before a row. Random tokens are drawn uniformly from those of the vocabulary that stand "
        "for text; repeated text is a piece of the real text again and again, each row with a period of its own."
    )
    table = Table(("kind", "rows", "tokens", "first tokens", "first row begins"), rows, "What is read.", "texts")
    return Part("a", (Prose(text), table), "A long sequence")


def per_layer(f: Findings, n: int) -> Figure:
    """Share of the first positions by layer."""
    series = []
    for kind, x in f.kinds.items():
        rows = x.first[..., :n].sum(-1).mean(-1)  # (R, L)
        spread = tuple(rows.std(0).tolist()) if len(rows) > 1 else ()
        series.append(Series(kind, tuple(map(float, range(rows.shape[1]))), tuple(rows.mean(0).tolist()), spread))
    name = "first token" if n == 1 else f"first {n} tokens"
    caption = f"Attention on the {name} by layer. Mean over heads and rows ± standard deviation over rows."
    uniform = ((f.real.uniform(n), "uniform"),)
    return Figure("line", tuple(series), "layer", "share of attention", caption, hlines=uniform)


def by_position(f: Findings) -> Figure:
    """What each of the first positions receives."""
    x = tuple(str(i) for i in range(16))
    series = tuple(Series(kind, x, tuple(found.mean.mean(0)[:16].tolist())) for kind, found in f.kinds.items())
    caption = (
        "Attention received by position, mean over layers, heads and rows. "
        f"Queries {f.real.begin}–{f.real.ids.shape[1] - 1}."
    )
    uniform = ((f.real.uniform(), "uniform"),)
    return Figure("bar", series, "position", "share of attention", caption, hlines=uniform)


def explorable(ctx: Context, f: Findings) -> AttentionMaps:
    """Maps of a short piece, with the heads that look at its first token most."""
    ids = f.real.ids[0, : ctx.numbers["shown"]]
    with torch.inference_mode():
        maps = f.p.model(ids[None].to(ctx.device), output_attentions=True, use_cache=False).attentions
    layers = sorted({round(i * (len(maps) - 1) / 3) for i in range(4)})
    most = min(3, f.real.heads.shape[1])
    heads = [sorted(f.real.heads[layer].topk(most).indices.tolist()) for layer in layers]
    weights = tuple(
        tuple(tuple(tuple(round(w, 4) for w in row) for row in maps[layer][0, head].tolist()) for head in chosen)
        for layer, chosen in zip(layers, heads, strict=True)
    )
    pieces = tuple(f.p.tokenizer.decode([token]) for token in ids.tolist())
    caption = (
        f"Attention maps of the beginning of a real text. Of {len(layers)} layers, the heads with most on the first "
        "token."
    )
    return AttentionMaps((pieces,), tuple(layers), tuple(map(tuple, heads)), (weights,), caption)


def sink_sentence(f: Findings) -> str:
    """Do the first tokens get more than their share, whatever the text?"""
    x, ratios = f.real, [found.ratio() for found in f.kinds.values()]
    layers = x.heads.mean(dim=1)
    if min(ratios) > SEVERAL:
        verdict = f"**The first token is a sink in all {len(f.kinds)} kinds of text.**"
    elif max(ratios) > SEVERAL:
        verdict = "**The first token is a sink in some of the texts only.**"
    else:
        verdict = f"**No sink.** In no kind of text does the first token get {SEVERAL} times its uniform share."
    said = ", ".join(
        f"{k.share():.1%} ± {mean_std(k.rows(1))[1]:.1%} in {kind} ({k.ratio():.1f} times uniform)"
        for kind, k in f.kinds.items()
    )
    first = x.share() / x.share(4)
    return (
        f"{verdict} Over all layers and heads it gets {said}, mean ± standard deviation over {len(x.ids)} rows; "
        "attention uniform over the visible keys would give it "
        f"{x.uniform():.2%}. The first four together get {x.share(4):.1%} in real text (uniform: {x.uniform(4):.2%}), "
        f"{first:.0%} of that the very first. {int((x.heads > 0.5).sum())} of {x.heads.numel()} heads spend more than "
        f"half of their attention on it. By layer the share goes from {layers.min().item():.1%} (layer "
        f"{int(layers.argmin())}) to {layers.max().item():.1%} (layer {int(layers.argmax())}, counted from 0); "
        f"{int((layers > SEVERAL * x.uniform()).sum())} of {len(layers)} layers are above {SEVERAL} times uniform."
    )


def token_sentence(f: Findings, uniform: tuple[float, float]) -> str:
    """Is it the place or the token?"""
    first, middle = [x.first for x in f.planted], [x.middle for x in f.planted]
    most = max(f.planted, key=lambda x: x.middle)
    if min(first) > SEVERAL * uniform[0] and min(first) > 2 * max(middle):
        verdict = "It is the place far more than the token"
    elif max(*first, *middle) > SEVERAL * uniform[0]:
        verdict = "The token matters, too"
    else:
        verdict = "Neither the place nor one of these tokens draws much attention"
    later = f.kinds[KINDS[2]].recurring()
    again = (
        f" In repeated text the first token comes again and again: its later occurrences get {mean_std(later)[0]:.2%} "
        f"each, the first one {f.kinds[KINDS[2]].share():.1%}."
        if later
        else ""
    )
    return (
        f"{verdict}: with {len(first)} different tokens before the same texts, position 0 gets {min(first):.1%} to "
        f"{max(first):.1%} of the attention (uniform: {uniform[0]:.2%}); the same tokens in the middle get "
        f"{min(middle):.2%} to {max(middle):.2%} (uniform: {uniform[1]:.2%}), most of all {most.piece!r}.{again}"
    )


def part_b(ctx: Context, f: Findings) -> Part:
    """Attention on the first tokens."""
    length, begin = f.planted_length, f.planted_length * 3 // 4
    expected = uniform_received(length, begin)
    uniform = expected[0].item(), expected[length // 2].item()
    rows = tuple(
        (kind, n, *mean_std(x.rows(n)), x.uniform(n), x.ratio(n)) for kind, x in f.kinds.items() for n in (1, 2, 4, 8)
    )
    columns = ("kind", "first tokens", "share of attention", "± std over rows", "uniform", "times uniform")
    heads = tuple(tuple(row) for row in f.real.heads.T.tolist())
    names = [tuple(str(i) for i in range(size)) for size in f.real.heads.shape]
    caption = f"Share of attention on the first token by layer and head, real text. Uniform: {f.real.uniform():.2%}."
    blocks: tuple[Block, ...] = (
        Prose(
            "What position $j$ receives is counted over late queries only, so that no position gets its share for want "
            r"of others:$$r_j = \frac{1}{T - b} \sum_{i=b}^{T-1} A_{ij}, \qquad r_j^{\text{uniform}} = "
            r"\frac{1}{T - b} \sum_{i=b}^{T-1} \frac{1}{i + 1} \quad (j \le b), \qquad "
            f"b = T/2 = {f.real.begin}.$$"
        ),
        Prose(sink_sentence(f)),
        Table(columns, rows, "Share of the first tokens. Mean over layers, heads and rows.", "first_tokens"),
        per_layer(f, 1),
        per_layer(f, KEPT),
        Heatmap(heads, "layer", "head", caption, names[0], names[1]),
        by_position(f),
        Prose(token_sentence(f, uniform)),
        Table(
            ("token", "share as first token", "share in the middle", "uniform, first", "uniform, middle"),
            tuple((repr(x.piece), x.first, x.middle, *uniform) for x in f.planted),
            f"The same token first and in the middle of the same texts. Of {length} tokens, queries from {begin} on.",
            "planted",
        ),
        explorable(ctx, f),
    )
    return Part("b", blocks, "Attention on the first tokens")


# --- Part (c) ---------------------------------------------------------------------------------------------------


def part_c(f: Findings) -> Part:
    """The cache."""
    config, s = f.p.model.config.get_text_config(), f.study
    groups = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    mib = 2 * config.num_hidden_layers * groups * width * 4 / 2**20  # per token
    rows = tuple(
        (read, min(read, s.size), min(read, s.size) * mib, read * mib)
        for read in (s.size // 2, s.size, 2 * s.size, s.length, 1_000_000)
    )
    added = learned_positions(f.p.model) is not None
    why = ": positions were added to its tokens before the first layer" if added else " in the way that this needs"
    how = (
        f"{f.p.name} has rotary positions, so its keys can be moved, and `SinkReader` is used."
        if f.cached
        else f"The keys of {f.p.name} cannot be moved{why}. So `ReencodingReader` is used: it keeps the same tokens "
        "and reads them again for every new one, at positions 0 to $W - 1$. What is kept is then read without what was "
        "dropped, which is not so in a cache; and the oldest token kept stands at position 0 even without sinks."
    )
    text = (
        f"With room for $W = {s.size}$ positions, the first $n$ tokens stay, and of the others the oldest goes. "
        r"Positions count inside the cache (Xiao et al., 2023, section 3.2): the newest token stands at $W - 1$. "
        r"Rotary attention knows differences only, and rotations add up, $R_{m+\Delta}\, k = R_\Delta R_m\, k$. So the "
        "recent keys stay as they are, a ring in memory, and instead of moving all of them back after each token the "
        f"$n$ sinks are moved forward, always from their original keys. {how} The checks compare the cache with "
        "reading without one."
    )
    caption = (
        f"Keys and values of one text in fp32, {f.p.name}: 2 · layers · key/value heads · head width · 4 bytes a "
        "token. The original keys of the sinks, which are kept besides, are not counted."
    )
    columns = ("tokens read", "positions kept", "streaming cache (MiB)", "ordinary cache (MiB)")
    listing = inspect.getsource(streaming.shifted) + "\n\n" + inspect.getsource(streaming.SinkCache.update)
    blocks = (Prose(text), Code(listing, "minigpt/decoding/streaming.py"), Table(columns, rows, caption, "memory"))
    return Part("c", blocks, "Keeping sinks when evicting")


# --- Part (d) ---------------------------------------------------------------------------------------------------


def loss_table(s: StreamStudy) -> Table:
    """Loss by bucket, and what sinks change."""
    rows: list[tuple[Any, ...]] = []
    for name, inside in [*((f"{b[0]}–{b[-1]}", b) for b in s.buckets()), ("all after eviction", s.places)]:
        full = s.full_loss(inside)
        for k in s.sinks:
            c, loss = compare_paired(s.loss(0, inside), s.loss(k, inside)), mean_std(s.loss(k, inside))[0]
            gap = None if full is None else loss - mean_std(full)[0]
            known = (c.difference, *c.interval) if k and c.verdict != "one seed" else (None, None, None)
            rows.append((name, str(k), loss, gap, *known, c.verdict if k else "baseline"))
        if full is not None:
            rows.append((name, "full context", mean_std(full)[0], 0.0, None, None, None, ""))
    columns = (
        *("positions", "sinks", "loss (nats/token)", "above the full context", "against 0 sinks"),
        *("95 % from", "95 % to", "verdict"),
    )
    scored = "every token" if len(s.places) == s.length - s.size - 1 else f"{len(s.bounded.places)} places"
    caption = (
        f"Loss by position and number of sinks. Means over {len(s.texts)} texts of {s.length:,} tokens; {s.size} "
        f"positions kept, {scored} scored; intervals of paired differences over texts (Student)."
    )
    return Table(columns, tuple(rows), caption, "loss_by_position")


def loss_figure(s: StreamStudy) -> Figure:
    """Loss over position."""
    series, width = [], max(1, s.size // 4)
    for k in (*s.sinks, None):
        curve = s.curve(k, width)
        means = [mean_std(losses) for _, losses in curve]
        error = tuple(std / len(s.texts) ** 0.5 for _, std in means)
        name = "full context" if k is None else plural(k)
        series.append(Series(name, tuple(x for x, _ in curve), tuple(mean for mean, _ in means), error))
    caption = (
        f"Loss over position by number of sinks. Means over {width} positions and {len(s.texts)} texts ± standard "
        f"error; the cache is full after {s.size} tokens."
    )
    return Figure("line", tuple(series), "position", "loss (nats/token)", caption)


def plural(sinks: int) -> str:
    """A setting's name."""
    return f"{sinks} sink{'s' * (sinks != 1)}"


def signed(value: float, digits: int = 3) -> str:
    """With its sign."""
    return f"{value:+.{digits}f}".replace("-", "−")


def interval(c: Comparison) -> str:
    """In parentheses."""
    if c.verdict == "one seed":
        return "(one text)"
    return f"(95 % interval {signed(c.interval[0])} to {signed(c.interval[1])} over {c.seeds[0]} texts)"


def loss_sentence(f: Findings) -> str:
    """What sinks do for the loss: chosen by the data."""
    s, k = f.study, f.kept
    c = compare_paired(s.loss(0), s.loss(k))
    verdict = {
        "lower": "**Sinks help.**",
        "higher": "**Sinks harm here.**",
        "noise": "**No effect beyond noise.**",
        "one seed": "**With one text, whether sinks help is open.**",
    }[c.verdict]
    text = (
        f"{verdict} Once the first token has gone, the loss is {c.baseline[0]:.3f} nats per token without sinks and "
        f"{c.other[0]:.3f} with {k}: a difference of {signed(c.difference)} {interval(c)}. {full_sentence(s, k)} "
        f"Long means {s.length:,} tokens here: {s.length / s.size:.1f} times what the cache holds, and "
        f"{s.length / context_of(f.p.model):.2g} times the model's context."
    )
    if c.verdict != "lower" or 1 not in s.sinks or k == 1:
        return text
    one = compare_paired(s.loss(k), s.loss(1))
    told = {"higher": f"{k} are better by", "lower": f"it is even better than {k}, by"}.get(
        one.verdict, f"it differs from {k} by no more than noise,"
    )
    part = (c.baseline[0] - mean_std(s.loss(1))[0]) / -c.difference
    return f"{text} A single sink brings {part:.0%} of this; {told} {abs(one.difference):.3f} nats {interval(one)}."


def full_sentence(s: StreamStudy, k: int) -> str:
    """Beside the full context."""
    full = s.full_loss()
    if full is None:
        return f"The model's context of {s.full.losses.shape[1] + 1} tokens ends before the texts do."
    said = []
    for n in (0, k):
        c = compare_paired(full, s.loss(n))
        verdict = {"higher": "is higher", "lower": "is lower"}.get(c.verdict, "differs by no more than noise")
        said.append(f"with {plural(n)} it {verdict}, {signed(c.difference)} nats {interval(c)}")
    return f"Beside the model that has everything in view, {said[0]}; {said[1]}."


def window_blocks(f: Findings) -> tuple[list[Block], dict[str, float]]:
    """The window read again, at the same places as the cache; nothing where that was done for all settings."""
    if not f.cached:
        return [], {}
    s, k, where = f.study, f.kept, f.window_places
    anew, full = f.window.mean(-1).tolist(), s.full_loss(where)
    rows = [("window read again, no sinks", s.size, mean_std(anew)[0])]
    rows += [(f"cache, {plural(n)}", 1, mean_std(s.loss(n, where))[0]) for n in (0, k)]
    if full is not None:
        rows.append(("full context", 1, mean_std(full)[0]))
    said = []
    for n in (0, k):
        c = compare_paired(anew, s.loss(n, where))
        told = {"lower": "lower", "higher": "higher"}.get(c.verdict, "not different beyond noise")
        said.append(f"with {plural(n)} in the cache the loss is {told}, {signed(c.difference)} nats {interval(c)}")
    same = ", although it rests on the same tokens" if "higher" in said[0] else ""
    text = (
        "Is a window without sinks bad by itself? Read again for every token, at "
        f"{s.size} times the cost, its oldest token stands at position 0, with nothing before it, and can be a sink "
        f"itself. Compared with that, at {len(where)} places of each text, {said[0]}{same}; {said[1]}."
    )
    caption = f"The same {len(where)} places of {len(s.texts)} texts. Cost: tokens read for each new one."
    table = Table(("reader", "cost (tokens)", "loss (nats/token)"), tuple(rows), caption, "window")
    return [Prose(text), table], {"loss_window_read_again_nats": mean_std(anew)[0]}


def written_blocks(f: Findings) -> tuple[list[Block], dict[str, float]]:
    """What each setting wrote."""
    s, new = f.study, f.study.full.written.shape[1]
    settings = [*s.bounded.written, s.full.written]
    names = [*map(plural, s.sinks), "full context"]
    repeated = [[repetition(text, 3) for text in texts.tolist()] for texts in settings]
    rows, metrics = [], {}
    for name, texts, nll, again in zip(names, settings, s.full.judged.tolist(), repeated, strict=True):
        rows.append((name, *mean_std(nll), *mean_std(again), distinct(texts.tolist(), 2)))
        key = name.replace(" ", "_")
        metrics[f"written_nll_{key}_nats"] = mean_std(nll)[0]
        metrics[f"written_repeated_3grams_{key}"] = mean_std(again)[0]
    said = []
    for what, values, digits in (
        ("NLL", s.full.judged.double(), 2),
        ("share of repeated 3-grams", torch.tensor(repeated), 3),
    ):
        c = compare_paired(values[0].tolist(), values[1:-1].mean(0).tolist())
        told = {"lower": "lower", "higher": "higher"}.get(c.verdict, "not different beyond noise")
        said.append(f"the {what} is {told} with sinks than without, {signed(c.difference, digits)} {interval(c)}")
    text = (
        f"**Generation.** From the end of each text of {s.length:,} tokens, {new} more at temperature {TEMPERATURE:g}. "
        f"The judge is the same model with everything in view, as far as its context reaches. Mean over all settings "
        f"with sinks beside none: {said[0]}; {said[1]}. A low NLL alone is no praise: a loop has one, too. "
        f"{len(repeated[0])} texts per setting are few: {len(repeated[0]) * new:,} tokens, where each loss above rests "
        f"on {len(s.texts) * len(s.places):,}."
    )
    columns = ("kept", "NLL (nats/token)", "± std", "repeated 3-grams", "± std of these", "distinct 2-grams")
    caption = f"Continuations of {len(repeated[0])} texts. Each has {new} tokens; ± is over texts."
    decode, at = f.p.tokenizer.decode, s.sinks.index(f.kept)
    samples = [
        Sample(
            *(f"{names[i]}: first text", decode(s.texts[0, -48:].tolist()), decode(settings[i][0].tolist())),
            f"NLL {s.full.judged[i, 0].item():.2f} nats per token, repeated 3-grams {repeated[i][0]:.0%}",
        )
        for i in (0, at, len(names) - 1)
    ]
    return [Prose(text), Table(columns, tuple(rows), caption, "continuations"), *samples], metrics


def part_d(f: Findings) -> tuple[Part, dict[str, float]]:
    """Quality."""
    window, metrics = window_blocks(f)
    written, more = written_blocks(f)
    blocks = (Prose(loss_sentence(f)), loss_figure(f.study), loss_table(f.study), *window, *written)
    return Part("d", blocks, "Very long sequences with and without sinks"), metrics | more


# --- Checks and answer ------------------------------------------------------------------------------------------


def exact_checks(ctx: Context, f: Findings) -> list[Check]:
    """The cache on small models, and what was measured with the pretrained one."""
    model, s = f.p.model, f.study
    sums = max((x.mean.sum(-1) - 1).abs().max().item() for x in f.kinds.values())
    with torch.inference_mode():
        last = model(f.real.ids[:1, :24].to(ctx.device), output_attentions=True, use_cache=False).attentions[-1].cpu()
    late = last.shape[-1] // 2
    wanted = torch.zeros(1, *last.shape[-2:], dtype=torch.bool)
    wanted[:, late:, :4] = True
    other = (received(last[0], late)[:, :4].sum(-1) - share(last, wanted)).abs().max().item()
    text = s.texts[:1, : s.size + 1].to(ctx.device)
    reader = (SinkReader if f.cached else ReencodingReader)(model, [f.kept], s.size)
    streamed = (stream_losses(reader, text, s.size)[0, 0] - row_losses(model, text)[0, -1]).abs().item()
    small = streaming_parity(ctx.generator("small models"))
    checks = [
        Check.at_most("small model: keys moved by 1,000 positions against its own, relative", small.rotation, 1e-4),
        Check.at_most("small model: a cache that holds everything against one pass (nats)", small.roomy, 1e-4),
        Check.at_most(
            "one layer: streaming against reading the kept tokens from scratch (nats)", small.one_layer, 1e-4
        ),
        Check.equal(
            "bytes of the cache after every token, eviction or not",
            ", ".join(map(str, sorted(small.n_bytes))),
            str(small.expected_bytes),
        ),
        Check.at_most("attention received, sum over positions, distance from 1", sums, 1e-4),
        Check.at_most("share of the first four tokens by another function, max difference", other, 1e-5),
        Check.at_most("the first token after a full cache: loss against one pass (nats)", streamed, 2e-3),
    ]
    if f.cached:
        claim = "keys moved by 1,000 positions against the model's own, relative"
        checks.append(Check.at_most(claim, rotation_error(model), 1e-3))
    return checks


def empirical_checks(f: Findings) -> list[Check]:
    """What the paper says."""
    s, k = f.study, f.kept
    checks = [
        Check.at_least(f"{kind}: attention on the first token, times uniform", x.ratio(), SEVERAL, "empirical")
        for kind, x in f.kinds.items()
    ]
    least = min(x.first / x.middle for x in f.planted)
    checks.append(
        Check.at_least("any token gets more attention first than in the middle (times)", least, 2, "empirical")
    )
    c = compare_paired(s.loss(k), s.loss(0))
    claim = f"loss without sinks above that with {k} (nats, lower end of the 95 % interval)"
    gain = c.interval[0] if c.verdict != "one seed" else c.difference
    checks.append(Check.at_least(claim, gain, 0, "empirical"))
    full = s.full_loss()
    if full is not None and compare_paired(full, s.loss(0)).verdict == "higher":
        gap = mean_std(s.loss(0))[0] - mean_std(full)[0]
        claim = f"share of the gap between no sinks and the full context that {k} sinks close"
        checks.append(Check.at_least(claim, (mean_std(s.loss(0))[0] - mean_std(s.loss(k))[0]) / gap, 0.5, "empirical"))
    if f.cached:
        excess = mean_std(s.loss(k, f.window_places))[0] - f.window.mean().item()
        claim = f"loss with {k} sinks in the cache above that of the window read again (nats)"
        checks.append(Check.at_most(claim, excess, 0.1, "empirical"))
    return checks


def metrics_of(f: Findings) -> dict[str, float | int]:
    """Every number that the exercise asks for."""
    s, heads = f.study, f.real.heads
    layer, head = divmod(int(heads.argmax()), heads.shape[1])
    numbers: dict[str, float | int] = {
        "cache_positions": s.size,
        "stream_tokens": s.length,
        f"share_first_token_layer_{layer}_head_{head}": heads.max().item(),
        "heads_above_half_on_first_token": int((heads > 0.5).sum()),
        "planted_share_first_least": min(x.first for x in f.planted),
        "planted_share_middle_most": max(x.middle for x in f.planted),
    }
    for kind, x in f.kinds.items():
        key = kind.replace(" ", "_")
        for n in (1, 4):
            numbers |= {f"share_first_{n}_{key}": x.share(n), f"uniform_share_first_{n}_{key}": x.uniform(n)}
            numbers |= {
                f"share_first_{n}_{key}_std": mean_std(x.rows(n))[1],
                f"times_uniform_first_{n}_{key}": x.ratio(n),
            }
    numbers |= {f"loss_{plural(k).replace(' ', '_')}_nats": mean_std(s.loss(k))[0] for k in s.sinks}
    c, name = compare_paired(s.loss(0), s.loss(f.kept)), f"loss_{plural(f.kept).replace(' ', '_')}_less_0_sinks"
    numbers[f"{name}_nats"] = c.difference
    if c.verdict != "one seed":
        numbers[f"{name}_low_nats"], numbers[f"{name}_high_nats"] = c.interval
    if (full := s.full_loss()) is not None:
        numbers["loss_full_context_nats"] = mean_std(full)[0]
    return numbers


def answer(ctx: Context) -> Answer:
    """All four parts."""
    f = measure(ctx)
    quality, metrics = part_d(f)
    s, full = f.study, f.study.full_loss()
    return Answer(
        summary=f"{f.p.name}: the first token gets {f.real.share():.1%} of the attention in real text and "
        f"{f.kinds[KINDS[1]].share():.1%} in random tokens (uniform: {f.real.uniform():.2%}). Streaming {s.length:,} "
        f"tokens through {s.size} positions: {mean_std(s.loss(0))[0]:.3f} nats without sinks, "
        f"{mean_std(s.loss(f.kept))[0]:.3f} with {f.kept}"
        + (f", {mean_std(full)[0]:.3f} with everything in view." if full else "."),
        parts=(part_a(f), part_b(ctx, f), part_c(f), quality),
        checks=(*exact_checks(ctx, f), *empirical_checks(f)),
        metrics=metrics_of(f) | metrics,
        notes=(f.p.note,) if f.p.note else (),
    )


EXERCISE = Exercise(
    id="21.29",
    title="Attention Sink Analysis",
    answer=answer,
    sources=("main", "pretrained"),
    numbers={
        "smoke": {
            **{"length": 64, "rows": 2, "planted_length": 64, "planted_rows": 1, "shown": 16, "cache": 32, "texts": 2},
            **{"stream": 128, "new": 12, "places": 8, "reread_places": 8, "reread_new": 8, "reread_texts": 2},
        },
        "laptop": {
            **{"length": 512, "rows": 3, "planted_length": 256, "planted_rows": 2, "shown": 24, "cache": 64},
            **{"texts": 8, "stream": 352, "new": 64, "places": 16},
            **{"reread_places": 6, "reread_new": 12, "reread_texts": 4},
        },
        "gpu": {
            **{"length": 1_024, "rows": 8, "planted_length": 512, "planted_rows": 4, "shown": 24, "cache": 256},
            **{"texts": 16, "stream": 2_048, "new": 128, "places": 64},
            **{"reread_places": 64, "reread_new": 128, "reread_texts": 8},
        },
    },
    seconds={"smoke": 3, "laptop": 225, "gpu": 150},
)
