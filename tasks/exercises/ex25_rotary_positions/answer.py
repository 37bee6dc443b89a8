"""Tables, figures, listings and checks of 21.25; the text is in answer.md."""

import math

from minigpt.evaluation.statistics import mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Code, Figure, Heatmap, Sample, Series, Table
from tasks.comparison import curves, sentences, table, untrained
from tasks.exercises.ex25_rotary_positions.findings import TOLERATED, Extrapolation, Findings, rates


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    found, context = f.extrapolation, f.extrapolation.context
    best = min(found.changed, key=lambda label: found.mean(label, found.last))
    return Draft(
        blocks={
            "rotation code": listing(f.rotation.code, "minigpt/positions.py"),
            "turning": turning(f),
            "frequencies": frequencies(context),
            "cosines": Heatmap(
                f.rotation.cosines,
                "position m",
                "pair i",
                f"cos(m θ_i) for the {context} positions of training.",
                diverging=True,
            ),
            "attention code": listing(f.attention.code, "minigpt/model.py", "CausalSelfAttention.forward"),
            "scores": scores(f),
            "escapes": escapes(f),
            "trained": table(f.variants, name="trained", caption=f"Trained on windows of {context} tokens."),
            "curves": curves(f.variants, caption="Validation loss in training."),
            "by position": by_position(found),
            "extrapolation": by_bucket(found),
            "remedies": remedies(f),
            "refusal": Code(f"ValueError: {found.refusal}", f"The learned model asked for position {context + 1}."),
            "text": Sample(
                f"RoPE model, {found.length} tokens",
                f.written.prompt,
                f.written.text,
                f"seed {f.written.seed}, temperature 1; trained on windows of {context}",
            ),
        },
        checks=checks(f),
        values={
            "compared": sentences(f.variants),
            "untrained": untrained(f.variants[:2]),
            "best": best,
            "read_on": found.read_on[best],
            "unplaced": f.escaped(f.variants[-1].label),
            "learned_enough": found.inside_beats(f.rope.baselines.bigram),
            "tolerated": TOLERATED,
        },
    )


def escapes(f: Findings) -> Table:
    """When each leaves the plateau, and where it ends after half and all of the steps."""
    rows: list[tuple[Cell, ...]] = []
    for row in f.variants:
        steps = f.escaped(row.label)
        ends = [mean_std([curve.finished_losses[i] for curve in row.curves])[0] for i in (0, -1)]
        rows.append((row.label, steps, *ends, ends[0] - ends[1]))
    columns = (
        "positions",
        "steps to a training loss below that of pairs",
        f"loss of {f.shorter} steps",
        f"of {f.rope.steps}",
        "gain",
    )
    caption = (
        "When the training loss, averaged over five rows of its history, is below that of counted pairs, and "
        "which validation loss finished trainings end with (nats per token); means over seeds."
    )
    return Table(columns, tuple(rows), caption, "escapes")


def frequencies(context: int) -> Table:
    """The pairs of dimensions, how fast each turns and how far it gets."""
    rows = tuple((i, rate, 2 * math.pi / rate, context * rate / (2 * math.pi)) for i, rate in enumerate(rates()))
    columns = ("pair i", "θ_i (radians per position)", "wavelength (positions)", f"turns in {context} positions")
    caption = (
        "Fast pairs tell neighbours apart; the slow ones do not complete a turn in training, so that longer texts "
        "show them angles they have never met."
    )
    return Table(columns, rows, caption, "frequencies")


def turning(f: Findings) -> Figure:
    """One vector, pair by pair."""
    series = tuple(Series(f"pair {i}", first, second) for i, (first, second) in f.rotation.turned.items())
    positions = len(series[0].x)
    caption = f"The same vector at positions 0 … {positions - 1}: each pair moves on its circle at its own speed."
    return Figure("scatter", series, "first number of the pair", "second number", caption)


def scores(f: Findings) -> Figure:
    """q·k by distance, one line for each place of the key."""
    a = f.attention
    distances = tuple(map(float, a.distances))
    return Figure(
        "line",
        tuple(Series(f"key at {start}", distances, found) for start, found in a.scores.items()),
        "distance (query position − key position)",
        "q·k",
        f"Two fixed vectors at different places: the lines lie on each other (largest gap {a.spread:.1g}). With "
        f"sinusoids added to the vectors instead, the score at distance {a.additive_distance} varies by "
        f"{a.additive_spread:.2f}.",
    )


def by_bucket(found: Extrapolation) -> Table:
    """Loss by bucket and reading."""
    columns = ("positions", *found.losses)
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (f"{first}–{last}", *(found.mean(label, bucket) for label in found.losses))
        for bucket, (first, last) in enumerate(found.edges)
    )
    caption = (
        f"Nats per token by position in windows of {found.length}, mean over seeds; all were trained on windows of "
        f"{found.context}. Rows score different tokens: a difference along a row is of the same ones."
    )
    return Table(columns, rows, caption, "extrapolation")


def by_position(found: Extrapolation) -> Figure:
    """The table as lines."""
    x = tuple(float(last) for _, last in found.edges)
    series = []
    for label in found.losses:
        means, spreads = zip(*(mean_std(found.at(label, b)) for b in range(len(x))), strict=True)
        series.append(Series(label, x, means, spreads if len(found.losses[label]) > 1 else ()))
    caption = f"Loss by position (end of the bucket of {found.bucket}). Training ended at {found.context}."
    return Figure("line", tuple(series), "position in the window", "loss (nats/token)", caption)


def remedies(f: Findings) -> Table:
    """Every other reading against plain RoPE, in the last bucket; no verdict on models that know no context."""
    found, last = f.extrapolation, f.extrapolation.last
    learned_enough, compared = found.inside_beats(f.rope.baselines.bigram), found.remedies
    first_position, last_position = found.edges[last]
    rows: list[tuple[Cell, ...]] = []
    for label in found.losses:
        loss, until = found.mean(label, last), found.good_until(label)
        if label == "RoPE":
            rows.append((label, loss, None, None, None, "baseline", until))
            continue
        remedy = compared[label]
        low, high = remedy.interval if remedy.verdict != "one seed" else (None, None)
        said = remedy.verdict if learned_enough else "untrained"
        rows.append((label, loss, remedy.difference, low, high, said, until))
    columns = ("reading", "loss", "difference", "95% interval from", "to", "verdict", "good until position")
    caption = (
        f"Positions {first_position}–{last_position}: nats per token, mean over seeds, against plain RoPE there; "
        "verdicts are corrected after Holm for their number (“one of many”: beyond the noise alone, but not so). Good: "
        f"no bucket up to there costs over {TOLERATED:g} nats more than the restarted RoPE model on the same tokens."
    )
    return Table(columns, tuple(rows), caption, "remedies")


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    r, a, better = f.rotation, f.attention, f.rope_against_learned
    return (
        Check.at_most(
            f"rotate = multiplication by the rotation matrix, at {r.positions} positions (max difference)",
            r.from_matrix,
            1e-4,
        ),
        Check.at_most(
            f"rotate = Transformers' Llama rotation, at {r.positions} positions (max difference)", r.from_llama, 1e-4
        ),
        Check.at_most("rotation matrices are orthogonal: |R Rᵀ − 1| (max)", r.from_orthogonal, 1e-12),
        Check.at_most("q·k at one distance, from different starts (largest spread)", a.spread, 1e-3),
        Check.at_most("a Llama with our attention in place of its own (max difference)", a.from_llama, 1e-5),
        Check.at_most("reading token by token with a cache = reading at once (max difference)", a.trap.right, 1e-3),
        Check.at_least(
            "a cache whose positions restart at 0 is noticed (max difference)", a.trap.wrong, 1e-2, "empirical"
        ),
        Check.beyond_noise(
            "RoPE reaches a lower validation loss than learned positions (Su et al., 2021, section 4)", better, "lower"
        ),
    )
