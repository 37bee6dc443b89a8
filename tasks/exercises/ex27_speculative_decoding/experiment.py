"""Measures 21.27: the output of speculative decoding against the target's own, and its speed."""

import copy
import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from minigpt.cost.counting import count_parameters
from minigpt.decoding.sampling import GREEDY, Sampling, generate, warp
from minigpt.decoding.speculative import (
    acceptance_probability,
    expected_speedup,
    expected_tokens,
    speculate,
    verify,
)
from minigpt.evaluation.statistics import mean_std
from minigpt.model import GPT
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex27_speculative_decoding.findings import (
    ITSELF,
    STUDENT_GAMMA,
    TOP_K,
    DraftModel,
    Findings,
    Output,
    Pass,
    Speed,
    Student,
    Writing,
)
from tasks.exercises.ex27_speculative_decoding.speed import (
    LEAD,
    Write,
    alphas_on,
    costs,
    predicted,
    race,
    share,
    speed_up,
    write_text,
)
from tasks.parts import part
from tasks.recipes.catalogue import (
    DISTILLED_1,
    DISTILLED_2,
    DISTILLED_4,
    DISTILLED_SOFT,
    DRAFT_FAIR,
    DRAFT_POOR,
    SMALL,
    STUDENT,
    TARGET,
    TEACHER,
)

STUDENTS = {
    "cross-entropy only": STUDENT,
    "distilled, τ = 1": DISTILLED_1,
    "distilled, τ = 2": DISTILLED_2,
    "distilled, τ = 4": DISTILLED_4,
    "distilled, τ = 2, no cross-entropy": DISTILLED_SOFT,
}
LARGE_PROMPTS = 2  # for greedy identity with each draft
DRAFTS: Mapping[str, tuple[str, Any]] = {  # label: key in names of metrics, recipe
    "2 layers, untrained": ("untrained", None),
    "2 layers, hardly trained": ("poor", DRAFT_POOR),
    "2 layers, half trained": ("fair", DRAFT_FAIR),
    "2 layers": ("small", SMALL),
    ITSELF: ("itself", TARGET),
}
SWEPT = "2 layers"  # the draft that is timed with every γ
ENDS = ("2 layers, untrained", ITSELF)  # of the scale of drafts: known beforehand, and timed on fewer texts


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    models = draft_models(ctx)
    target, untimed = models[ITSELF], ahead(ctx)
    ctx.progress(0.2, "output compared with the target's")
    stretch = min(ctx.numbers["new_tokens"], target.config.context - LEAD)
    drafts = timed_drafts(ctx, models, stretch)
    return Findings(
        drafts=drafts,
        output=untimed.output,
        n_new=ctx.numbers["new_tokens"],
        stretch=stretch,
        students=untimed.students,
        source=inspect.getsource(speculate) + "\n\n" + inspect.getsource(verify),
        writing=write(ctx, SWEPT, models[SWEPT], target, stretch),
        baselines=ctx.model(TARGET).baselines,
    )


@dataclass(frozen=True)
class Untimed:
    """What needs no quiet machine."""

    output: Output
    students: tuple[Student, ...]


def ahead(ctx: Context) -> Untimed:
    """See ``Exercise.ahead``."""

    def find() -> Untimed:
        models = draft_models(ctx)
        return Untimed(compare_output(ctx, models[ITSELF], list(models.values())), students_acceptance(ctx))

    return part(ctx, Untimed, "output and students", find)


def last_loss(found: TrainedModel) -> float:
    """Loss over the whole validation split after training, nats per token."""
    return found.evaluations["validation_loss"][-1]


def draft_models(ctx: Context) -> dict[str, GPT]:
    """The drafts for one target by label, from useless to perfect."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.generator("untrained").initial_seed())
        untrained = GPT(ctx.model(SMALL).model.config).to(ctx.device).eval()
    return {label: ctx.model(recipe).model if recipe else untrained for label, (_, recipe) in DRAFTS.items()}


# --- The output -------------------------------------------------------------------------------------------------


@torch.inference_mode()
def exact_distribution(model: GPT, prompt: Tensor) -> dict[tuple[int, ...], float]:
    """Probabilities of all texts of three tokens after ``prompt`` (1, T) under top-k, by the chain rule."""
    found: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(3):
        texts = torch.tensor([list(text) for text in found], dtype=torch.long, device=prompt.device)
        logits = model(torch.cat([prompt.expand(len(found), -1), texts.view(len(found), -1)], dim=1))[:, -1]
        p = warp(logits.float(), Sampling(top_k=TOP_K)).softmax(dim=-1).double().tolist()
        found = {
            (*text, token): weight * chance
            for (text, weight), row in zip(found.items(), p, strict=True)
            for token, chance in enumerate(row)
            if chance > 0
        }
    return found


def p_value(texts: Tensor, exact: Mapping[tuple[int, ...], float]) -> float:
    """Chi-square of texts (N, 3) against exact probabilities, rare cells pooled; 0 where one was impossible."""
    from scipy.stats import chisquare

    counts = dict.fromkeys(exact, 0)
    for text in map(tuple, texts.tolist()):
        if text not in counts:
            return 0.0
        counts[text] += 1
    observed, expected = np.array(list(counts.values())), np.array(list(exact.values()))
    expected = expected / expected.sum() * len(texts)
    rare = expected < 5
    observed = np.append(observed[~rare], observed[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    keep = expected > 0
    return float(chisquare(observed[keep], expected[keep]).pvalue)


def distribution_test(ctx: Context) -> dict[str, float]:
    """p-values of three ways to write three tokens, against the target's exact distribution."""
    target, draft = ctx.model(TEACHER).model, ctx.model(STUDENT).model
    draws, rows, g = ctx.numbers["draws"], 8, ctx.generator("distribution")
    prompt = ctx.tokens(TEACHER)[None, :8]
    exact, prompts = exact_distribution(target, prompt), prompt.expand(rows, -1)
    speculated = [
        speculate(target, draft, prompts, 3, gamma=2, sampling=Sampling(top_k=TOP_K), generator=g).tokens
        for _ in range(draws // rows)
    ]
    plain = [
        generate(m, prompt.expand(draws, -1), 3, sampling=Sampling(top_k=TOP_K), generator=g) for m in (target, draft)
    ]
    texts = {"speculative": torch.cat(speculated), "target": plain[0], "draft": plain[1]}
    return {name: p_value(tokens[:, -3:], exact) for name, tokens in texts.items()}


def greedy_identity(target: GPT, drafts: Sequence[GPT], prompts: Tensor, n_new: int) -> int:
    """In how many of the cases, prompts (N, T) by drafts, greedy speculation gives the target's greedy text.

    γ goes round 1, 2, 4, 8. In double precision: passes of other lengths sum in another order, which must not decide
    between two tokens.
    """
    target = copy.deepcopy(target).double()
    plain = generate(target, prompts, n_new, sampling=GREEDY)
    same = 0
    for draft in (copy.deepcopy(draft).double() for draft in drafts):
        for row, expected, gamma in zip(prompts, plain, itertools.cycle((1, 2, 4, 8)), strict=False):
            written = speculate(target, draft, row[None], n_new, gamma=gamma, sampling=GREEDY).tokens[0]
            same += torch.equal(written, expected)
    return same


def prompts_from(tokens: Tensor, count: int, length: int) -> Tensor:
    """Pieces of a text (N,), evenly spread, (count, length)."""
    starts = torch.arange(count, device=tokens.device) * ((len(tokens) - length) // count)
    return tokens[starts[:, None] + torch.arange(length, device=tokens.device)]


def compare_output(ctx: Context, target: GPT, drafts: Sequence[GPT]) -> Output:
    """Whether anybody can tell the output from the target's own."""
    teacher, student = ctx.model(TEACHER).model, ctx.model(STUDENT).model
    p_values = distribution_test(ctx)
    n_new = teacher.config.context - 12
    prompts = prompts_from(ctx.tokens(TEACHER), ctx.numbers["greedy_prompts"], 8)
    large = prompts_from(ctx.tokens(TARGET), LARGE_PROMPTS, 8)
    return Output(
        draws=ctx.numbers["draws"],
        p_values=p_values,
        teacher_layers=teacher.config.n_layer,
        student_layers=student.config.n_layer,
        n_new=n_new,
        prompts=len(prompts),
        same=greedy_identity(teacher, [student], prompts, n_new),
        large_prompts=LARGE_PROMPTS * len(drafts),
        large_same=greedy_identity(target, drafts, large, n_new),
    )


# --- Acceptance and speed ---------------------------------------------------------------------------------------


def timed_drafts(ctx: Context, models: Mapping[str, GPT], stretch: int) -> tuple[DraftModel, ...]:
    """Every draft with the γ that the cost model finds best for it, one with every γ, all against plain decoding."""
    n, target = ctx.numbers, models[ITSELF]
    prompts = prompts_from(ctx.tokens(TARGET), n["timed_texts"], LEAD)
    price = costs(target, models, prompts[:1], stretch, n["gammas"], n["pass_repeats"])
    prices = {label: price[label] for label in models}
    probe = [
        write_text(plain_writer(ctx, target), prompt[None], n["new_tokens"], stretch, ctx.device)
        for prompt in prompts[:4]
    ]
    likely = dict(zip(models, alphas_on(target, list(models.values()), probe), strict=True))
    chosen = {label: prices[label].best_gamma(alpha) for label, alpha in likely.items()}
    runs = [(label, gamma) for label in models for gamma in n["gammas"] if gamma == chosen[label] or label == SWEPT]
    writers = {"plain": plain_writer(ctx, target)}
    counts = {"plain": n["timed_texts"]}
    for label, gamma in runs:
        writers[f"{label}/{gamma}"] = speculative_writer(ctx, target, models[label], gamma, f"{label}/{gamma}")
        full = gamma == chosen[label] and label not in ENDS
        counts[f"{label}/{gamma}"] = n["timed_texts"] if full else n["swept_texts"]
    raced = race(
        writers, prompts, n["new_tokens"], stretch, counts, lambda done: ctx.progress(0.3 + 0.6 * done, "timing texts")
    )
    found, alphas = [], alphas_on(target, list(models.values()), raced["plain"])
    for (label, model), alpha in zip(models.items(), alphas, strict=True):
        own = prices[label]
        speeds = []
        for gamma in (gamma for name, gamma in runs if name == label):
            texts = raced[f"{label}/{gamma}"]
            measured, low, high = speed_up(raced["plain"], texts)
            speeds.append(
                predicted(
                    gamma=gamma,
                    acceptance=share(texts, "accepted", "tested"),
                    tokens_per_pass=share(texts, "emitted", "passes"),
                    alpha=alpha,
                    draft_cost=own.draft,
                    verify_cost=own.verify[gamma],
                    measured=measured,
                    low=low,
                    high=high,
                    texts=len(texts),
                )
            )
        predictions = tuple((gamma, expected_speedup(alpha, gamma, own.draft, v)) for gamma, v in own.verify.items())
        found.append(described(ctx, label, model, speeds, predictions))
    return tuple(found)


def plain_writer(ctx: Context, target: GPT) -> Write:
    """The target alone."""
    generator = ctx.generator("plain")
    return lambda prompt, n: generate(target, prompt, n, generator=generator)


def speculative_writer(ctx: Context, target: GPT, draft: GPT, gamma: int, salt: str) -> Write:
    """The target with a draft."""
    generator = ctx.generator(salt)
    return lambda prompt, n: speculate(target, draft, prompt, n, gamma=gamma, generator=generator)


def described(
    ctx: Context, label: str, model: GPT, speeds: Sequence[Speed], predictions: tuple[tuple[int, float], ...]
) -> DraftModel:
    """A draft beside its speeds; the untrained one has the loss of its size before the first step."""
    (key, recipe), config = DRAFTS[label], model.config
    if recipe is None:
        tokens, loss = 0, ctx.model(SMALL).evaluations["validation_loss"][0]
    else:
        found = ctx.model(recipe)
        tokens = found.recipe.train.steps * found.recipe.train.batch_size * found.model.config.context
        loss = last_loss(found)
    parameters = count_parameters(model)
    return DraftModel(label, key, config.n_layer, config.d_model, parameters, tokens, loss, tuple(speeds), predictions)


def students_acceptance(ctx: Context) -> tuple[Student, ...]:
    """Loss and α of each student under its teacher: distillation trains a draft for the very thing it is tested on."""
    teacher = ctx.model(TEACHER).model
    prompts = prompts_from(ctx.tokens(TEACHER), ctx.numbers["texts"], 8)
    texts = generate(teacher, prompts, teacher.config.context - 8, generator=ctx.generator("texts"))
    students = []
    for label, recipe in STUDENTS.items():
        losses, alphas = [], []
        for seed in ctx.seeds(recipe):
            losses.append(last_loss(ctx.model(recipe, seed)))
            chance = acceptance_probability(teacher, ctx.model(recipe, seed).model, texts)
            alphas.append(chance[:, 7:-1].mean().item())
        key, expected = recipe.name.replace("-", "_"), expected_tokens(mean_std(alphas)[0], STUDENT_GAMMA)
        students.append(Student(label, key, tuple(losses), tuple(alphas), expected))
    return tuple(students)


def write(ctx: Context, label: str, draft: GPT, target: GPT, n_new: int) -> Writing:
    """A text written by two models."""
    tokenizer = ctx.model(TARGET).tokenizer
    prompt = prompts_from(ctx.tokens(TARGET), 8, LEAD)[:1]
    rounds: list[Pass] = []

    def watch(p: Tensor, q: Tensor, drafted: Tensor, accepted: int, added: Tensor) -> None:
        chosen = drafted[0, :, None]
        target_p, draft_q = (x[0, : len(chosen)].gather(-1, chosen)[:, 0].tolist() for x in (p, q))
        pieces = tuple(tokenizer.decode([token]) for token in drafted[0].tolist())
        rounds.append(Pass(pieces, tuple(target_p), tuple(draft_q), accepted, tokenizer.decode(added[0].tolist())))

    result = speculate(target, draft, prompt, n_new, gamma=4, generator=ctx.generator("sample"), watch=watch)
    text = [tokenizer.decode(part.tolist()) for part in (prompt[0], result.tokens[0, prompt.shape[1] :])]
    return Writing(label, text[0], text[1], result.passes, result.emitted, result.acceptance_rate, tuple(rounds))


EXERCISE = Exercise(
    measure=measure,
    recipes=(*(recipe for _, recipe in DRAFTS.values() if recipe), TEACHER, *STUDENTS.values()),
    numbers={
        "smoke": {
            "gammas": (1, 4),
            "new_tokens": 60,
            "timed_texts": 3,
            "swept_texts": 2,
            "pass_repeats": 5,
            "draws": 1_600,
            "greedy_prompts": 8,
            "texts": 8,
        },
        "laptop": {
            "gammas": (1, 2, 4, 8),
            "new_tokens": 200,
            "timed_texts": 30,
            "swept_texts": 5,
            "pass_repeats": 20,
            "draws": 4_000,
            "greedy_prompts": 16,
            "texts": 48,
        },
        "gpu": {
            "gammas": (1, 2, 4, 8),
            "new_tokens": 200,
            "timed_texts": 30,
            "swept_texts": 10,
            "pass_repeats": 30,
            "draws": 20_000,
            "greedy_prompts": 64,
            "texts": 128,
        },
    },
    seconds={"smoke": 6, "laptop": 145, "gpu": 70},
    timed=True,
    ahead=ahead,
    seconds_ahead={"smoke": 2, "laptop": 45, "gpu": 30},
)
