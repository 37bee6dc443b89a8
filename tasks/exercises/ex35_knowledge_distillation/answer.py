"""Tables, figures and checks of 21.35; the text is in answer.md."""

from collections.abc import Sequence
from itertools import combinations

from minigpt.evaluation.statistics import Comparison, holm, mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Series, Table
from reports.words import plural, verdict
from tasks.comparison import curves
from tasks.exercises.ex35_knowledge_distillation.findings import Findings, seconds
from tasks.variants import Variant


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    by_loss, by_weight = (sorted(pairs, key=lambda pair: pair[1].loss) for pairs in (f.by_tau, f.by_alpha))
    return Draft(
        blocks={
            "models": models(f),
            "teacher": Figure(
                "line",
                (Series("teacher", f.teacher_steps[1:], f.teacher_losses[1:]),),
                "training step",
                "validation loss (nats/token)",
                "The teacher's training.",
            ),
            "objective": listing(f.source, "minigpt/objectives.py"),
            "time": time(f),
            "students": students(f),
            "curves": curves(
                f.rows, caption="Mean ± standard deviation over seeds; cosine schedules, so compare the ends."
            ),
            "by temperature": by_temperature(f),
            "by weight": by_weight_figure(f),
            "temperature": temperature(f),
        },
        checks=checks(f),
        values={
            "longer_helps": f.judged(f.alone, f.longer).verdict == "lower",
            "best_tau": by_loss[0][0],
            "worst_tau": by_loss[-1][0],
            "temperatures_compared": ends_compared(f, [row for _, row in by_loss]),
            "best_alpha": by_weight[0][0],
            "worst_alpha": by_weight[-1][0],
            "mixtures_compared": ends_compared(f, [row for _, row in by_weight]),
        },
    )


def ends_compared(f: Findings, rows: Sequence[Variant]) -> Comparison:
    """The first of several students, the best, against the last: corrected for their having been picked as such.

    Each of all pairs could have been the best and the worst.
    """
    pairs = list(combinations(range(len(rows)), 2)) or [(0, 0)]
    found = holm([f.judged(rows[worse], rows[better]) for better, worse in pairs])
    return found[pairs.index((0, len(rows) - 1))]


def models(f: Findings) -> Table:
    """Teacher and student."""
    rows: tuple[tuple[Cell, ...], ...] = tuple(
        (label, model.layers, model.width, model.parameters, model.steps, model.tokens, loss)
        for label, model, loss in (
            ("teacher", f.teacher, f.teacher_loss),
            ("student alone", f.student, f.alone.loss),
            ("student alone, for longer", f.longer_student, f.longer.loss),
        )
    )
    counted = ((f.baselines.bigram, "bigrams"), (f.baselines.ngram, f"{f.baselines.n}-grams, smoothed"))
    rows += tuple((name, None, None, None, None, None, loss) for loss, name in counted)
    columns = ("model", "layers", "width", "parameters", "steps", "tokens", "validation loss (nats/token)")
    return Table(columns, rows, "The students' losses are those of cross-entropy training, means over seeds.", "models")


def time(f: Findings) -> Table:
    """What the trainings take."""
    total = seconds(f.alone)
    rows = tuple((row.label, row.steps, row.step_seconds * 1e3, seconds(row), seconds(row) / total) for row in f.rows)
    columns = ("student", "steps", "step (ms)", "training (s)", "of cross-entropy only")
    caption = "Step times measured alone, in turn, after the trainings; training time is steps × step time."
    return Table(columns, rows, caption, "time")


def students(f: Findings) -> Table:
    """All students."""
    rows: list[tuple[Cell, ...]] = []
    judged = zip(f.all_at_equal_steps, f.all_at_equal_time, strict=True)
    verdicts = dict(zip((row.label for row in f.distilled), judged, strict=True))
    for row in f.rows:
        settings, agreed = f.settings[row.label], f.agreement[row.label]
        loss, spread = mean_std(row.losses)
        differences: list[Cell] = []
        for found in verdicts.get(row.label, (None, None)):
            said = verdict(found) if found and found.verdict == "one of many" else found.verdict if found else ""
            differences += [found.difference if found else None, said]
        imitation = (f.divergence(row), mean_std(agreed.same_choice)[0])
        shown = spread if len(row.losses) > 1 else None
        rows.append((row.label, settings.alpha, settings.tau, row.steps, loss, shown, *differences, *imitation))
    columns = (
        "student",
        "α",
        "τ",
        "steps",
        "loss (nats/token)",
        "± std",
        "at equal steps",
        "verdict at equal steps",
        "at equal time",
        "verdict at equal time",
        "KL(teacher ‖ student)",
        "same first choice",
    )
    caption = (
        f"Loss on the whole validation text, {plural(len(f.alone.losses), 'seed')}. Differences: at equal steps from "
        f"cross-entropy only, at equal time from cross-entropy for {f.longer.steps} steps, about what the teacher's "
        f"passes cost ({f.longer_ratio:.2f} of the time of the best distilled student). Verdicts: 95 % interval over "
        "seeds, paired, with Holm's correction for the students of a column; those at equal time hold what that "
        "ratio and the quartiles of the step times leave open, too."
    )
    return Table(columns, tuple(rows), caption, "students")


def by_temperature(f: Findings) -> Figure:
    """Loss against temperature."""
    means, spreads = zip(*(mean_std(row.losses) for _, row in f.by_tau), strict=True)
    error = spreads if len(f.alone.losses) > 1 else ()
    return Figure(
        "line",
        (Series("α = 0.5", tuple(tau for tau, _ in f.by_tau), means, error),),
        "temperature τ",
        "validation loss (nats/token)",
        "Students by the temperature of distillation, equal steps.",
        x_log=True,
        hlines=((f.alone.loss, "cross-entropy only"), (f.teacher_loss, "teacher")),
    )


def by_weight_figure(f: Findings) -> Figure:
    """Loss against the weight of the text."""
    means, spreads = zip(*(mean_std(row.losses) for _, row in f.by_alpha), strict=True)
    error = spreads if len(f.alone.losses) > 1 else ()
    return Figure(
        "line",
        (Series("τ = 2", tuple(alpha for alpha, _ in f.by_alpha), means, error),),
        "weight α of the text's cross-entropy (1: no teacher)",
        "validation loss (nats/token)",
        "Students by the mixing weight, equal steps.",
        hlines=((f.teacher_loss, "teacher"),),
    )


def temperature(f: Findings) -> Table:
    """What a temperature does to the soft loss."""
    base = f.temperatures[0].gradient
    rows = tuple((one.tau, one.entropy, one.gradient, one.without, one.gradient / base) for one in f.temperatures)
    columns = ("τ", "teacher's entropy (nats)", "gradient, with τ²", "gradient, without", "with τ², over τ = 1")
    caption = (
        "Norm of the soft loss's gradient at the student trained on the text alone, 16 contexts of validation text."
    )
    return Table(columns, rows, caption, "temperature")


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    return (
        Check.at_most("KL of the teacher with itself (nats)", f.oracles.itself, 1e-5),
        Check.at_most("… and its gradient, largest element", f.oracles.push, 1e-5),
        Check.at_most("soft loss against Σ p ln(p/q) in double precision, difference", f.oracles.by_hand, 1e-4),
        Check.at_most("α = 1 is the cross-entropy alone, difference", f.oracles.hard, 1e-5),
        Check.at_most(
            "gradient at τ = 10⁴ against Hinton's limit, matching centred logits, relative error", f.oracles.hot, 1e-2
        ),
        Check.at_least("the teacher is ahead of the student that trained for longer (nats)", f.ahead, 0.1, "empirical"),
        Check.beyond_noise("distilled minus alone at equal steps (nats)", f.at_equal_steps, "lower"),
        Check.beyond_noise("distilled minus alone at equal time (nats)", f.at_equal_time, "lower"),
        Check.at_most("gradient with τ² over temperatures 1 to 8, largest over smallest", f.growth, 8.0, "empirical"),
    )
