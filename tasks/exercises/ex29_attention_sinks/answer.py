"""Tables, figures, samples and checks of 21.29; the text is in answer.md."""

from statistics import fmean

from minigpt.evaluation.statistics import Comparison, compare, compare_paired, mean_std
from minigpt.pretrained.gpt2_published import SINK_HEADS, SINK_LENGTH, SINK_THRESHOLD
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import AttentionMaps, Cell, Check, Figure, Heatmap, Sample, Series, Table
from reports.words import plural, shown_text, shown_token
from tasks.exercises.ex29_attention_sinks.findings import (
    FIRST,
    KEPT,
    REPEATED,
    SEVERAL,
    TEMPERATURE,
    Curve,
    Findings,
    LongStream,
    Stream,
    Stretch,
    Written,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    s = f.stream
    return Draft(
        blocks={
            "texts": texts(f),
            "first tokens": first_tokens(f),
            "first token by layer": by_layer(f, 1),
            "first four by layer": by_layer(f, KEPT),
            "heads": heads(f),
            "gpt2": gpt2(f),
            "positions": by_position(f),
            "planted": planted(f),
            "maps": maps(f),
            "listing": listing(f.listing, "minigpt/decoding/streaming.py"),
            "memory": memory(f),
            "loss over position": loss_figure(s),
            "losses": loss_table(s),
            "long stream": long_figure(f.long) if f.long else (),
            "long losses": long_table(f.long) if f.long else (),
            "window": window_table(s) if s.window else (),
            "continuations": continuations(s),
            "samples": samples(s),
        },
        checks=(*exact_checks(f), *empirical_checks(f)),
        values={
            "several": SEVERAL,
            "sink_length": SINK_LENGTH,
            "sink_threshold": SINK_THRESHOLD,
            "gpt2_sink_heads": SINK_HEADS.value,
            "shares": [x.first().mean for x in f.kinds.values()],
            "ratios": [x.first().ratio for x in f.kinds.values()],
            "recurring": f.kinds[REPEATED].recurring,
            "most_in_the_middle": max(f.planted.tokens, key=lambda x: x.middle).piece,
            "most_mib": s.size * f.model.bytes_per_token / 2**20,
            "temperature": f"{TEMPERATURE:g}",
            "mean": mean_of,
            "effect": s.after.difference(s.kept),
            "single": single_sink(s),
            "growth": dense_growth(f.long) if f.long else None,
            "beside_full": {k: compare_paired(s.after.full, s.after.by_sinks[k]) for k in (0, s.kept)}
            if s.after.full
            else {},
            "beside_window": {k: compare_paired(s.window.anew, s.window.by_sinks[k]) for k in (0, s.kept)}
            if s.window
            else {},
            "written_nll": with_sinks([x.nll for x in s.written]),
            "written_repeats": with_sinks([x.repeated for x in s.written]),
        },
    )


def mean_of(values: tuple[float, ...]) -> float:
    """Over rows or texts."""
    return mean_std(values)[0]


def setting(sinks: int | None) -> str:
    """A setting's name."""
    return "full context" if sinks is None else f"{sinks} sink{'s' * (sinks != 1)}"


# --- (a) and (b) ------------------------------------------------------------------------------------------------


def texts(f: Findings) -> Table:
    """What is read."""
    rows = tuple(
        (kind, len(x.first_tokens), x.tokens, " · ".join(map(shown_token, x.first_tokens)), shown_text(x.begins))
        for kind, x in f.kinds.items()
    )
    return Table(("kind", "rows", "tokens", "first tokens", "first row begins"), rows, "What is read.", "texts")


def first_tokens(f: Findings) -> Table:
    """Shares of the first positions together."""
    columns = ("kind", "first tokens", "share of attention", "± std over rows", "uniform", "times uniform")
    shares = [(kind, x.first(n)) for kind, x in f.kinds.items() for n in FIRST]
    rows = tuple((kind, x.n, *mean_std(x.rows), x.uniform, x.ratio) for kind, x in shares)
    return Table(columns, rows, "Share of the first tokens. Mean over layers, heads and rows.", "first_tokens")


def by_layer(f: Findings, n: int) -> Figure:
    """Share of the first positions by layer."""
    shares = {kind: x.first(n) for kind, x in f.kinds.items()}
    series = tuple(
        Series(kind, tuple(map(float, range(len(x.layers)))), x.layers, x.layers_std) for kind, x in shares.items()
    )
    name = "first token" if n == 1 else f"first {n} tokens"
    caption = f"Attention on the {name} by layer. Mean over heads and rows ± standard deviation over rows."
    uniform = ((f.real.first(n).uniform, "uniform"),)
    return Figure("line", series, "layer", "share of attention", caption, hlines=uniform)


def heads(f: Findings) -> Heatmap:
    """Share of the first token by head; layers from left to right."""
    uniform = f.real.first().uniform
    caption = f"Share of attention on the first token by layer and head, real text. Uniform: {uniform:.2%}."
    layers, names = (tuple(map(str, range(len(x)))) for x in (f.real.heads, f.real.heads[0]))
    values = tuple(zip(*f.real.heads, strict=True))
    ends = ((uniform, "uniform"), (1.0, "all of it"))
    return Heatmap(values, "layer", "head", caption, layers, names, baseline=ends[0], threshold=ends[1])


def gpt2(f: Findings) -> Table:
    """The published value beside the model's."""
    row = (SINK_HEADS.what, f"GPT-2 {SINK_HEADS.model}", SINK_HEADS.value, f.sink_heads, SINK_HEADS.source)
    caption = f"GPT-2 beside the model that was used. Share of all heads, over rows of {SINK_LENGTH} random tokens."
    columns = ("measure", "which GPT-2", "its value", f"{f.model.name}, here", "source of GPT-2's value")
    return Table(columns, (row,), caption, "gpt2")


def by_position(f: Findings) -> Figure:
    """What each of the first positions receives."""
    x = tuple(str(i) for i in range(16))
    series = tuple(Series(kind, x, found.positions) for kind, found in f.kinds.items())
    caption = (
        f"Attention received by position, mean over layers, heads and rows. Queries {f.real.begin}–{f.real.tokens - 1}."
    )
    uniform = ((f.real.first().uniform, "uniform"),)
    return Figure("bar", series, "position", "share of attention", caption, hlines=uniform)


def planted(f: Findings) -> Table:
    """The same tokens in two places."""
    x = f.planted
    return Table(
        ("token", "share as first token", "share in the middle", "uniform, first", "uniform, middle"),
        tuple((shown_token(t.piece), t.first, t.middle, x.uniform_first, x.uniform_middle) for t in x.tokens),
        f"The same token first and in the middle of the same texts. Of {x.length} tokens, queries from {x.begin} on.",
        "planted",
    )


def maps(f: Findings) -> AttentionMaps:
    """Heads to explore."""
    caption = (
        f"Attention maps of the beginning of a real text. Of {len(f.maps.layers)} layers, the heads with most on the "
        "first token."
    )
    return AttentionMaps((f.maps.pieces,), f.maps.layers, f.maps.heads, (f.maps.weights,), caption)


# --- (c) --------------------------------------------------------------------------------------------------------


def memory(f: Findings) -> Table:
    """What the cache takes, and what one that keeps everything would."""
    s, mib = f.stream, f.model.bytes_per_token / 2**20
    rows = tuple(
        (read, min(read, s.size), min(read, s.size) * mib, read * mib)
        for read in (s.size // 2, s.size, 2 * s.size, s.length, 1_000_000)
    )
    caption = (
        f"Keys and values of one text in fp32, {f.model.name}: 2 · layers · key/value heads · head width · 4 bytes a "
        "token. The original keys of the sinks, which are kept besides, are not counted."
    )
    columns = ("tokens read", "positions kept", "streaming cache (MiB)", "ordinary cache (MiB)")
    return Table(columns, rows, caption, "memory")


# --- (d) --------------------------------------------------------------------------------------------------------


def single_sink(s: Stream) -> Comparison | None:
    """One sink against as many as are kept: None where that is no question."""
    if s.after.difference(s.kept).verdict != "lower" or 1 not in s.sinks or s.kept == 1:
        return None
    return compare_paired(s.after.by_sinks[s.kept], s.after.by_sinks[1])


def dense_growth(x: LongStream) -> Comparison:
    """With everything in view: of the stretches after the training length, the last quarter against the first."""
    losses = [loss for position, loss in x.dense if position > x.context]
    quarter = max(1, len(losses) // 4)
    return compare(losses[:quarter], losses[-quarter:])


def with_sinks(values: list[tuple[float, ...]]) -> Comparison:
    """Of all settings: those with sinks, at their mean, against none, which comes first; the last has all in view."""
    return compare_paired(values[0], [fmean(text) for text in zip(*values[1:-1], strict=True)])


def loss_table(s: Stream) -> Table:
    """Loss by bucket, and what sinks change."""
    rows: list[tuple[Cell, ...]] = []
    for name, x in [*((f"{b.first}–{b.last}", b) for b in s.buckets), ("all after eviction", s.after)]:
        rows += [loss_row(name, x, k) for k in s.sinks]
        if x.full is not None:
            rows.append((name, "full context", mean_of(x.full), 0.0, None, None, None, ""))
    columns = (
        "positions",
        "sinks",
        "loss (nats/token)",
        "above the full context",
        "against 0 sinks",
        "95 % from",
        "95 % to",
        "verdict",
    )
    scored = "every token" if s.scored_after == s.length - s.size - 1 else f"{s.scored} places"
    caption = (
        f"Loss by position and number of sinks. Means over {s.texts} texts of {s.length:,} tokens; {s.size} "
        f"positions kept, {scored} scored; intervals of paired differences over texts (Student), not corrected for "
        "their number."
    )
    return Table(columns, tuple(rows), caption, "loss_by_position")


def loss_row(name: str, x: Stretch, k: int) -> tuple[Cell, ...]:
    """One setting over one stretch."""
    c, loss = x.difference(k), mean_of(x.by_sinks[k])
    gap = None if x.full is None else loss - mean_of(x.full)
    known = (c.difference, *c.interval) if k and c.verdict != "one seed" else (None, None, None)
    return (name, str(k), loss, gap, *known, c.verdict if k else "baseline")


def loss_figure(s: Stream) -> Figure:
    """Loss over position."""
    caption = (
        f"Loss over position by number of sinks. Means over {s.curve_width} positions and {s.texts} texts ± standard "
        f"error; the cache is full after {s.size} tokens."
    )
    series = tuple(loss_curve(curve, s.texts) for curve in s.curves)
    return Figure("line", series, "position", "loss (nats/token)", caption)


def loss_curve(curve: Curve, texts: int) -> Series:
    """One setting, with its standard error."""
    means = [mean_std(losses) for losses in curve.losses]
    error = tuple(std / texts**0.5 for _, std in means)
    return Series(setting(curve.sinks), curve.positions, tuple(mean for mean, _ in means), error)


def long_figure(x: LongStream) -> Figure:
    """The paper's figure: loss over position far beyond the training length."""
    middles = tuple(start + x.width / 2 for start in x.starts)
    series = [Series(f"cache, {setting(k)}", middles, losses) for k, losses in x.by_sinks.items()]
    series.append(Series("window read again", middles, x.anew))
    positions, losses = zip(*x.dense, strict=True)
    series.append(Series("everything in view", positions, losses))
    caption = (
        f"Loss over position in a stream of {x.length:,} characters, read by {x.model}, which was trained on "
        f"{x.context}. Means over {x.width:,} characters each; everything in view as far as {round(positions[-1]):,}."
    )
    return Figure("line", tuple(series), "position", "loss (nats/character)", caption, x_log=True)


def long_table(x: LongStream) -> Table:
    """The same as means."""
    rows: list[tuple[Cell, ...]] = []
    for k, losses in x.by_sinks.items():
        change = compare_paired(x.by_sinks[0], losses)
        known = (change.difference, *change.interval) if k else (None, None, None)
        rows.append((f"cache, {setting(k)}", *mean_std(losses), *known, change.verdict if k else "baseline"))
    change = compare_paired(x.by_sinks[0], x.anew)
    rows.append(("window read again", *mean_std(x.anew), change.difference, *change.interval, change.verdict))
    columns = (
        "reader",
        "loss (nats/character)",
        "± std over buckets",
        "against 0 sinks",
        "95 % from",
        "95 % to",
        "verdict",
    )
    caption = (
        f"A stream of {x.length:,} characters in {len(x.starts)} buckets, {x.context} positions kept; intervals paired "
        f"over buckets (Student). The window is read again at {x.places:,} places."
    )
    return Table(columns, tuple(rows), caption, "long_stream")


def window_table(s: Stream) -> Table:
    """The window read again beside the other readers."""
    assert s.window is not None
    rows: list[tuple[Cell, ...]] = [("window read again, no sinks", s.size, mean_of(s.window.anew))]
    rows += [(f"cache, {setting(k)}", 1, mean_of(s.window.by_sinks[k])) for k in (0, s.kept)]
    if s.window.full is not None:
        rows.append(("full context", 1, mean_of(s.window.full)))
    caption = f"The same {s.window.places} places of {s.texts} texts. Cost: tokens read for each new one."
    return Table(("reader", "cost (tokens)", "loss (nats/token)"), tuple(rows), caption, "window")


def continuations(s: Stream) -> Table:
    """What each setting wrote, in numbers."""
    rows = tuple((setting(x.sinks), *mean_std(x.nll), *mean_std(x.repeated), x.distinct) for x in s.written)
    columns = ("kept", "NLL (nats/token)", "± std", "repeated 3-grams", "± std of these", "distinct 2-grams")
    caption = (
        f"Continuations of {plural(len(s.written[0].nll), 'text')}, {s.samples} of each, of {s.new} tokens; ± is over "
        "texts."
    )
    return Table(columns, rows, caption, "continuations")


def samples(s: Stream) -> tuple[Sample, ...]:
    """How the first text goes on: without sinks, with those of the paper, with everything in view."""
    shown = [x for x in s.written if x.sinks in (0, s.kept, None)]
    return tuple(Sample(f"{setting(x.sinks)}: first text", s.prompt, x.text, note(x)) for x in shown)


def note(x: Written) -> str:
    """Numbers of the first text."""
    return f"NLL {x.nll[0]:.2f} nats per token, repeated 3-grams {x.repeated[0]:.0%}"


# --- Checks -----------------------------------------------------------------------------------------------------


def exact_checks(f: Findings) -> list[Check]:
    """The cache on small models, and what was measured with the pretrained one."""
    x = f.exact
    sums = max(kind.sum_error for kind in f.kinds.values())
    checks = [
        Check.at_most("small model: keys moved by 1,000 positions against its own, relative", x.small_rotation, 1e-4),
        Check.at_most("small model: a cache that holds everything against one pass (nats)", x.small_roomy, 1e-4),
        Check.at_most(
            "one layer: streaming against reading the kept tokens from scratch (nats)", x.small_one_layer, 1e-4
        ),
        Check.equal(
            "bytes of the cache after every token, eviction or not",
            ", ".join(map(str, x.small_bytes)),
            str(x.small_expected_bytes),
        ),
        Check.at_most("attention received, sum over positions, distance from 1", sums, 1e-4),
        Check.at_most("share of the first four tokens by another function, max difference", x.share_difference, 1e-5),
        Check.at_most("the first token after a full cache: loss against one pass (nats)", x.full_cache, 2e-3),
    ]
    if f.long is not None:
        claim = "this project's model as a GPT-NeoX, against itself: logits, max difference"
        checks.append(Check.at_most(claim, f.long.export, 1e-3))
    if x.chunks is not None:
        claim = "many tokens of a stream at a time against one at a time (nats, max difference)"
        checks.append(Check.at_most(claim, x.chunks, 2e-3))
    if x.rotation is not None:
        claim = "keys moved by 1,000 positions against the model's own, relative"
        checks.append(Check.at_most(claim, x.rotation, 1e-3))
    return checks


def empirical_checks(f: Findings) -> list[Check]:
    """What the paper says."""
    s, k = f.stream, f.stream.kept
    checks = [
        at_least(f"{kind}: attention on the first token, times uniform", x.first().ratio, SEVERAL)
        for kind, x in f.kinds.items()
    ]
    least = min(x.first / x.middle for x in f.planted.tokens)
    checks.append(at_least("each token that was tried gets more attention first than in the middle (times)", least, 2))
    none, kept = s.after.by_sinks[0], s.after.by_sinks[k]
    c = compare_paired(kept, none)
    claim = f"loss without sinks above that with {k} (nats, lower end of the 95 % interval)"
    checks.append(at_least(claim, c.interval[0] if c.verdict != "one seed" else c.difference, 0))
    if s.after.full is not None and compare_paired(s.after.full, none).verdict == "higher":
        gap = mean_of(none) - mean_of(s.after.full)
        claim = f"share of the gap between no sinks and the full context that {k} sinks close"
        checks.append(at_least(claim, (mean_of(none) - mean_of(kept)) / gap, 0.5))
    if f.long is not None and len(f.long.starts) > 1:
        claim = (
            f"a stream of {f.long.length:,} characters: with sinks, the loss does not rise with position beyond noise "
            "(nats, second half minus first, lower end)"
        )
        checks.append(Check.at_most(claim, f.long.drift.interval[0], 0.0, "empirical"))
    if s.window is not None:
        excess = mean_of(s.window.by_sinks[k]) - s.window.anew_mean
        claim = f"loss with {k} sinks in the cache above that of the window read again (nats)"
        checks.append(Check.at_most(claim, excess, 0.1, "empirical"))
    return checks


def at_least(claim: str, value: float, bound: float) -> Check:
    """An expectation."""
    return Check.at_least(claim, value, bound, "empirical")
