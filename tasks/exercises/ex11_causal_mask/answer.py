"""Listings, tables, heatmaps and checks of 21.11; the text is in answer.md."""

import math

import numpy as np

from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Check, Code, Heatmap, Table
from reports.words import shown_token
from tasks.exercises.ex11_causal_mask.findings import TOKENS, Findings, Matrix


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    T = len(f.mask)
    return Draft(
        blocks={
            "function": listing(
                f"{f.source}\n>>> create_causal_mask({T}).int()\n{np.array(f.mask).astype(int)}",
                "tasks/exercises/ex11_causal_mask/experiment.py",
                "The function and what it prints (1 = attend, 0 = masked).",
            ),
            "printed": Code(
                f"before masking\n{printed(f.before)}\n\nafter masking\n{printed(f.after)}",
                f"Attention weights of {T} random token vectors (seeded), queries in rows, keys in columns.",
            ),
            "before": heatmap(f.before, "Attention weights before masking."),
            "after": heatmap(f.after, "After masking: nothing above the diagonal.", f.mask),
            "gradients": heatmap(
                f.gradients, "Norm of the gradient of the output at the query with respect to the input at the key."
            ),
            "ways": ways(f),
            "padding": padding(f),
            "fp16": Code(f.fp16_fill, "torch on masked_fill(-1e9) in fp16."),
        },
        checks=checks(f),
        values={"tokens": T},
    )


def printed(matrix: Matrix) -> str:
    """A matrix as a person would print it."""
    return "\n".join("  ".join(f"{value:6.3f}" for value in row) for row in matrix)


def heatmap(matrix: Matrix, caption: str, mask: tuple[tuple[bool, ...], ...] = ()) -> Heatmap:
    """An annotated square matrix, query rows by key columns; what the mask hides is drawn as hidden."""
    seen = mask or tuple((True,) * len(row) for row in matrix)
    values = tuple(
        tuple(v if s else None for v, s in zip(row, shown, strict=True))
        for row, shown in zip(matrix, seen, strict=True)
    )
    return Heatmap(values, "key", "query", caption, TOKENS, TOKENS, annotate=True)


def ways(f: Findings) -> Table:
    """Six ways of masking in two precisions."""
    return Table(
        columns=(
            "way of masking",
            "precision",
            "smallest row sum",
            "largest weight on the future",
            "change of earlier outputs when the last token changes",
            "rows of NaN",
        ),
        rows=tuple((w.name, w.precision, w.row_sum, w.future_weight, w.leak, w.nan_rows) for w in f.ways),
        caption="Six ways to apply one mask. Only zeros in the fifth column are causal.",
        name="ways",
    )


def padding(f: Findings) -> Table:
    """A query without any key to attend to."""
    return Table(
        columns=("filled with", "precision", *(f"weight on {shown_token(token)}" for token in TOKENS)),
        rows=tuple(
            (row.fill, row.precision, *("NaN" if math.isnan(weight) else weight for weight in row.weights))
            for row in f.padding
        ),
        caption="The weights of a query whose keys are all hidden (left padding).",
        name="padding",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims, against independent oracles."""
    return (
        Check.equal("the mask is torch.tril of ones", f.is_lower_triangle, True),
        Check.equal(f"the mask is the model's own at lengths 1 to {f.length}", f.is_the_models_own, True),
        Check.equal("largest attention weight on a future position", f.future_weight_after, 0.0),
        Check.close("each row still sums to 1 (the smallest)", f.row_sum_after, 1.0, 1e-6),
        Check.at_most("after = before, restricted to the past and renormalised", f.renormalised_difference, 1e-6),
        Check.at_most("difference from scaled_dot_product_attention(is_causal=True)", f.sdpa_difference, 1e-6),
        Check.equal(
            f"earlier positions of a 3-layer model that change by a bit when token j changes, over {f.length} j",
            f.leaks,
            0,
        ),
        Check.equal("… and the changed position itself always sees it", f.seen, f.length),
        Check.equal("largest gradient of an output with respect to a later input", f.future_gradient, 0.0),
        Check.at_least("smallest gradient with respect to an earlier input or the own", f.past_gradient, 1e-9),
        Check.at_least(
            "masking after the softmax leaks: change of earlier outputs",
            f.leak("softmax, then mask"),
            1e-4,
            "empirical",
        ),
    )
