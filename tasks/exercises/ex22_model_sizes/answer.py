"""Tables, figures and checks of 21.22; the text is in answer.md."""

import math

from minigpt.evaluation.craft import Craft
from minigpt.evaluation.curves import smoothed
from minigpt.evaluation.statistics import Comparison, compare, compare_paired, mean_std
from minigpt.evaluation.words import words
from minigpt.tokenizers import UNKNOWN
from reports.answers import Draft
from reports.types import Cell, Check, Figure, Sample, Series, Table
from reports.words import plural
from tasks.exercises.ex22_model_sizes.findings import (
    BYTE_PAIRS,
    CHARACTERS,
    LEAST_CHANGE,
    SIZES,
    TRUNKS,
    Count,
    Findings,
    Run,
    course,
)

CLAIMED = {"small": 2e6, "medium": 10e6, "large": 30e6}  # the chapter's figures


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    seen = "characters seen"
    return Draft(
        blocks={
            "parameters": parameters(f),
            "training by characters": Figure(
                "line",
                tuple(training_curve(f.runs[name]) for name in SIZES),
                seen,
                "training loss, nats per character",
                "Equal tokens: training loss (means of groups of steps, first seed).",
                hlines=lines(f),
            ),
            "validation by characters": Figure(
                "line",
                tuple(validation_curve(f.runs[name], f.runs[name].tokens_per_step) for name in SIZES),
                seen,
                "validation loss, nats per character",
                "Equal tokens: validation loss, mean ± standard deviation over the seeds "
                f"({', '.join(f'{len(f.runs[name].losses)} of {name}' for name in SIZES)}).",
                hlines=lines(f),
            ),
            "validation by seconds": Figure(
                "line",
                tuple(finished_curve(f.runs[name]) for name in TRUNKS.values()),
                "seconds of training (steps × step time)",
                "validation loss at the end, nats per character",
                "Finished trainings by the time they took; between two of a size the loss is taken as straight.",
                hlines=lines(f),
                x_log=True,
            ),
            "validation": validation(f),
            **({"byte pairs": byte_pairs(f)} if trained_on_pairs(f) else {}),
            "texts": tuple(sample(f, run) for run in f.runs.values()),
            "samples": counted(f),
            "time": time(f),
            "epochs": Figure(
                "bar",
                (Series("seconds", SIZES, tuple(f.epoch / f.runs[name].rate for name in SIZES)),),
                "model",
                "seconds per epoch",
                "Training time per epoch.",
                y_log=True,
            ),
        },
        checks=checks(f),
        values={
            "agreeing": [
                f"{c.size} with {c.vocabulary}" for c in f.counts if abs(c.closed_form / CLAIMED[c.size] - 1) < 0.1
            ],
            "fitting": [f"{fitting(c):,} for {c.size}" for c in own_counts(f)],
            "training_losses": [f"{run.training_loss:.3f} for {run.name}" for run in by_training_loss(f)],
            "training_span": by_training_loss(f)[-1].training_loss - by_training_loss(f)[0].training_loss,
            "rivals": {"tokens": f.at_equal_tokens.rivals, "time": f.at_equal_time.rivals if f.at_equal_time else []},
            "in_order": [run.name for run in by_training_loss(f)] == list(reversed(SIZES)),
            "furthest_start": f.furthest_start,
            "untaught": f.untaught,
            "base": f.base,
            "writers": writers(f),
            "wordless": not any(
                words(text.replace(UNKNOWN, ""))[1:-1] for run in f.runs.values() for text in run.texts
            ),
            "counted": {name: means(run.craft) for name, run in f.runs.items()},
            "people": means(f.heldout),
            "spelling": texts_compared(f, "spelled"),
            "pairing": texts_compared(f, "paired"),
            "rates": [f.runs[name].gflops for name in SIZES],
            "course": course([f.runs[name] for name in SIZES]),
            "least_change": LEAST_CHANGE,
            "on_pairs": trained_on_pairs(f),
            **(judged_on_pairs(f, trained_on_pairs(f)[-1]) if trained_on_pairs(f) else {}),
            "not_on_pairs": [name.partition(",")[0] for name in f.missing],
            "book_counts": {c.size: c for c in f.counts if c.vocabulary.startswith("GPT-2")},
        },
    )


def by_training_loss(f: Findings) -> list[Run]:
    """The three sizes at equal tokens, the lowest training loss first."""
    return sorted((f.runs[name] for name in SIZES), key=lambda run: run.training_loss)


def trained_on_pairs(f: Findings) -> list[Run]:
    """The runs on byte pairs that this profile has."""
    return [f.runs[name] for name in BYTE_PAIRS if name in f.runs]


def beside(f: Findings, run: Run) -> Run:
    """The run on characters of the same size whose number of passes is nearest."""
    others = [f.runs[name] for name in CHARACTERS if f.runs[name].size == run.size]
    return min(others, key=lambda one: abs(math.log(one.characters / run.characters)))


def judged_on_pairs(f: Findings, run: Run) -> dict[str, object]:
    """A run on byte pairs, its counterpart on characters, what is between them, and which has learned too little.

    Each is held against bigrams of its own tokens.
    """
    other = beside(f, run)
    return {
        "beside": other,
        "pairs_compared": compare(other.losses, run.losses),
        "untaught_beside": [one for one in (run, other) if not one.variant.beats_bigram],
    }


def own_counts(f: Findings) -> list[Count]:
    """The counts with the vocabulary that was trained."""
    return [count for count in f.counts if count.vocab_size == f.runs["small"].vocab_size]


def fitting(count: Count) -> int:
    """The vocabulary that would give the book's figure: each of its tokens adds C parameters."""
    return round((CLAIMED[count.size] - count.closed_form) / count.d_model + count.vocab_size)


def writers(f: Findings) -> list[Run]:
    """The runs on characters by how well they spell, the best first."""
    return sorted((f.runs[name] for name in CHARACTERS), key=lambda run: -mean_std(run.craft.spelled)[0])


def means(craft: Craft) -> dict[str, float]:
    """The criteria, over the texts."""
    return {name: mean_std(getattr(craft, name))[0] for name in ("spelled", "paired", "repeated", "copied")}


def texts_compared(f: Findings, measure: str) -> Comparison:
    """Large against small at equal tokens, prompt by prompt."""
    small, large = (getattr(f.runs[name].craft, measure) for name in ("small", "large"))
    return compare_paired(small, large)


def lines(f: Findings) -> tuple[tuple[float, str], ...]:
    """What counting pays for the same text."""
    base = f.base
    return (base.bigram, "bigrams"), (base.ngram, f"{base.n}-grams")


def parameters(f: Findings) -> Table:
    """True parameter counts beside the book's."""
    rows: list[tuple[Cell, ...]] = []
    for own in own_counts(f):
        counts = [count.closed_form for count in f.counts if count.size == own.size]
        trained = [run.parameters for run in trained_on_pairs(f) if run.size == own.size]
        on_pairs = trained[0] if trained else None
        rows.append((own.size, CLAIMED[own.size], *counts, on_pairs, fitting(own), f.runs[own.size].parameters))
    columns = (
        "size",
        "the book's figure",
        *(f"V = {count.vocabulary}" for count in f.counts if count.size == "small"),
        "trained here on byte pairs",
        "V that would give the book's figure",
        "trained here on characters",
    )
    return Table(columns, tuple(rows), "Parameters, shared ones once; counts by V at context 256.", "parameters")


def training_curve(run: Run) -> Series:
    """Training loss of the first seed against characters, in means of groups of steps."""
    steps, losses = smoothed(run.trained_steps, run.trained_losses, points=50)
    return Series(run.name, tuple(step * run.tokens_per_step for step in steps), tuple(losses))


def validation_curve(run: Run, unit: float) -> Series:
    """Validation loss against steps times ``unit``."""
    steps = run.variant.curves[0].steps[1:]  # all start at ln V
    points = [mean_std([loss / run.characters_per_token for loss in run.variant.losses_after(step)]) for step in steps]
    error = tuple(spread for _, spread in points) if len(run.losses) > 1 else ()
    return Series(run.name, tuple(step * unit for step in steps), tuple(mean for mean, _ in points), error)


def finished_curve(run: Run) -> Series:
    """Final loss against the time of the training, for every budget that came to its end."""
    curves = run.variant.curves
    steps = curves[0].finished_steps
    points = [mean_std([curve.finished_losses[i] for curve in curves]) for i in range(len(steps))]
    error = tuple(spread for _, spread in points) if len(curves) > 1 else ()
    times = tuple(step * run.step.median for step in steps)
    return Series(run.size, times, tuple(mean for mean, _ in points), error)


def validation(f: Findings) -> Table:
    """The losses in all units; of small those that are compared, which are branches of its longer training."""
    compared = {name: f.runs[name].losses for name in CHARACTERS} | f.at_equal_tokens.losses
    rows: list[tuple[Cell, ...]] = [
        (
            name,
            run.steps,
            run.characters / f.epoch,
            run.seconds,
            len(compared[name]),
            loss,
            spread if len(compared[name]) > 1 else None,
            math.exp(loss),
            loss / math.log(2),
        )
        for name, run in ((name, f.runs[name]) for name in CHARACTERS)
        for loss, spread in (mean_std(compared[name]),)
    ]
    base = f.base
    for name, loss in (("bigrams", base.bigram), (f"{base.n}-grams, smoothed", base.ngram)):
        rows.append((name, None, 1.0, None, None, loss, None, math.exp(loss), loss / math.log(2)))
    columns = (
        "model",
        "steps",
        "epochs",
        "training, s",
        "seeds",
        "validation loss, nats",
        "± over seeds",
        "perplexity per character",
        "bits per character",
    )
    caption = f"Over the whole validation split, {f.runs['small'].targets:,} characters. The last rows only count."
    return Table(columns, tuple(rows), caption, "validation")


def byte_pairs(f: Findings) -> Table:
    """The track on byte pairs beside the same sizes on characters."""
    rows: list[tuple[Cell, ...]] = []
    for run in trained_on_pairs(f):
        for one in (run, beside(f, run)):
            rows.append(
                (
                    one.name,
                    one.vocab_size,
                    one.parameters,
                    one.characters / f.epoch,
                    len(one.losses),
                    mean_std(one.variant.losses)[0],
                    one.loss,
                    one.loss / math.log(2),
                )
            )
    base = trained_on_pairs(f)[0].variant.baselines
    per_token = trained_on_pairs(f)[0].characters_per_token
    grams = {2: base.bigram, base.n: base.ngram}
    for name, loss in ((f"{n}-grams of byte pairs", loss) for n, loss in grams.items()):
        rows.append((name, None, None, 1.0, None, loss, loss / per_token, loss / per_token / math.log(2)))
    columns = (
        "model",
        "V",
        "parameters",
        "epochs",
        "seeds",
        "nats per token",
        "nats per character",
        "bits per character",
    )
    caption = f"A byte pair holds {per_token:.2f} characters of the validation text on average."
    return Table(columns, tuple(rows), caption, "byte_pairs")


def sample(f: Findings, run: Run) -> Sample:
    """One text of a run."""
    note = f"Temperature {f.temperature:g}; validation {run.loss:.3f} nats per character."
    return Sample(f"{run.name} ({run.steps:,} steps)", f.prompts[0], run.texts[0], note)


def counted(f: Findings) -> Table:
    """The criteria, and what held-out text scores by them."""
    rows: list[tuple[Cell, ...]] = []
    for name, loss, craft in (
        *((name, run.loss, run.craft) for name, run in f.runs.items()),
        ("held-out text", None, f.heldout),
    ):
        rows.append((name, loss, *means(craft).values(), ", ".join(craft.invented[:3])))
    columns = (
        "writer",
        "validation loss, nats per character",
        "spelled: known words",
        "known word pairs",
        "repeated 8-grams",
        "longest copied run, characters",
        "words of its own",
    )
    caption = (
        f"{plural(len(f.prompts), 'text')} of {f.characters} characters each, after the same prompts. Known: in the "
        "training text; of its own: neither there nor, whole, in GPT-2's vocabulary. The last row is what people "
        "wrote, in pieces of the same length."
    )
    return Table(columns, tuple(rows), caption, "samples")


def time(f: Findings) -> Table:
    """Time per epoch beside arithmetic."""
    small = f.runs["small"]
    rows = tuple(
        (
            run.name,
            run.parameters,
            run.step.median * 1e3,
            run.step.low * 1e3,
            run.step.high * 1e3,
            run.rate,
            f.epoch / run.rate,
            run.step.median / small.step.median,
            run.flops_per_token / small.flops_per_token,
            run.gflops,
        )
        for run in (f.runs[name] for name in SIZES)
    )
    columns = (
        "model",
        "parameters",
        "ms per step",
        "from",
        "to",
        "characters/s",
        "seconds per epoch",
        "time, small = 1",
        "FLOPs, small = 1",
        "GFLOP/s reached",
    )
    caption = (
        f"One epoch is {f.epoch:,} characters. Medians and quartiles of steps timed alone, in turn, one thread, on "
        f"{f.device}."
    )
    return Table(columns, rows, caption, "time")


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    runs = f.runs
    recorded = [abs(run.rescored - run.variant.losses[0]) for run in runs.values()]
    tokens, timed = f.at_equal_tokens, f.at_equal_time
    branched = f.runs["small, longer"].variant.finished_after(runs["small"].steps)
    return (
        Check.equal(
            f"of {len(f.counts)} parameter counts in closed form, those that a built model confirms",
            sum(count.closed_form == count.built for count in f.counts),
            len(f.counts),
        ),
        Check.equal(
            "different numbers of characters seen by the three at equal tokens",
            len({runs[name].tokens for name in SIZES}),
            1,
        ),
        Check.equal(
            "models on characters that are not scored on the whole validation split",
            sum(runs[name].targets != runs["small"].targets for name in CHARACTERS),
            0,
        ),
        Check.at_most("scored again, no loss differs from the recorded one by more than", max(recorded), 2e-3),
        Check.close(
            "the small model's loss is that of the branch of its longer training",
            branched[0] if branched else math.nan,
            runs["small"].variant.losses[0],
            2e-3,
        ),
        Check.at_most("no training starts further from ln V, in nats, than", f.furthest_start, 0.3, "empirical"),
        Check.at_least("large has read the text (epochs)", runs["large"].characters / f.epoch, 2.0, "empirical"),
        Check.at_most(
            "the worst of the models on characters, trained in full, against a bigram (nats per character)",
            max(runs[name].loss for name in CHARACTERS),
            f.base.bigram,
            "empirical",
        ),
        Check.equal(
            "equal tokens: the order of the means is large, medium, small",
            ", ".join(tokens.losses),
            ", ".join(reversed(SIZES)),
            "empirical",
        ),
        Check.equal("equal tokens: the whole order is a conclusion", tokens.decided, True, "empirical"),
        Check.equal(
            "equal time: the whole order is a conclusion", timed is not None and timed.decided, True, "empirical"
        ),
    )
