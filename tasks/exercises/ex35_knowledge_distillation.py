"""Exercise 21.35: students taught by a teacher's distribution against students taught by the text alone."""

import copy
import inspect
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minigpt import objectives
from minigpt.cost.counting import count_parameters
from minigpt.evaluation.entropy import entropy, kl_divergence
from minigpt.evaluation.evaluate import evaluating
from minigpt.evaluation.statistics import compare, describe, mean_std
from minigpt.model import GPT
from minigpt.objectives import causal, distill
from reports.types import Answer, Block, Cell, Check, Code, Figure, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import (
    DISTILLED_1,
    DISTILLED_2,
    DISTILLED_4,
    DISTILLED_SOFT,
    STUDENT,
    STUDENT_LONG,
    TEACHER,
)
from tasks.study_legacy import Variant, curves, variants

ALONE, LONGER = "cross-entropy only", "cross-entropy only, for longer"
RECIPES = {
    ALONE: STUDENT,
    "α = 0.5, τ = 1": DISTILLED_1,
    "α = 0.5, τ = 2": DISTILLED_2,
    "α = 0.5, τ = 4": DISTILLED_4,
    "α = 0, τ = 2": DISTILLED_SOFT,
    LONGER: STUDENT_LONG,
}
TAUS = (1.0, 2.0, 4.0, 8.0)

Metrics = dict[str, float | int]


@dataclass(frozen=True)
class Agreement:
    """How close a student's distribution is to the teacher's, over the validation text; one value per seed."""

    divergence: tuple[float, ...]  # KL(teacher ‖ student), nats per token
    same_choice: tuple[float, ...]  # share of positions with the same most likely token


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    rows: list[Variant]  # in the order of RECIPES
    agreement: dict[str, Agreement]
    teacher_loss: float
    teacher_entropy: dict[float, float]  # by temperature, nats
    gradients: dict[float, tuple[float, float]]  # by temperature: norm with τ², and without it

    @property
    def alone(self) -> Variant:
        """The baseline."""
        return self.rows[0]

    @property
    def longer(self) -> Variant:
        """The baseline with the time of a distilled student."""
        return self.rows[-1]

    @property
    def distilled(self) -> list[Variant]:
        """The students with a teacher."""
        return self.rows[1:-1]

    @property
    def best(self) -> Variant:
        """The distilled student with the lowest mean loss."""
        return min(self.distilled, key=lambda row: mean_std(row.losses)[0])


def seconds(row: Variant) -> float:
    """Time of a training: steps × the time of one, measured alone."""
    return row.steps * row.step_seconds


def settings(row: Variant) -> tuple[float, float | None]:
    """α and τ; a student without teacher is α = 1."""
    args = dict(row.models[0].recipe.train.objective_args)
    return float(args.get("alpha", 1.0)), args.get("tau")


# --- Measuring --------------------------------------------------------------------------------------------------


def windows(ctx: Context) -> Tensor:
    """The validation text in contexts of the teacher, (N, T + 1)."""
    tokens, context = ctx.tokens(TEACHER), ctx.model(TEACHER).model.config.context
    return tokens.unfold(0, context + 1, context)


def agreements(ctx: Context, rows: Sequence[Variant]) -> dict[str, Agreement]:
    """Every student beside the teacher on the same text."""
    teacher = ctx.model(TEACHER).model
    inputs = windows(ctx)[:, :-1]
    found: dict[str, tuple[list[float], list[float]]] = {row.label: ([], []) for row in rows}
    with torch.inference_mode(), evaluating(teacher):
        p = torch.cat([teacher(part).float().softmax(-1) for part in torch.split(inputs, 64)])
        for row in rows:
            for trained in row.models:
                q = torch.cat([trained.model(part).float().softmax(-1) for part in torch.split(inputs, 64)])
                found[row.label][0].append(kl_divergence(p, q).mean().item())
                found[row.label][1].append((p.argmax(-1) == q.argmax(-1)).float().mean().item())
    return {label: Agreement(tuple(kl), tuple(same)) for label, (kl, same) in found.items()}


def gradient(model: GPT, loss: Tensor) -> Tensor:
    """All gradients in one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def soft_loss(student: GPT, teacher: GPT, batch: Tensor, tau: float) -> Tensor:
    """τ² KL(teacher ‖ student), the objective that the students were trained with at α = 0."""
    return distill(student, batch, teacher=teacher, args={"alpha": 0.0, "tau": tau})


def gradient_norms(student: GPT, teacher: GPT, batch: Tensor) -> dict[float, tuple[float, float]]:
    """Norm of the gradient of the soft loss by temperature, with τ² and without."""
    norms = {tau: gradient(student, soft_loss(student, teacher, batch, tau)).norm().item() for tau in TAUS}
    return {tau: (norm, norm / tau**2) for tau, norm in norms.items()}


def teacher_entropies(teacher: GPT, batch: Tensor) -> dict[float, float]:
    """Mean entropy of the teacher's softened distribution, in nats."""
    with torch.inference_mode():
        logits = teacher(batch[:, :-1]).float()
    return {tau: entropy((logits / tau).softmax(-1)).mean().item() for tau in TAUS}


def students(ctx: Context) -> list[Variant]:
    """All students. There are two kinds of step, with a teacher and without; each has one time, the median of its own.

    The same step under several names would otherwise be given several times, which differ by noise.
    """
    alone, *taught, longer = variants(ctx, RECIPES, repeats=ctx.numbers["repeats"])
    shared = [
        replace(kind[0].step, median=statistics.median(row.step.median for row in kind))
        for kind in ((alone, longer), taught)
    ]
    return [
        replace(alone, step=shared[0]),
        *(replace(row, step=shared[1]) for row in taught),
        replace(longer, step=shared[0]),
    ]


def measured(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    rows = students(ctx)
    ctx.progress(0.4, "timed the steps")
    teacher, batch = ctx.model(TEACHER), windows(ctx)[:16]
    student = copy.deepcopy(rows[0].models[0].model)
    return Findings(
        rows=rows,
        agreement=agreements(ctx, rows),
        teacher_loss=teacher.evaluations["validation_loss"][-1],
        teacher_entropy=teacher_entropies(teacher.model, batch),
        gradients=gradient_norms(student, teacher.model, batch),
    )


def exact_checks(ctx: Context) -> tuple[Check, ...]:
    """The objective against its definition and its limits."""
    teacher = copy.deepcopy(ctx.model(TEACHER).model).requires_grad_(True)  # a teacher may come frozen
    student = copy.deepcopy(ctx.model(STUDENT).model)
    own, batch, tau = copy.deepcopy(teacher), windows(ctx)[:2], 2.0
    itself = soft_loss(own, teacher, batch, tau)
    push = gradient(own, itself).abs().max().item()
    with torch.no_grad():
        p, q = ((model(batch[:, :-1]).double() / tau).softmax(-1) for model in (teacher, student))
        by_hand = tau**2 * (p * (p / q).log()).sum(-1).mean().item()
        hard = distill(student, batch, teacher=teacher, args={"alpha": 1.0, "tau": tau}).item()
        difference = abs(soft_loss(student, teacher, batch, tau).item() - by_hand)
    student, teacher = student.double(), teacher.double()
    far = gradient(student, soft_loss(student, teacher, batch, 1e4))
    logits = student(batch[:, :-1])
    gap = (logits - teacher(batch[:, :-1])).detach()
    gap = gap - gap.mean(-1, keepdim=True)
    limit = gradient(student, (logits * gap).sum() / (gap.shape[-1] * gap[..., 0].numel()))
    return (
        Check.at_most("KL of the teacher with itself (nats)", abs(itself.item()), 1e-5),
        Check.at_most("… and its gradient, largest element", push, 1e-5),
        Check.at_most("soft loss against Σ p ln(p/q) in double precision, difference", difference, 1e-4),
        Check.at_most(
            "α = 1 is the cross-entropy alone, difference", abs(hard - causal(student.float(), batch).item()), 1e-5
        ),
        Check.at_most(
            "gradient at τ = 10⁴ against Hinton's limit, matching centred logits, relative error",
            ((far - limit).norm() / limit.norm()).item(),
            1e-2,
        ),
    )


# --- The parts --------------------------------------------------------------------------------------------------


def part_a(ctx: Context, f: Findings) -> Part:
    """The teacher."""
    rows: list[tuple[Cell, ...]] = []
    for label, trained in (("teacher", ctx.model(TEACHER)), ("student", f.alone.models[0])):
        config, train = trained.model.config, trained.recipe.train
        tokens = train.steps * train.batch_size * config.context
        loss = f.teacher_loss if label == "teacher" else mean_std(f.alone.losses)[0]
        rows.append((label, config.n_layer, config.d_model, count_parameters(trained.model), train.steps, tokens, loss))
    columns = ("model", "layers", "width", "parameters", "steps", "tokens", "validation loss (nats/token)")
    evaluations = ctx.model(TEACHER).evaluations
    curve = Series("teacher", tuple(evaluations["step"][1:]), tuple(evaluations["validation_loss"][1:]))
    caption = "The student's loss is that of cross-entropy training, mean over seeds."
    blocks = (
        Table(columns, tuple(rows), caption, "models"),
        Figure("line", (curve,), "training step", "validation loss (nats/token)", "The teacher's training."),
    )
    return Part("a", blocks, "A 6-layer teacher")


def part_b(f: Findings) -> Part:
    """The loss."""
    text = (
        "$$\\mathcal L = \\alpha\\, \\mathrm{CE}(\\text{text}, \\text{student}) + (1 - \\alpha)\\, \\tau^2\\, "
        "\\mathrm{KL}\\big(p^\\tau_\\text{teacher} \\,\\|\\, p^\\tau_\\text{student}\\big)$$ "
        "with both distributions softened, $p^\\tau = \\mathrm{softmax}(z/\\tau)$ (Hinton et al., 2015, section 2). "
        "The KL is summed over the vocabulary and averaged over tokens; the teacher is in evaluation mode and gets no "
        "gradient."
    )
    total, best = seconds(f.alone), f.best
    cost = (
        f"The teacher reads every batch too: a step of the distilled student takes {best.step_seconds * 1e3:.1f} ms "
        f"instead of {f.alone.step_seconds * 1e3:.1f}, {seconds(best) / total:.2f} times as long."
    )
    rows = tuple((row.label, row.steps, row.step_seconds * 1e3, seconds(row), seconds(row) / total) for row in f.rows)
    columns = ("student", "steps", "step (ms)", "training (s)", "of cross-entropy only")
    caption = "Step times measured alone, in turn, after the trainings; training time is steps × step time."
    blocks = (
        Prose(text),
        Code(inspect.getsource(objectives.distill), "minigpt/objectives.py"),
        Prose(cost),
        Table(columns, rows, caption, "time"),
    )
    return Part("b", blocks, "Cross-entropy and distillation loss")


def loss_table(f: Findings) -> Table:
    """All students."""
    rows: list[tuple[Cell, ...]] = []
    for row in f.rows:
        alpha, tau = settings(row)
        (loss, spread), agreed = mean_std(row.losses), f.agreement[row.label]
        differences: list[Cell] = []
        for other in (f.alone, f.longer):
            found = compare(other.losses, row.losses) if row in f.distilled else None
            differences += [found.difference, found.verdict] if found else [None, ""]
        imitation = (mean_std(agreed.divergence)[0], mean_std(agreed.same_choice)[0])
        shown = spread if len(row.models) > 1 else None
        rows.append((row.label, alpha, tau, row.steps, loss, shown, *differences, *imitation))
    columns = (
        *("student", "α", "τ", "steps", "loss (nats/token)", "± std", "at equal steps", "verdict"),
        *("at equal time", "verdict ", "KL(teacher ‖ student)", "same first choice"),
    )
    caption = (
        f"Loss on the whole validation text, {len(f.alone.models)} seed(s). Differences: at equal steps from "
        f"cross-entropy only, at equal time from cross-entropy for {f.longer.steps} steps, about what the teacher's "
        f"passes cost ({seconds(f.longer) / seconds(f.best):.2f} of the time of the best distilled student). Verdicts: "
        "Welch's 95 % interval over seeds."
    )
    return Table(columns, tuple(rows), caption, "students")


def part_c(f: Findings) -> tuple[Part, list[Check]]:
    """With a teacher and without."""
    best = f.best
    steps, time = compare(f.alone.losses, best.losses), compare(f.longer.losses, best.losses)
    closed = (mean_std(f.alone.losses)[0] - mean_std(best.losses)[0]) / (mean_std(f.alone.losses)[0] - f.teacher_loss)
    name = f"the best of the {len(f.distilled)} distilled students ({best.label})"
    gap = (
        f" That is {closed:.0%} of the way from the student alone to the teacher."
        if 0 < closed < 1 and f.teacher_loss < mean_std(f.alone.losses)[0]
        else ""
    )
    text = (
        f"At equal steps: {describe(steps, name, 'the student trained on the text alone')}{gap} At equal time (the "
        f"longer training takes {seconds(f.longer) / seconds(best):.2f} times as long as the distilled student's): "
        f"{describe(time, name, 'the student that trained on the text for longer')} "
        f"{lesson(steps.verdict, time.verdict)} {imitation(f)}"
    )
    checks = [
        Check.at_most("distilled minus alone at equal steps (nats)", steps.difference, 0.0, "empirical"),
        Check.at_most("distilled minus alone at equal time (nats)", time.difference, 0.0, "empirical"),
    ]
    blocks: tuple[Block, ...] = (
        loss_table(f),
        curves(f.rows, caption="Mean ± standard deviation over seeds; cosine schedules, so compare the ends."),
        Prose(text),
    )
    return Part("c", blocks, "With distillation and without"), checks


def imitation(f: Findings) -> str:
    """Whose distribution is closest to the teacher's."""
    own, alone, longer = (mean_std(f.agreement[row.label].divergence)[0] for row in (f.best, f.alone, f.longer))
    if own < min(alone, longer):
        verdict = "The distilled student is the best imitator of the three as well"
    elif own < alone:
        verdict = "It imitates the teacher better than the student of equal steps, worse than the longer trained one"
    else:
        verdict = "Nor does it imitate the teacher better"
    return (
        f"{verdict}: its KL from the teacher is {own:.3f} nats per token, that of the student on the text alone "
        f"{alone:.3f} and, trained for longer, {longer:.3f}."
    )


def lesson(steps: str, time: str) -> str:
    """What the two comparisons together say."""
    match steps, time:
        case "lower", "lower":
            return "The teacher's distribution is worth more than the steps that it costs."
        case "lower", "higher":
            return (
                "A soft target teaches more per step, but here the steps that the teacher's passes cost teach more "
                "still: with text enough, as here, the time is better spent on it."
            )
        case "lower", _:
            return "A soft target teaches more per step, and costs about what it gains."
        case "higher", _:
            return "Contrary to the textbook, the teacher harms this student."
        case "one seed", _:
            return "One seed decides nothing."
    return "Contrary to the textbook, the teacher makes no difference beyond noise here."


def part_d(f: Findings) -> tuple[Part, list[Check]]:
    """Temperature and mixing weight."""
    by_tau = [(tau, row) for row in f.distilled for alpha, tau in (settings(row),) if alpha == 0.5 and tau]
    points = [mean_std(row.losses) for _, row in by_tau]
    several = len(f.alone.models) > 1
    figure = Figure(
        "line",
        (
            Series(
                "α = 0.5",
                tuple(tau for tau, _ in by_tau),
                tuple(mean for mean, _ in points),
                tuple(spread for _, spread in points) if several else (),
            ),
        ),
        "temperature τ",
        "validation loss (nats/token)",
        "Students by the temperature of distillation, equal steps.",
        x_log=True,
        hlines=((mean_std(f.alone.losses)[0], "cross-entropy only"), (f.teacher_loss, "teacher")),
    )
    base, norms = f.gradients[1.0][0], [f.gradients[tau][0] for tau in TAUS]
    growth = max(norms) / min(norms)
    rows = tuple((tau, f.teacher_entropy[tau], *f.gradients[tau], f.gradients[tau][0] / base) for tau in TAUS)
    columns = ("τ", "teacher's entropy (nats)", "gradient, with τ²", "gradient, without", "with τ², over τ = 1")
    caption = (
        "Norm of the soft loss's gradient at the student trained on the text alone, 16 contexts of validation text."
    )
    fade = f.gradients[1.0][1] / f.gradients[TAUS[-1]][1]
    text = (
        f"{tau_sentence(by_tau)} {alpha_sentence(f)} A higher temperature shows the student more of what the teacher "
        f"thinks of unlikely characters: its entropy rises from {f.teacher_entropy[1.0]:.2f} nats to "
        f"{f.teacher_entropy[TAUS[-1]]:.2f} at τ = {TAUS[-1]:g}. With the factor τ² the gradients stay within a factor "
        f"of {growth:.1f} over these temperatures; without it they would shrink {fade:.0f} times, and α would mean "
        "something else at each τ."
    )
    checks = [
        Check.at_most("gradient with τ² over temperatures 1 to 8, largest over smallest", growth, 8.0, "empirical"),
    ]
    return Part("d", (figure, Prose(text), Table(columns, rows, caption, "temperature")), "The temperature"), checks


def tau_sentence(by_tau: Sequence[tuple[float, Variant]]) -> str:
    """Whether the temperature matters."""
    order = sorted(by_tau, key=lambda pair: mean_std(pair[1].losses)[0])
    (best, first), (worst, last) = order[0], order[-1]
    return "Temperature: " + describe(
        compare(last.losses, first.losses), f"τ = {best:g}, the best tried,", f"τ = {worst:g}, the worst"
    )


def alpha_sentence(f: Findings) -> str:
    """Whether the text itself is needed beside the teacher."""
    mixed, soft = (next(row for row in f.distilled if settings(row) == (alpha, 2.0)) for alpha in (0.5, 0.0))
    return "Mixing: " + describe(
        compare(mixed.losses, soft.losses), "α = 0, the teacher's distribution alone,", "α = 0.5 at the same τ"
    )


def answer(ctx: Context) -> Answer:
    """Distillation, part by part."""
    f = measured(ctx)
    compared, checks = part_c(f)
    temperature, more = part_d(f)
    metrics: Metrics = {"validation_loss_nats_teacher": f.teacher_loss}
    for row in f.rows:
        agreed = f.agreement[row.label]
        for name, values in (
            ("validation_loss_nats", row.losses),
            ("kl_from_teacher_nats", agreed.divergence),
            ("same_first_choice_share", agreed.same_choice),
        ):
            metrics[f"{name}_{row.key}"], spread = mean_std(values)
            if len(values) > 1:
                metrics[f"{name}_{row.key}_std"] = spread
        metrics[f"step_ms_{row.key}"] = row.step_seconds * 1e3
        metrics[f"training_seconds_{row.key}"] = seconds(row)
    metrics["teacher_entropy_nats"] = f.teacher_entropy[1.0]
    for tau in TAUS:
        metrics[f"gradient_norm_tau_{tau:g}"], metrics[f"gradient_norm_tau_{tau:g}_without_factor"] = f.gradients[tau]
    steps, time = compare(f.alone.losses, f.best.losses), compare(f.longer.losses, f.best.losses)
    return Answer(
        summary=f"The best distilled student ({f.best.label}) differs by {steps.difference:+.3f} nats from the student "
        f"alone at equal steps ({steps.verdict}) and by {time.difference:+.3f} at equal time ({time.verdict}).",
        parts=(part_a(ctx, f), part_b(f), compared, temperature),
        checks=(*exact_checks(ctx), *checks, *more),
        metrics=metrics,
    )


EXERCISE = Exercise(
    id="21.35",
    title="Knowledge Distillation",
    recipes=(TEACHER, *RECIPES.values()),
    numbers={"smoke": {"repeats": 3}, "laptop": {"repeats": 9}, "gpu": {"repeats": 15}},
    seconds={"smoke": 4, "laptop": 8, "gpu": 30},
    timed=True,
    answer=answer,
)
