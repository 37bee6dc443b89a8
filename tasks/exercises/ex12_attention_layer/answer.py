"""Tables, the heatmap and checks of 21.12; the text is in answer.md."""

import math

from reports.answers import Draft
from reports.types import Check, Code, Heatmap, Table
from tasks.exercises.ex12_attention_layer.findings import Findings


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "shapes": shapes(f),
            "layer": Code(f.source, "The whole layer."),
            "parameters": parameters(f),
            "heatmap": heatmap(f),
            "printed": printed(f),
            "parity": parity(f),
        },
        checks=checks(f),
        values={"all_weights": f.shape[0] * f.shape[1] ** 2},
    )


def shapes(f: Findings) -> Table:
    """In and out."""
    columns = ("input (batch, seq_len, d_model)", "output", "attention weights")
    rows = tuple((str(one.input), str(one.output), str(one.weights)) for one in f.shapes)
    return Table(columns, rows, "What goes in and what comes out.", "shapes")


def parameters(f: Findings) -> Table:
    """By name."""
    rows = tuple((name, str(shape), math.prod(shape)) for name, shape in f.parameters.items())
    caption = f"{f.numbers} parameters at d_model = {f.shape[-1]}."
    return Table(("parameter", "shape", "numbers"), rows, caption, "parameters")


def heatmap(f: Findings) -> Heatmap:
    """The mask, seen."""
    T = len(f.weights)
    ticks = tuple(str(i) for i in range(T))
    caption = f"Weights of the first {T} positions of one random sequence, as returned."
    return Heatmap(f.weights, "key", "query", caption, ticks, ticks, annotate=True)


def printed(f: Findings) -> Code:
    """The weights as a person would print them."""
    T = min(6, len(f.weights))
    text = "\n".join("  ".join(f"{value:.3f}" for value in row[:T]) for row in f.weights[:T])
    return Code(text, f"The returned weights of the first sequence, first {T} positions.")


def parity(f: Findings) -> Table:
    """The other implementations."""
    columns = ("compared with", "output", "attention weights", "gradients")
    rows = (
        ("torch scaled_dot_product_attention(is_causal=True)", f.sdpa, None, f.gradients),
        ("Transformers GPT-2 attention, n_head = 1, same weights", f.gpt2.output, f.gpt2.weights, None),
        ("this project's CausalSelfAttention, n_head = 1", f.minigpt.output, f.minigpt.weights, None),
    )
    return Table(
        columns, rows, "Largest absolute differences (fp32). Empty: the other side does not give it.", "parity"
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims, against independent oracles."""
    return (
        Check.equal("the largest weight above the diagonal", f.above_diagonal, 0.0),
        Check.equal("the weights equal their own lower triangle", f.lower_triangular, True),
        Check.equal("every token attends to itself", f.smallest_on_diagonal > 0, True),
        Check.close("smallest sum of a row", f.row_sums[0], 1.0, 1e-5),
        Check.close("largest sum of a row", f.row_sums[1], 1.0, 1e-5),
        Check.at_most("output against scaled_dot_product_attention, max difference", f.sdpa, 1e-5),
        Check.at_most("gradients of input and weights against the same", f.gradients, 1e-4),
        Check.at_most("output against GPT-2's attention in Transformers, same weights", f.gpt2.output, 1e-5),
        Check.at_most("attention weights against the same", f.gpt2.weights, 1e-5),
        Check.at_most("output against the mini-GPT's layer with one head", f.minigpt.output, 1e-5),
        Check.at_most("a sequence alone gives what it gives in a batch", f.batch, 1e-5),
    )
