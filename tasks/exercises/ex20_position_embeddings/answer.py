"""Tables, figures and checks of 21.20; the text is in answer.md."""

import math
from collections.abc import Sequence

from minigpt.pretrained.gpt2_published import POSITION_TABLE, POSITION_TABLE_SIZE
from reports.answers import Draft
from reports.types import Check, Figure, Heatmap, Series, Table
from tasks.exercises.ex20_position_embeddings.findings import Findings, Studied

SEGMENTS = 8  # series in a cloud of positions
CLEAR = 0.9  # of a rotation: share of the steps that go its way, and how its axis correlates with the position


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    s = f.table
    twice = 2 * f.noise.principal.waves[0].share
    return Draft(
        blocks={
            "cosines": heatmap(s),
            "cloud": cloud(s),
            "components": components(s),
            "by distance": curves([s], f"Similarity by distance: {s.name}. At large distances few pairs are left."),
            "frequencies": frequencies(s),
            "norms": norms(s),
            "emergence": emergence(f),
            "tables": comparison(f.tables),
            "gpt2": gpt2(f),
            "distances": curves(f.tables, "Similarity by distance in all tables. Each over its own length."),
            "variance": shares(f.tables),
            "others": tuple(block for t in f.tables if t is not s for block in (heatmap(t), cloud(t))),
        },
        checks=checks(f),
        values={
            "clear": CLEAR,
            "gpt2_length": POSITION_TABLE_SIZE[0],
            "gpt2_values": {name: x.value for name, x in POSITION_TABLE.items()},
            "strong": [(k + 1, w) for k, w in enumerate(s.principal.waves[:3]) if w.share > twice],
            "third": ({0, 1, 2} - set(s.principal.rotation.components)).pop() + 1,
            "as_long_as_words": [
                k + 1 for k, w in enumerate(s.principal.waves) if f.word_length and abs(w.period - f.word_length) < 1
            ],
        },
    )


def heatmap(s: Studied) -> Heatmap:
    """The cosine matrix, with every n-th position where there are more than can be shown."""
    step = s.cosine.step
    ticks = tuple(str(i) for i in range(0, s.length, step))
    which = "All positions" if step == 1 else f"Every {step}th position of {s.length:,}; the numbers use all of them"
    caption = f"Cosine similarity of position embeddings: {s.name}. {which}."
    return Heatmap(s.cosine.shown, "position", "position", caption, ticks, ticks, diverging=True)


def cloud(s: Studied) -> Figure:
    """Positions on the first two principal axes, in segments."""
    size = math.ceil(s.length / SEGMENTS)
    x, y = s.principal.coordinates[:2]
    series = []
    for start in range(0, s.length, size):
        end = min(start + size, s.length)
        series.append(Series(f"positions {start}–{end - 1}", x[start:end], y[start:end]))
    shares = [f"{share:.1%} of the variance" for share in s.principal.variance[:2]]
    caption = f"Positions on the first two principal axes: {s.name}. One point per position, counted from 0."
    return Figure("scatter", tuple(series), f"component 1 ({shares[0]})", f"component 2 ({shares[1]})", caption)


def components(s: Studied) -> Figure:
    """The first components over position."""
    places = tuple(float(i) for i in range(s.length))
    series = tuple(
        Series(f"component {k + 1} ({s.principal.variance[k]:.1%})", places, coordinates)
        for k, coordinates in enumerate(s.principal.coordinates)
    )
    return Figure("line", series, "position", "coordinate", f"Principal components over position: {s.name}.")


def curves(tables: Sequence[Studied], caption: str) -> Figure:
    """Mean cosine by distance."""
    series = tuple(Series(s.name, tuple(float(d) for d in range(s.length)), s.cosine.by_distance) for s in tables)
    return Figure("line", series, "distance (positions)", "mean cosine", caption, hlines=((0.0, "orthogonal"),))


def frequencies(s: Studied) -> Table:
    """The strongest frequency of each component."""
    return Table(
        ("component", "share of the variance", "cycles over the table", "period (positions)", "share of its power"),
        tuple(
            (k + 1, s.principal.variance[k], wave.cycles, wave.period, wave.share)
            for k, wave in enumerate(s.principal.waves)
        ),
        "The strongest frequency of each component, by the discrete Fourier transform over position.",
        "frequencies",
    )


def norms(s: Studied) -> Figure:
    """Norm by position."""
    series = Series(s.name, tuple(float(i) for i in range(s.length)), s.norms.each)
    caption = f"Norm by position: {s.name}."
    return Figure("line", (series,), "position", "norm", caption, hlines=((s.norms.mean, "mean"),))


def emergence(f: Findings) -> Figure:
    """Order in the project's own table over training."""
    snapshots = f.own.snapshots
    steps = tuple(float(snapshot.step) for snapshot in snapshots)
    series = (
        Series("most similar position is adjacent (share)", steps, tuple(s.adjacent for s in snapshots)),
        Series("mean cosine of adjacent positions", steps, tuple(s.near for s in snapshots)),
    )
    chance = ((2 / f.own.context, "chance of an adjacent one"),)
    caption = f"Order in the table of {f.own.name} over training. It started as Gaussian noise."
    return Figure("line", series, "training steps", "share, cosine", caption, hlines=chance)


def comparison(tables: Sequence[Studied]) -> tuple[Table, Table]:
    """The same numbers for all tables: of similarity, then of components and norms."""
    rows = []
    for s in tables:
        c, p, r = s.cosine, s.principal, s.principal.rotation
        rows.append(
            (
                s.name,
                s.length,
                s.width,
                c.near,
                c.far,
                c.adjacent,
                c.reach,
                c.stationary,
                p.three,
                p.waves[0].period,
                p.waves[0].share,
                abs(r.turns),
                r.steady,
                s.norms.mean,
                s.norms.spread,
            )
        )
    columns = (
        "table",
        "positions",
        "width",
        "cosine of neighbours",
        "cosine half the table apart or more",
        "nearest is adjacent",
        "half similarity (positions)",
        "variance explained by distance",
        "variance in 3 components",
        "period of component 1",
        "share of its power",
        "turns",
        "steps one way",
        "mean norm",
        "spread of norms",
    )
    caption = (
        "All tables in the same numbers. Half similarity is where the mean cosine first falls to 1/2, at 0.5 where "
        "even neighbours have nothing in common, at the largest distance where it never does; turns and steps as in "
        "part (c); the random table is a single draw; spread is standard deviation / mean."
    )
    similar = Table(columns[:8], tuple(row[:8] for row in rows), caption, "tables")
    return similar, Table(
        (columns[0], *columns[8:]), tuple((row[0], *row[8:]) for row in rows), "Components and norms.", "components"
    )


def gpt2(f: Findings) -> Table:
    """GPT-2's own table, from its released weights, beside the one in question."""
    here = f.table.metrics
    rows = tuple((x.what, x.value, here[f"{f.table.key}_{name}"]) for name, x in POSITION_TABLE.items())
    length, width = POSITION_TABLE_SIZE
    source = next(iter(POSITION_TABLE.values())).source
    caption = (
        f"GPT-2's table, {length:,} × {width}, beside the one studied, {f.table.length:,} × {f.table.width}. GPT-2's "
        f"values: {source}."
    )
    columns = ("measure", "GPT-2 small", f"{f.table.name}, here")
    return Table(columns, rows, caption, "gpt2_table")


def shares(tables: Sequence[Studied]) -> Figure:
    """Variance of the first components together."""
    series = tuple(
        Series(t.name, tuple(float(k + 1) for k in range(len(t.principal.cumulative))), t.principal.cumulative)
        for t in tables
    )
    caption = "Variance explained by the first components."
    return Figure("line", series, "components", "share of the variance", caption)


def checks(f: Findings) -> tuple[Check, ...]:
    """The tools against other ways to the same numbers, then what is said of GPT-2's table and of learned positions."""
    a, s = f.accuracy, f.table
    return (
        Check.at_most("cosine matrix: asymmetry", a.asymmetry, 1e-12),
        Check.at_most("cosine matrix: diagonal, distance from 1", a.diagonal, 1e-12),
        Check.at_most("sinusoidal cosines against the sum of cosines of differences", a.closed_form, 1e-4),
        Check.at_most("shares of variance (SVD) against eigenvalues of the covariance matrix", a.shares, 1e-9),
        Check.close("shares of variance, sum", a.total_variance, 1.0, 1e-9),
        Check.at_most("coordinates keep all inner products of the centred rows, relative", a.inner_products, 1e-9),
        Check.close("a table on a line: share of its first component", a.line, 1.0, 1e-12),
        Check.at_most("points on an arc in another order: nearest by cosine against nearest by angle", a.arc, 1e-9),
        Check.equal("a cosine of 5 cycles: cycles found", a.cycles, 5),
        Check.at_least(f"{s.name}: the most similar position is adjacent (share)", s.cosine.adjacent, 0.5, "empirical"),
        Check.at_least(
            f"{s.name}: three components hold most of the variance, as in GPT-2 (Yedidia, 2023)",
            s.principal.three,
            0.5,
            "empirical",
        ),
        Check.at_least(
            f"{s.name}: norm of the first position over the median",
            s.norms.each[0] / s.norms.median,
            1.2,
            "empirical",
        ),
    )
