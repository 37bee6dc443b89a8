"""Tables, figures and checks of 21.7; the text is in answer.md."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate

from reports.answers import Draft
from reports.types import Check, Distribution, Figure, Series, Setting, Table
from tasks.exercises.ex07_top_k_top_p.findings import (
    BOUNDARY,
    GIVEN,
    LENGTH,
    PEAKED,
    PEAKED_K,
    SIZE,
    UNLIKELY,
    UNLIKELY_KEPT,
    Findings,
    K,
    P,
    Truncation,
    nucleus_size,
    renormalised,
    unlikely_mass,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    unlikely = float(unlikely_mass())
    return Draft(
        blocks={
            "top-k": truncated(K, "top_k", f"Top-k sampling with k = {K}"),
            "nucleus": truncated(SIZE, "top_p", f"Nucleus sampling with p = {float(P):g}"),
            "rounding": rounding(f),
            "comparison": comparison(f),
            "distributions": distributions(),
            "peaked": peaked(f),
            "turn": turn(GIVEN, K, "The same distribution with any k and any p."),
            "turn peaked": turn(PEAKED, PEAKED_K, "The peaked distribution with any k and any p."),
        },
        checks=checks(f),
        values={
            "k": K,
            "p": f"{float(P):g}",
            "size": SIZE,
            "boundary": f"{float(BOUNDARY):g}",
            "boundary_size": nucleus_size(GIVEN, BOUNDARY),
            "below": f"{float(P - BOUNDARY):g}",
            "above": f"{float(sum(GIVEN[:SIZE]) - P):g}",
            "top_k_renormalised": [float(p) for p in renormalised(GIVEN, K)[:K]],
            "nucleus_renormalised": [float(p) for p in renormalised(GIVEN, SIZE)[:SIZE]],
            "top_k_edge": edge(f.top_k),
            "nucleus_edge": edge(f.nucleus),
            "peaked_k": PEAKED_K,
            "peaked_size": nucleus_size(PEAKED, P),
            "unlikely": f"{float(UNLIKELY):g}",
            "unlikely_kept": UNLIKELY_KEPT,
            "unlikely_mass": unlikely,
            "unlikely_mass_before": float(sum(p for p in PEAKED if p < UNLIKELY)),
            "length": LENGTH,
            "at_least_one": 1 - (1 - unlikely) ** LENGTH,
        },
    )


def truncated(kept: int, name: str, caption: str) -> Table:
    """Original and renormalised probabilities of every token."""
    new, cumulative = renormalised(GIVEN, kept), tuple(accumulate(GIVEN))
    return Table(
        columns=("token", "p", "cumulative", "kept", "renormalised", "exactly"),
        rows=tuple(
            (str(i + 1), float(p), float(c), i < kept, float(q), str(q))
            for i, (p, c, q) in enumerate(zip(GIVEN, cumulative, new, strict=True))
        ),
        caption=caption,
        name=name,
    )


def rounding(f: Findings) -> Table:
    """What a program keeps where the threshold is met exactly."""
    return Table(
        columns=(
            "precision",
            f"sum of the first {SIZE - 1}",
            f"kept at p = {float(P):g}",
            f"kept at p = {float(BOUNDARY):g}",
        ),
        rows=tuple((one.precision, f"{one.total:.17g}", one.kept, one.kept_at_boundary) for one in f.roundings),
        caption="The same nucleus in three precisions",
        name="rounding",
    )


def edge(truncation: Truncation) -> float:
    """Probability of the first token that is removed over that of the last that is kept."""
    return float(GIVEN[truncation.kept] / GIVEN[truncation.kept - 1])


def comparison(f: Findings) -> Table:
    """How well each set covers what the distribution is worth."""
    named = {f"top-k, k = {K}": f.top_k, f"nucleus, p = {float(P):g}": f.nucleus, "none": f.whole}
    return Table(
        columns=(
            "truncation",
            "tokens",
            "mass kept",
            "total variation",
            "KL (nats)",
            "entropy after (nats)",
            "first removed / last kept",
        ),
        rows=tuple(
            (label, t.kept, t.mass, t.total_variation, t.kl, t.entropy, edge(t) if t.kept < len(GIVEN) else None)
            for label, t in named.items()
        ),
        caption="What each truncation does to the distribution",
        name="comparison",
    )


def distributions() -> Figure:
    """Before and after."""
    named = {
        "model": GIVEN,
        f"top-k, k = {K}": renormalised(GIVEN, K),
        f"nucleus, p = {float(P):g}": renormalised(GIVEN, SIZE),
    }
    tokens = tuple(str(i + 1) for i in range(len(GIVEN)))
    return Figure(
        kind="bar",
        series=tuple(Series(label, tokens, tuple(map(float, values))) for label, values in named.items()),
        x_label="token",
        y_label="probability",
        caption="The distribution before and after truncation",
    )


def turn(probabilities: Sequence[Fraction], k: int, caption: str) -> Distribution:
    """A distribution to truncate."""
    settings = (Setting(f"k = {k}", k=k), Setting(f"p = {float(P):g}", p=float(P)), Setting("nothing removed"))
    tokens = tuple(str(i + 1) for i in range(len(probabilities)))
    return Distribution(tokens, tuple(math.log(p) for p in probabilities), settings, caption=caption)


def peaked(f: Findings) -> Table:
    """A distribution that top-k gets wrong."""
    kept, size = renormalised(PEAKED, PEAKED_K), nucleus_size(PEAKED, P)
    return Table(
        columns=("token", "p", f"top-k, k = {PEAKED_K}", "drawn (share)", "in top-k", "in nucleus"),
        rows=tuple(
            (str(i + 1), float(p), float(kept[i]), f.drawn[i], i < PEAKED_K, i < size) for i, p in enumerate(PEAKED)
        ),
        caption="A peaked distribution under both truncations",
        name="peaked",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The warpers of Transformers, exact fractions, sums, and what is claimed of the constructed example."""
    result = []
    for name, one in ((f"top-k {K}", f.top_k_warper), (f"top-p {float(P):g}", f.nucleus_warper)):
        result.append(Check.equal(f"{name}: logits equal Transformers' warper", one.equals_transformers, True))
        result.append(
            Check.at_most(f"{name}: probabilities equal exact fractions (largest difference)", one.error, 1e-15)
        )
    return (
        *result,
        Check.equal("the given probabilities sum to exactly 1", str(sum(GIVEN)), "1"),
        Check.equal("the constructed probabilities sum to exactly 1", str(sum(PEAKED)), "1"),
        Check.at_least(
            f"tokens below {float(UNLIKELY):g} that top-k {PEAKED_K} keeps of the constructed distribution",
            UNLIKELY_KEPT,
            2,
        ),
        Check.equal("tokens that the nucleus keeps of it", nucleus_size(PEAKED, P), 1),
        Check.equal("draws of tokens that top-k removed", f.drawn_removed, 0),
        Check.at_least(
            "draws from it against the exact distribution (p-value of chi-square)",
            f.p_value,
            1e-4,
        ),
    )
