"""What an answer makes of comparisons: of trained variants the same table, curves and sentences in all exercises.

Apart from ``tasks.variants``, so that no measurement depends on how its numbers are worded.
"""

from collections.abc import Sequence

from minigpt.evaluation.ngrams import Baselines
from minigpt.evaluation.statistics import Comparison, holm, mean_std
from reports.types import Cell, Figure, Series, Table
from reports.words import fixed, interval, listed, nats, noun, plural, signed, span, verdict
from tasks.variants import Variant, at_equal_time, comparisons, comparisons_at_equal_time, contrast


def table(rows: Sequence[Variant], *, name: str, caption: str = "") -> Table:
    """All variants beside the first, which is the baseline, and what counting reaches under them."""
    cells: list[tuple[Cell, ...]] = []
    found: list[Comparison | None] = [None, *comparisons(rows)]
    in_time: list[Comparison | None] = [None, *comparisons_at_equal_time(rows)]
    for row, timed, against, late in zip(rows, at_equal_time(rows), found, in_time, strict=True):
        several = len(row.curves) > 1
        loss, spread = mean_std(row.losses)
        cells.append(
            (
                row.label,
                row.parameters,
                loss,
                spread if several else None,
                against.difference if against else None,
                verdict(against) if against else "baseline",
                row.step_seconds * 1000,
                mean_std(timed)[0] if timed else None,
                mean_std(timed)[1] if timed and several else None,
                verdict(late) if late else "baseline",
            )
        )
    columns = (
        "variant",
        "parameters",
        "loss",
        "± std",
        "difference",
        "verdict",
        "step (ms)",
        "at equal time",
        "± std (time)",
        "verdict (time)",
    )
    for label, reached in counted(rows[0].baselines):
        cells.append((label, None, reached, *(None,) * (len(columns) - 3)))
    return Table(columns, tuple(cells), f"{caption} {_how(rows)}".strip(), name)


def counted(baselines: Baselines) -> list[tuple[str, float]]:
    """The baselines as rows: name and loss."""
    best = [] if baselines.n <= 2 else [(f"{baselines.n}-gram", baselines.ngram)]
    return [("unigram", baselines.unigram), ("bigram", baselines.bigram), *best]


def least(found: Sequence[Comparison]) -> Comparison:
    """The least of several differences that should all be positive; one that is not so beyond noise before others."""
    return min(holm(found), key=lambda c: (c.verdict == "higher", c.difference))


def _how(rows: Sequence[Variant]) -> str:
    seeds = " and ".join(map(str, sorted({len(row.curves) for row in rows}, reverse=True)))
    steps = span([row.steps for row in rows], spec=",", joint=" or ")
    best = rows[0].baselines
    behind = best.n > 2 and best.ngram < min(mean_std(row.losses)[0] for row in rows)
    return (
        f"Loss on the whole validation split in nats per token after {steps} steps "
        f"({span([row.epochs for row in rows], 1, joint=' or ')} epochs), {seeds} seed{'' if seeds == '1' else 's'}; "
        "n-grams smoothed after Witten and Bell, on the same tokens. Verdicts are by 95% intervals for the difference "
        "from the first row: of pairs with a seed in common, by the scatter of all rows and by the pair's own, and "
        "corrected after Holm for their number. Steps are timed alone, in turn. Equal time is step "
        "time × steps: trainings that end when the quickest does, each with a learning rate that has come down; the "
        "interval holds what the quartiles of the step times leave open."
        + (f" No row beats the {best.n}-gram: verdicts are those of an early stage of learning." * behind)
    )


def curves(rows: Sequence[Variant], *, caption: str = "") -> Figure:
    """Validation loss over steps, mean ± standard deviation over seeds, above what counting reaches."""
    series = []
    for row in rows:
        steps = tuple(float(step) for step in row.curves[0].steps[1:])  # all start at ln V
        points = [mean_std(row.losses_after(step)) for step in steps]
        error = tuple(spread for _, spread in points) if len(row.curves) > 1 else ()
        series.append(Series(row.label, steps, tuple(mean for mean, _ in points), error))
    ends = min(one.x[0] for one in series), max(one.x[-1] for one in series)
    series += [Series(label, ends, (loss, loss)) for label, loss in counted(rows[0].baselines)[1:]]
    return Figure("line", tuple(series), "training step", "validation loss (nats/token)", caption)


def sentences(rows: Sequence[Variant]) -> str:
    """What the data allow to say of each variant against the first, at equal steps and at equal time.

    Equal time is spoken of where it turns a verdict.
    """
    if not rows[0].beats_bigram:
        return untrained(rows)
    base, steps, time = rows[0], comparisons(rows), comparisons_at_equal_time(rows)
    said = [untrained(rows), _grouped(base, rows[1:], steps), _by_their_own_pairs(rows, steps)]
    turned = [(row, late) for row, at, late in zip(rows[1:], steps, time, strict=True) if at.verdict != late.verdict]
    if turned and time and not rows[0].beats_bigram_with(at_equal_time(rows)[0] or base.losses):
        said.append(
            f"At equal time: not trained far enough to say; so short a training of {base.label} has not beaten the "
            f"bigram ({nats(base.baselines.bigram)})."
        )
    elif turned:
        late_rows, late_found = zip(*turned, strict=True)
        said.append("At equal time: " + _grouped(base, late_rows, late_found, open_by="step times"))
    elif any(one.verdict != "untrained" for one in time):
        said.append("At equal time the verdicts are the same.")
    return " ".join(filter(None, said))


def untrained(rows: Sequence[Variant]) -> str:
    """Who has not beaten the bigram and gets no verdict; nothing where all have."""
    names = [row.label for row in rows if not row.beats_bigram]
    if not names:
        return ""
    return (
        f"Not trained far enough to say: {listed(names)} {noun(len(names), 'has', 'have')} not beaten the bigram "
        f"({nats(rows[0].baselines.bigram)}), so that what is compared would be how soon a model learns to look "
        "further back than one token, and not what it does then."
    )


def _by_their_own_pairs(rows: Sequence[Variant], found: Sequence[Comparison]) -> str:
    """Rows that are inside the noise by the scatter of all rows, and would not be by that of their own pairs."""
    said = []
    by_pairs = holm([contrast(rows[0], row) for row in rows[1:]])
    for row, together, alone in zip(rows[1:], found, by_pairs, strict=True):
        if together.verdict == "noise" and alone.verdict in ("lower", "higher"):
            said.append(
                f"By its own pairs alone {row.label} would be {alone.verdict}, by {nats(abs(alone.difference))} "
                f"({interval(alone)}): it is the scatter of all rows that leaves this open."
            )
    return " ".join(said)


def _grouped(base: Variant, rows: Sequence[Variant], found: Sequence[Comparison], open_by: str = "") -> str:
    """A sentence for each kind of verdict, and not one for each row. ``open_by``: what is noise beside the seeds."""
    pairs = list(zip(rows, found, strict=True))
    said = []
    if decided := [(row, c) for row, c in pairs if c.verdict in ("lower", "higher")]:
        ends = (f"{row.label} ended {nats(abs(c.difference))} {c.verdict} ({interval(c)})" for row, c in decided)
        said.append(f"Against {base.label}, {listed(ends)}.")
    if same := [(row, c) for row, c in pairs if c.verdict == "noise"]:
        names, apart = listed(row.label for row, _ in same), span([abs(c.difference) for _, c in same])
        seeds = plural(min(map(len, (row.losses for row, _ in same))), "seed")
        noise = f"{seeds} and of the {open_by}" if open_by else seeds
        said.append(
            f"{_upper(names)} cannot be told from {base.label}: {apart} nats apart, inside the noise of {noise}."
        )
    if single := [(row, c) for row, c in pairs if c.verdict == "one seed"]:
        c = single[0][1]
        vary = f", whose seeds vary by {nats(c.baseline[1])}" if c.seeds[0] > 1 else ""
        has = "has one seed" if len(single) == 1 else "have one seed each"
        away = listed(signed(found.difference) for _, found in single)
        said.append(
            f"{_upper(listed(row.label for row, _ in single))} {has}, which carries no claim: {away} nats against "
            f"{base.label}{vary}."
        )
    if early := [row.label for row, c in pairs if c.verdict == "untrained" and row.beats_bigram]:
        said.append(
            f"Not trained far enough to say of {listed(early)}: so short a training has not beaten the bigram "
            f"({nats(base.baselines.bigram)})."
        )
    for row, c in pairs:
        if c.verdict == "one of many":
            said.append(
                f"{_upper(row.label)} is {signed(c.difference)} nats away ({interval(c)}); that would count alone, but "
                f"not as one of {plural(c.among, 'comparison')} (p = {fixed(c.p_value, 2)} after Holm)."
            )
        elif c.verdict == "no time":
            said.append(f"{_upper(row.label)} has finished no training as short as that of {base.label}.")
    return " ".join(said)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
