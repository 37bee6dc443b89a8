"""The drawing, tables, figures and checks of 21.2; the text is in answer.md."""

from collections.abc import Sequence

from reports.answers import Draft
from reports.types import Check, Code, Figure, Heatmap, Mask, Sample, Series, Table
from reports.words import mean_std
from tasks.exercises.ex02_causal_mask.findings import LENGTH, POSITION, Findings


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "mask": Code(drawn(f.mask), f"Causal mask of length {LENGTH}: 0 attends, X is masked"),
            "set": Mask(LENGTH, ("length",), caption="Who sees whom. Point at a pair, or set the number of tokens."),
            "counts": Table(
                columns=(
                    "row, from 0",
                    "row, from 1",
                    "allowed",
                    "non-zero, random weights",
                    "non-zero, trained model",
                ),
                rows=tuple(
                    (i, i + 1, i + 1, *(weights.nonzero[i] for weights in f.weights.values())) for i in range(LENGTH)
                ),
                caption="Non-zero attention weights per row (mean over heads)",
                name="counts",
            ),
            "sums": sums(f),
            "weights": heatmap(f),
            "mistake": mistake(f),
            "curves": curves(f),
            "samples": samples(f),
        },
        checks=checks(f),
        values={"length": LENGTH, "position": POSITION, "causal": f.trainings["causal"], "full": f.trainings["full"]},
    )


def drawn(mask: Sequence[Sequence[bool]]) -> str:
    """The mask as the question wants it: 0 for attend, X for masked; rows are queries, both counted from 0."""
    header = "query\\key  " + "  ".join(map(str, range(len(mask[0]))))
    rows = [f"{i:>9}  " + "  ".join("0" if seen else "X" for seen in row) for i, row in enumerate(mask)]
    return "\n".join([header, *rows])


def sums(f: Findings) -> Table:
    """Over rows and columns."""
    return Table(
        columns=(
            "weights",
            "heads",
            "smallest row sum",
            "largest row sum",
            "smallest column sum",
            "largest column sum",
        ),
        rows=tuple((name, w.heads, *w.row_sums, *w.column_sums) for name, w in f.weights.items()),
        caption=f"Sums over rows and columns, {LENGTH} positions",
        name="row_sums",
    )


def heatmap(f: Findings) -> Heatmap:
    """One head of the trained model."""
    ticks = tuple(map(str, range(LENGTH)))
    return Heatmap(
        values=tuple(
            tuple(value if seen else None for value, seen in zip(row, shown, strict=True))
            for row, shown in zip(f.example, f.mask, strict=True)
        ),
        x_label="key",
        y_label="query",
        caption="Attention weights of the trained model, layer 0, head 0",
        x_ticks=ticks,
        y_ticks=ticks,
        annotate=True,
    )


def mistake(f: Findings) -> Table:
    """Losses with and without the mask."""
    seeds = len(f.healthy.losses)
    return Table(
        columns=("mask in training", "mask in use", "training loss (nats/token)", "validation loss (nats/token)"),
        rows=tuple(
            (use.trained, use.read, mean_std(f.trainings[use.trained].final_losses), mean_std(use.losses))
            for use in f.uses
        ),
        caption="With and without the mask. Training loss of the last step, validation loss over the whole split; "
        f"{seeds} seed{'s, mean ± standard deviation' if seeds > 1 else ''}",
        name="mistake",
    )


def curves(f: Findings) -> Figure:
    """Training loss and causal validation loss of both."""
    series = []
    for name, training in f.trainings.items():
        series += [
            Series(f"{name}, training", training.trained_steps, training.trained_losses),
            Series(f"{name}, in use", training.evaluated_steps, training.evaluated_losses),
        ]
    return Figure(
        kind="line",
        series=tuple(series),
        x_label="step",
        y_label="loss (nats/token)",
        caption="Training loss under the training's own mask, validation loss under the causal one (first seed)",
    )


def samples(f: Findings) -> tuple[Sample, ...]:
    """The same prompt continued by both."""
    titles = {"causal": "Trained with the causal mask", "full": "Trained with full attention"}
    return tuple(
        Sample(titles[name], f.prompt, training.sample, "sampled at temperature 1, causally")
        for name, training in f.trainings.items()
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The mask against its definition and torch's own, the counts, the sums; what the mistake should do."""
    return (
        Check.equal("the mask is the lower triangle", f.is_lower_triangle, True),
        Check.at_most(
            "masked attention equals scaled_dot_product_attention(is_causal=True) (largest difference)",
            f.sdpa_difference,
            1e-5,
        ),
        Check.equal("heads in which row i, from 0, does not have i + 1 non-zero weights", f.wrong_counts, 0),
        Check.equal("sum of the masked weights", f.masked_sum, 0.0),
        Check.at_most("row sums differ from 1 by at most", f.row_error, 1e-6),
        Check.at_most("held-out loss with a view of the future (nats/token)", f.cheating.loss, 0.5, "empirical"),
        Check.at_least(
            "causal loss of the model trained without the mask over the healthy one (nats)",
            f.broken.loss - f.healthy.loss,
            0.0,
            "empirical",
        ),
        Check.at_least(
            "causal loss of the model trained without the mask over letter frequencies (nats)",
            f.broken.loss - f.unigram,
            0.0,
            "empirical",
        ),
    )
