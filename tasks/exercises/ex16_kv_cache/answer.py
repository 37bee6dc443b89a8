"""Tables, figures, listings and checks of 21.16; the text is in answer.md."""

from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Check, Figure, Sample, Series, Table
from reports.words import plural
from tasks.exercises.ex16_kv_cache.findings import KIB, Findings, Run


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "timings": timings(f),
            "speed-up": speedup(f),
            "per token": per_token(f),
            "update": listing(
                f.sources["KVCache.update"], "minigpt/cache.py", "KVCache.update: the whole of the mechanism."
            ),
            "loop": listing(
                f.sources["generate_cached"],
                "tasks/exercises/ex16_kv_cache/loops.py",
                "The loop: the prompt in one pass, then one token at a time.",
            ),
            "sample": sample(f),
            "traps": traps(f),
        },
        checks=checks(f),
        values={"kib": f.runs[-1].cache_bytes / KIB, "furthest": furthest(f)},
    )


def furthest(f: Findings) -> Run | None:
    """The length at which the cost model is furthest off, if that is not the longest."""
    worst = max(f.runs, key=lambda run: abs(run.predicted / run.speedup - 1))
    return worst if worst is not f.runs[-1] else None


def timings(f: Findings) -> Table:
    """All lengths."""
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
        "quartile range without, s",
        "with cache, s",
        "quartile range with, s",
        "speed-up",
        "predicted by cost model",
        "FLOP ratio",
        "cache, KiB",
    )
    caption = (
        f"Median of {plural(f.repeats, 'run')} from a prompt of {f.prompt_tokens} tokens; {f.n_layer} layers, "
        f"width {f.d_model}, V = {f.vocab_size}."
    )
    return Table(columns, rows, caption, "timings")


def speedup(f: Findings) -> Figure:
    """Measured and predicted."""
    x = tuple(float(run.n_new) for run in f.runs)
    series = (
        Series("measured", x, tuple(run.speedup for run in f.runs), tuple(run.spread for run in f.runs)),
        Series("predicted by cost model", x, tuple(run.predicted for run in f.runs), predicts="measured"),
    )
    caption = "Time without cache over time with cache."
    return Figure("line", series, "new tokens", "speed-up by the cache", caption)


def per_token(f: Findings) -> Figure:
    """The longest generation, step by step."""
    steps = {"without cache": f.runs[-1].uncached_steps, "with cache": f.runs[-1].cached_steps}
    series = tuple(Series(name, found.tokens, found.milliseconds) for name, found in steps.items())
    caption = "Time of each new token (medians of groups)."
    return Figure("line", series, "tokens so far", "ms per new token", caption)


def sample(f: Findings) -> Sample:
    """The longest text."""
    longest = f.runs[-1]
    without = "without cache the same" if longest.same_tokens else "without cache another text"
    return Sample("Greedy, with cache", f.prompt, f.text, f"{longest.n_new} characters; {without}.")


def traps(f: Findings) -> Table:
    """Two mistakes."""
    longest = f.runs[-1]
    rows = (
        (
            "positions restart at 0 in cached steps (difference in the first of them)",
            f.restart_difference,
            f"only the first {f.restart_agrees} of {longest.n_new} tokens are right"
            if f.restart_agrees < longest.n_new
            else f"other logits; the greedy tokens are the same, all {longest.n_new}",
        ),
        (
            "is_causal=True with one query and 8 keys",
            f.top_left[0],
            "the output is the first value" + (f", to {f.top_left[1]:.1g}" if f.top_left[1] else ", exactly"),
        ),
    )
    columns = ("mistake", "largest difference", "what it does")
    return Table(columns, rows, "Two usual mistakes, made on purpose.", "traps")


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
    (read, step), counted = f.flops.closed_form, f.flops.counted
    return (
        *exact,
        Check.at_most(f"the same over {T} characters of real text, read one by one and at once", difference, 1e-3),
        Check.equal(f"sampling at temperature 1 writes the same {first.n_new} tokens", f.samples_agree, True),
        Check.equal("the loop agrees with minigpt.decoding.sampling.generate", f.library_agrees, True),
        Check.equal(f"FLOPs of a pass over {T - 1} tokens, counted by torch", counted[0], read),
        Check.equal("FLOPs of one more after them, counted by torch", counted[1], step),
        Check.equal(f"bytes of the cache after {last.n_new} tokens: 2·L·G·D·T·4", last.cache_bytes, f.cache_bytes),
        Check.at_least(
            "positions that restart at 0 change the logits at once, by", f.restart_difference, 1e-3, "empirical"
        ),
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
