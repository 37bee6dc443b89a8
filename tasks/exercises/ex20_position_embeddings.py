"""Exercise 21.20: the geometry of learned position embeddings, beside sinusoids and beside noise."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.analysis.position_analysis import (
    TableAnalysis,
    analyse,
    distance_correlation,
    nearest_positions,
    principal_components,
    sinusoidal_cosine,
    strongest_wave,
)
from minigpt.evaluation.words import words
from minigpt.positions import sinusoidal
from minigpt.pretrained.learned_positions import learned_positions
from reports.types import Answer, Block, Check, Figure, Heatmap, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import SMALL_LONG

SEGMENTS = 8  # series in a cloud of positions
SHOWN, LISTED = 4, 6  # components over position, and with their periods
LEARNED, OWN, SINES, NOISE = "learned", "own", "sinusoidal", "random"


@dataclass(frozen=True)
class Studied:
    """One table, with what is known of it."""

    key: str  # in names of metrics
    name: str  # as readers see it
    table: Tensor  # (T, C)
    found: TableAnalysis

    @property
    def length(self) -> int:
        """T."""
        return len(self.table)


def study(key: str, name: str, table: Tensor) -> Studied:
    """Analyse a table."""
    return Studied(key, name, table, analyse(table))


def gather(context: Context) -> tuple[list[Studied], TrainedModel]:
    """The learned tables, the one in question first; two baselines of its size; the project's own model."""
    pretrained, own = context.pretrained(), context.model(SMALL_LONG)
    assert own.model.position_embedding is not None
    tables = []
    if (table := learned_positions(pretrained.model)) is not None:
        tables.append(study(LEARNED, pretrained.name, table.cpu()))
    name = f"this project's model {SMALL_LONG.name}"
    tables.append(study(OWN, name, own.model.position_embedding.weight.detach().cpu()))
    length, width = tables[0].table.shape
    waves = sinusoidal(torch.arange(length), width - width % 2)
    scale = tables[0].table.double().square().mean().sqrt()
    noise = torch.randn(length, width, generator=context.generator("noise"), dtype=torch.float64) * scale
    return [*tables, study(SINES, "sinusoidal", waves), study(NOISE, "random Gaussian", noise)], own


# --- Figures ----------------------------------------------------------------------------------------------------


def heatmap(s: Studied) -> Heatmap:
    """The cosine matrix, with every n-th position where there are more than can be shown."""
    step = math.ceil(s.length / 128)
    shown = s.found.cosine[::step, ::step]
    ticks = tuple(str(i) for i in range(0, s.length, step))
    which = "All positions" if step == 1 else f"Every {step}th position of {s.length:,}; the numbers use all of them"
    caption = f"Cosine similarity of position embeddings: {s.name}. {which}."
    values = tuple(tuple(round(v, 4) for v in row) for row in shown.tolist())
    return Heatmap(values, "position", "position", caption, ticks, ticks, diverging=True)


def cloud(s: Studied) -> Figure:
    """Positions on the first two principal axes, in segments."""
    size = math.ceil(s.length / SEGMENTS)
    series = []
    for start in range(0, s.length, size):
        end = min(start + size, s.length)
        x, y = s.found.components[start:end, :2].T.tolist()
        series.append(Series(f"positions {start}–{end - 1}", tuple(x), tuple(y)))
    shares = [f"{share:.1%} of the variance" for share in s.found.variance[:2].tolist()]
    caption = f"Positions on the first two principal axes: {s.name}. One point per position, counted from 0."
    return Figure("scatter", tuple(series), f"component 1 ({shares[0]})", f"component 2 ({shares[1]})", caption)


def components(s: Studied) -> Figure:
    """The first components over position."""
    places = tuple(float(i) for i in range(s.length))
    series = tuple(
        Series(
            f"component {k + 1} ({s.found.variance[k].item():.1%})", places, tuple(s.found.components[:, k].tolist())
        )
        for k in range(min(SHOWN, s.found.components.shape[1]))
    )
    return Figure("line", series, "position", "coordinate", f"Principal components over position: {s.name}.")


def curves(tables: Sequence[Studied], caption: str) -> Figure:
    """Mean cosine by distance."""
    series = tuple(
        Series(s.name, tuple(float(d) for d in range(s.length)), tuple(s.found.by_distance.tolist())) for s in tables
    )
    return Figure("line", series, "distance (positions)", "mean cosine", caption, hlines=((0.0, "orthogonal"),))


def number(value: float, digits: int = 3) -> str:
    """Rounded, for prose: no negative zero, and a minus sign."""
    return f"{value:z.{digits}f}".replace("-", "−")


# --- The parts --------------------------------------------------------------------------------------------------


def part_a(s: Studied) -> Part:
    """All cosines."""
    off = s.found.cosine[~torch.eye(s.length, dtype=torch.bool)]
    text = (
        f"The table $P$ of {s.name} has $T = {s.length:,}$ rows of $C = {s.table.shape[1]}$ numbers; row $t$ is added "
        r"to the embedding of whatever token stands at position $t$. The matrix"
        r"$$S_{ij} = \frac{p_i \cdot p_j}{\lVert p_i \rVert \, \lVert p_j \rVert}$$"
        f"has {len(off) // 2:,} different values off its diagonal: mean {number(off.mean().item())}, from "
        f"{number(off.min().item())} to {number(off.max().item())}."
    )
    return Part("a", (Prose(text), heatmap(s)), "Cosine similarity of all positions")


def part_b(s: Studied) -> Part:
    """Principal components."""
    v = s.found.variance
    flat = 1 / len(v)
    text = (
        r"With the mean row taken off, $X = U \Sigma V^\top$: the coordinates of the positions are $U \Sigma$, and "
        r"axis $k$ holds $\sigma_k^2 / \sum_l \sigma_l^2$ of the variance. "
        f"Two components hold {v[:2].sum().item():.1%} of it, three {s.found.top:.1%}, and {s.found.dimensions()} of "
        f"{len(v)} are needed for 90 %; were all axes alike, each would hold {flat:.2%}. "
        + (
            "So the picture in two dimensions shows most of what there is."
            if v[:2].sum() > 0.5
            else "So the picture in two dimensions leaves most of the table out."
        )
    )
    return Part("b", (Prose(text), cloud(s), components(s)), "Principal components")


def near_sentence(s: Studied) -> str:
    """Do nearby positions have similar embeddings?"""
    f = s.found
    chance = 1 / math.sqrt(s.table.shape[1] * (s.length - 1))  # standard deviation of this mean among random rows
    if f.near <= 4 * chance:
        verdict = "**No similarity of nearby positions beyond chance.**"
    elif f.near <= f.far:
        verdict = "**No, nearby positions are no more similar than distant ones.**"
    else:
        verdict = "**Yes, nearby positions are similar.**"
    return (
        f"{verdict} Adjacent positions have a mean cosine of {number(f.near)}, positions at least half the table "
        f"apart {number(f.far)}; the most similar other position is the one before or after in {f.adjacent:.1%} of all "
        f"cases (chance: {2 / s.length:.1%}), and at most 3 positions away in {f.nearest_within(3):.1%}. The mean "
        f"cosine {fallen(s)}. Over all pairs, cosine and distance correlate with "
        f"{number(distance_correlation(f.cosine), 2)}, over pairs at most {s.length // 16} apart with "
        f"{number(distance_correlation(f.cosine, s.length // 16), 2)}; the distance alone explains "
        f"{f.stationary:.0%} of the variance of the cosines, the rest depends on where in the table a "
        "pair stands."
    )


def fallen(s: Studied) -> str:
    """Where the mean cosine is half of what it is at distance 0."""
    if s.found.near <= 0.5:
        return f"is at most a half even between neighbours ({number(s.found.near)})"
    if s.found.by_distance.min() > 0.5:
        return f"never falls to a half ({number(s.found.by_distance.min().item())} at least)"
    return f"has fallen to a half after {s.found.reach:.1f} positions"


def shape_sentence(s: Studied, noise: Studied) -> str:
    """Periods, and whether the curve goes round."""
    chance = noise.found.wave(0).share
    waves = [(k, s.found.wave(k)) for k in range(3)]
    strong = [(k, w) for k, w in waves if w.share > 2 * chance]
    said = "; ".join(
        f"component {k + 1} by {w.cycles} cycle{'s' * (w.cycles > 1)} over the table (period {w.period:.1f} positions, "
        f"{w.share:.0%} of its power)"
        for k, w in strong
    )
    noisy = f"in noise of the same size the strongest frequency of the first component holds {chance:.0%}"
    periodic = (
        f"In {len(strong)} of the first three components a frequency stands out, with more than twice the power that "
        f"it would have by chance: {said}; {noisy}."
        if strong
        else f"In none of the first three components a frequency stands out with twice the power of chance; {noisy}."
    )
    r = s.found.rotation
    a, b = (k + 1 for k in r.components)
    third = ({1, 2, 3} - {a, b}).pop()
    where = f"In the plane of components {a} and {b} the table turns {abs(r.turns):.1f} times"
    if r.steady < 0.9:
        return f"{periodic} {where}, {r.steady:.1%} of the steps going the same way: no clear rotation."
    if abs(r.turns) < 1:
        return f"{periodic} {where}, {r.steady:.1%} of the steps going the same way: an arc, not a helix."
    helix = (
        f", and component {third} advances with it (correlation with position {r.advance:.2f}): a helix, as Yedidia "
        f"(2023) describes it for GPT-2, in the three dimensions that hold {s.found.top:.0%} of the variance."
        if r.advance > 0.9
        else f"; component {third} does not advance steadily (correlation with position {r.advance:.2f}), so it is no "
        "plain helix."
    )
    return f"{periodic} {where}, {r.steady:.1%} of the steps going the same way{helix}"


def ends_sentence(s: Studied) -> str:
    """Whether the first and the last position differ from the others."""
    norms, cosine = s.found.norms, s.found.cosine
    median = norms.median().item()
    spread = (norms - median).abs().median().item()
    said = []
    for name, place, neighbour in (("first", 0, 1), ("last", s.length - 1, s.length - 2)):
        size = norms[place].item()
        odd = abs(size - median) > 6 * spread
        said.append(
            f"The {name} position {'is special' if odd else 'is not special'}: its norm is {number(size)} (median "
            f"{number(median)}), its cosine with its neighbour {number(cosine[place, neighbour].item())}"
        )
    largest = int(norms.argmax())
    return (
        f"{said[0]}. {said[1]}. The largest norm is that of position {largest}, the smallest that of "
        f"{int(norms.argmin())}; “special” means more than 6 median absolute deviations from the median."
    )


def emergence(context: Context, own: TrainedModel) -> tuple[Figure, str, dict[str, float]]:
    """How the table of the project's own model came about, from its snapshots."""
    steps, adjacent, near = [], [], []
    for i, step in enumerate(own.snapshot_steps):
        context.progress(0.5 + 0.4 * i / len(own.snapshot_steps), f"table after {step} steps")
        embedding = own.load_snapshot(step).position_embedding
        assert embedding is not None
        s = study(OWN, "", embedding.weight.detach().cpu())
        steps.append(float(step))
        adjacent.append(s.found.adjacent)
        near.append(s.found.near)
    series = (
        Series("most similar position is adjacent (share)", tuple(steps), tuple(adjacent)),
        Series("mean cosine of adjacent positions", tuple(steps), tuple(near)),
    )
    length = own.model.config.context
    most = (2 + 3 * 1.6) / length  # tables of Gaussian noise have 2 ± 1.6 such positions, whatever their size
    chance = ((2 / length, "chance of an adjacent one"),)
    caption = f"Order in the table of {SMALL_LONG.name} over training. It started as Gaussian noise."
    text = (
        f"Nothing tells a model that position 5 stands beside position 6: the table of {SMALL_LONG.name}, {length} "
        f"rows, started as noise. After {int(steps[0])} steps, {adjacent[0]:.0%} of its positions had an adjacent one "
        f"as the most similar, after {int(steps[-1])} steps {adjacent[-1]:.0%}; the mean cosine of neighbours went "
        f"from {near[0]:.2f} to {near[-1]:.2f} (one seed). The order comes from training alone."
        if adjacent[-1] > most
        else f"After {int(steps[-1])} steps of training the table of {SMALL_LONG.name} shows no order yet: "
        f"{adjacent[-1]:.0%} of its positions have an adjacent one as the most similar, by chance {2 / length:.0%}."
    )
    figure = Figure("line", series, "training steps", "share, cosine", caption, hlines=chance)
    return figure, text, {"own_adjacent_share_first_snapshot": adjacent[0]}


def part_c(context: Context, tables: Sequence[Studied], own: TrainedModel) -> tuple[Part, dict[str, float]]:
    """The patterns."""
    s, noise = tables[0], tables[-1]
    figure, told, metrics = emergence(context, own)
    rows = tuple(
        (k + 1, s.found.variance[k].item(), w.cycles, w.period, w.share)
        for k in range(min(LISTED, len(s.found.variance)))
        for w in (s.found.wave(k),)
    )
    norms = Series(s.name, tuple(float(i) for i in range(s.length)), tuple(s.found.norms.tolist()))
    mean_norm = s.found.norms.mean().item()
    blocks: list[Block] = [
        Prose(near_sentence(s)),
        curves([s], f"Similarity by distance: {s.name}. At large distances few pairs are left."),
        Prose(shape_sentence(s, noise) + word_sentence(context, s)),
        Table(
            ("component", "share of the variance", "cycles over the table", "period (positions)", "share of its power"),
            rows,
            "The strongest frequency of each component, by the discrete Fourier transform over position.",
            "frequencies",
        ),
        Prose(ends_sentence(s)),
        Figure(
            *("line", (norms,), "position", "norm", f"Norm by position: {s.name}."),
            hlines=((mean_norm, "mean"),),
        ),
        Prose(told),
        figure,
    ]
    return Part("c", tuple(blocks), "Patterns"), metrics


def word_sentence(context: Context, s: Studied) -> str:
    """A period of a character table beside the length of words."""
    if s.key != OWN:
        return ""
    found = words(context.text("train"))
    length = 1 + sum(map(len, found)) / len(found)
    near = [k + 1 for k in range(min(LISTED, len(s.found.variance))) if abs(s.found.wave(k).period - length) < 1]
    which = " and ".join(map(str, near)) or "none"
    return (
        f" Its tokens are characters, and a word with the space after it has {length:.1f} of them on average. "
        f"Components of those listed below with a period within one character of that: {which}. Texts were cut for "
        "training wherever it happened, so such a period belongs to distances, not to words at fixed places."
    )


def comparison(tables: Sequence[Studied]) -> Table:
    """The same numbers for all tables."""
    rows = []
    for s in tables:
        f, r = s.found, s.found.rotation
        rows.append(
            (
                *(s.name, s.length, s.table.shape[1], s.found.near, s.found.far, f.adjacent, f.reach),
                *(f.stationary, s.found.top, f.wave(0).period, f.wave(0).share, abs(r.turns), r.steady),
                *(f.norms.mean().item(), (f.norms.std() / f.norms.mean()).item()),
            )
        )
    columns = (
        *("table", "positions", "width", "cosine of neighbours", "cosine half the table apart or more"),
        *("nearest is adjacent", "half similarity (positions)", "variance explained by distance"),
        *("variance in 3 components", "period of component 1", "share of its power", "turns", "steps one way"),
        *("mean norm", "spread of norms"),
    )
    caption = (
        "All tables in the same numbers. Half similarity is where the mean cosine first falls to 1/2, at 0.5 where "
        "even neighbours have nothing in common, at the largest distance where it never does; turns and steps as in "
        "part (c); the random table is a single draw; spread is standard deviation / mean."
    )
    return Table(columns, tuple(rows), caption, "tables")


def part_d(tables: Sequence[Studied]) -> Part:
    """Beside sinusoids and noise."""
    s = tables[0]
    p, w, r = s.found, tables[-2].found, tables[-1].found
    text = (
        r"Sinusoids are the designed counterpart. From $\sin a \sin b + \cos a \cos b = \cos(a - b)$,"
        r"$$p_i \cdot p_j = \sum_{k=0}^{C/2-1} \cos\big((i - j)\, \omega_k\big), \qquad "
        r"\omega_k = 10000^{-2k/C},$$"
        "so all norms are equal and the similarity depends on the distance alone: distance explains "
        f"{w.stationary:.0%} of its variance, against {p.stationary:.0%} in the learned table and {r.stationary:.0%} "
        f"in noise. The most similar position is adjacent in {w.adjacent:.0%} of the sinusoidal rows, in "
        f"{p.adjacent:.0%} of the learned and {r.adjacent:.0%} of the random ones. Neighbours have a mean cosine of "
        f"{number(w.near)} (sinusoidal), {number(p.near)} (learned) and {number(r.near)} (random), pairs half of the "
        f"table apart or more {number(w.far)}, {number(p.far)} and {number(r.far)}. The mean cosine of the sinusoidal "
        f"table {fallen(tables[-2])}; that of the learned one {fallen(s)}. For 90 % of the variance the learned "
        f"table needs {p.dimensions()} dimensions, the sinusoids need {w.dimensions()} and the random table "
        f"{r.dimensions()}, of {len(p.variance)}: sinusoids spread over many frequencies, each in dimensions of its own"
        + (", and the learned table keeps to less than half as many." if 2 * p.dimensions() < w.dimensions() else ".")
    )
    others = [t for t in tables if t is not s]
    shares = Figure(
        "line",
        tuple(
            Series(
                t.name, tuple(float(k + 1) for k in range(count)), tuple(t.found.variance.cumsum(0)[:count].tolist())
            )
            for t in tables
            for count in (min(20, len(t.found.variance)),)
        ),
        *("components", "share of the variance", "Variance explained by the first components."),
    )
    blocks = (
        Prose(text),
        comparison(tables),
        curves(tables, "Similarity by distance in all tables. Each over its own length."),
        shares,
        *(block for t in others for block in (heatmap(t), cloud(t))),
    )
    return Part("d", blocks, "Beside sinusoids")


# --- Checks -----------------------------------------------------------------------------------------------------


def exact_checks(tables: Sequence[Studied]) -> list[Check]:
    """Each tool against another way to the same number."""
    s, waves = tables[0], tables[-2]
    cosine, variance, coordinates = s.found.cosine, s.found.variance, s.found.components
    centred = s.table.double() - s.table.double().mean(dim=0)
    spectrum = torch.linalg.eigvalsh(centred.T @ centred).flip(0).clamp_min(0)[: len(variance)]
    shares = (variance - spectrum / spectrum.sum()).abs().max().item()
    gram = (coordinates @ coordinates.T - centred @ centred.T).abs().max() / (centred @ centred.T).abs().max()
    angle = (torch.arange(s.length, dtype=torch.float64) * 7).remainder(s.length).sqrt() * (math.pi / s.length**0.5)
    circle = torch.stack([angle.cos(), angle.sin()], dim=1)  # points of half a circle, unevenly spaced, out of order
    gaps = (angle[:, None] - angle).abs().fill_diagonal_(math.inf)
    found = nearest_positions(circle @ circle.T)
    best = (gaps.gather(1, found[:, None])[:, 0] - gaps.min(dim=1).values).abs().max().item()
    period = strongest_wave((torch.arange(s.length) * (2 * math.pi * 5 / s.length)).cos().double())
    flat = principal_components(torch.arange(s.length).double()[:, None] * torch.ones(1, 4).double())[0]
    closed = (waves.found.cosine - sinusoidal_cosine(*waves.table.shape)).abs().max().item()
    return [
        Check.at_most("cosine matrix: asymmetry", (cosine - cosine.T).abs().max().item(), 1e-12),
        Check.at_most("cosine matrix: diagonal, distance from 1", (cosine.diagonal() - 1).abs().max().item(), 1e-12),
        Check.at_most("sinusoidal cosines against the sum of cosines of differences", closed, 1e-4),
        Check.at_most("shares of variance (SVD) against eigenvalues of the covariance matrix", shares, 1e-9),
        Check.close("shares of variance, sum", variance.sum().item(), 1.0, 1e-9),
        Check.at_most("coordinates keep all inner products of the centred rows, relative", gram.item(), 1e-9),
        Check.close("a table on a line: share of its first component", flat[0].item(), 1.0, 1e-12),
        Check.at_most("points on an arc in another order: nearest by cosine against nearest by angle", best, 1e-9),
        Check.equal("a cosine of 5 cycles: cycles found", period.cycles, 5),
    ]


def empirical_checks(s: Studied) -> list[Check]:
    """What is said of GPT-2's table and of learned positions."""
    middle = s.found.norms.median().item()
    return [
        Check.at_least(f"{s.name}: the most similar position is adjacent (share)", s.found.adjacent, 0.5, "empirical"),
        Check.at_least(
            f"{s.name}: three components hold most of the variance, as in GPT-2 (Yedidia, 2023)",
            s.found.top,
            0.5,
            "empirical",
        ),
        Check.at_least(
            f"{s.name}: norm of the first position over the median", s.found.norms[0].item() / middle, 1.2, "empirical"
        ),
    ]


# --- Answer -----------------------------------------------------------------------------------------------------


def metrics_of(s: Studied) -> dict[str, float | int]:
    """The numbers of one table."""
    f, r = s.found, s.found.rotation
    off = f.cosine[~torch.eye(s.length, dtype=torch.bool)]
    result: dict[str, float | int] = {
        "positions": s.length,
        "width": s.table.shape[1],
        "mean_cosine_all_pairs": off.mean().item(),
        "lowest_cosine": off.min().item(),
        "highest_cosine": off.max().item(),
        "mean_cosine_adjacent": s.found.near,
        "mean_cosine_half_apart": s.found.far,
        "nearest_is_adjacent_share": f.adjacent,
        "nearest_within_3_share": f.nearest_within(3),
        "half_similarity_positions": f.reach,
        "variance_explained_by_distance": f.stationary,
        "correlation_cosine_distance": distance_correlation(f.cosine),
        "correlation_cosine_distance_near_pairs": distance_correlation(f.cosine, s.length // 16),
        "components_for_90_percent": f.dimensions(),
        "variance_two_components": f.variance[:2].sum().item(),
        "variance_three_components": s.found.top,
        "rotation_turns": abs(r.turns),
        "rotation_steady_share": r.steady,
        "rotation_advance_correlation": r.advance,
        "norm_first": f.norms[0].item(),
        "norm_last": f.norms[-1].item(),
        "norm_median": f.norms.median().item(),
    }
    for k in range(3):
        result[f"component_{k + 1}_variance"] = f.variance[k].item()
        result[f"component_{k + 1}_period_positions"] = f.wave(k).period
    return {f"{s.key}_{name}": value for name, value in result.items()}


def answer(context: Context) -> Answer:
    """All four parts."""
    context.progress(0.0, "tables")
    tables, own = gather(context)
    s, pretrained = tables[0], context.pretrained()
    patterns, metrics = part_c(context, tables, own)
    for t in tables:
        metrics |= metrics_of(t)
    notes = [pretrained.note] if pretrained.note else []
    if s.key == OWN:
        loss = own.evaluations["validation_loss"][-1]
        notes.append(
            f"{pretrained.name} has no learned positions. The table studied is that of {s.name}: GPT-2's architecture "
            f"with {own.model.config.n_layer} layers, characters as tokens and a context of {s.length}; of the "
            f"project's models the one trained longest (validation loss {number(loss)} nats per character). Where "
            "the pretrained model is GPT-2, its own table is studied."
        )
    waves = tables[-2].found
    return Answer(
        summary=f"{s.name[0].upper()}{s.name[1:]} ({s.length:,} × {s.table.shape[1]}): the most similar position is "
        f"adjacent in {s.found.adjacent:.0%} of all cases, neighbours have a mean cosine of {number(s.found.near)}, "
        f"three components hold {s.found.top:.0%} of the variance; sinusoids: {waves.adjacent:.0%}, "
        f"{number(waves.near)}, {waves.top:.0%}.",
        parts=(part_a(s), part_b(s), patterns, part_d(tables)),
        checks=(*exact_checks(tables), *empirical_checks(s)),
        metrics=metrics,
        notes=tuple(notes),
    )


EXERCISE = Exercise(
    id="21.20",
    title="Positional Embedding Visualization",
    answer=answer,
    recipes=(SMALL_LONG,),
    sources=("main", "pretrained"),
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    seconds={"smoke": 1, "laptop": 2, "gpu": 5},
)
