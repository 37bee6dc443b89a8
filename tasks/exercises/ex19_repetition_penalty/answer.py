"""Tables, figures, samples and checks of 21.19; the text is in answer.md."""

import itertools
import math
from collections.abc import Sequence

from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std
from minigpt.pretrained.gpt2_published import PERPLEXITY, REPEATED
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Block, Cell, Check, Figure, Sample, Series, Table
from tasks.exercises.ex19_repetition_penalty.findings import (
    ASKED,
    GREEDY,
    HUMAN,
    NGRAMS,
    NUCLEUS,
    STRENGTHS,
    TOP_P,
    WAYS,
    Findings,
)
from tasks.nearness import as_near, few


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    blocks: dict[str, Block | Sequence[Block]] = {
        "code": listing(f.source, "minigpt/decoding/penalties.py"),
        "overview": overview(f),
        "repetition": repetition(f),
        "price": price(f),
        "trade-off": trade_off(f),
        "human text": human_text(f),
        "mechanism": mechanism(f),
        "steps": steps(f),
        "gpt2": gpt2(f),
    }
    for alpha in ASKED:
        blocks[f"α = {alpha:g}"] = strength(f, alpha)
        blocks[f"samples of α = {alpha:g}"] = samples(f, alpha)
    confidence = f.reading_change(1.2).confidence
    return Draft(
        blocks=blocks,
        checks=checks(f),
        values={
            "predictions": predictions(f),
            "closest": {key: closest(f, key) for key in WAYS},
            "ngrams": NGRAMS,
            "ways": WAYS,
            "top_p": TOP_P,
            "between": [alpha for alpha in STRENGTHS if alpha not in ASKED],
            "told_apart": {label: f.told_apart(measure) for measure, label in STEPS.items()},
            "of_steps": len(WAYS) * (len(ASKED) - 1),
            "intervals": INTERVALS,
            "confidence": confidence,
            "by_chance": (1 - confidence) * INTERVALS,
        },
    )


# Measures by which the asked-for strengths may differ, and how they are called.
STEPS = {"bigrams": "repeated bigrams", "seen": "tokens that occurred before", "loss": "loss"}

# And by which each strength is compared with no penalty, and that with people.
MEASURES = {
    **{name: f"repeated {name}" for name in NGRAMS.values()},
    "seen": "tokens that occurred before",
    "loss": "loss without penalty (nats/token)",
    "real words": "real words",
}
# The tables of the strengths, the steps beyond the first (which is one of those), penalised texts beside people's, and
# what the penalty does to human text.
INTERVALS = len(WAYS) * (len(MEASURES) * len(ASKED) + len(STEPS) * (len(ASKED) - 2) + len(ASKED) - 1) + 1


def overview(f: Findings) -> Table:
    """One row per way to write."""
    rows: list[tuple[Cell, ...]] = []
    for w in (f.human, *f.written):
        shares = [value for n in NGRAMS for value in mean_std(w.repeated[n])]
        label = ("held-out text", None) if w.key == HUMAN else (w.key, w.alpha)
        rows.append((*label, *shares, w.seen_share, *mean_std(w.nats), w.perplexity, w.real_share))
    columns = (
        "text",
        "α",
        *(column for name in NGRAMS.values() for column in (f"repeated {name}", f"± std, {name}")),
        "tokens seen before",
        "loss (nats/token)",
        "± std, loss",
        "perplexity",
        "real words",
    )
    caption = (
        "Repetition and its price. Share of n-grams that occurred before in the continuation, mean and standard "
        f"deviation over {f.prompts} texts. Tokens seen before occurred in the prompt or the continuation. "
        "Loss under the model without penalty, of the new tokens only; the perplexity is its exponential. Real words "
        "stand in the training text or are, with a space before them, a token of GPT-2's vocabulary."
    )
    return Table(columns, tuple(rows), caption, "overview")


def closest(f: Findings, key: str) -> dict[str, tuple[float, str]]:
    """The α that writes most like people, by repeated 4-grams and by loss, and those not to be told from it in that."""
    found = {}
    for label, measure in (("repeated 4-grams", NGRAMS[4]), ("loss", "loss")):
        people, ways = f.human.values(measure), {alpha: f.of(key, alpha).values(measure) for alpha in STRENGTHS}
        mean = mean_std(people)[0]
        best = min(STRENGTHS, key=lambda alpha: abs(mean_std(ways[alpha])[0] - mean))
        rivals = [f"α = {alpha:g}" for alpha in as_near(people, ways, best)]
        found[label] = best, "any other" if len(rivals) == len(STRENGTHS) - 1 else few(rivals)
    return found


def repetition(f: Findings) -> tuple[Figure, ...]:
    """Repetition over α."""
    found = []
    for key in WAYS:
        series = tuple(curve(name, [f.of(key, a).repeated[n] for a in STRENGTHS]) for n, name in NGRAMS.items())
        lines = tuple((f.human.share(n), f"{name}, human") for n, name in NGRAMS.items() if n != 3)
        caption = f"Repetition in {key} text over α. Mean and standard deviation over texts."
        found.append(Figure("line", series, "α", "repeated n-grams (share)", caption, hlines=lines))
    return tuple(found)


def price(f: Findings) -> Figure:
    """Loss over α."""
    series = [curve(f"{key} text", [f.of(key, a).nats for a in STRENGTHS]) for key in WAYS]
    reader = tuple(f.human_nats(a) for a in STRENGTHS)
    series.append(Series("human text, read by the penalised model", STRENGTHS, reader))
    human = ((reader[0], "human text"),)
    caption = "The price. Loss of the text under the model without penalty, mean and standard deviation over texts."
    return Figure("line", tuple(series), "α", "loss (nats/token)", caption, hlines=human)


def trade_off(f: Findings) -> Figure:
    """Repetition and its price, one against the other."""
    path = [
        Series(
            f"{key}: {f.of(key, 1.0).perplexity:,.3g} at α = 1, {f.of(key, 2.0).perplexity:,.3g} at α = 2",
            tuple(f.of(key, a).seen_share for a in STRENGTHS),
            tuple(f.of(key, a).perplexity for a in STRENGTHS),
        )
        for key in WAYS
    ]
    path.append(Series("human", (f.human.seen_share,), (f.human.perplexity,)))
    caption = "The trade-off. A point for each α, joined in their order."
    labels = ("tokens that occurred before (share)", "perplexity without penalty")
    return Figure("line", tuple(path), *labels, caption, y_log=True)


def curve(name: str, values: Sequence[Sequence[float]]) -> Series:
    """Mean and standard deviation over texts, per α."""
    means, spreads = zip(*map(mean_std, values), strict=True)
    return Series(name, STRENGTHS, means, spreads)


def human_text(f: Findings) -> Table:
    """What the penalty does to human text."""
    rows = tuple(
        (
            alpha,
            *(
                None if math.isnan(value) else value
                for value in (f.human_nats(alpha, True), f.human_nats(alpha, False))
            ),
            f.human_nats(alpha),
            math.exp(f.human_nats(alpha)),
        )
        for alpha in STRENGTHS
    )
    columns = ("α", "loss of tokens seen before", "loss of other tokens", "loss (nats/token)", "perplexity")
    caption = f"Human text read by the penalised model: {len(f.reading.logits):,} tokens after the same prompts."
    return Table(columns, rows, caption, "human_text")


def mechanism(f: Findings) -> Table:
    """What α takes from a logit, and what the token has to lose."""
    r = f.reading
    rows = tuple((alpha, r.penalty(alpha), r.lead, r.overtaken(alpha)) for alpha in STRENGTHS)
    columns = ("α", "penalty on the best token that occurred (nats)", "its median lead (nats)", "overtaken")
    caption = (
        f"The penalty against the lead, at {len(r.logits):,} places of human text. A token that occurred before is the "
        f"likeliest at {r.led:.0%} of them; its lead is over the best token that did not, and it is overtaken where "
        "the penalty is larger."
    )
    return Table(columns, rows, caption, "mechanism")


def steps(f: Findings) -> Table:
    """Each asked-for strength against the one before."""
    rows: list[tuple[Cell, ...]] = []
    for key in WAYS:
        for before, alpha in itertools.pairwise(ASKED):
            for measure, label in STEPS.items():
                change = f.step(key, alpha, measure)
                interval = change.interval if math.isfinite(change.std_error) else (None, None)
                means = (change.baseline[0], change.other[0], change.difference)
                rows.append((key, f"{before:g} → {alpha:g}", label, *means, *interval, change.verdict))
    columns = ("text", "α", "measure", "before", "after", "difference", "95 % from", "95 % to", "verdict")
    caption = (
        f"From each strength to the next. Student's interval for the mean difference, paired over {f.prompts} prompts."
    )
    return Table(columns, tuple(rows), caption, "steps")


def gpt2(f: Findings) -> Table:
    """Published values of GPT-2 beside those of the model that was used."""
    rows: list[tuple[Cell, ...]] = [
        (x.what, x.model, x.value, f.of(way, 1.0).share(n), x.source) for (way, n), x in REPEATED.items()
    ]
    here = {"greedy": f.of(GREEDY, 1.0).perplexity, "human": f.human.perplexity}
    rows += [(x.what, x.model, x.value, here[key], x.source) for key, x in PERPLEXITY.items() if key in here]
    columns = ("without a penalty", "GPT-2", "its value", f"{f.model}, here", "source of GPT-2's value")
    caption = (
        f"GPT-2 beside the model that was used. Nucleus sampling is p = {TOP_P:g} here; prompts, lengths and texts "
        "differ, too."
    )
    return Table(columns, tuple(rows), caption, "gpt2")


def strength(f: Findings, alpha: float) -> Table:
    """One strength, against no penalty; no penalty itself against people."""
    against = "human text" if alpha == 1.0 else "no penalty"
    rows: list[tuple[Cell, ...]] = []
    for key in WAYS:
        for measure, label in MEASURES.items():
            change = f.change(key, alpha, measure)
            interval = change.interval if math.isfinite(change.std_error) else (None, None)
            means = mean_std(f.of(key, alpha).values(measure))
            rows.append((key, label, *means, change.difference, *interval, change.verdict))
    columns = (
        "text",
        "measure",
        "mean",
        "± std over texts",
        f"difference from {against}",
        "95 % from",
        "95 % to",
        "verdict",
    )
    caption = (
        f"α = {alpha:g} against {against}. Student's interval for the mean difference, paired over {f.prompts} prompts."
    )
    return Table(columns, tuple(rows), caption, f"alpha_{alpha:g}")


def samples(f: Findings, alpha: float) -> tuple[Sample, ...]:
    """The first text of each way to write; of no penalty also what people wrote."""
    found = []
    for w in [f.of(key, alpha) for key in WAYS] + ([f.human] if alpha == 1.0 else []):
        title = "human" if w.key == HUMAN else f"α = {alpha:g}, {w.key}"
        note = f"{w.repeated[4][0]:.0%} of its 4-grams repeated, perplexity {math.exp(w.nats[0]):,.1f}"
        found.append(Sample(title, w.prompts[0], w.texts[0], note))
    return tuple(found)


def checks(f: Findings) -> tuple[Check, ...]:
    """The penalty and the measures against other ways to them, then what the literature expects."""
    a = f.accuracy
    return (
        Check.equal(
            "logits = those of Transformers' RepetitionPenaltyLogitsProcessor, every α", a.as_transformers, True
        ),
        Check.equal("α = 1 leaves all logits as they are", a.nothing_at_1, True),
        Check.at_most("α > 1: largest rise of the logit of a token that occurred", a.largest_rise, 0.0),
        Check.equal(
            "at α = 2 the logits 3 and -3 of tokens that occurred become",
            str(list(a.three_and_minus_three)),
            "[1.5, -6.0]",
        ),
        Check.equal("a token that occurred three times is penalised once", a.penalised_once, True),
        Check.equal("α = 1 gives the samples of no processor", a.same_samples_at_1, True),
        Check.close(
            "loss recorded while writing against the model's own on a second pass, prompt masked (nats/token)",
            a.recorded_loss,
            a.second_loss,
            1e-3,
        ),
        Check.close(
            "repeated bigrams against counting occurrences beyond the first",
            a.repeated_bigrams,
            a.counted_bigrams,
            1e-12,
        ),
        Check.equal("banned tokens written", a.banned_written, 0),
        *empirical_checks(f),
    )


def predictions(f: Findings) -> dict[str, Comparison]:
    """What the literature expects: the second higher than the first, paired over prompts."""
    greedy, drawn, mild = (f.of(*way).repeated[4] for way in ((GREEDY, 1.0), (NUCLEUS, 1.0), (GREEDY, 1.2)))
    likeliest, beside_people = compare_paired(drawn, greedy), compare_paired(mild, f.human.repeated[4])
    aggressive = f.change(NUCLEUS, 2.0, "loss")
    return {
        "without a penalty greedy text repeats more 4-grams than drawn text (Holtzman et al., 2020), shares": likeliest,
        "at α = 1.2, which Keskar et al. (2019) recommend, greedy text repeats fewer 4-grams than people, shares": (
            beside_people
        ),
        "nucleus-sampled text at α = 2 is less likely than without a penalty, nats/token": aggressive,
        "at α = 1.2 the model predicts human text worse than without a penalty, nats/token": f.reading_change(1.2),
    }


def empirical_checks(f: Findings) -> tuple[Check, ...]:
    """Whether it is so."""
    return tuple(Check.beyond_noise(f"{claim}: difference", found, "higher") for claim, found in predictions(f).items())
