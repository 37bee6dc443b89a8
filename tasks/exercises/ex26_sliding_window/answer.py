"""Tables, figures and checks of 21.26; the text is in answer.md."""

import math
from collections.abc import Sequence

from minigpt.evaluation.statistics import mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Heatmap, Mask, Series, Table
from tasks.comparison import curves, sentences, table, untrained
from tasks.exercises.ex26_sliding_window.findings import (
    BLOCKS,
    DENSE,
    HEADS,
    NARROW,
    WIDTH,
    Cost,
    Findings,
    pairs,
    position_buckets,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "mask": listing(f.masks.source, "minigpt/masks.py"),
            "causal mask": picture(f.masks.causal, "The causal mask of 12 tokens."),
            "window mask": picture(f.masks.window, "The same with a window of 4: a band."),
            "set": Mask(
                len(f.masks.window),
                ("length", "window"),
                window=max(map(sum, f.masks.window)),
                caption="The window to set: who sees whom.",
            ),
            "time": time_figure(f),
            "counted": counted(f),
            "timed": timed(f),
            "blocks": listing(f.source, "minigpt/window.py"),
            "memory": memory(f),
            "loss by window": by_window(f),
            "trained": table(f.rows, name="trained", caption="The rotary study model with one window in all layers."),
            "curves": curves(f.rows, caption="Validation loss in training, by window."),
            "by position": by_position(f),
            "reach": reach(f),
            "gradients": gradients(f),
            "fading": fading(f),
        },
        checks=checks(f),
        values={
            "compared": sentences(f.rows),
            "untrained": untrained(f.rows),
            "unused": any(f.beyond(one.window) <= 0 for one in f.configs.values() if one.window),
            "of_text": of_text(f),
            "narrow": NARROW,
            "slower": [cost.length for cost in f.costs if slower(cost)],
            "blocks": f.last.timings[BLOCKS],
            "dense": f.last.timings[DENSE],
        },
    )


def slower(cost: Cost) -> bool:
    """Whether the blocks take longer than the dense product, beyond the quartiles of both."""
    return cost.timings[DENSE].high < cost.timings[BLOCKS].low


def of_text(f: Findings) -> float | None:
    """How far the narrow model's loss scatters between buckets in which it always sees the same number of tokens.

    What differs there is the text: its largest less its smallest loss, mean over seeds. None of fewer than two buckets.
    """
    full = [i for i, (first, _) in enumerate(position_buckets(f.context)) if first > f.expected_reach]
    means = [mean_std([seed[i] for seed in f.by_position[NARROW]])[0] for i in full]
    return max(means) - min(means) if len(means) > 1 else None


def picture(mask: Sequence[Sequence[bool]], caption: str) -> Heatmap:
    """A boolean mask as a heatmap: 1 where a query attends."""
    values = tuple(tuple(1.0 if seen else None for seen in row) for row in mask)
    names = tuple(map(str, range(len(mask))))
    return Heatmap(values, "key", "query", caption, names, names)


def shape(f: Findings) -> str:
    """The attention that is counted and timed."""
    return f"W = {f.timed_window}, {HEADS} heads of width {WIDTH}, batch 1"


def counted(f: Findings) -> Table:
    """Pairs and FLOPs."""
    rows: list[tuple[Cell, ...]] = []
    for cost in f.costs:
        full, kept = pairs(cost.length, cost.length), pairs(cost.length, f.timed_window)
        rows.append((cost.length, full, kept, kept / full, *(flops / 1e6 for flops in cost.flops.values())))
    names = (f"MFLOPs: {name}" for name in f.costs[0].flops)
    columns = ("tokens T", "pairs, causal", "pairs, window", "share kept", *names)
    caption = f"{shape(f)}. One multiply-add is 2 FLOPs, counted by torch on the unfused products."
    return Table(columns, tuple(rows), caption, "counted")


def timed(f: Findings) -> Table:
    """Milliseconds."""
    rows = tuple((cost.length, *(time.median * 1000 for time in cost.timings.values())) for cost in f.costs)
    return Table(("tokens T", *f.costs[0].flops), rows, f"Milliseconds, median. {shape(f)}.", "timed")


def time_figure(f: Findings) -> Figure:
    """Milliseconds against length."""
    x = tuple(float(cost.length) for cost in f.costs)
    series = tuple(
        Series(
            name,
            x,
            tuple(cost.timings[name].median * 1000 for cost in f.costs),
            tuple((cost.timings[name].high - cost.timings[name].low) * 500 for cost in f.costs),
        )
        for name in f.costs[0].timings
    )
    caption = "Measured time of one attention layer, median; the bar is half the distance of the quartiles."
    return Figure("line", series, "tokens T", "milliseconds", caption, x_log=True, y_log=True)


def memory(f: Findings) -> Table:
    """Bytes of the two caches, measured on real ones, and the scores of a layer."""
    window = f.narrow.window or 1
    rows = tuple(
        (
            cost.length,
            cost.cache,
            f.rolling_cache,
            cost.cache / f.rolling_cache,
            HEADS * cost.length**2,
            HEADS * 2 * window * cost.length,
        )
        for cost in f.costs
    )
    columns = (
        "tokens T",
        "cache, all keys (bytes)",
        "cache, rolling (bytes)",
        "ratio",
        "scores, dense (numbers)",
        "scores, blocks (numbers)",
    )
    caption = f"Key/value caches of the trained model in fp32, W = {window}, and the scores one layer holds if unfused."
    return Table(columns, rows, caption, "memory")


def by_window(f: Findings) -> Figure:
    """Loss against window."""
    windows = {row.label: f.configs[row.label].window or f.context for row in f.rows}
    rows = sorted(f.rows, key=lambda row: windows[row.label])
    means, spreads = zip(*(mean_std(row.losses) for row in rows), strict=True)
    error = spreads if len(f.rows[0].losses) > 1 else ()
    return Figure(
        "line",
        (Series("after the last step", tuple(float(windows[row.label]) for row in rows), means, error),),
        f"window W ({f.context}: full attention)",
        "validation loss (nats/token)",
        "Validation loss by window, mean ± standard deviation over seeds.",
        x_log=True,
    )


def by_position(f: Findings) -> Figure:
    """Loss by position in the window that is read."""
    ends = tuple(float(end) for _, end in position_buckets(f.context))
    series = []
    for label, seeds in f.by_position.items():
        means, spreads = zip(*map(mean_std, zip(*seeds, strict=True)), strict=True)
        series.append(Series(label, ends, means, spreads if len(seeds) > 1 else ()))
    return Figure(
        "line",
        tuple(series),
        "position in the text that is read (end of the bucket)",
        "loss (nats/token)",
        "What more context is worth to whom: validation loss by position, mean ± standard deviation over seeds.",
        x_log=True,
    )


def reach(f: Findings) -> Table:
    """Reach of random models."""
    rows = tuple((one.layers, one.window, one.expected, one.found) for one in f.reaches)
    caption = f"How far back an output depends on an input: by gradient, in random models, on {f.reach_tokens} tokens."
    return Table(("layers L", "window W", "L(W − 1)", "measured"), rows, caption, "reach")


def gradients(f: Findings) -> Heatmap:
    """Gradient sizes in the narrow model."""
    values = tuple(tuple(math.log10(x) if x else None for x in line) for line in f.influence.sizes)
    caption = (
        f"Gradient sizes (log₁₀) in the trained model with window {f.narrow.window} and {f.narrow.n_layer} layers "
        f"(first 32 positions); empty (in a terminal, dotted) is exactly 0. Its reach is {f.influence.reach}."
    )
    return Heatmap(values, "input position", "output position", caption)


def fading(f: Findings) -> Figure:
    """Influence of inputs by distance in the trained models, mean over outputs."""
    series = []
    for label, means in f.influence.by_distance.items():
        shown = [(float(distance), mean) for distance, mean in enumerate(means) if mean > 0]
        series.append(Series(label, tuple(x for x, _ in shown), tuple(y for _, y in shown)))
    caption = (
        "Mean gradient of an output with respect to the input at a distance, in the trained models; zeros not drawn."
    )
    return Figure("line", tuple(series), "distance back (tokens)", "‖∂ output / ∂ input‖", caption, y_log=True)


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    return (
        Check.equal("masks whose entries are as many as the closed form says", f.masks.agreeing, f.masks.counted),
        Check.equal("a window as long as the text is the causal mask", f.masks.whole_is_causal, True),
        Check.at_most(
            "a Mistral with our attention in place of its own, W = 8 (max difference)", f.masks.mistral, 1e-5
        ),
        Check.at_least("… and it would notice a window of 7", f.masks.mistral_shorter, 1e-3),
        Check.at_most(
            "attention in blocks = attention under the dense mask (max difference)",
            max(cost.difference for cost in f.costs),
            1e-5,
        ),
        Check.equal("counted FLOPs are 4·H·D·T² dense and 4·H·D·2W·T in blocks", f.flops_by_hand, True),
        Check.equal("cache sizes that differ from the closed form", f.wrong_caches, 0),
        Check.at_most(
            f"decoding {f.rolling_tokens} tokens with the rolling cache = reading them at once (max difference)",
            f.rolling_difference,
            1e-3,
        ),
        Check.at_least(
            f"blocks are faster than the dense masked product at {f.last.length} tokens", f.speedup, 1.0, "empirical"
        ),
        Check.equal(
            "random models whose reach differs from L(W − 1)", sum(one.found != one.expected for one in f.reaches), 0
        ),
        Check.equal(
            f"reach of the trained model with {NARROW} and {f.narrow.n_layer} layers",
            f.influence.reach,
            f.expected_reach,
        ),
    )
