"""Tables, figures and checks of 21.27; the text is in answer.md."""

from itertools import pairwise

from minigpt.evaluation.statistics import mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Round, Series, Speculation, Table
from tasks.comparison import counted
from tasks.exercises.ex27_speculative_decoding.findings import ITSELF, STUDENT_GAMMA, TOP_K, Findings, Speed


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    best = f.best.best
    others = sorted((draft for draft in f.drafts if draft.label != ITSELF), key=lambda draft: draft.alpha)
    return Draft(
        blocks={
            "models": models(f),
            "algorithm": listing(f.source, "minigpt/decoding/speculative.py"),
            "distribution": distribution(f),
            "speed-up": speed_figure(f),
            "speed": speed_table(f),
            "by quality": by_quality(f),
            "quality": quality(f),
            "distilled drafts": distilled(f),
            "passes": passes(f),
        },
        checks=checks(f),
        values={
            "itself": next(draft for draft in f.drafts if draft.label == ITSELF),
            "by_alpha": others,
            "overlapping": overlapping([draft.best for draft in others]),
            "same_order": others == sorted(others, key=lambda draft: draft.best.measured),
            "likeliest": min(others, key=lambda draft: draft.loss),
            "gaining": [f"“{draft.label}”" for draft in f.drafts if draft.best.low > 1],
            "losing": [f"“{draft.label}”" for draft in f.drafts if draft.best.high < 1],
            "fewer": [(d.label, s) for d, s in f.runs if s.texts < best.texts and s.measured > best.measured],
            "verify_costs": [speed.verify_cost for _, speed in f.runs],
            "optimistic": all(speed.predicted > speed.measured for _, speed in f.runs),
            "fewer_tokens": all(speed.tokens_per_pass < speed.expected_tokens for _, speed in f.runs),
            "error": mean([deviation(speed.predicted, speed.measured) for _, speed in f.runs]),
            "textbook_error": mean([deviation(speed.textbook, speed.measured) for _, speed in f.runs]),
        },
    )


def passes(f: Findings) -> Speculation:
    """A text to step through."""
    w = f.writing
    caption = (
        f"Drafted by “{w.draft}”, pass by pass. {w.passes} passes of the target for {w.emitted} tokens; of the tested "
        f"drafts {w.acceptance:.0%} were accepted."
    )
    rounds = tuple(Round(p.drafted, p.target, p.draft, p.accepted, p.added) for p in w.rounds)
    return Speculation(w.prompt, rounds, caption)


def overlapping(speeds: list[Speed]) -> bool:
    """Whether any two neighbours in the order of the measured speed-ups have intervals that overlap."""
    ordered = sorted(speeds, key=lambda speed: speed.measured)
    return any(slow.high >= quick.low for slow, quick in pairwise(ordered))


def mean(values: list[float]) -> float:
    """Arithmetic mean."""
    return mean_std(values)[0]


def deviation(value: float, reference: float) -> float:
    """Relative, without its sign."""
    return abs(value / reference - 1)


def models(f: Findings) -> Table:
    """What was trained."""
    rows: list[tuple[Cell, ...]] = [
        (
            d.label,
            d.layers,
            d.width,
            d.parameters,
            f"{d.training_tokens:,} tokens" if d.training_tokens else "none",
            d.loss,
        )
        for d in f.drafts
    ]
    if f.baselines:
        rows += [(label, None, None, None, None, loss) for label, loss in counted(f.baselines)]
    columns = ("draft", "layers", "width", "parameters", "training", "validation loss (nats/token)")
    caption = (
        f"All read the same text with the same tokenizer. The target is the {f.drafts[-1].layers}-layer model, "
        f"“{ITSELF}”; the loss of the untrained draft is that of its size before the first step."
    )
    return Table(columns, tuple(rows), caption, "models")


def distribution(f: Findings) -> Table:
    """Three ways to write, against the exact distribution."""
    p, o = f.output.p_values, f.output
    rows = (
        ("speculative decoding", p["speculative"]),
        ("the target alone", p["target"]),
        ("the draft alone", p["draft"]),
    )
    caption = (
        f"Chi-square of {o.draws:,} texts of three tokens (γ = 2, top-k {TOP_K} in both models) against their "
        f"probabilities under the {o.teacher_layers}-layer teacher of exercise 21.35, enumerated by the chain "
        f"rule. The draft is its {o.student_layers}-layer student."
    )
    return Table(("texts written by", "p-value"), rows, caption, "distribution")


def speed_figure(f: Findings) -> Figure:
    """Predicted speed-up over γ, a line per draft, and what was measured."""
    series = []
    for draft in f.drafts:
        gammas = tuple(float(s.gamma) for s in draft.speeds)
        spread = tuple((s.high - s.low) / 2 for s in draft.speeds)
        series.append(Series(draft.label, gammas, tuple(s.measured for s in draft.speeds), spread))
        if draft.predictions:
            tried, speed = zip(*draft.predictions, strict=True)
            x = tuple(float(gamma) for gamma in tried)
            series.append(Series(f"{draft.label} (predicted)", x, speed, predicts=draft.label))
    caption = (
        "Speed-up over plain decoding with the target, measured with its 95 % interval, and predicted from α, c and v."
    )
    hlines = ((1.0, "plain decoding"),)
    return Figure("line", tuple(series), "γ (drafts per pass)", "speed-up", caption, hlines=hlines)


def speed_table(f: Findings) -> Table:
    """Everything measured and predicted, a row per draft and γ."""
    columns = (
        "draft",
        "γ",
        "acceptance",
        "α = Σ min(p, q)",
        "tokens per pass",
        "expected by α",
        "c",
        "v",
        "speed-up: paper",
        "predicted",
        "measured",
        "from",
        "to",
        "texts",
    )

    def row(label: str, s: Speed) -> tuple[Cell, ...]:
        return (
            label,
            s.gamma,
            s.acceptance,
            s.alpha,
            s.tokens_per_pass,
            s.expected_tokens,
            s.draft_cost,
            s.verify_cost,
            s.textbook,
            s.predicted,
            s.measured,
            s.low,
            s.high,
            s.texts,
        )

    caption = (
        f"Texts of {f.n_new} tokens, one at a time, in stretches of {f.stretch}, temperature 1. c: a step of the "
        "draft, v: verifying γ + 1 tokens, both in plain steps of the target. Paper: Leviathan et al. (2023), theorem "
        "3.8, which sets v = 1; predicted: the same with the measured v. Measured: geometric mean over texts from the "
        "same prompts as plain decoding's, in turn with it, and its 95 % interval."
    )
    return Table(columns, tuple(row(draft.label, speed) for draft, speed in f.runs), caption, "speed")


def quality(f: Findings) -> Table:
    """The best γ of each draft."""
    rows = tuple(
        (d.label, d.loss, d.alpha, d.best.draft_cost, d.best.gamma, d.best.measured, d.best.low, d.best.high)
        for d in f.drafts
    )
    columns = ("draft", "validation loss (nats/token)", "α", "c", "best γ", "speed-up there", "from", "to")
    caption = "Each draft with the γ that the cost model finds best for it, chosen before the timing."
    return Table(columns, rows, caption, "quality")


def by_quality(f: Findings) -> Figure:
    """Speed-up against the loss of the draft."""
    others = sorted(f.drafts[:-1], key=lambda draft: draft.loss)
    losses = tuple(draft.loss for draft in others)
    best = [draft.best for draft in others]
    series = (
        Series("measured", losses, tuple(s.measured for s in best), tuple((s.high - s.low) / 2 for s in best)),
        Series("predicted", losses, tuple(s.predicted for s in best)),
        Series("α", losses, tuple(s.alpha for s in best)),
        Series(ITSELF, (f.target.loss,), (f.target.best.measured,)),
    )
    caption = "Drafts of one size by their validation loss, each with its best γ; beside them the target."
    hlines = ((1.0, "plain decoding"),)
    return Figure("line", series, "validation loss of the draft (nats/token)", "speed-up; α", caption, hlines=hlines)


def distilled(f: Findings) -> Table:
    """Acceptance with distillation and without."""
    rows: list[tuple[Cell, ...]] = []
    verdicts = ["baseline", *(found.verdict for found in f.distillations)]
    for s, verdict in zip(f.students, verdicts, strict=True):
        (loss, loss_std), (alpha, alpha_std) = mean_std(s.losses), mean_std(s.alphas)
        spreads = (loss_std, alpha_std) if len(s.losses) > 1 else (None, None)
        rows.append((s.label, len(s.losses), loss, spreads[0], alpha, spreads[1], verdict, s.expected_tokens))
    columns = (
        "draft",
        "seeds",
        "validation loss",
        "± std",
        "α",
        "± std of α",
        "α against the first",
        f"tokens, γ = {STUDENT_GAMMA}",
    )
    caption = (
        f"Students of {f.output.student_layers} layers under their {f.output.teacher_layers}-layer teacher (exercise "
        "21.35), on texts that the teacher wrote; verdicts are corrected after Holm for their number; the last "
        "column is expected tokens per pass."
    )
    return Table(columns, tuple(rows), caption, "distilled_drafts")


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    o, speeds = f.output, [speed for _, speed in f.runs]
    own = min(speed.acceptance for draft, speed in f.runs if draft.label == ITSELF)
    drift = mean([deviation(speed.tokens_per_pass, speed.expected_tokens) for speed in speeds])
    error = mean([deviation(speed.predicted, speed.measured) for speed in speeds])
    return (
        Check.at_least(
            f"chi-square p of {o.draws:,} speculated texts of three tokens against the target's exact distribution",
            o.p_values["speculative"],
            1e-4,
        ),
        Check.at_most(
            "the same test on the draft's own texts: it notices a wrong distribution",
            o.p_values["draft"],
            1e-4,
            "empirical",
        ),
        Check.equal("greedy speculation = greedy decoding, prompts (small pair)", o.same, o.prompts),
        Check.equal("the same with the large target and each draft", o.large_same, o.large_prompts),
        Check.at_least(
            "the target is ahead of the best draft, one training each (nats per token)", f.ahead, 0.1, "empirical"
        ),
        Check.at_least("acceptance of the target as its own draft", own, 0.999),
        Check.at_most("tokens per pass against (1 - α^(γ+1)) / (1 - α), mean error", drift, 0.1, "empirical"),
        Check.at_most("predicted against measured speed-up, mean error", error, 0.25, "empirical"),
        Check.at_least("the best measured speed-up", f.best.best.measured, 1.0, "empirical"),
        Check.beyond_noise("distillation raises the acceptance of a draft", f.distillation, "higher"),
    )
