"""Exercise 21.27: speculative decoding, its output proved to be the target's own, its speed beside its cost model."""

import copy
import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import chisquare
from torch import Tensor

from minigpt.cost.counting import count_parameters
from minigpt.decoding.sampling import GREEDY, Sampling, generate, warp
from minigpt.decoding.speculative import acceptance_probability, expected_tokens, speculate, verify
from minigpt.evaluation.statistics import compare, describe, mean_std
from minigpt.model import GPT
from minigpt.speculation_speed import Speed, pass_times, time_speculation
from reports.types import Answer, Block, Check, Code, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import (
    DISTILLED_1,
    DISTILLED_2,
    DISTILLED_4,
    DISTILLED_SOFT,
    LARGE,
    SMALL,
    SMALL_LONG,
    STUDENT,
    TEACHER,
)

ITSELF = "the target itself"
STUDENTS = {
    "cross-entropy only": STUDENT,
    "distilled, τ = 1": DISTILLED_1,
    "distilled, τ = 2": DISTILLED_2,
    "distilled, τ = 4": DISTILLED_4,
    "distilled, τ = 2, no cross-entropy": DISTILLED_SOFT,
}
LARGE_PROMPTS = 2  # for greedy identity with each draft
TOP_K = 8  # of the distribution test: at most 8³ texts of three tokens, and a truncation for both models

Metrics = dict[str, float | int]


# --- (a) The models ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draft:
    """A model that drafts for the target."""

    label: str
    key: str  # in names of metrics
    model: GPT
    loss: float  # validation loss, nats per token
    training: str


def last_loss(found: TrainedModel) -> float:
    """Loss over the whole validation split after training, nats per token."""
    return found.evaluations["validation_loss"][-1]


def drafts(ctx: Context) -> list[Draft]:
    """Four drafts for one target, from useless to perfect."""
    small = ctx.model(SMALL)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(ctx.generator("untrained").initial_seed())
        untrained = GPT(small.model.config).to(ctx.device).eval()

    def trained(label: str, key: str, found: TrainedModel) -> Draft:
        tokens = found.recipe.train.steps * found.recipe.train.batch_size * found.model.config.context
        return Draft(label, key, found.model, last_loss(found), f"{tokens:,} tokens")

    return [
        Draft("2 layers, untrained", "untrained", untrained, small.evaluations["validation_loss"][0], "none"),
        trained("2 layers", "small", small),
        trained("2 layers, trained longer", "small_long", ctx.model(SMALL_LONG)),
        trained(ITSELF, "itself", ctx.model(LARGE)),
    ]


def part_a(found: Sequence[Draft]) -> Part:
    """What was trained."""
    rows = tuple(
        (d.label, d.model.config.n_layer, d.model.config.d_model, count_parameters(d.model), d.training, d.loss)
        for d in found
    )
    columns = ("draft", "layers", "width", "parameters", "training", "validation loss (nats/token)")
    caption = (
        "All read the same text with the same tokenizer. The target is the 6-layer model of the last row; the loss of "
        "the untrained draft is that of its size before the first step."
    )
    return Part("a", (Table(columns, rows, caption, "models"),), "A small and a large model on the same data")


# --- (b) The algorithm and its proof ----------------------------------------------------------------------------


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


def greedy_identity(target: GPT, draft: GPT, prompts: Tensor, n_new: int) -> int:
    """For how many prompts (N, T) greedy speculation gives the target's greedy text; γ goes round 1, 2, 4, 8.

    In double precision: passes of other lengths sum in another order, which must not decide between two tokens.
    """
    target, draft = (copy.deepcopy(model).double() for model in (target, draft))
    plain = generate(target, prompts, n_new, sampling=GREEDY)
    gammas = itertools.cycle((1, 2, 4, 8))
    return sum(
        torch.equal(speculate(target, draft, row[None], n_new, gamma=gamma, sampling=GREEDY).tokens[0], expected)
        for row, expected, gamma in zip(prompts, plain, gammas, strict=False)
    )


def prompts_from(tokens: Tensor, count: int, length: int) -> Tensor:
    """Pieces of a text (N,), evenly spread, (count, length)."""
    starts = torch.arange(count, device=tokens.device) * ((len(tokens) - length) // count)
    return tokens[starts[:, None] + torch.arange(length, device=tokens.device)]


def part_b(ctx: Context, found: Sequence[Draft]) -> tuple[Part, list[Check], Metrics]:
    """The algorithm, and that nobody can tell its output from the target's."""
    target, n = found[-1].model, ctx.numbers["greedy_prompts"]
    teacher, student = ctx.model(TEACHER).model, ctx.model(STUDENT).model
    p = distribution_test(ctx)
    n_new = teacher.config.context - 12
    same = greedy_identity(teacher, student, prompts_from(ctx.tokens(TEACHER), n, 8), n_new)
    large, n_large = prompts_from(ctx.tokens(LARGE), LARGE_PROMPTS, 8), LARGE_PROMPTS * len(found)
    same_large = [greedy_identity(target, d.model, large, n_new) for d in found]
    ctx.progress(0.25, "output compared with the target's")
    draws = ctx.numbers["draws"]
    checks = [
        Check.at_least(
            f"chi-square p of {draws:,} speculated texts of three tokens against the target's exact distribution",
            p["speculative"],
            1e-4,
        ),
        Check.at_most("the same test on the draft's own texts: it notices a wrong distribution", p["draft"], 1e-4),
        Check.equal("greedy speculation = greedy decoding, prompts (small pair)", same, n),
        Check.equal("the same with the large target and each draft", sum(same_large), n_large),
    ]
    rows = (
        ("speculative decoding", p["speculative"]),
        ("the target alone", p["target"]),
        ("the draft alone", p["draft"]),
    )
    caption = (
        f"Chi-square of {draws:,} texts of three tokens (γ = 2, top-k {TOP_K} in both models) against their "
        f"probabilities under the {teacher.config.n_layer}-layer teacher of exercise 21.35, enumerated by the chain "
        f"rule. The draft is its {student.config.n_layer}-layer student."
    )
    blocks: tuple[Block, ...] = (
        Prose(
            "A draft $\\tilde x \\sim q$ is kept with probability $\\min(1, p(\\tilde x)/q(\\tilde x))$; after the "
            "first rejection one token is drawn from $(p - q)_+$, renormalised. A token is then emitted with "
            "probability $\\min(p, q) + (p - q)_+ = p$: the target's own, whatever $q$ is. When all γ drafts stand, "
            "the pass that verified them has also paid for one more token, the bonus."
        ),
        Code(inspect.getsource(speculate) + "\n\n" + inspect.getsource(verify), "minigpt/decoding/speculative.py"),
        Table(("texts written by", "p-value"), rows, caption, "distribution"),
        Prose(
            f"Greedy decoding is the same algorithm at temperature 0, where $p$ and $q$ are 0 or 1: {same} of {n} "
            f"prompts give the small target's greedy text, and {sum(same_large)} of {n_large} the large one's, {n_new} "
            "tokens each (in double precision, so that rounding decides nothing)."
        ),
    )
    metrics: Metrics = {f"chi_square_p_{name}": value for name, value in p.items()}
    metrics |= {"greedy_identical_prompts": same + sum(same_large), "greedy_prompts": n + n_large}
    return Part("b", blocks, "The algorithm"), checks, metrics


# --- (c) Acceptance and speed -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Run:
    """One draft with one γ."""

    draft: Draft
    speed: Speed


def timed_runs(ctx: Context, found: Sequence[Draft], n_new: int) -> list[Run]:
    """Every draft with every γ, timed."""
    target, gammas = found[-1].model, ctx.numbers["gammas"]
    prompts = prompts_from(ctx.tokens(LARGE), 8, 16)
    counts = (1, *(gamma + 1 for gamma in gammas))
    passes = pass_times(target, counts, length=16 + n_new // 2, repeats=ctx.numbers["pass_repeats"])
    runs = []
    for index, draft in enumerate(found):
        speeds = time_speculation(
            target,
            draft.model,
            prompts,
            n_new,
            gammas=gammas,
            passes=passes,
            repeats=ctx.numbers["repeats"],
            generator=ctx.generator(draft.key),
        )
        runs += [Run(draft, speed) for speed in speeds]
        ctx.progress(0.3 + 0.6 * (index + 1) / len(found), f"timed the draft “{draft.label}”")
    return runs


def part_c(runs: Sequence[Run], n_new: int) -> tuple[Part, list[Check], Metrics]:
    """Acceptance, tokens per pass, and the clock beside its model."""
    errors = [abs(r.speed.predicted / r.speed.measured - 1) for r in runs]
    drift = [abs(r.speed.tokens_per_pass / expected_tokens(r.speed.alpha, r.speed.gamma) - 1) for r in runs]
    own = min(r.speed.acceptance for r in runs if r.draft.label == ITSELF)
    checks = [
        Check.at_least("acceptance of the target as its own draft", own, 0.999),
        Check.at_most(
            "tokens per pass against (1 - α^(γ+1)) / (1 - α), mean error", float(np.mean(drift)), 0.1, "empirical"
        ),
        Check.at_most("predicted against measured speed-up, mean error", float(np.mean(errors)), 0.25, "empirical"),
        Check.at_least("the best measured speed-up", max(r.speed.measured for r in runs), 1.0, "empirical"),
    ]
    blocks: tuple[Block, ...] = (
        Prose(
            "With drafts accepted independently with probability $\\alpha$, a pass emits "
            "$\\frac{1 - \\alpha^{\\gamma + 1}}{1 - \\alpha}$ tokens on average (Leviathan et al., 2023, equation 1) "
            "and takes $\\gamma c + v$ plain steps. $\\alpha$ is computed, not counted: the mean of "
            "$\\sum_x \\min(p(x), q(x))$ over texts that the target wrote."
        ),
        speed_figure(runs),
        speed_table(runs, n_new),
        Prose(speed_sentence(runs, errors)),
    )
    metrics: Metrics = {}
    for run in runs:
        speed, key = run.speed, run.draft.key
        metrics[f"alpha_{key}"] = speed.alpha
        metrics[f"draft_cost_{key}"] = speed.draft_cost
        metrics[f"acceptance_rate_{key}_gamma_{speed.gamma}"] = speed.acceptance
        metrics[f"tokens_per_pass_{key}_gamma_{speed.gamma}"] = speed.tokens_per_pass
        metrics[f"speedup_measured_{key}_gamma_{speed.gamma}"] = speed.measured
        metrics[f"speedup_predicted_{key}_gamma_{speed.gamma}"] = speed.predicted
        metrics[f"speedup_textbook_{key}_gamma_{speed.gamma}"] = speed.textbook
        metrics[f"verify_cost_{key}_gamma_{speed.gamma}"] = speed.verify_cost
    return Part("c", blocks, "Acceptance rate and effective speed-up"), checks, metrics


def speed_table(runs: Sequence[Run], n_new: int) -> Table:
    """Everything measured and predicted, a row per draft and γ."""
    columns = (
        *("draft", "γ", "acceptance", "α = Σ min(p, q)", "tokens per pass", "expected by α", "c", "v"),
        *("speed-up: paper", "predicted", "measured", "from", "to"),
    )
    rows = tuple(
        (
            *(r.draft.label, s.gamma, s.acceptance, s.alpha, s.tokens_per_pass, expected_tokens(s.alpha, s.gamma)),
            *(s.draft_cost, s.verify_cost, s.textbook, s.predicted, s.measured, s.low, s.high),
        )
        for r in runs
        for s in (r.speed,)
    )
    caption = (
        f"{n_new} tokens at a time, one text at a time, temperature 1. c: a step of the draft, v: verifying γ + 1 "
        "tokens, both in plain steps of the target. Paper: Leviathan et al. (2023), theorem 3.8, which sets v = 1; "
        "predicted: the same with the measured v. Measured: ratio of median times, with the ratios of the quartiles."
    )
    return Table(columns, rows, caption, "speed")


def by_draft(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """The runs of each draft, in order."""
    found: dict[str, list[Run]] = {}
    for run in runs:
        found.setdefault(run.draft.label, []).append(run)
    return found


def speed_figure(runs: Sequence[Run]) -> Figure:
    """Measured and predicted speed-up over γ, two lines per draft."""
    series = []
    for label, own in by_draft(runs).items():
        gammas = tuple(float(r.speed.gamma) for r in own)
        spread = tuple((r.speed.high - r.speed.low) / 2 for r in own)
        series.append(Series(label, gammas, tuple(r.speed.measured for r in own), spread))
        series.append(Series(f"{label} (predicted)", gammas, tuple(r.speed.predicted for r in own)))
    caption = (
        "Speed-up over plain decoding with the target, measured, and predicted from α, c and v. The bar is half the "
        "distance of the ratios of quartiles."
    )
    hlines = ((1.0, "plain decoding"),)
    return Figure("line", tuple(series), "γ (drafts per pass)", "speed-up", caption, hlines=hlines)


def speed_sentence(runs: Sequence[Run], errors: Sequence[float]) -> str:
    """What the clock says, and how well it was foreseen."""
    best = max(runs, key=lambda r: r.speed.measured)
    speed, name = best.speed, f"“{best.draft.label}” with γ = {best.speed.gamma}"
    if speed.low > 1.0:
        verdict = f"The best combination, {name}, is {speed.measured:.2f} times as fast as plain decoding."
    elif speed.measured > 1.0:
        verdict = (
            f"The best combination, {name}, gives {speed.measured:.2f}, but its quartiles reach down to "
            f"{speed.low:.2f}: not distinguishable from plain decoding."
        )
    else:
        verdict = f"Nothing is gained at this size: the best combination, {name}, gives {speed.measured:.2f}."
    optimist = float(np.mean([abs(r.speed.textbook / r.speed.measured - 1) for r in runs]))
    costs = [r.speed.verify_cost for r in runs]
    return (
        f"{verdict} A step of the 2-layer draft costs {runs[0].speed.draft_cost:.2f} of the target's, and verifying "
        f"γ + 1 tokens {min(costs):.2f} to {max(costs):.2f} steps where the paper assumes 1. With both measured, the "
        f"prediction is off by {np.mean(errors):.0%} on average; with v = 1 by {optimist:.0%}."
    )


# --- (d) The quality of the draft -------------------------------------------------------------------------------


def quality_table(runs: Sequence[Run]) -> Table:
    """The best γ of each draft."""
    best = [max(own, key=lambda r: r.speed.measured) for own in by_draft(runs).values()]
    rows = tuple(
        (r.draft.label, r.draft.loss, r.speed.alpha, r.speed.draft_cost, r.speed.gamma, r.speed.measured) for r in best
    )
    columns = ("draft", "validation loss (nats/token)", "α", "c", "best γ", "speed-up there")
    return Table(columns, rows, "Each draft with the γ that suits it best.", "quality")


def quality_sentence(runs: Sequence[Run]) -> str:
    """Whether better drafts are faster drafts."""
    best = {label: max(own, key=lambda r: r.speed.measured) for label, own in by_draft(runs).items()}
    target = best.pop(ITSELF)
    itself, target_loss = target.speed, target.draft.loss
    by_alpha = sorted(best.values(), key=lambda r: r.speed.alpha)
    low, high = by_alpha[0], by_alpha[-1]
    agree = by_alpha == sorted(best.values(), key=lambda r: r.speed.measured)
    order = (
        "Among the drafts of equal cost, the order by α is the order by speed-up"
        if agree
        else "Even among the drafts of equal cost, the order by α is not quite the order by speed-up"
    )
    longer = "the better the draft, the longer it may run ahead: " if high.speed.gamma > low.speed.gamma else ""
    return (
        f"{order}: α runs from {low.speed.alpha:.2f} ({low.draft.label}) to {high.speed.alpha:.2f} "
        f"({high.draft.label}), and {longer}the best γ is {low.speed.gamma} for the worst of them and "
        f"{high.speed.gamma} for the best. {agreement_sentence(by_alpha, target_loss)} Quality alone is not enough: "
        f"the target as its own draft is always accepted, and with c = {itself.draft_cost:.2f} its best speed-up is "
        f"{itself.measured:.2f}."
    )


def agreement_sentence(by_alpha: Sequence[Run], target_loss: float) -> str:
    """Whether the draft that knows the text best is the one that the target agrees with most."""
    likeliest = min(by_alpha, key=lambda r: r.draft.loss)
    if likeliest is by_alpha[-1]:
        return f"The draft with the lowest loss, {likeliest.draft.loss:.3f} nats, has the highest α, too."
    return (
        f"What counts is agreement with the target, not the loss: “{likeliest.draft.label}” has the lowest, "
        f"{likeliest.draft.loss:.3f} nats where the target has {target_loss:.3f}, and α = "
        f"{likeliest.speed.alpha:.2f} only."
    )


def students_acceptance(ctx: Context) -> dict[str, tuple[list[float], list[float]]]:
    """Loss and α of each student under its teacher, one value per seed."""
    teacher = ctx.model(TEACHER).model
    prompts = prompts_from(ctx.tokens(TEACHER), ctx.numbers["texts"], 8)
    texts = generate(teacher, prompts, teacher.config.context - 8, generator=ctx.generator("texts"))
    found: dict[str, tuple[list[float], list[float]]] = {}
    for label, recipe in STUDENTS.items():
        losses, alphas = found.setdefault(label, ([], []))
        for seed in ctx.seeds(recipe):
            losses.append(last_loss(ctx.model(recipe, seed)))
            chance = acceptance_probability(teacher, ctx.model(recipe, seed).model, texts)
            alphas.append(chance[:, 7:-1].mean().item())
    return found


def distillation(ctx: Context) -> tuple[list[Block], list[Check], Metrics]:
    """Acceptance before and after distillation, which trains the draft for the very thing it is tested on."""
    found = students_acceptance(ctx)
    baseline = found[next(iter(found))][1]
    rows, metrics = [], Metrics()
    for label, (losses, alphas) in found.items():
        (loss, loss_std), (alpha, alpha_std) = mean_std(losses), mean_std(alphas)
        verdict = "before distillation" if alphas is baseline else compare(baseline, alphas).verdict
        spreads = (loss_std, alpha_std) if len(losses) > 1 else (None, None)
        rows.append((label, len(losses), loss, spreads[0], alpha, spreads[1], verdict, expected_tokens(alpha, 4)))
        key = STUDENTS[label].name.replace("-", "_")
        metrics[f"alpha_{key}"] = alpha
        if len(losses) > 1:
            metrics[f"alpha_{key}_std"] = alpha_std
    best = max(list(found)[1:], key=lambda label: mean_std(found[label][1])[0])
    change = compare(baseline, found[best][1])
    columns = ("draft", "seeds", "validation loss", "± std", "α", "± std of α", "α against the first", "tokens, γ = 4")
    caption = (
        f"Students of {STUDENT.model.n_layer} layers under their {TEACHER.model.n_layer}-layer teacher (exercise "
        "21.35), on texts that the teacher wrote; the last column is expected tokens per pass."
    )
    said = describe(change, f"the draft “{best}”", "the draft before distillation", quantity="acceptance", unit="")
    blocks: list[Block] = [
        Table(columns, tuple(rows), caption, "distilled_drafts"),
        Prose(
            "Beyond the exercise: a student of the target, distilled, is a draft trained for agreement. "
            f"{said} Acceptance is one minus the total variation between draft and target (Leviathan et al., 2023, "
            "corollary 3.6), which the divergence that distillation minimises bounds from above (Pinsker's "
            "inequality)."
        ),
    ]
    check = Check.at_least("distillation raises the acceptance of a draft", change.difference, 0.0, "empirical")
    return blocks, [check], metrics


# --- The answer -------------------------------------------------------------------------------------------------


def sample(ctx: Context, draft: Draft, target: GPT, n_new: int) -> Sample:
    """A text written by two models."""
    tokenizer = ctx.model(LARGE).tokenizer
    prompt = prompts_from(ctx.tokens(LARGE), 8, 16)[:1]
    result = speculate(target, draft.model, prompt, n_new, gamma=4, generator=ctx.generator("sample"))
    text = [tokenizer.decode(part.tolist()) for part in (prompt[0], result.tokens[0, prompt.shape[1] :])]
    note = f"{result.passes} passes of the target for {result.emitted} tokens; {result.acceptance_rate:.0%} accepted"
    return Sample(f"Drafted by “{draft.label}”", text[0], text[1], note)


def answer(ctx: Context) -> Answer:
    """Speculative decoding, part by part."""
    found = drafts(ctx)
    target = found[-1].model
    n_new = min(ctx.numbers["new_tokens"], target.config.context - 16)
    output, checks, metrics = part_b(ctx, found)
    runs = timed_runs(ctx, found, n_new)
    speed, speed_checks, speed_metrics = part_c(runs, n_new)
    blocks, more_checks, more_metrics = distillation(ctx)
    text = sample(ctx, found[2], target, n_new)
    quality = Part("d", (quality_table(runs), Prose(quality_sentence(runs)), *blocks, text), "Quality of the draft")
    best = max(runs, key=lambda r: r.speed.measured)
    return Answer(
        summary=f"The output is the target's own (chi-square p = {metrics['chi_square_p_speculative']:.2f}, greedy "
        f"texts identical); the best measured speed-up is {best.speed.measured:.2f}, with “{best.draft.label}” at "
        f"γ = {best.speed.gamma} and α = {best.speed.alpha:.2f}.",
        parts=(part_a(found), output, speed, quality),
        checks=(*checks, *speed_checks, *more_checks),
        metrics=metrics | speed_metrics | more_metrics,
    )


EXERCISE = Exercise(
    id="21.27",
    title="Speculative Decoding",
    recipes=(SMALL, SMALL_LONG, LARGE, TEACHER, *STUDENTS.values()),
    numbers={
        "smoke": {
            "gammas": (1, 4),
            "new_tokens": 24,
            "repeats": 2,
            "pass_repeats": 5,
            "draws": 1_600,
            "greedy_prompts": 8,
            "texts": 8,
        },
        "laptop": {
            "gammas": (1, 2, 4, 8),
            "new_tokens": 48,
            "repeats": 3,
            "pass_repeats": 20,
            "draws": 6_400,
            "greedy_prompts": 24,
            "texts": 64,
        },
        "gpu": {
            "gammas": (1, 2, 4, 8),
            "new_tokens": 200,
            "repeats": 5,
            "pass_repeats": 50,
            "draws": 50_000,
            "greedy_prompts": 200,
            "texts": 256,
        },
    },
    seconds={"smoke": 8, "laptop": 47, "gpu": 120},
    timed=True,
    answer=answer,
)
