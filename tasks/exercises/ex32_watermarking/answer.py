"""Tables, figures, samples and checks of 21.32; the text is in answer.md."""

import itertools
import math
from statistics import NormalDist

from minigpt.cost.published import GPT2_VOCABULARY
from minigpt.evaluation.statistics import Comparison, binomial_interval, compare_paired
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Series, Table, TokenScores
from reports.words import shown_token
from tasks.comparison import least
from tasks.exercises.ex32_watermarking.findings import (
    EDGES,
    RATE,
    USUAL,
    Findings,
    Score,
    Width,
    allowed,
    uniform_share,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    deltas = tuple(m.delta for m in f.marked)
    return Draft(
        blocks={
            "lists": lists(f),
            "code": listing(f.listing, "minigpt/decoding/watermark.py"),
            "bias": bias(f),
            "samples": samples(f),
            "running": running(f),
            "scores": scores(f),
            "detection": detection(f),
            "widths": widths(f),
            "detected by bias": Figure(
                "line",
                by_length(f, deltas),
                "δ",
                "detected",
                f"Detection at a false-positive rate of {RATE:g}, by length.",
            ),
            "detected by cost": Figure(
                "line",
                by_length(f, costs(f)),
                "cost (nats/character)",
                "detected",
                "The trade-off: what detection costs in likelihood.",
            ),
            "trade-off": trade_off(f),
        },
        checks=checks(f),
        values={
            "rate": RATE,
            "rise": rise(f),
            "found_often": found_often(f),
            "gpt2_tokens": GPT2_VOCABULARY,
            "usual_delta": USUAL,
            "undecided": uniform_share(f.fraction, USUAL),
            "rivals": rivals(f),
            "lucky": lucky(f),
            "steadiest": min(f.honest or f.widths, key=lambda w: w.drift),
            "unmarked": unmarked(f),
            "independent_drift": 1 / math.sqrt(f.width_texts),
        },
    )


def lists(f: Findings) -> Table:
    """Green lists at a few places."""
    rows = tuple(
        (
            shown_token(one.context),
            shown_token(one.green),
            shown_token(one.following),
            "green" if one.is_green else "red",
        )
        for one in f.lists
    )
    columns = ("previous characters", "green list", "next character", "which is")
    return Table(columns, rows, "Green lists along a piece of human text.", "lists")


def bias(f: Findings) -> Table:
    """Green characters that a bias makes, and those that it would make of a model without opinions."""
    rows = tuple((m.delta, uniform_share(f.fraction, m.delta), m.green_share) for m in f.marked)
    caption = (
        "Share of green characters: closed form for a model without opinions, and what the model really wrote (of the "
        "distinct n-grams that the detector scores)."
    )
    return Table(("δ", "P(green), uniform model", "green share of the texts"), rows, caption, "bias")


def samples(f: Findings) -> tuple[TokenScores, ...]:
    """One text of every δ, token by token."""
    return tuple(
        TokenScores(
            (m.prompt, *m.tokens),
            (None, *(None if green is None else float(green) for green in m.green)),
            "list",
            f"δ = {m.delta:g}: {m.text_green} of {m.text_scored} n-grams green, z = {m.text_z:.1f}.",
            ("red", "green"),
            (None, *m.running_z),
            "z so far",
        )
        for m in f.marked
    )


def running(f: Findings) -> Figure:
    """z over the same texts."""
    series = tuple(
        Series(f"δ = {m.delta:g}", tuple(float(i + 1) for i, _ in known), tuple(z for _, z in known))
        for m in f.marked
        if (known := [(i, z) for i, z in enumerate(m.running_z) if z is not None])
    )
    bound = NormalDist().inv_cdf(1 - RATE)
    caption = (
        "The score while the texts are read. The line is where, by the normal approximation, one unmarked text in a "
        "hundred would be called marked."
    )
    return Figure("line", series, "characters read", "z", caption, hlines=((bound, f"{RATE:.0%} false positives"),))


def rivals(f: Findings) -> list[int]:
    """Honest widths whose mark may survive an edit as well as that of the best: shares of the same number of texts.

    Agresti & Caffo's interval (2000), with one success and one failure added to each side, so that shares of 0 and 1
    have an error, too; corrected after Bonferroni for the number of widths. Texts count as independent.
    """
    others = [width for width in f.honest if width is not f.best]
    texts = len(f.plain.nll) + 2
    quantile = NormalDist().inv_cdf(1 - 0.025 / max(1, len(others)))

    def shrunk(width: Width) -> float:
        return (width.detected_edited * (texts - 2) + 1) / texts

    def apart(a: float, b: float) -> bool:
        return a - b > quantile * math.sqrt((a * (1 - a) + b * (1 - b)) / texts)

    return [width.width for width in others if not apart(shrunk(f.best), shrunk(width))]


def lucky(f: Findings) -> list[int]:
    """Widths that are not honest although they depend on the key no more than the best of those that are."""
    return [w.width for w in f.widths if f.honest and w not in f.honest and w.drift <= f.best.drift]


def unmarked(f: Findings) -> dict[str, Score]:
    """The populations in which the detector should find nothing."""
    return {
        "human text, right key": f.human,
        "human text, wrong key": f.human_wrong,
        "unmarked model text, right key": f.plain.right,
        "unmarked model text, wrong key": f.plain.wrong,
        f"marked (δ = {f.usual.delta:g}), wrong key": f.usual.wrong,
    }


def populations(f: Findings) -> dict[str, Score]:
    """All of them."""
    return {**unmarked(f), f"marked (δ = {f.usual.delta:g}), right key": f.usual.right}


def scores(f: Findings) -> Figure:
    """Distributions of z, one with the mark and three without."""
    found = populations(f)
    names = list(found)
    return Figure(
        "step",
        tuple(Series(name, EDGES[:-1], found[name].histogram) for name in (*names[::2], names[-1])),
        "z",
        "share of the texts",
        "The detector's score, in bins of 0.5.",
    )


def detection(f: Findings) -> Table:
    """The detector, where there is nothing to detect and where there is."""
    rows = tuple(
        (name, found.texts, found.scored, *found.z, found.flagged, found.flagged_loosely)
        for name, found in populations(f).items()
    )
    columns = ("texts", "number", "scored n-grams", "mean z", "std of z", "flagged at 1 %", "flagged at 5 %")
    caption = (
        f"Texts of {f.length} characters. Human text is cut from the corpus; with no mark in it, no key is the right "
        "one, and both must behave alike, up to the luck of a key."
    )
    return Table(columns, rows, caption, "detection")


def widths(f: Findings) -> Table:
    """False positives over keys, and detection before and after an edit."""
    rows = tuple(
        (
            one.width,
            f.vocab_size**one.width,
            one.scored,
            sum(one.flagged) / len(one.flagged),
            one.worst,
            one.drift,
            one.detected,
            one.detected_edited,
        )
        for one in f.widths
    )
    columns = (
        "k",
        "possible contexts",
        "scored n-grams",
        "flagged at 1 %, mean of keys",
        "worst key",
        "std of mean z over keys",
        f"detected, δ = {USUAL:g}",
        "… a tenth of the characters changed",
    )
    caption = f"Human text under {f.keys} keys, and marked text before and after random substitutions."
    return Table(columns, rows, caption, "widths")


def costs(f: Findings) -> tuple[float, ...]:
    """What every δ costs, nats per character."""
    return tuple(m.cost(f.plain) for m in f.marked)


def by_length(f: Findings, x: tuple[float, ...]) -> tuple[Series, ...]:
    """Detection against a number for every δ, one line per length."""
    return tuple(
        Series(f"{length} characters", x, tuple(m.rates[i] for m in f.marked)) for i, length in enumerate(f.lengths)
    )


def trade_off(f: Findings) -> Table:
    """Likelihood, words and detection at every δ."""
    rows: list[tuple[Cell, ...]] = []
    for m in f.marked:
        error = None if m is f.plain else m.cost_error(f.plain)
        spread = f.metrics[f"nll_nats_delta_{m.delta:g}_std"]
        rows.append(
            (
                m.delta,
                m.mean_nll,
                spread,
                m.cost(f.plain),
                error,
                m.perplexity_ratio(f.plain),
                m.known,
                m.right.mean_z,
                *m.rates,
            )
        )
    columns = (
        "δ",
        "NLL (nats/character)",
        "± std over texts",
        "cost (nats)",
        "± standard error",
        "perplexity ×",
        *("known words", "mean z", *(f"detected, {length} characters" for length in f.lengths)),
    )
    caption = (
        f"{len(f.plain.nll)} texts per δ. NLL under the unmarked model, which wrote them; the cost with its standard "
        f"error, texts paired by prompt; detection at a false-positive rate of {RATE:g}."
    )
    return Table(columns, tuple(rows), caption, "trade_off")


def found_often(f: Findings) -> bool:
    """Whether more texts with the usual mark are flagged than the 95 % quantile interval of a rate of 0.95 holds."""
    texts = len(f.usual.nll)
    return f.usual.right.flagged * texts > binomial_interval(texts, 0.95)[1] + 1e-9


def rise(f: Findings) -> Comparison:
    """What the texts cost with each δ against the next larger one, paired by prompt: the least rise."""
    return least([compare_paired(one.nll, other.nll) for one, other in itertools.pairwise(f.marked)])


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    return (
        Check.equal("biased logits = those of Transformers' WatermarkLogitsProcessor", f.biased_as_transformers, True),
        Check.equal(
            "scored and green n-grams = those of Transformers' WatermarkDetector", f.counted_as_transformers, True
        ),
        Check.at_most("z-scores against the same, max difference", f.z_error, 1e-5),
        Check.equal("δ = 0 changes nothing", f.zero_changes_nothing, True),
        Check.at_most("P(green) of a uniform model against γe^δ / (γe^δ + 1 - γ)", f.uniform_error, 1e-5),
        Check.at_most("p-values against scipy's binomial tail, max difference", f.p_error, 1e-9),
        Check.at_most(
            f"{f.random_texts:,} texts of random tokens flagged at 1 %", f.random_flagged, allowed(f.random_texts)
        ),
        *(
            Check.at_most(
                f"{name}: {found.texts:,} texts flagged at 1 %", found.flagged, allowed(found.texts), "empirical"
            )
            for name, found in unmarked(f).items()
        ),
        Check(
            f"marked with δ = {f.usual.delta:g} flagged at 1 %",
            "empirical",
            f.usual.right.flagged,
            "> 0.95 beyond the noise",
            found_often(f),
        ),
        Check.beyond_noise("every larger δ costs these texts more on average (least rise, nats)", rise(f), "higher"),
    )
