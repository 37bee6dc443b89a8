"""Listings, tables, the heatmap and checks of 21.12; the text is in answer.md."""

from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Check, Code, Heatmap, Table
from tasks.exercises.ex12_attention_layer.findings import Findings

PRINTED = 6  # positions of the printed matrix


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    shown = len(f.example)
    ticks = tuple(str(i) for i in range(shown))
    caption = f"Weights of the first {shown} positions of one random sequence, as returned."
    rows = [row[:PRINTED] for row in f.example[:PRINTED]]
    return Draft(
        blocks={
            "shapes": Table(
                ("input (batch, seq_len, d_model)", "output", "attention weights"),
                tuple((str(s.input), str(s.output), str(s.weights)) for s in f.shapes),
                "What goes in and what comes out.",
                "shapes",
            ),
            "layer": listing(f.source, "tasks/exercises/ex12_attention_layer/experiment.py", "The whole layer."),
            "parameters": Table(
                ("parameter", "shape", "numbers"),
                tuple((p.name, str(p.shape), p.numbers) for p in f.parameters),
                f"{f.parameter_count:,} parameters at d_model = {f.shape[-1]}.",
                "parameters",
            ),
            "weights": Heatmap(f.example, "key", "query", caption, ticks, ticks, annotate=True),
            "printed": Code(
                "\n".join("  ".join(f"{value:.3f}" for value in row) for row in rows),
                f"The returned weights of the first sequence, first {len(rows)} positions.",
            ),
            "parity": parity(f),
        },
        checks=checks(f),
    )


def parity(f: Findings) -> Table:
    """Differences from the other implementations."""
    return Table(
        ("compared with", "output", "attention weights", "gradients"),
        (
            ("torch scaled_dot_product_attention(is_causal=True)", f.sdpa, None, f.gradients),
            ("Transformers GPT-2 attention, n_head = 1, same weights", f.gpt2.output, f.gpt2.weights, None),
            ("this project's CausalSelfAttention, n_head = 1", f.minigpt.output, f.minigpt.weights, None),
        ),
        "Largest absolute differences (fp32). Empty: not compared; torch's function returns no weights.",
        "parity",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims, against independent oracles."""
    return (
        Check.equal("the largest weight above the diagonal", f.above_diagonal, 0.0),
        Check.equal("the weights equal their own lower triangle", f.is_lower_triangle, True),
        Check.equal("every token attends to itself", f.every_token_sees_itself, True),
        Check.close("smallest sum of a row", f.row_sums[0], 1.0, 1e-5),
        Check.close("largest sum of a row", f.row_sums[1], 1.0, 1e-5),
        Check.at_most("output against scaled_dot_product_attention, max difference", f.sdpa, 1e-5),
        Check.at_most("gradients of input and weights against the same", f.gradients, 1e-4),
        Check.at_most("output against GPT-2's attention in Transformers, same weights", f.gpt2.output, 1e-5),
        Check.at_most("attention weights against the same", f.gpt2.weights, 1e-5),
        Check.at_most("output against the mini-GPT's layer with one head", f.minigpt.output, 1e-5),
        Check.at_most("a sequence alone gives what it gives in a batch", f.batch, 1e-5),
    )
