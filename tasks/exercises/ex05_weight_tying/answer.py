"""Tables, figures and checks of 21.5; the text is in answer.md."""

from minigpt.evaluation.statistics import compare_paired, mean_std
from reports import words
from reports.answers import Draft
from reports.types import Check, Table
from tasks.comparison import curves, sentences, table
from tasks.exercises.ex05_weight_tying.findings import MIB, VOCABULARY, WIDTH, Findings
from tasks.variants import comparisons_at_equal_time


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    own, to_input, to_output = (mean_std(values)[0] for values in f.likeness.values())
    _, input_by_seed, output_by_seed = f.likeness.values()
    return Draft(
        blocks={
            "geometry": geometry(f),
            "savings": savings(f),
            "losses": table(f.rows, name="tied_untied", caption="The same model with one matrix and with two."),
            "curves": curves(f.rows, caption="Tied and untied embeddings"),
            "direct path": direct_path(f),
        },
        checks=checks(f),
        values={
            "vocabulary": VOCABULARY,
            "width": WIDTH,
            "m": f.metrics,
            "compared": sentences(f.rows),
            "late": comparisons_at_equal_time(f.rows)[0].verdict,
            "own": own,
            "to_input": to_input,
            "to_output": to_output,
            "likeness": compare_paired(input_by_seed, output_by_seed),
            "itself": mean_std(f.tied_path.itself)[0],
        },
    )


def geometry(f: Findings) -> Table:
    """How alike the matrices are."""
    return Table(
        columns=("matrices", "correlation of token geometries"),
        rows=tuple((name, words.mean_std(values)) for name, values in f.likeness.items()),
        caption="Correlation over all pairs of tokens of their cosines in two matrices, mean ± standard deviation",
        name="geometry",
    )


def savings(f: Findings) -> Table:
    """The saving in models of other sizes."""
    return Table(
        columns=("model", "V", "C", "saved parameters", "saved, fp32 (MiB)", "parameters untied", "share saved"),
        rows=tuple(
            (one.model, one.vocab_size, one.d_model, one.saved, one.saved * 4 / MIB, one.untied, one.share)
            for one in f.savings
        ),
        caption="What tying saves in published architectures",
        name="savings",
    )


def direct_path(f: Findings) -> Table:
    """How far the direct path is that of bigrams."""
    rows = tuple(
        (row.label, words.mean_std(path.asymmetry), words.mean_std(path.bigram_correlation))
        for row, path in zip(f.rows, (f.tied_path, f.untied_path), strict=True)
    )
    return Table(
        columns=("matrix", "asymmetry ‖A - Aᵀ‖ / ‖A + Aᵀ‖", "correlation with the bigrams"),
        rows=(*rows, ("ln P(next | current) in the training text", f"{f.bigram_asymmetry:.3f}", "1")),
        caption="Logits of the direct path past all blocks, mean ± standard deviation over seeds",
        name="direct_path",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """Counts on built models, identity of the storage, symmetry of the direct path."""
    return (
        Check.equal(
            "V · C equals the difference of two built models of GPT-2 small's shape",
            f.saved,
            f.gpt2_untied - f.gpt2_tied,
        ),
        Check.equal(
            "V · C equals the difference of the two trained models",
            f.vocab_size * f.d_model,
            f.untied.parameters - f.tied.parameters,
        ),
        Check.equal(
            "the tied model reads and writes with one storage, the untied one does not",
            str(list(f.one_storage)),
            "[True, False]",
        ),
        Check.at_most("asymmetry of the tied direct path", f.tied_path.asymmetry[0], 1e-5),
        Check.beyond_noise(
            "untied loss minus tied loss (nats/token): tying does not hurt small models, as in Press & Wolf (2017)",
            f.comparison,
            "higher",
        ),
    )
