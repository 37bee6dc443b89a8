"""The sampler's listing, tables, figures and checks of 21.13; the text is in answer.md."""

import math

import numpy as np

from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Series, Table
from tasks.exercises.ex13_temperature_sampling.findings import LOGITS, TINY, TOKENS, TOP_K, Findings, Setting


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    likely = np.argsort(-np.asarray(f.real[1].probabilities))[:15].tolist()
    everything = list(range(len(TOKENS)))
    return Draft(
        blocks={
            "sampler": listing(
                f.source,
                "tasks/exercises/ex13_temperature_sampling/sampler.py",
                "The sampler. A vector of logits gives one index, a batch gives one each.",
            ),
            "histogram": histogram(
                f.toy, TOKENS, everything, f"{f.samples:,} samples at each temperature, eight tokens with fixed logits."
            ),
            "counts": counts(f),
            "top-k": histogram(f.with_top_k, TOKENS, everything, f"The same with top-k, k = {TOP_K}."),
            "real": histogram(
                f.real,
                f.characters,
                likely,
                f"A trained model's next character after “…{f.prompt}”, the 15 likeliest, {f.samples:,} samples.",
            ),
            "tests": tests(f),
            "cooling": cooling(f),
        },
        checks=checks(f),
        values={
            "tokens": len(TOKENS),
            "largest_entropy": math.log(len(TOKENS)),
            "k": TOP_K,
            "naive": ["NaN" if math.isnan(value) else f"{value:g}" for value in f.naive],
            "tiny_exponent": round(math.log10(TINY)),
        },
    )


def histogram(settings: tuple[Setting, ...], names: tuple[str, ...], places: list[int], caption: str) -> Figure:
    """Counts by token, one set of bars per setting."""
    series = tuple(
        Series(setting.name, tuple(names[i] for i in places), tuple(float(setting.counts[i]) for i in places))
        for setting in settings
    )
    return Figure("bar", series, "token", "samples", caption)


def counts(f: Findings) -> Table:
    """Counts beside their expectation."""
    rows = tuple(
        (
            token,
            LOGITS[i],
            *(number for setting in f.toy for number in (setting.counts[i], setting.probabilities[i] * f.samples)),
        )
        for i, token in enumerate(TOKENS)
    )
    columns = ("token", "logit", *(column for s in f.toy for column in (s.name, f"expected, {s.name}")))
    return Table(columns, rows, f"{f.samples:,} samples at each temperature, and what is expected.", "counts")


def tests(f: Findings) -> Table:
    """Spread and goodness of fit."""
    rows: list[tuple[Cell, ...]] = []
    for what, settings in (("8 tokens", f.toy + f.with_top_k), ("the model's next character", f.real)):
        for s in settings:
            p_value = s.p_value if s.freedom else None
            rows.append((what, s.name, s.entropy, s.distinct, s.largest_share, s.freedom, p_value))
    columns = (
        "logits",
        "setting",
        "entropy, nats",
        "distinct tokens sampled",
        "share of the commonest",
        "degrees of freedom",
        "p-value",
    )
    caption = f"Entropy is exact, samples are {f.samples:,}, the chi-square test is on {f.draws:,} further draws."
    return Table(columns, tuple(rows), caption, "tests")


def cooling(f: Findings) -> Table:
    """Towards temperature zero."""
    caption = f"Samples that are the argmax, over {f.vectors:,} random vectors of 50 logits."
    rows = tuple((f"{one.temperature:g}", one.share) for one in f.cold)
    return Table(("τ", "share that is the argmax"), rows, caption, "cooling")


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    outside = sum(
        count
        for setting in f.settings
        for count, p in zip(setting.counts, setting.probabilities, strict=True)
        if p == 0
    )
    agrees = [
        Check.at_least(
            f"chi-square of {f.draws:,} draws against the exact softmax, {setting.name} "
            f"({'8 tokens' if len(setting.counts) == len(TOKENS) else 'the model'}): p-value",
            setting.p_value,
            1e-5,
        )
        for setting in f.settings
        if setting.freedom
    ]
    return (
        *agrees,
        Check.equal("samples of tokens that top-k or τ = 0 excludes", outside, 0),
        Check.equal("τ = 0: samples that are the argmax", f.toy[0].counts[0], f.samples),
        Check.equal(f"τ = 0 on {f.vectors:,} random vectors: share that is the argmax", f.cooled(0.0), 1.0),
        Check.equal(f"τ = {TINY:g} on the same: share that is the argmax", f.cooled(TINY), 1.0),
        Check.at_most(
            f"probabilities against Transformers' warpers on {f.vectors:,} random vectors, grid of τ and k, max "
            "difference",
            f.warper_difference,
            1e-12,
        ),
        Check.equal("dividing by τ = 0 gives NaN", any(map(math.isnan, f.naive)), True),
        Check.close("τ → 0 draws each of two tied tokens half the time", f.tied[0], 0.5, 4 * 0.5 / math.sqrt(f.draws)),
    )
