"""Tables, figures, samples and checks of 21.33; the text is in answer.md."""

from collections.abc import Sequence

from minigpt.evaluation.statistics import mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Sample, Series, Table
from reports.words import plural
from tasks.comparison import curves, sentences, table, untrained
from tasks.exercises.ex33_multi_token_prediction.findings import Drafting, Findings
from tasks.variants import Variant


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "future logits": listing(f.head_source, "minigpt/model.py"),
            "heads": heads(f),
            "objective": listing(f.objective_source, "minigpt/objectives.py"),
            "losses": losses(f),
            "losses by head": Figure(
                "line",
                by_head(f, f.variants, "losses"),
                "head (tokens ahead)",
                "validation loss (nats/token)",
                "The further ahead, the less there is to know; the line is what letter frequencies alone achieve.",
                hlines=((f.unigram_loss, "letter frequencies"),),
            ),
            "trained": table(f.rows, name="trained", caption="The first head alone, as a plain language model."),
            "curves": curves(f.rows, caption="Validation loss of the first head in training."),
            "texts": texts(f),
            "samples": tuple(
                Sample(
                    f"{label}, first head",
                    f.prompt,
                    text,
                    f"temperature {f.temperature:g}, the same random numbers",
                )
                for label, text in f.texts.items()
            ),
            "loss by N": loss_by_heads(f),
            "accuracy": Figure(
                "line",
                by_head(f, f.rows, "accuracies"),
                "head (tokens ahead)",
                "accuracy",
                "Share of right characters, by head.",
            ),
            "drafts": drafts(f),
            "acceptance": Figure(
                "line",
                tuple(map(acceptance, f.drafts)),
                "head",
                "share of tested drafts accepted",
                "Greedy acceptance by head, all seeds together; a draft is tested only when all before it were "
                "accepted.",
            ),
        },
        checks=checks(f),
        values={
            "compared": sentences(f.rows),
            "untrained": untrained(f.rows),
            "four": next(run for run in f.drafts if run.label == "N = 4"),
        },
    )


def added(f: Findings) -> list[tuple[str, int, int, int]]:
    """Parameters of each model, what it has more than N = 1, and what (N - 1)·C·(C + 1) says of that."""
    base = f.rows[0].parameters
    return [
        (row.label, row.parameters, row.parameters - base, f.per_head * (f.configs[row.label].n_future - 1))
        for row in f.rows
    ]


def heads(f: Findings) -> Table:
    """What the heads add."""
    columns = ("model", "parameters", "more than N = 1", "(N − 1)·C·(C + 1)")
    return Table(columns, tuple(added(f)), "What the heads add.", "heads")


def losses(f: Findings) -> Table:
    """Validation loss by head."""
    rows: list[tuple[Cell, ...]] = []
    for row in f.variants:
        means = [mean_std(column)[0] for column in f.by_head(row.label, "losses")]
        rows.append((row.label, sum(means) / len(means), sum(means), *means, *[None] * (8 - len(means))))
    columns = ("model", "mean of the heads", "sum of the heads", *(f"head {n}" for n in range(1, 9)))
    caption = (
        "Validation loss by head, nats per token, mean over seeds. Read in whole windows only; (d) also scores what is "
        "left of the text after them, so that the first head's losses differ a little."
    )
    return Table(columns, tuple(rows), caption, "losses")


def by_head(f: Findings, rows: Sequence[Variant], field: str) -> tuple[Series, ...]:
    """One line per model: loss or accuracy against the head's number, mean ± standard deviation over seeds."""
    series = []
    for row in rows:
        columns = f.by_head(row.label, field)
        means, spreads = zip(*map(mean_std, columns), strict=True)
        x = tuple(float(head) for head in range(1, len(columns) + 1))
        series.append(Series(row.label, x, means, spreads if len(f.scores[row.label]) > 1 else ()))
    return tuple(series)


def texts(f: Findings) -> Table:
    """What the first head writes."""
    rows: list[tuple[Cell, ...]] = []
    for label, shares in f.known_words.items():
        accuracy = mean_std([seed.accuracies[0] for seed in f.scores[label]])[0]
        share, spread = mean_std(shares)
        rows.append((label, accuracy, share, spread if len(shares) > 1 else None))
    caption = (
        f"Texts by the first head: {f.prompts} × {f.text_tokens} characters per seed; a word is known if the training "
        "text has it."
    )
    return Table(
        ("model", "accuracy of the first head", "share of known words", "± std"), tuple(rows), caption, "texts"
    )


def loss_by_heads(f: Findings) -> Figure:
    """Loss of the first head against N."""
    x = tuple(float(f.configs[row.label].n_future) for row in f.rows)
    means, spreads = zip(*(mean_std(row.losses) for row in f.rows), strict=True)
    return Figure(
        "line",
        (Series("first head", x, means, spreads if len(f.rows[0].losses) > 1 else ()),),
        "heads N",
        "validation loss of the first head (nats/token)",
        "What the number of heads does to the first, mean ± standard deviation over seeds.",
    )


def drafts(f: Findings) -> Table:
    """Passes and time, by N."""
    rows: list[tuple[Cell, ...]] = []
    for run in f.drafts:
        per_pass: list[Cell] = []
        for seeds in (run.greedy, run.sampled):
            mean, spread = mean_std(run.tokens_per_pass(seeds))
            per_pass += [mean, spread if len(seeds) > 1 else None]
        times = (run.plain.median * 1000, run.drafted.median * 1000, run.speedup, run.low)
        rows.append((run.label, *per_pass, *times))
    columns = (
        "model",
        "tokens per pass, greedy",
        "± std",
        "sampled, τ = 1",
        "± std, sampled",
        "ms a text, plain",
        "ms, drafted",
        "speed-up",
        "by the less favourable quartiles",
    )
    caption = (
        "The heads draft, the first verifies. Tokens per pass: mean and standard deviation over "
        f"{plural(len(f.drafts[0].greedy), 'seed')}, {plural(len(f.drafts[0].greedy[0]), 'text')} each. "
        "Times: median, batch 1, greedy, the first text of the first seed."
    )
    return Table(columns, tuple(rows), caption, "drafts")


def acceptance(run: Drafting) -> Series:
    """Greedy acceptance by head."""
    shares = {n: run.acceptance(n) for n in range(2, len(run.greedy[0][0].by_head) + 2)}
    tested = {float(n): share for n, share in shares.items() if share is not None}
    return Series(run.label, tuple(tested), tuple(tested.values()))


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    config = f.configs["N = 1"]
    return (
        Check.equal(
            f"weights that differ after {f.check_steps} steps: objective multi_token with N = 1, and causal",
            f.differing_weights,
            0,
        ),
        Check.equal(
            "each further head has (C + 1)·C parameters",
            all(extra == expected for _, _, extra, expected in added(f))
            and f.per_head == config.d_model * (config.d_model + config.bias),
            True,
        ),
        Check.at_most(
            "the gradient of the sum is N times that of the mean (relative difference)", f.gradient_difference, 1e-5
        ),
        Check.equal(
            f"greedy texts that differ from plain decoding, of {sum(len(s) for run in f.drafts for s in run.greedy)}",
            sum(run.wrong for run in f.drafts),
            0,
        ),
        Check(
            "further heads do not improve the first at this size (Gloeckle et al., 2024, section 3.1)",
            "empirical",
            ", ".join(f.better) or "none better",
            "none better beyond the noise, of models better than the bigram",
            not f.better and all(row.beats_bigram for row in f.rows),
        ),
    )
