"""Tables, figures and checks of 21.31; the text is in answer.md."""

import itertools
import math
from ast import literal_eval
from collections.abc import Sequence

from minigpt.evaluation.statistics import mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Sample, Series, Table
from reports.words import plural, shown_token, verdict
from tasks.exercises.ex31_contrastive_decoding.findings import BOOK, PAPER, PLAUSIBILITY, Findings, Pair, Quality


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    shown = (f.at(BOOK, 0.0).own, f.best.own, f.best.plain, f.greedy.expert, f.greedy.paper)
    return Draft(
        blocks={
            "models": models(f),
            "one step": one_step(f),
            "formula": listing(f.source, "minigpt/decoding/contrastive.py"),
            "quality": quality_table(f),
            "samples": tuple(sample(quality) for quality in shown),
            "likelihood": likelihood(f),
            "entropy": entropies(f),
        },
        checks=checks(f),
        values={
            "plausibility": PLAUSIBILITY,
            "uniform": math.log(f.vocab_size),
            "least_rise": least_rise(f),
            "likeliest": at_place(f, likeliest(f)),
            "raised": at_place(f, most_raised(f)),
            "book": [pair.own for pair in f.of(BOOK)],
            "paper": [pair.own for pair in f.of(PAPER)],
        },
    )


def models(f: Findings) -> Table:
    """The three models."""
    roles = {
        "expert": f.expert,
        "amateur": f.amateur,
        "amateur, had it trained for longer": f.longer,
        "scorer, takes no part in decoding": f.scorer,
    }
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (
            role,
            len(m.losses),
            m.layers,
            m.width,
            m.parameters,
            m.steps,
            *(m.loss, mean_std(m.losses)[1] if len(m.losses) > 1 else None),
        )
        for role, m in roles.items()
    )
    counted = ((f.baselines.bigram, "bigrams"), (f.baselines.ngram, f"{f.baselines.n}-grams, smoothed"))
    rows += tuple((name, None, None, None, None, None, loss, None) for loss, name in counted)
    columns = ("role", "seeds", "layers", "width", "parameters", "steps", "validation loss (nats/character)", "± std")
    return Table(columns, rows, "Trained on the same text.", "models")


def one_step(f: Findings) -> Table:
    """One step of the formulas."""
    shown = (shown_token(literal_eval(character)) for character in f.step.characters)  # stored as Python writes them
    rows = tuple(zip(shown, *f.step.probabilities.values(), strict=True))
    caption = f"Probabilities of the next character after “…{f.step.before}”, where the two models disagree most."
    return Table(("next character", *f.step.probabilities), rows, caption, "one_step")


def likeliest(f: Findings) -> int:
    """Where in that step the expert's likeliest character is."""
    expert = f.step.probabilities["expert"]
    return expert.index(max(expert))


def most_raised(f: Findings) -> int:
    """Where in that step the book's formula raises the expert's probability by the largest factor."""
    p = f.step.probabilities
    factors = [book / max(expert, 1e-30) for book, expert in zip(p["book, α = 1"], p["expert"], strict=True)]
    return factors.index(max(factors))


def at_place(f: Findings, place: int) -> dict[str, str | float]:
    """A character of that step, and what becomes of it."""
    p = f.step.probabilities
    return {
        "character": literal_eval(f.step.characters[place]),
        "expert": p["expert"][place],
        "amateur": p["amateur"][place],
        "book": p["book, α = 0.5"][place],
        "strong": p["book, α = 1"][place],
        "paper": p["paper, α = 1"][place],
    }


def quality_table(f: Findings) -> Table:
    """Every setting beside its counterpart."""
    columns = (
        "decoding",
        "entropy (nats)",
        "NLL under the scorer",
        "± std over texts",
        "± std over seeds",
        "known words",
        "distinct words",
        "repeated 8-grams",
        "verdict on NLL",
    )
    rows = []
    for pair in f.pairs:
        change = f.change(pair)
        found = verdict(change) if change.verdict == "one of many" else change.verdict
        rows += [row(pair.own, found), row(pair.plain, "↑ its counterpart")]
    rows += [row(f.greedy.expert, ""), row(f.greedy.paper, "")]
    several = len(f.amateur.losses) > 1
    seeds = "and over the amateur's seeds" if several else "for this one amateur"
    caption = (
        f"{f.texts} texts of {f.n_new} characters per row and seed of the amateur ({len(f.amateur.losses)}), from the "
        "same prompts. Below each contrastive setting stands plain sampling from the expert at the temperature of "
        f"equal entropy (mean over {f.contexts:,} held-out contexts), with as many texts. Verdict: 95 % interval over "
        f"prompts, text by text, {seeds}, with Holm's correction for {plural(len(f.changes), 'comparison')} of texts. "
        "Seeds are those of the amateur's training and of the sampling, or of the sampling "
        "alone where there is no amateur. NLL in nats per character; known words occur in the training text."
    )
    return Table(columns, tuple(rows), caption, "quality")


def row(q: Quality, found: str) -> tuple[Cell, ...]:
    """One setting."""
    over_seeds = mean_std(q.by_seed)[1] if len(q.by_seed) > 1 else None
    return (q.setting.label, q.entropy, *mean_std(q.nll), over_seeds, q.known, q.distinct, q.repeated, found)


def sample(q: Quality) -> Sample:
    """The first text of a setting."""
    return Sample(q.setting.label, q.prompt, q.text, f"entropy {q.entropy:.2f} nats, NLL {q.nll[0]:.2f}")


def likelihood(f: Findings) -> Figure:
    """NLL over α, beside plain sampling."""
    series = []
    for formula in (BOOK, PAPER):
        pairs = f.of(formula)
        series.append(nll_curve(f"{formula}'s formula", pairs, [pair.own for pair in pairs]))
        series.append(nll_curve(f"plain sampling, entropy of the {formula}'s", pairs, [pair.plain for pair in pairs]))
    caption = "NLL under the scorer, mean ± standard error over texts, beside plain sampling of equal entropy."
    return Figure("line", tuple(series), "α", "NLL (nats/character)", caption)


def nll_curve(name: str, pairs: Sequence[Pair], qualities: Sequence[Quality]) -> Series:
    """Mean NLL with its standard error over the α of the pairs."""
    means = [mean_std(q.nll) for q in qualities]
    error = tuple(spread / len(q.nll) ** 0.5 for q, (_, spread) in zip(qualities, means, strict=True))
    return Series(name, alphas(pairs), tuple(mean for mean, _ in means), error)


def entropies(f: Findings) -> Figure:
    """Entropy over α."""
    series = tuple(
        Series(f"{formula}'s formula", alphas(f.of(formula)), tuple(pair.own.entropy for pair in f.of(formula)))
        for formula in (BOOK, PAPER)
    )
    return Figure("line", series, "α", "entropy (nats)", "Mean entropy on held-out contexts.")


def alphas(pairs: Sequence[Pair]) -> tuple[float, ...]:
    """Of the contrastive settings."""
    return tuple(pair.own.setting.alpha for pair in pairs)


def least_rise(f: Findings) -> float:
    """Of the entropy from one α of the book's formula to the next, nats."""
    book = [pair.own.entropy for pair in f.of(BOOK)]
    return min((after - before for before, after in itertools.pairwise(book)), default=0.0)


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    e, strong = f.exact, f.at(PAPER, 1.0)
    return (
        Check.equal("α = 0 gives the tokens of plain sampling, same generator", e.same_tokens, True),
        Check.at_most("the book's formula against p/q^α in probabilities, max difference", e.formula, 1e-9),
        Check.equal("V_head against its definition in probabilities", e.head, True),
        Check.at_most("an amateur equal to the expert: temperature 1/(1 - α), max difference", e.temperature, 1e-6),
        Check.at_most("the amateur's cache against reading the text anew (logits)", e.cache, 1e-3),
        Check.at_most(
            "entropy of each setting and of its plain counterpart, max difference (nats)",
            max(abs(pair.own.entropy - pair.plain.entropy) for pair in f.pairs),
            1e-3,
        ),
        Check.at_least("the expert is ahead of the amateur (nats per character)", f.ahead, 0.0, "empirical"),
        Check.at_least("… and of one that trained for longer", f.ahead_of_longer, 0.1, "empirical"),
        Check.beyond_noise(
            "greedy contrastive decoding repeats less than greedy decoding (difference of repeated 8-grams over texts)",
            f.greedy.repetition,
            "lower",
        ),
        Check.beyond_noise(
            "the paper's α = 1 is likelier than plain sampling of equal entropy (nats per character)",
            f.change(strong),
            "lower",
        ),
        Check.at_least(
            "the book's formula raises the entropy with every step of α (least rise)",
            least_rise(f),
            0.0,
            "empirical",
        ),
    )
