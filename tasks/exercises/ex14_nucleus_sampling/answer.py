"""Tables, figures, listings and checks of 21.14; the text is in answer.md."""

import math

from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Check, Code, Distribution, Figure, Heatmap, Series, Setting, Table
from tasks.exercises.ex14_nucleus_sampling.findings import GRID, PROBABILITIES, TOKENS, Findings, P

FILE = "tasks/exercises/ex14_nucleus_sampling/nucleus.py"


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    code = f.sources
    return Draft(
        blocks={
            "code a": listing(code["sort_descending"], FILE),
            "sorted": sorted_tokens(f),
            "code b": listing(code["cumulative_probabilities"], FILE),
            "cumulative": Figure(
                "bar",
                (Series("cumulative probability", f.ranked, f.cumulative),),
                "token, likeliest first",
                "probability",
                "Cumulative probability.",
                hlines=((P, f"p = {P:g}"),),
            ),
            "cumulative numbers": Heatmap(
                (f.cumulative,), "token", "", "The same numbers.", f.ranked, ("cumulative",), annotate=True
            ),
            "code c": listing(code["cutoff"], FILE),
            "sizes": sizes(f),
            "code d": listing(code["mask_below"], FILE),
            "masked": masked(f),
            "code e": listing(f"{code['renormalise_and_sample']}\n\n{code['nucleus_filter']}", FILE),
            "samples": samples(f),
            "turn": turn(),
            "references": references(f),
        },
        checks=checks(f),
        values={
            "p": P,
            "tokens": TOKENS,
            "kept": [f"“{token}”" for token, x in zip(TOKENS, f.masked, strict=True) if math.isfinite(x)],
            "not_scattered": [f"“{token}”" for token in f.not_scattered],
            "renormalised": [f"{f.probabilities[i]:.3f} for “{TOKENS[i]}”" for i in f.order[: f.kept]],
        },
    )


def sorted_tokens(f: Findings) -> Table:
    """Sorted logits."""
    rows = tuple((rank + 1, TOKENS[i], i, f.ordered[rank], float(PROBABILITIES[i])) for rank, i in enumerate(f.order))
    columns = ("rank", "token", "index in the vocabulary", "logit", "probability")
    return Table(columns, rows, "After sorting.", "sorted")


def turn() -> Distribution:
    """The example to turn."""
    settings = (Setting(f"p = {P:g}", p=P), Setting("all tokens"))
    logits = tuple(math.log(p) for p in PROBABILITIES)
    return Distribution(TOKENS, logits, settings, caption="The example with any p, after any temperature and any k.")


def sizes(f: Findings) -> Table:
    """Nuclei of a model."""
    rows = tuple((s.p, s.low, s.median, s.high, f.vocab_size) for s in f.sizes)
    columns = ("p", "lower quartile", "median", "upper quartile", "vocabulary")
    caption = f"Size of the nucleus over {f.characters:,} next-character distributions of a trained model."
    return Table(columns, rows, caption, "sizes")


def masked(f: Findings) -> Code:
    """Logits before and after, in vocabulary order."""
    lines = "\n".join(
        f"{i}  {token:<6} {before:8.3f} {after:8.3f}"
        for i, (token, before, after) in enumerate(zip(TOKENS, f.logits, f.masked, strict=True))
    )
    return Code(lines, "Token, logit, masked logit, in vocabulary order.")


def samples(f: Findings) -> Table:
    """The distribution that is left, and samples of it."""
    rows = tuple(
        (token, float(PROBABILITIES[i]), f.probabilities[i], f.counts[i], f.probabilities[i] * f.draws)
        for i, token in enumerate(TOKENS)
    )
    columns = ("token", "probability", "renormalised", "samples", "expected")
    return Table(columns, rows, f"{f.draws:,} samples; chi-square p-value {f.p_value:.2g}.", "samples")


def references(f: Findings) -> Table:
    """Our filter beside others."""
    rows = tuple((r.name, r.logits, r.comparisons, r.disagreements) for r in f.references)
    columns = ("reference", "logits", "comparisons", "disagreements")
    grid = ", ".join(f"{p:g}" for p in GRID)
    return Table(columns, rows, f"{f.per_reference:,} vectors of 50 logits at each p of {grid}.", "references")


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    outside = sum(count for count, q in zip(f.counts, f.probabilities, strict=True) if q == 0)
    return (
        Check.equal("size of the nucleus, against rational arithmetic", f.kept, f.exact_kept),
        Check.at_most("its probabilities against the same, max difference", f.exact_difference, 1e-12),
        Check.equal("random vectors on which a reference keeps other tokens", f.disagreements, 0),
        Check.equal(f"p = 10⁻⁹ leaves one token, of {f.vectors:,} vectors on", f.limits[0], f.vectors),
        Check.equal(f"p = 1 leaves all tokens, of {f.vectors:,} vectors on", f.limits[1], f.vectors),
        Check.at_least(f"chi-square of {f.draws:,} draws against exact probabilities: p-value", f.p_value, 1e-5),
        Check.equal("draws from outside the nucleus", outside, 0),
        Check.at_least("mass of the nucleus", f.mass, P),
        Check.at_most("its mass without the last token it keeps", f.dropped_mass, P),
    )
