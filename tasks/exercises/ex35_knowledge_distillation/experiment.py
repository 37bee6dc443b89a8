"""Measures 21.35: students with and without a teacher, their agreement with it, and the soft loss by temperature."""

import copy
import inspect
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from minigpt.cost.counting import count_parameters
from minigpt.evaluation.entropy import entropy, kl_divergence
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT
from minigpt.objectives import causal, distill
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex35_knowledge_distillation.findings import (
    Agreement,
    Findings,
    Model,
    Oracles,
    Settings,
    Temperature,
)
from tasks.parts import part
from tasks.recipes.catalogue import (
    DISTILLED_1,
    DISTILLED_2,
    DISTILLED_4,
    DISTILLED_HARD,
    DISTILLED_SOFT,
    STUDENT,
    STUDENT_LONG,
    TEACHER,
)
from tasks.study import variants
from tasks.variants import Variant

RECIPES = {
    "cross-entropy only": STUDENT,
    "α = 0.5, τ = 1": DISTILLED_1,
    "α = 0.5, τ = 2": DISTILLED_2,
    "α = 0.5, τ = 4": DISTILLED_4,
    "α = 0, τ = 2": DISTILLED_SOFT,
    "α = 0.9, τ = 2": DISTILLED_HARD,
    "cross-entropy only, for longer": STUDENT_LONG,
}
TAUS = (1.0, 2.0, 4.0, 8.0)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    rows = students(ctx)
    ctx.progress(0.4, "timed the steps")
    trained = {label: [ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for label, recipe in RECIPES.items()}
    teacher, student, text = ctx.model(TEACHER), ctx.model(STUDENT), windows(ctx)
    return Findings(
        rows=rows,
        settings={label: settings(seeds[0]) for label, seeds in trained.items()},
        agreement=ahead(ctx),
        teacher=size(teacher),
        student=size(student),
        longer_student=size(ctx.model(STUDENT_LONG)),
        teacher_steps=tuple(teacher.evaluations["step"]),
        teacher_losses=tuple(teacher.evaluations["validation_loss"]),
        temperatures=temperatures(copy.deepcopy(student.model), teacher.model, text[:16]),
        oracles=oracles(teacher.model, student.model, text[:2]),
        baselines=student.baselines,
        source=inspect.getsource(distill),
    )


def ahead(ctx: Context) -> dict[str, Agreement]:
    """See ``Exercise.ahead``."""

    def find() -> dict[str, Agreement]:
        trained = {label: [ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for label, recipe in RECIPES.items()}
        return agreements(ctx.model(TEACHER).model, trained, windows(ctx)[:, :-1])

    return part(ctx, dict[str, Agreement], "agreement", find)


def students(ctx: Context) -> tuple[Variant, ...]:
    """All students. There are two kinds of step, with a teacher and without; each has one time, the median of its own.

    The same step under several names would otherwise be given several times, which differ by noise.
    """
    alone, *taught, longer = variants(ctx, RECIPES, repeats=ctx.numbers["repeats"])
    shared = [
        replace(kind[0].step, median=statistics.median(row.step.median for row in kind))
        for kind in ((alone, longer), taught)
    ]
    return (
        replace(alone, step=shared[0]),
        *(replace(row, step=shared[1]) for row in taught),
        replace(longer, step=shared[0]),
    )


def settings(trained: TrainedModel) -> Settings:
    """α and τ."""
    args = dict(trained.recipe.train.objective_args)
    return Settings(float(args.get("alpha", 1.0)), args.get("tau"))


def size(trained: TrainedModel) -> Model:
    """Of a model and of its training."""
    config, train = trained.model.config, trained.recipe.train
    tokens = train.steps * train.batch_size * config.context
    return Model(config.n_layer, config.d_model, count_parameters(trained.model), train.steps, tokens)


def windows(ctx: Context) -> Tensor:
    """The validation text in contexts of the teacher, (N, T + 1)."""
    tokens, context = ctx.tokens(TEACHER), ctx.model(TEACHER).model.config.context
    return tokens.unfold(0, context + 1, context)


def agreements(teacher: GPT, trained: Mapping[str, Sequence[TrainedModel]], inputs: Tensor) -> dict[str, Agreement]:
    """Every student beside the teacher on the same text."""
    found: dict[str, tuple[list[float], list[float]]] = {label: ([], []) for label in trained}
    with torch.inference_mode(), evaluating(teacher):
        p = torch.cat([teacher(part).float().softmax(-1) for part in torch.split(inputs, 64)])
        for label, seeds in trained.items():
            for one in seeds:
                q = torch.cat([one.model(part).float().softmax(-1) for part in torch.split(inputs, 64)])
                found[label][0].append(kl_divergence(p, q).mean().item())
                found[label][1].append((p.argmax(-1) == q.argmax(-1)).float().mean().item())
    return {label: Agreement(tuple(kl), tuple(same)) for label, (kl, same) in found.items()}


def gradient(model: GPT, loss: Tensor) -> Tensor:
    """All gradients in one vector."""
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def soft_loss(student: GPT, teacher: GPT, batch: Tensor, tau: float) -> Tensor:
    """τ² KL(teacher ‖ student), the objective that the students were trained with at α = 0."""
    return distill(student, batch, teacher=teacher, args={"alpha": 0.0, "tau": tau})


def temperatures(student: GPT, teacher: GPT, batch: Tensor) -> tuple[Temperature, ...]:
    """Mean entropy of the teacher's softened distribution, and norm of the soft loss's gradient, by temperature."""
    with torch.inference_mode():
        logits = teacher(batch[:, :-1]).float()
    found = []
    for tau in TAUS:
        norm = gradient(student, soft_loss(student, teacher, batch, tau)).norm().item()
        found.append(Temperature(tau, entropy((logits / tau).softmax(-1)).mean().item(), norm, norm / tau**2))
    return tuple(found)


def oracles(teacher: GPT, student: GPT, batch: Tensor) -> Oracles:
    """The objective against its definition and its limits."""
    teacher = copy.deepcopy(teacher).requires_grad_(True)  # a teacher may come frozen
    student = copy.deepcopy(student)
    own, tau = copy.deepcopy(teacher), 2.0
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
    return Oracles(
        itself=abs(itself.item()),
        push=push,
        by_hand=difference,
        hard=abs(hard - causal(student.float(), batch).item()),
        hot=((far - limit).norm() / limit.norm()).item(),
    )


EXERCISE = Exercise(
    measure=measure,
    recipes=(TEACHER, *RECIPES.values()),
    numbers={"smoke": {"repeats": 3}, "laptop": {"repeats": 9}, "gpu": {"repeats": 15}},
    seconds={"smoke": 3, "laptop": 5, "gpu": 25},
    timed=True,
    ahead=ahead,
    seconds_ahead={"smoke": 1, "laptop": 4, "gpu": 5},
)
