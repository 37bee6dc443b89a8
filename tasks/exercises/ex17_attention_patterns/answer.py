"""Maps, tables, figures and checks of 21.17; the text is in answer.md."""

import math

from minigpt.evaluation.statistics import compare_paired, mean_std
from minigpt.pretrained.gpt2_published import HEADS
from reports.answers import Draft
from reports.types import AttentionMaps, Cell, Check, Figure, Heatmap, Series, Table
from reports.words import shown_token
from tasks.exercises.ex17_attention_patterns.findings import (
    KINDS,
    SHARE,
    TIMES,
    Copying,
    Curve,
    Findings,
    name_of,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "maps": maps(f),
            "specialists": specialists(f),
            "sentences": by_sentence(f),
            "heatmaps": heatmaps(f),
            "every head": every_head(f),
            "copiers": copiers(f) if f.copying else (),
            "gpt2": gpt2(f),
            "repetition": repetition(f.copying, f.vocab_size) if f.copying else (),
            "ablation": ablation(f) if f.ablations else (),
        },
        checks=checks(f),
        values={
            "kinds": KINDS,
            "share": SHARE,
            "times": TIMES,
            "mean_std": mean_std,
            "name_of": name_of,
            "drawn_and_named": [head for head in f.drawn_heads if head in f.named],
            "uniform": math.log(f.vocab_size),
            "elsewhere": [each.text - f.ablations[0].text for each in f.ablations[3:]],
        },
    )


def maps(f: Findings) -> AttentionMaps:
    """The maps of the drawn heads."""
    shown = set(f.drawn_heads)
    drawn = {kind: [head for head in s.named if head in shown] for kind, s in f.scores.items()}
    named = ", ".join(f"{name_of(heads[0])} ({KINDS[kind]})" for kind, heads in drawn.items() if heads)
    caption = (
        f"Attention in five sentences, {len(f.drawn)} layers × {len(f.drawn[min(f.drawn)])} heads. Rows are queries, "
        "columns keys; layers and heads count from 0. "
        + (f"Among them are heads that (b) names: {named}." if named else "No head that (b) names is among them.")
    )
    pieces = tuple(sentence.pieces for sentence in f.sentences)
    weights = tuple(sentence.maps for sentence in f.sentences)
    return AttentionMaps(pieces, tuple(f.drawn), tuple(f.drawn.values()), weights, caption)


def specialists(f: Findings) -> Table:
    """The best head of each kind."""
    rows: list[tuple[Cell, ...]] = []
    for kind, s in f.scores.items():
        mean, spread = s.best_share
        where = "repeated random tokens" if kind == "induction" else "held-out text"
        named = str(len(s.named)) if s.named else "none"
        drawn = "yes" if s.best in f.drawn_heads else "no"
        rows.append((KINDS[kind], name_of(s.best), where, mean, spread, s.blind, mean / s.blind, named, drawn))
    columns = (
        "kind of key",
        "best head",
        "measured in",
        "share of its attention",
        "± std over rows",
        "blind head",
        "times the blind head",
        "heads named",
        "drawn in (a)",
    )
    caption = (
        "The best head of each kind; L1H0 is head 0 of layer 1. A blind head attends uniformly to all keys that it may "
        f"see. Rows: {len(f.scores['previous'].rows)} windows of {f.window} tokens of held-out text, or the random "
        "rows of (c)."
    )
    return Table(columns, tuple(rows), caption, "specialists")


def gpt2(f: Findings) -> Table:
    """GPT-2's known heads beside those named here."""
    here = {"previous token": f.scores["previous"], "induction": f.scores.get("induction")}
    rows = tuple(
        (x.what, f"GPT-2 {x.model}", x.value, (name_of(*own.named) or "none") if own else "not measured", x.source)
        for kind, x in HEADS.items()
        if kind in here
        for own in (here[kind],)
    )
    columns = ("kind", "which GPT-2", "its heads", f"{f.model}, here", "source of GPT-2's heads")
    caption = "Heads of GPT-2 with such names in the literature, and the heads named here."
    return Table(columns, rows, caption, "gpt2_heads")


def by_sentence(f: Findings) -> Table:
    """What the best heads do in the five sentences."""
    rows: list[tuple[Cell, ...]] = []
    for sentence in f.sentences:
        pairs = zip(sentence.pieces, sentence.came_before, strict=True)
        again = [shown_token(piece) for piece, known in pairs if known]
        shares = (sentence.shares[kind] for kind in f.scores)
        rows.append((sentence.name, len(sentence.pieces), *shares, " ".join(again)))
    columns = ("sentence", "tokens", *(f"{KINDS[kind]}: {name_of(s.best)}" for kind, s in f.scores.items()))
    caption = (
        "The same heads in each of the five sentences. Share of attention, empty where there is no such key; the last "
        "column has the tokens that came before, for which there is something to copy."
    )
    return Table((*columns, "tokens that came before"), tuple(rows), caption, "sentences")


def heatmaps(f: Findings) -> tuple[Heatmap, ...]:
    """All heads, one map for each kind of key."""
    mean = f.scores["previous"].mean
    layers, numbers = (tuple(map(str, range(size))) for size in (len(mean), len(mean[0])))
    return tuple(
        Heatmap(
            s.mean,
            "head",
            "layer",
            f"{KINDS[kind].capitalize()}. Share of attention; a blind head has {s.blind:.3f}.",
            numbers,
            layers,
            baseline=(s.blind, "blind"),
            threshold=(max(SHARE, TIMES * s.blind), "named"),
        )
        for kind, s in f.scores.items()
    )


def every_head(f: Findings) -> Table:
    """All scores of all heads."""
    induction = f.scores.get("induction")
    rows: list[tuple[Cell, ...]] = []
    for head in sorted(f.scores["previous"].ranked):
        names = ", ".join(KINDS[kind] for kind, s in f.scores.items() if head in s.named)
        shares = (s.mean_of(head) for s in f.scores.values())
        rows.append((name_of(head), *head, *shares, induction.control_of(head) if induction else None, names))
    kinds_and_blind = (f"{KINDS[kind]} (blind {s.blind:.3f})" for kind, s in f.scores.items())
    columns = ("head", "layer", "number", *kinds_and_blind, "same places, no repetition", "named")
    caption = (
        "Every head. Share of its attention on each kind of key, mean over rows; a blind head's is in the heading. The "
        "last share is that on the places which count for induction, where tokens do not repeat."
    )
    return Table(columns, tuple(rows), caption, "heads")


def copiers(f: Findings) -> Table:
    """The heads with the highest induction scores."""
    assert f.copying is not None
    s, periods = f.scores["induction"], f.copying.periods
    rows: list[tuple[Cell, ...]] = []
    for head in s.ranked[:10]:
        first, verdict = f.scores["first"].mean_of(head), "induction head" if head in s.named else ""
        rows.append((name_of(head), *mean_std(s.of(head)), s.blind, s.control_of(head), first, verdict))
    caption = (
        f"The highest induction scores. {len(periods)} rows of {f.copying.length} random tokens; each repeats a block "
        f"of a length of its own, from {min(periods)} to {max(periods)} tokens."
    )
    columns = ("head", "share on induction keys", "± std over rows", "blind head", "same places, no repetition")
    return Table((*columns, "first token, in text", "verdict"), tuple(rows), caption, "induction")


def repetition(copying: Copying, vocab_size: int) -> Figure:
    """Loss where tokens begin to repeat."""

    def series(curve: Curve, name: str) -> Series:
        return Series(name, curve.distances, curve.means, curve.errors)

    return Figure(
        "line",
        (series(copying.curve, "tokens repeat"), series(copying.control_curve, "they do not")),
        "tokens since the first that can be copied",
        "loss (nats)",
        "Loss where random tokens begin to repeat. Mean ± standard error over rows. From 0 on, the token before was "
        "seen earlier in the row, and so was what followed it.",
        hlines=((math.log(vocab_size), "uniform guess"),),
    )


def ablation(f: Findings) -> Table:
    """Losses without some heads."""
    whole = f.ablations[0]
    rows: list[tuple[Cell, ...]] = []
    for each in (*f.ablations, *f.beside_previous):
        change, early = compare_paired(whole.repeated, each.repeated), compare_paired(whole.first, each.first)
        means = mean_std(each.repeated)[0], change.difference, *change.interval, early.difference
        rows.append((each.name, name_of(*each.heads), *means, each.text, each.text - whole.text))
    columns = (
        "removed",
        "heads",
        "loss where tokens repeat (nats)",
        "change (nats)",
        "95 % from",
        "95 % to",
        "change before they repeat (nats)",
        "loss in text (nats)",
        "change in text (nats)",
    )
    caption = (
        "Losses without some heads. Intervals over rows of random tokens, paired; random heads come from the layers of "
        "the best for induction, or of those for the previous token, while these have others."
    )
    return Table(columns, tuple(rows), caption, "ablation")


def checks(f: Findings) -> tuple[Check, ...]:
    """The maps and the scores against what must hold of them, then what the literature expects."""
    a, previous = f.accuracy, f.scores["previous"]
    found = [
        Check.at_most("rows of the maps sum to 1 (largest error)", a.row_sums, 1e-4),
        Check.equal("attention on the future (largest weight)", a.future, 0.0),
        Check.at_most("a blind head has the blind share for every kind of key (largest error)", a.blind_error, 1e-6),
        Check.close(
            "a planted head, 4/5 on the token before, has the share", a.planted_share, a.planted_expected, 1e-6
        ),
        Check.equal("heads named beside two blind ones: the planted one", name_of(*a.planted_named), "L0H1"),
    ]
    if a.next_token is not None:
        found.append(Check.equal("the keys of induction hold the token that comes next (share)", a.next_token, 1.0))
    if a.rebuilt is not None:
        claim = "maps times values against the outputs of the model's own heads, all layers (largest relative error)"
        found.append(Check.at_most(claim, a.rebuilt, 1e-4))
    found.append(
        Check.at_least("share of the best previous-token head", previous.mean_of(previous.best), SHARE, "empirical")
    )
    if f.copying is None:
        return tuple(found)
    found += [
        Check.at_least("heads with the score of an induction head", len(f.scores["induction"].named), 1, "empirical"),
        Check.at_most(
            "loss where tokens repeat less loss before, upper end (nats)",
            f.copying.change.interval[1],
            0.0,
            "empirical",
        ),
    ]
    if f.ablations:
        claim = "removing the best induction heads costs more than removing random ones, lower end (nats)"
        found.append(Check.at_least(claim, f.cost.interval[0], 0.0, "empirical"))
    return tuple(found)
