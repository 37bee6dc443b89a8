"""Exercise 21.33: several tokens predicted at once, the first head judged alone, and the others put to use."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from minigpt.decoding.sampling import GREEDY, Sampling, generate
from minigpt.decoding.self_speculation import SelfSpeculation, self_speculate
from minigpt.evaluation.entropy import unigram_loss
from minigpt.evaluation.future_heads import FutureHeadScores, score_heads
from minigpt.evaluation.statistics import compare, describe, format_mean_std, mean_std
from minigpt.evaluation.timing import Timing, measure
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.model import GPT
from minigpt.objectives import OBJECTIVES, multi_token
from minigpt.train import TrainConfig, train
from reports.types import Answer, Block, Cell, Check, Code, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import STUDY_FUTURE_2, STUDY_FUTURE_4, STUDY_FUTURE_4_SUM, STUDY_FUTURE_8, STUDY_ROPE
from tasks.study_legacy import Variant, comparisons, curves, metrics, sentences, table, variants

HEADS = {
    "N = 1": STUDY_ROPE,
    "N = 2": STUDY_FUTURE_2,
    "N = 4": STUDY_FUTURE_4,
    "N = 8": STUDY_FUTURE_8,
}
SUMMED = "N = 4, sum of losses"
TRAINED = HEADS | {SUMMED: STUDY_FUTURE_4_SUM}


# --- (a) The heads ----------------------------------------------------------------------------------------------


def weights_after(model: GPT, tokens: Tensor, steps: int, objective: str, heads: int = 1) -> list[Tensor]:
    """Train the architecture of ``model`` from scratch for a few steps; the trunk's weights."""
    config = replace(model.config, n_future=heads)
    tc = TrainConfig(steps=steps, batch_size=4, objective=objective, eval_every=steps)
    trained = train(config, tc, tokens, tokens[:200], seed=0).model
    return [weight for name, weight in trained.named_parameters() if not name.startswith("future")]


def part_a(ctx: Context, rows: Sequence[Variant], tokens: Tensor) -> tuple[tuple[Block, ...], list[Check]]:
    """What a head is, and that one head is the baseline."""
    model = rows[0].models[0].model
    plain, single = (
        weights_after(model, tokens.cpu(), ctx.numbers["check_steps"], objective)
        for objective in ("causal", "multi_token")
    )
    checks = [
        Check.equal(
            f"weights that differ after {ctx.numbers['check_steps']} steps: objective multi_token with N = 1, and "
            "causal",
            sum(int((a != b).sum()) for a, b in zip(plain, single, strict=True)),
            0,
        )
    ]
    per_head = rows[1].parameters - rows[0].parameters
    counts = tuple(
        (
            row.label,
            row.parameters,
            row.parameters - rows[0].parameters,
            per_head * (row.models[0].model.config.n_future - 1),
        )
        for row in rows
    )
    checks.append(
        Check.equal(
            "each further head has (C + 1)·C parameters",
            all(extra == expected for _, _, extra, expected in counts)
            and per_head == model.config.d_model * (model.config.d_model + model.config.bias),
            True,
        )
    )
    blocks = (
        Prose(
            "One trunk, $N$ heads: head $n$ predicts the token $n$ places ahead from the same hidden state $h_t$, "
            "$p_n(x_{t+n} \\mid x_{\\le t}) = \\mathrm{softmax}(U W_n h_t)$ with $W_1 = 1$. The unembedding $U$ is "
            "shared (Gloeckle et al., 2024, section 2; their heads are whole Transformer layers, ours linear maps). "
            "Later heads start from zero, so that at first the trunk is trained by the first alone: heads that start "
            "as the identity would all predict alike, and pull the trunk towards the average of $N$ tokens."
        ),
        Code(inspect.getsource(GPT.future_logits), "minigpt/model.py"),
        Table(("model", "parameters", "more than N = 1", "(N − 1)·C·(C + 1)"), counts, "What the heads add.", "heads"),
    )
    return blocks, checks


# --- (b) The combined loss --------------------------------------------------------------------------------------


def gradients(model: GPT, batch: Tensor, reduction: str) -> Tensor:
    """The gradient of the multi-token loss, all parameters in one vector."""
    loss = OBJECTIVES["multi_token"](model, batch, args={"reduction": reduction})
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def by_head(scores: Mapping[str, Sequence[FutureHeadScores]], field: str) -> tuple[Series, ...]:
    """One line per model: loss or accuracy against the head's number, mean ± standard deviation over seeds."""
    series = []
    for label, seeds in scores.items():
        columns = list(zip(*(getattr(seed, field) for seed in seeds), strict=True))
        means, spreads = zip(*map(mean_std, columns), strict=True)
        x = tuple(float(head) for head in range(1, len(columns) + 1))
        series.append(Series(label, x, means, spreads if len(seeds) > 1 else ()))
    return tuple(series)


def part_b(
    ctx: Context, rows: Sequence[Variant], scores: Mapping[str, Sequence[FutureHeadScores]], tokens: Tensor
) -> tuple[tuple[Block, ...], list[Check], dict[str, float]]:
    """Losses of the heads, their mean and their sum."""
    four = next(row for row in rows if row.label == "N = 4").models[0].model
    batch = tokens.unfold(0, four.config.context + 1, four.config.context)[:4]
    summed, mean = gradients(four, batch, "sum"), gradients(four, batch, "mean")
    check = Check.at_most(
        "the gradient of the sum is N times that of the mean (relative difference)",
        float((summed - 4 * mean).norm() / summed.norm()),
        1e-5,
    )
    blind = unigram_loss(ctx.tokens(STUDY_ROPE, "train"), tokens, four.config.vocab_size)
    cells: list[tuple[Cell, ...]] = []
    measured: dict[str, float] = {"unigram_loss_nats": blind}
    for row in rows:
        heads = [mean_std(column)[0] for column in zip(*(seed.losses for seed in scores[row.label]), strict=True)]
        padded = [*heads, *[None] * (8 - len(heads))]
        cells.append((row.label, sum(heads) / len(heads), sum(heads), *padded))
        for seed_field in ("losses", "accuracies"):
            for n, column in enumerate(zip(*(getattr(s, seed_field) for s in scores[row.label]), strict=True), 1):
                name = "loss_nats" if seed_field == "losses" else "accuracy"
                measured[f"{name}_{row.key}_head_{n}"] = mean_std(column)[0]
    columns = ("model", "mean of the heads", "sum of the heads", *(f"head {n}" for n in range(1, 9)))
    by_mean, by_sum = (next(row for row in rows if row.label == label) for label in ("N = 4", SUMMED))
    blocks = (
        Prose(
            "The paper sums the losses of the heads (equation 2), the mean keeps the scale of one. The gradients "
            "differ by the factor $N$ and nothing else. Adam divides it out again; what is left is the clipping of the "
            "gradient's norm, which sees the sum as $N$ times as large."
        ),
        Code(inspect.getsource(multi_token), "minigpt/objectives.py"),
        Table(columns, tuple(cells), "Validation loss by head, nats per token, mean over seeds.", "losses"),
        Figure(
            "line",
            by_head(scores, "losses"),
            "head (tokens ahead)",
            "validation loss (nats/token)",
            "The further ahead, the less there is to know; the line is what letter frequencies alone achieve.",
            hlines=((blind, "letter frequencies"),),
        ),
        Prose(
            describe(
                compare(by_mean.losses, by_sum.losses),
                "the first head trained on the sum",
                "the one trained on the mean",
            )
        ),
    )
    return blocks, [check], measured


# --- (c) Generation by the first head -----------------------------------------------------------------------------


def first_head_texts(ctx: Context, row: Variant, prompts: Tensor) -> list[list[str]]:
    """Texts of each seed's model from the same prompts, with the same random numbers, by its first head."""
    texts = []
    for trained in row.models:
        tokens = generate(
            trained.model,
            prompts,
            ctx.numbers["text_tokens"],
            sampling=Sampling(0.8),
            generator=ctx.generator("text"),
        )[:, prompts.shape[1] :]
        texts.append([trained.tokenizer.decode(line) for line in tokens.tolist()])
    return texts


def part_c(
    ctx: Context, rows: Sequence[Variant], scores: Mapping[str, Sequence[FutureHeadScores]], tokens: Tensor
) -> tuple[tuple[Block, ...], dict[str, float]]:
    """Whether training more heads improves the first."""
    vocabulary = frozenset(words(ctx.text("train")))
    context = rows[0].models[0].model.config.context
    starts = torch.arange(ctx.numbers["texts"]) * context
    prompts = torch.stack([tokens[start : start + context // 2] for start in starts.tolist()])
    known: dict[str, list[float]] = {}
    cells: list[tuple[Cell, ...]] = []
    samples: list[Sample] = []
    for row in rows:
        texts = first_head_texts(ctx, row, prompts)
        known[row.label] = [share_of_real_words(lines, vocabulary, cut_start=True) for lines in texts]
        accuracy = mean_std([seed.accuracies[0] for seed in scores[row.label]])[0]
        share, spread = mean_std(known[row.label])
        cells.append((row.label, accuracy, share, spread if len(texts) > 1 else None))
        prompt = rows[0].models[0].tokenizer.decode(prompts[0].tolist())
        samples.append(
            Sample(f"{row.label}, first head", prompt, texts[0][0], "temperature 0.8, the same random numbers")
        )
    said = " ".join(
        describe(compare(known["N = 1"], shares), label, "N = 1", quantity="share of known words", unit="")
        for label, shares in known.items()
        if label != "N = 1"
    )
    verdicts = {row.label: found.verdict for row, found in zip(rows[1:], comparisons(rows), strict=True)}
    better = [label for label, found in verdicts.items() if found == "lower"]
    if better:
        verdict = f"Training further heads improves the first one here for {', '.join(better)}."
    elif "one seed" in verdicts.values():
        verdict = "Whether training further heads improves the first one, a single seed cannot tell."
    else:
        verdict = (
            "Training further heads does not improve the first one here. Gloeckle et al. (2024, section 3.1) find the "
            "same of small models: what they report as a gain begins at billions of parameters."
        )
    blocks: tuple[Block, ...] = (
        table(rows, name="trained", caption="The first head alone, as a plain language model."),
        curves(rows, caption="Validation loss of the first head in training."),
        Prose(f"{sentences(rows)}\n\n**{verdict}**"),
        Table(
            ("model", "accuracy of the first head", "share of known words", "± std"),
            tuple(cells),
            f"Texts by the first head: {len(prompts)} × {ctx.numbers['text_tokens']} characters per seed; a word is "
            "known if the training text has it.",
            "texts",
        ),
        Prose(said),
        *samples,
    )
    measured: dict[str, float] = {}
    for label, shares in known.items():
        key = f"known_words_{label.replace(' = ', '_').lower()}"
        measured[key] = mean_std(shares)[0]
        if len(shares) > 1:
            measured[f"{key}_std"] = mean_std(shares)[1]
    return blocks, measured


# --- (d) Different N, and the heads as drafts ----------------------------------------------------------------------


@dataclass(frozen=True)
class Drafting:
    """A model with N heads that drafts for itself."""

    label: str
    greedy: list[list[SelfSpeculation]]  # of each seed
    sampled: list[list[SelfSpeculation]]
    wrong: int  # greedy texts that differ from plain decoding
    plain: Timing  # seconds of one text
    drafted: Timing

    @property
    def speedup(self) -> float:
        """Ratio of the medians."""
        return self.plain.median / self.drafted.median

    @property
    def low(self) -> float:
        """The speed-up by the less favourable quartiles."""
        return self.plain.low / self.drafted.high

    @staticmethod
    def tokens_per_pass(seeds: Sequence[Sequence[SelfSpeculation]]) -> list[float]:
        """Tokens emitted per forward pass, over all texts of a seed; one value per seed."""
        return [sum(run.emitted for run in runs) / sum(run.passes for run in runs) for runs in seeds]

    def acceptance(self, head: int) -> float | None:
        """Share of the tested greedy drafts of one head (2, 3, …) that were accepted; None where none was tested."""
        runs = [run for seed in self.greedy for run in seed]
        tested, accepted = (sum(run.by_head[head - 2][i] for run in runs) for i in (0, 1))
        return accepted / tested if tested else None


def draft(ctx: Context, row: Variant, prompts: Tensor) -> Drafting:
    """Self-speculation from each prompt by each seed's model, greedy and sampled, and the time of one text.

    Greedy in double precision: passes of other lengths sum in another order, which must not decide between two tokens.
    """
    model = row.models[0].model
    n_new, generator = model.config.context - prompts.shape[1], ctx.generator(f"draft {row.label}")
    greedy, sampled, wrong = [], [], 0
    for trained in row.models:
        exact = copy.deepcopy(trained.model).double()
        greedy.append([self_speculate(exact, prompt[None], n_new, sampling=GREEDY) for prompt in prompts])
        sampled.append([self_speculate(trained.model, prompt[None], n_new, generator=generator) for prompt in prompts])
        plain = generate(exact, prompts, n_new, sampling=GREEDY)
        wrong += sum(bool((run.tokens != text).any()) for run, text in zip(greedy[-1], plain, strict=True))
    timings = measure(
        {
            "plain": lambda: generate(model, prompts[:1], n_new, sampling=GREEDY),
            "drafted": lambda: self_speculate(model, prompts[:1], n_new, sampling=GREEDY),
        },
        repeats=ctx.numbers["repeats"],
        device=ctx.device,
    )
    return Drafting(row.label, greedy, sampled, wrong, timings["plain"], timings["drafted"])


def drafting_table(found: Sequence[Drafting]) -> tuple[Table, dict[str, float]]:
    """Passes and time, by N."""
    cells: list[tuple[Cell, ...]] = []
    measured: dict[str, float] = {}
    for run in found:
        key, several = run.label.replace(" = ", "_").lower(), len(run.greedy) > 1
        counts: list[Cell] = []
        for kind, seeds in (("greedy", run.greedy), ("sampled", run.sampled)):
            mean, spread = mean_std(run.tokens_per_pass(seeds))
            counts += [mean, spread if several else None]
            measured[f"tokens_per_pass_{kind}_{key}"] = mean
            if several:
                measured[f"tokens_per_pass_{kind}_{key}_std"] = spread
        times = (run.plain.median * 1000, run.drafted.median * 1000, run.speedup, run.low)
        cells.append((run.label, *counts, *times))
        measured[f"self_speculation_speedup_{key}"] = run.speedup
    columns = (
        *("model", "tokens per pass, greedy", "± std", "sampled, τ = 1", "± std ", "ms a text, plain", "ms, drafted"),
        *("speed-up", "by the less favourable quartiles"),
    )
    caption = (
        "The heads draft, the first verifies. Tokens per pass: mean and standard deviation over "
        f"{len(found[0].greedy)} seed(s), {len(found[0].greedy[0])} texts each. Times: median, batch 1, greedy, first "
        "seed."
    )
    return Table(columns, tuple(cells), caption, "drafts"), measured


def drafting_sentence(best: Drafting) -> str:
    """Whether drafting for oneself pays, by the clock."""
    tokens = mean_std(best.tokens_per_pass(best.greedy))[0]
    if best.low > 1:
        verdict = f"It pays here: {best.label} is fastest, {best.speedup:.2f} times the speed of plain decoding"
    elif best.speedup > 1:
        verdict = (
            f"By the clock it makes no difference here: the fastest, {best.label}, has {best.speedup:.2f} times the "
            f"speed of plain decoding, but its quartiles reach down to {best.low:.2f}"
        )
    else:
        verdict = f"It does not pay here: the fastest, {best.label}, has {best.speedup:.2f} times the speed"
    return (
        f"{verdict}, with {tokens:.2f} tokens a pass. Tokens per pass are an upper limit of the gain: a pass over "
        "several tokens costs more than one over a single token, and the heads and the acceptance test cost something, "
        "too."
    )


def part_d(
    ctx: Context, rows: Sequence[Variant], scores: Mapping[str, Sequence[FutureHeadScores]], tokens: Tensor
) -> tuple[tuple[Block, ...], list[Check], dict[str, float]]:
    """The effect of N on the first head, on the later ones, and on decoding."""
    context = rows[0].models[0].model.config.context
    prompts = tokens.unfold(0, context // 4, context)[: ctx.numbers["prompts"]]
    found = [draft(ctx, row, prompts) for row in rows if row.label != "N = 1"]
    drafts, measured = drafting_table(found)
    x = tuple(float(row.models[0].model.config.n_future) for row in rows)
    means, spreads = zip(*(mean_std(row.losses) for row in rows), strict=True)
    best = max(found, key=lambda run: run.speedup)
    accepted = []
    for run in found:
        shares = {n: run.acceptance(n) for n in range(2, len(run.greedy[0][0].by_head) + 2)}
        tested = {float(n): share for n, share in shares.items() if share is not None}
        accepted.append(Series(run.label, tuple(tested), tuple(tested.values())))
    blocks = (
        Figure(
            "line",
            (Series("first head", x, means, spreads if len(rows[0].models) > 1 else ()),),
            "heads N",
            "validation loss of the first head (nats/token)",
            "What the number of heads does to the first, mean ± standard deviation over seeds.",
        ),
        Figure(
            "line",
            by_head(scores, "accuracies"),
            "head (tokens ahead)",
            "accuracy",
            "Share of right characters, by head.",
        ),
        Prose(
            "**Beyond the exercise.** The other heads need not be thrown away: they draft the next tokens, and one "
            "pass of the model both verifies these drafts with the first head and makes the next ones (Stern et al., "
            "2018; Gloeckle et al., 2024, section 3.2). Accepted are greedy drafts that equal the first head's choice, "
            "and sampled ones by the rule of Leviathan et al. (2023), so that the text is the first head's own, "
            "whatever the drafts are worth."
        ),
        drafts,
        Figure(
            "line",
            tuple(accepted),
            "head",
            "share of tested drafts accepted",
            "Greedy acceptance by head, all seeds together; a draft is tested only when all before it were accepted.",
        ),
        Prose(drafting_sentence(best)),
    )
    texts = sum(len(seed) for run in found for seed in run.greedy)
    check = Check.equal(f"greedy texts that differ from plain decoding, of {texts}", sum(f.wrong for f in found), 0)
    return blocks, [check], measured


def answer(ctx: Context) -> Answer:
    """All four parts."""
    everything = variants(ctx, TRAINED)
    rows = [row for row in everything if row.label in HEADS]
    tokens = ctx.tokens(STUDY_ROPE)
    scores = {row.label: [score_heads(trained.model, tokens) for trained in row.models] for row in everything}
    ctx.progress(0.3, "heads scored")
    a, checks_a = part_a(ctx, rows, ctx.tokens(STUDY_ROPE, "train")[:5000])
    b, checks_b, measured_b = part_b(ctx, everything, scores, tokens)
    c, measured_c = part_c(ctx, rows, {row.label: scores[row.label] for row in rows}, tokens)
    ctx.progress(0.6, "texts written")
    d, checks_d, measured_d = part_d(ctx, rows, {row.label: scores[row.label] for row in rows}, tokens)
    better = [row.label for row, found in zip(rows[1:], comparisons(rows), strict=True) if found.verdict == "lower"]
    empirical = Check(
        "further heads do not improve the first at this size (Gloeckle et al., 2024, section 3.1)",
        "empirical",
        ", ".join(better) or "none better",
        "none better beyond the noise",
        not better,
    )
    losses = ", ".join(f"{row.label}: {format_mean_std(row.losses)}" for row in rows)
    return Answer(
        summary=f"First head's validation loss in nats: {losses}; drafting for itself, N = 4 emits "
        f"{measured_d['tokens_per_pass_greedy_n_4']:.2f} tokens a pass.",
        parts=(
            Part("a", a, "N heads"),
            Part("b", b, "The combined loss"),
            Part("c", c, "Generation by the first head"),
            Part("d", d, "N = 2, 4, 8"),
        ),
        checks=(*checks_a, *checks_b, *checks_d, empirical),
        metrics=metrics(everything) | measured_b | measured_c | measured_d,
    )


EXERCISE = Exercise(
    id="21.33",
    title="Multi-Token Prediction",
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {"check_steps": 3, "texts": 2, "text_tokens": 40, "prompts": 3, "repeats": 2},
        "laptop": {"check_steps": 5, "texts": 24, "text_tokens": 100, "prompts": 16, "repeats": 15},
        "gpu": {"check_steps": 5, "texts": 24, "text_tokens": 100, "prompts": 40, "repeats": 15},
    },
    timed=True,
    seconds={"smoke": 3, "laptop": 22, "gpu": 40},
    answer=answer,
)
