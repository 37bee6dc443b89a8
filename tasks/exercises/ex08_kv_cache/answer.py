"""Tables, figures and checks of 21.8; the text is in answer.md."""

from collections.abc import Iterable
from itertools import accumulate

from reports.answers import Draft
from reports.types import Check, Figure, Series, Table
from tasks.exercises.ex08_kv_cache.findings import (
    BATCH,
    CONFIG,
    MIB,
    NEW,
    PRECISIONS,
    PROMPT,
    Findings,
    cache_bytes,
    pair_flops,
    pairs_in_closed_form,
    projection_flops,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={"memory": memory(), "batch": batches(), "flops": flops(f), "growth": growth()},
        checks=(*memory_checks(f), *flop_checks(f)),
        values={
            "m": f.metrics,
            "config": CONFIG,
            "batch": BATCH,
            "prompt": PROMPT,
            "new": NEW,
            "batch_fp32": cache_bytes(BATCH, CONFIG.context, 4) / MIB,
            "batch_fp16": cache_bytes(BATCH, CONFIG.context, 2) / MIB,
            "weights_mib": f.weights * 2 / MIB,
            "outgrown": int(f.weights * 2 / cache_bytes(1, CONFIG.context, 2)) + 1,
        },
    )


def memory() -> Table:
    """One sequence."""
    rows = []
    for name, size in PRECISIONS.items():
        token, total = cache_bytes(1, 1, size), cache_bytes(1, CONFIG.context, size)
        rows.append((name, token // CONFIG.n_layer, token, total, total / MIB))
    return Table(
        columns=("precision", "bytes per token and layer", "bytes per token", f"bytes, {CONFIG.context} tokens", "MiB"),
        rows=tuple(rows),
        caption="Key/value cache of one sequence",
        name="memory",
    )


def batches() -> Table:
    """Several sequences."""
    sizes = (1, 2, 4, BATCH, 16, 32)
    return Table(
        columns=("sequences", "float32 (MiB)", "float16 (MiB)"),
        rows=tuple(
            (batch, *(cache_bytes(batch, CONFIG.context, size) / MIB for size in PRECISIONS.values()))
            for batch in sizes
        ),
        caption=f"Key/value cache for {CONFIG.context} tokens each",
        name="batch",
    )


def flops(f: Findings) -> Table:
    """Of the whole generation."""
    named = {
        "scores and values, full matrix": f.attention,
        "scores and values, causal half only": f.causal_half,
        "projections to q, k, v and output": f.projections,
        "full matrix and projections": f.both,
    }
    return Table(
        columns=("FLOPs of", "without cache", "with cache", "ratio"),
        rows=tuple((name, costs.without, costs.cached, costs.ratio) for name, costs in named.items()),
        caption=f"{NEW} tokens generated after a prompt of {PROMPT}, batch 1, {CONFIG.n_layer} layers",
        name="flops",
    )


def growth() -> Figure:
    """FLOPs spent up to each new token."""
    steps = range(NEW)
    without = accumulate(pair_flops((PROMPT + i) ** 2) for i in steps)
    cached = accumulate(pair_flops((PROMPT if i == 0 else 1) * (PROMPT + i)) for i in steps)
    thinned = slice(7, None, 8)  # with the last one
    x = tuple(float(i + 1) for i in steps)[thinned]
    return Figure(
        kind="line",
        series=(
            Series("without cache", x, tuple(map(float, without))[thinned]),
            Series("with cache", x, tuple(map(float, cached))[thinned]),
        ),
        x_label="new tokens",
        y_label="attention FLOPs so far",
        y_log=True,
        caption="Scores and weighted values, accumulated over the generation",
    )


def memory_checks(f: Findings) -> list[Check]:
    """The formula against buffers that were really allocated."""
    return [
        Check.equal(
            f"bytes of a {one.precision} cache for {one.batch} × {CONFIG.context} tokens equal the formula",
            one.nbytes,
            cache_bytes(one.batch, CONFIG.context, PRECISIONS[one.precision]),
        )
        for one in f.buffers
    ]


def flop_checks(f: Findings) -> list[Check]:
    """Closed forms against a loop, and against what torch counts in real forward passes of one attention layer."""
    counts, last = f.counts, PROMPT + NEW - 1
    lengths = counts.lengths
    passes = f"{len(lengths)} of the {NEW} passes, one layer"
    return [
        *(
            Check.equal(
                f"query-key pairs {name}: the closed form equals a loop over steps", pairs, f.looped_pairs[name]
            )
            for name, pairs in pairs_in_closed_form().items()
        ),
        Check.equal(
            f"without cache, {passes}: counted FLOPs",
            counts.products_without_cache,
            per_layer(n * n for n in lengths),
        ),
        Check.equal(
            f"projections, {passes}: counted FLOPs",
            counts.projections_without_cache,
            projection_flops(sum(lengths)) // CONFIG.n_layer,
        ),
        Check.equal(
            f"with cache, {passes}: counted FLOPs",
            counts.products_with_cache,
            per_layer([PROMPT**2, *lengths[1:]]),
        ),
        Check.equal(
            "the last pass of one layer computed on the CPU, both ways: counted FLOPs",
            counts.products_of_last_pass,
            per_layer((last**2, last)),
        ),
    ]


def per_layer(pairs: Iterable[int]) -> int:
    """FLOPs of these query-key pairs in one layer."""
    return pair_flops(sum(pairs)) // CONFIG.n_layer
