"""Exercise 21.30: prefix language modelling: full attention on a prefix, causal attention on the rest."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.decoding.prefix import complete, suffix_losses
from minigpt.decoding.sampling import GREEDY, Sampling
from minigpt.evaluation.statistics import Comparison, compare, compare_paired, describe, format_mean_std, mean_std
from minigpt.masks import causal_mask, prefix_mask
from minigpt.model import GPT
from minigpt.objectives import prefix as prefix_objective
from reports.types import Answer, Block, Cell, Check, Code, Figure, Heatmap, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import STUDY_PREFIX, STUDY_PREFIX_CONTROL, STUDY_ROPE
from tasks.study_legacy import Variant, curves, metrics, table, variants

TRAINED = {"causal": STUDY_ROPE, "prefix": STUDY_PREFIX, "control": STUDY_PREFIX_CONTROL}
# How each model is read, and whether the prefix is then bidirectional. The first three are as trained.
READINGS = {
    "causal model": ("causal", False),
    "prefix model": ("prefix", True),
    "control": ("control", False),
    "prefix model, read causally": ("prefix", False),
    "causal model, prefix opened": ("causal", True),
}


# --- (a) The mask -----------------------------------------------------------------------------------------------


def picture(length: int, prefix: int) -> Heatmap:
    """The mask of one prefix."""
    values = tuple(tuple(1.0 if seen else None for seen in row) for row in prefix_mask(length, prefix).tolist())
    names = tuple(map(str, range(length)))
    caption = {0: "P = 0, the causal mask.", length: f"P = {length}, full attention."}.get(prefix, f"P = {prefix}.")
    return Heatmap(values, "key", "query", caption, names, names)


@dataclass(frozen=True)
class Limits:
    """Largest differences, which should be exactly 0, and a leak that should not be there."""

    causal: float
    full: float
    leaking: int  # scored predictions that change with their own target
    inside: int  # predictions inside the prefix that do, which is why they are not scored
    cached: int  # completions that differ from recomputing everything for each token


@torch.inference_mode()
def limits(model: GPT, window: Tensor) -> Limits:
    """The two limits and the absence of leaks, on (1, T + 1) tokens."""
    tokens, T, P = window[:, :-1], window.shape[1] - 1, window.shape[1] // 2
    full = torch.ones(T, T, dtype=torch.bool, device=tokens.device)
    # P = 0 as a number is no mask at all, as a tensor it is one: each against its like, as kernels differ in rounding.
    zero = torch.zeros(1, dtype=torch.long, device=tokens.device)
    unmasked = (model(tokens, prefix=0) - model(tokens)).abs().max()
    masked = (model(tokens, prefix=zero) - model(tokens, mask=causal_mask(T, device=tokens.device))).abs().max()
    everything = (model(tokens, prefix=T) - model(tokens, mask=full)).abs().max()
    before = model(tokens, prefix=P)[0]
    leaks = {False: 0, True: 0}
    for target in range(1, T):
        altered = tokens.clone()
        altered[0, target] = (altered[0, target] + 1) % model.config.vocab_size
        changed = bool((model(altered, prefix=P)[0, target - 1] != before[target - 1]).any())
        leaks[target < P] += changed
    prompt, grown = tokens[:, :P], tokens[:, :P]
    for _ in range(T - P):
        grown = torch.cat([grown, model(grown, prefix=P)[:, -1:].argmax(dim=-1)], dim=1)
    cached = complete(model, prompt, T - P, sampling=GREEDY)
    causal = max(float(unmasked), float(masked))
    return Limits(causal, float(everything), leaks[False], leaks[True], int((cached != grown).sum()))


def part_a(row: Variant, window: Tensor) -> tuple[tuple[Block, ...], list[Check]]:
    """The mask and its limits."""
    found, P = limits(row.models[0].model, window), window.shape[1] // 2
    checks = [
        Check.equal("P = 0 gives the logits of the causal mask (max difference)", found.causal, 0.0),
        Check.equal("P = T gives the logits of full attention (max difference)", found.full, 0.0),
        Check.equal("scored predictions that change with their own target", found.leaking, 0),
        Check.at_least(
            f"of {P - 1} predictions inside the prefix, those that do: they are not scored", found.inside, 1
        ),
        Check.equal("cached completion ≠ reading all again for each token (tokens)", found.cached, 0),
    ]
    blocks = (
        Prose(
            "Query $i$ attends to key $j$ if $j \\le i$ or $j < P$ (Raffel et al., 2020, section 3.2.1). Inside the "
            "prefix every position sees the token that it would have to predict, so that only targets from position "
            "$P$ on are scored; the first of them is predicted at position $P - 1$."
        ),
        Code(inspect.getsource(prefix_mask), "minigpt/masks.py"),
        picture(10, 0),
        picture(10, 4),
        picture(10, 10),
    )
    return blocks, checks


# --- (b) Trained, and compared on the same targets ---------------------------------------------------------------


def contiguous(tokens: Tensor, context: int, count: int) -> Tensor:
    """The first ``count`` windows of T + 1 tokens that share their boundary, (B, T + 1)."""
    return tokens.unfold(0, context + 1, context)[:count]


def suffix_table(
    rows: Sequence[Variant], windows: Tensor, prefixes: Sequence[int]
) -> Mapping[str, Mapping[int, tuple[float, ...]]]:
    """Mean suffix loss: reading → prefix → one value per seed."""
    by_label = {row.label: row for row in rows}
    return {
        reading: {
            prefix: tuple(
                suffix_losses(trained.model, windows, prefix, bidirectional=opened).double().mean().item()
                for trained in by_label[label].models
            )
            for prefix in prefixes
        }
        for reading, (label, opened) in READINGS.items()
    }


def trained_targets(context: int) -> float:
    """Share of a window's targets that the prefix objective scores, for lengths uniform on 0 … T - 1."""
    return sum(context + 1 - max(prefix, 1) for prefix in range(context)) / context**2


# What the comparisons with the causal model and with the control say together; other pairs are not conclusive.
VERDICTS = {
    (
        "higher",
        "noise",
    ): "So what the prefix model pays for is its fewer targets; its attention neither costs nor gains "
    "anything that the seeds could show.",
    ("higher", "lower"): "So attention to the whole prefix helps, but by less than the missing targets cost.",
    ("higher", "higher"): "So fewer targets are not all that it pays for.",
    ("lower", "lower"): "So attention to the whole prefix makes up for fewer targets and more.",
    ("noise", "lower"): "So attention to the whole prefix makes up for the missing targets.",
    ("noise", "noise"): "So neither the open prefix nor the missing targets show at this size.",
}


def part_b(
    rows: Sequence[Variant], losses: Mapping[str, Mapping[int, tuple[float, ...]]], context: int, shown: int
) -> tuple[tuple[Block, ...], Comparison]:
    """The comparison of the models by prefix length; also that of prefix and causal at the prefix ``shown``."""
    prefixes = tuple(losses["causal model"])
    found = {
        p: tuple(compare(losses[other][p], losses["prefix model"][p]) for other in ("causal model", "control"))
        for p in prefixes
    }
    cells: list[tuple[Cell, ...]] = [
        (p, context + 1 - p, *(mean_std(by[p])[0] for by in losses.values()), causal.verdict, control.verdict)
        for p, (causal, control) in found.items()
    ]
    columns = ("prefix P", "targets per window", *losses, "prefix against causal", "prefix against control")
    series = []
    for reading, by in losses.items():
        means, spreads = zip(*(mean_std(by[p]) for p in prefixes), strict=True)
        error = spreads if len(rows[0].models) > 1 else ()
        series.append(Series(reading, tuple(map(float, prefixes)), means, error))
    quantity = f"suffix loss at P = {shown}"
    against_causal, against_control = found[shown]
    # The same models read twice: their own differences cancel.
    opened = compare_paired(losses["prefix model, read causally"][shown], losses["prefix model"][shown])
    blocks = (
        Prose(
            "All models read the same windows in the same order. The prefix model's lengths are drawn anew for each "
            f"sequence, uniformly from 0 to {context - 1}, so that it is trained on {trained_targets(context):.0%} as "
            "many targets as the causal model: equal steps are not equal supervision. The *control* is trained on just "
            "the targets of the prefix model, under the causal mask. Scored are the tokens after the prefix, the same "
            "for all readings."
        ),
        Code(inspect.getsource(prefix_objective), "minigpt/objectives.py"),
        Figure(
            "line",
            tuple(series),
            "prefix length P (tokens)",
            "loss on the suffix (nats/token)",
            "Loss on what follows the prefix, mean ± standard deviation over seeds. Targets differ between prefixes, "
            "not between readings.",
        ),
        Table(columns, tuple(cells), "Nats per suffix token, mean over seeds; verdicts by Welch's interval.", "suffix"),
        Prose(
            f"{describe(against_causal, 'the prefix model', 'the causal model', quantity=quantity)} "
            f"{describe(against_control, 'the prefix model', 'the control', quantity=quantity)} "
            f"{VERDICTS.get((against_causal.verdict, against_control.verdict), '')} What the opened prefix itself is "
            f"worth to the prefix model, seed by seed: "
            f"{describe(opened, 'the open reading', 'its causal reading', quantity=quantity, digits=4)}"
        ),
        table(
            rows,
            name="trained",
            caption="All as plain causal language models, on every token: what the prefix model gives up.",
        ),
        curves(rows, caption="Validation loss under the causal mask in training."),
    )
    return blocks, against_causal


# --- (c) Completion given a paragraph ----------------------------------------------------------------------------

WRONG = 3  # continuations of other paragraphs to choose among


def choices(model: GPT, windows: Tensor, prefix: int, *, bidirectional: bool, wrong: int = WRONG) -> float:
    """Share of windows whose own continuation is likelier than ``wrong`` others; chance is 1 / (1 + wrong)."""
    scores = []
    for shift in range(wrong + 1):
        candidate = torch.cat([windows[:, :prefix], windows.roll(shift, 0)[:, prefix:]], dim=1)
        scores.append(suffix_losses(model, candidate, prefix, bidirectional=bidirectional).sum(dim=1))
    return float((torch.stack(scores).argmin(dim=0) == 0).double().mean())


def by_distance(row: Variant, windows: Tensor, prefix: int, *, opened: bool) -> tuple[float, ...]:
    """Mean loss of the first, second, … token after the prefix, over windows and seeds."""
    losses = [suffix_losses(m.model, windows, prefix, bidirectional=opened).double().mean(dim=0) for m in row.models]
    return tuple(torch.stack(losses).mean(dim=0).tolist())


def samples(ctx: Context, rows: Sequence[Variant], windows: Tensor, prefix: int) -> tuple[Sample, ...]:
    """The same paragraphs continued by both models with the same random numbers, beside the original."""
    written = []
    for place in range(ctx.numbers["samples"]):
        window = windows[place * len(windows) // ctx.numbers["samples"]]
        for row in rows:
            trained = row.models[0]
            text = complete(
                trained.model,
                window[None, :prefix],
                len(window) - prefix,
                bidirectional=row.label == "prefix",
                sampling=Sampling(0.8),
                generator=ctx.generator(f"sample {place}"),
            )[0]
            original = trained.tokenizer.decode(window[prefix:].tolist())
            decode = trained.tokenizer.decode
            written.append(
                Sample(
                    f"Paragraph {place + 1}, {row.label} model",
                    decode(text[:prefix].tolist()),
                    decode(text[prefix:].tolist()),
                    f"temperature 0.8, seed {trained.recipe.seed}; the original goes on: {original!r}",
                )
            )
    return tuple(written)


def part_c(
    ctx: Context, rows: Sequence[Variant], windows: Tensor, prefix: int
) -> tuple[tuple[Block, ...], dict[str, float], Comparison]:
    """Completion: by likelihood, by choice, by eye."""
    causal, opened = rows[:2]
    right = {
        row.label: [choices(m.model, windows, prefix, bidirectional=row.label == "prefix") for m in row.models]
        for row in rows[:2]
    }
    found = compare(right["causal"], right["prefix"])
    steps = tuple(float(distance) for distance in range(1, windows.shape[1] - prefix + 1))
    said = describe(found, "the prefix model", "the causal model", quantity="share of right choices", unit="")
    blocks: tuple[Block, ...] = (
        Figure(
            "line",
            (
                Series("causal model", steps, by_distance(causal, windows, prefix, opened=False)),
                Series("prefix model", steps, by_distance(opened, windows, prefix, opened=True)),
            ),
            "tokens after the paragraph",
            "loss (nats/token)",
            f"Loss by distance from a paragraph of {prefix} tokens, mean over {len(windows)} paragraphs and seeds.",
        ),
        Prose(
            f"**Choosing the continuation.** Given a paragraph of {prefix} tokens, is its own continuation likelier "
            f"than those of {WRONG} other paragraphs? Chance is {1 / (1 + WRONG):.0%}; the causal model is right in a "
            f"share of {format_mean_std(right['causal'])} of {len(windows)} cases, the prefix model in "
            f"{format_mean_std(right['prefix'])}. {said}"
        ),
        Table(
            ("model", "seed", "share of right choices"),
            tuple(
                (row.label, trained.recipe.seed, share)
                for row in rows[:2]
                for trained, share in zip(row.models, right[row.label], strict=True)
            ),
            f"{1 + WRONG} continuations for each of {len(windows)} paragraphs of {prefix} tokens.",
            "choices",
        ),
        *samples(ctx, rows[:2], windows, prefix),
    )
    measured: dict[str, float] = {}
    for label, shares in right.items():
        measured |= with_spread(f"right_choices_share_{label}", shares)
    return blocks, measured, found


def with_spread(name: str, values: Sequence[float]) -> dict[str, float]:
    """The mean as a metric, and the standard deviation where there are several seeds."""
    mean, spread = mean_std(values)
    return {name: mean, f"{name}_std": spread} if len(values) > 1 else {name: mean}


def answer(ctx: Context) -> Answer:
    """All three parts."""
    rows = variants(ctx, TRAINED)
    context = rows[0].models[0].model.config.context
    windows = contiguous(ctx.tokens(STUDY_PREFIX), context, ctx.numbers["windows"])
    prefixes = sorted({1, *(round(context * share) for share in ctx.numbers["shares"])})
    a, checks = part_a(rows[1], windows[:1])
    losses = suffix_table(rows, windows, prefixes)
    ctx.progress(0.6, "suffixes scored")
    half = context // 2
    b, at_half = part_b(rows, losses, context, half)
    c, measured, _ = part_c(ctx, rows, windows, half)
    checks += [
        Check.close(
            "P = 1 is the causal model: both readings of the prefix model score alike (nats)",
            losses["prefix model"][1][0],
            losses["prefix model, read causally"][1][0],
            1e-6,
        ),
        Check(
            f"at P = {half} the prefix model predicts the suffix better than the causal one",
            "empirical",
            at_half.difference,
            "< 0 beyond the noise",
            at_half.verdict == "lower",
        ),
    ]
    for reading, by in losses.items():
        key = reading.replace(",", "").replace(" ", "_")
        for p, values in by.items():
            measured |= with_spread(f"suffix_loss_nats_{key}_p_{p}", values)
    return Answer(
        summary=f"After a prefix of {half} tokens: {format_mean_std(losses['prefix model'][half])} nats on the suffix "
        f"with a bidirectional prefix, {format_mean_std(losses['causal model'][half])} without, and "
        f"{format_mean_std(losses['control'][half])} without it but with as few targets in training.",
        parts=(
            Part("a", a, "The mask"),
            Part("b", b, "Trained, against causal"),
            Part("c", c, "Completion given a paragraph"),
        ),
        checks=tuple(checks),
        metrics=metrics(rows) | measured,
    )


EXERCISE = Exercise(
    id="21.30",
    title="Prefix Language Modeling",
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {"windows": 60, "shares": (0.25, 0.5, 0.75), "samples": 1},
        "laptop": {"windows": 240, "shares": (0.125, 0.25, 0.5, 0.75), "samples": 3},
        "gpu": {"windows": 1000, "shares": (0.125, 0.25, 0.5, 0.75), "samples": 3},
    },
    timed=True,
    seconds={"smoke": 1.5, "laptop": 12, "gpu": 10},
    answer=answer,
)
