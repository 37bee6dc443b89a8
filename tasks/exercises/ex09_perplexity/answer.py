"""Tables, figures and checks of 21.9; the text is in answer.md."""

import math

from reports.answers import Draft
from reports.types import Check, Figure, Series, Table
from reports.words import spelled
from tasks.exercises.ex09_perplexity.findings import ENGLISH, GIVEN, PYTHON, QUESTIONED, UNIFORM, Findings


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "conversion": conversion(),
            "uniform": uniform(f),
            "units": units(f),
            "fifty": fifty(f),
            "texts": texts(f),
            "bits per byte": bits_per_byte(f),
            "white space": white_space(f),
        },
        checks=checks(f),
        values={
            "given": GIVEN,
            "given_nats": math.log(GIVEN),
            "given_bits": math.log2(GIVEN),
            "vocabulary": UNIFORM,
            "uniform_nats": math.log(UNIFORM),
            "uniform_bits": math.log2(UNIFORM),
            "questioned": QUESTIONED,
            "frequencies": math.exp(f.study.unigram_loss),
            "english": ENGLISH,
            "python": PYTHON,
            "english_bits": math.log2(ENGLISH),
            "python_bits": math.log2(PYTHON),
        },
    )


def conversion() -> Table:
    """From perplexity to loss."""
    return Table(
        columns=("perplexity", "nats per token", "bits per token", "mean probability (geometric)"),
        rows=tuple((v, math.log(v), math.log2(v), 1 / v) for v in (2, 10, GIVEN, QUESTIONED, 100, UNIFORM)),
        caption="Perplexity and loss",
        name="conversion",
    )


def uniform(f: Findings) -> Table:
    """Uniform, and worse than uniform."""
    wrong = 1e-9
    return Table(
        columns=("model", "P(right token)", "nats per token", "perplexity"),
        rows=(
            ("uniform", 1 / UNIFORM, math.log(UNIFORM), f.uniform_perplexity),
            (f"always gives the right token {wrong:g}", wrong, -math.log(wrong), 1 / wrong),
            ("uniform over the half that holds the right token", 2 / UNIFORM, math.log(UNIFORM / 2), UNIFORM / 2),
        ),
        caption=f"A vocabulary of {UNIFORM:,} tokens; the first perplexity is measured with constant logits",
        name="uniform",
    )


def units(f: Findings) -> Table:
    """The same loss shared out in three ways."""
    return Table(
        columns=("unit", "units in the text", "perplexity", "bits per byte"),
        rows=tuple((f"per {u.name}", u.count, u.perplexity, u.total_bits / f.study.n_bytes) for u in f.study.units),
        caption=f"One model, one text, {spelled(len(f.study.units))} perplexities",
        name="units",
    )


def fifty(f: Findings) -> Table:
    """The same number means different things."""
    return Table(
        columns=("tokens are", "vocabulary", f"{QUESTIONED} / vocabulary", "bytes per token", "bits per byte"),
        rows=tuple(
            (
                m.tokens,
                m.vocab_size,
                QUESTIONED / m.vocab_size if m.vocab_size else None,
                m.bytes_per_token,
                m.bits_per_byte,
            )
            for m in f.meanings
        ),
        caption=f"What a perplexity of {QUESTIONED} comes to; bytes per token as measured on English prose",
        name="fifty",
    )


def texts(f: Findings) -> Table:
    """Both texts measured."""
    return Table(
        columns=(
            "text",
            "tokens",
            "bytes per token",
            "perplexity per token",
            "bits per byte",
            "byte frequencies (bits per byte)",
            "LZMA (bits per byte)",
        ),
        rows=tuple(
            (name, s.tokens, s.bytes_per_token, s.perplexity, s.bits_per_byte, s.byte_frequencies, s.lzma)
            for name, s in f.scored.items()
        ),
        caption=f"Two texts under {f.pretrained}, and two references that know no language",
        name="texts",
    )


def bits_per_byte(f: Findings) -> Figure:
    """Both texts and both references."""
    names, scored = tuple(f.scored), f.scored.values()
    return Figure(
        kind="bar",
        series=(
            Series(f.pretrained, names, tuple(s.bits_per_byte for s in scored)),
            Series("byte frequencies", names, tuple(s.byte_frequencies for s in scored)),
            Series("LZMA", names, tuple(s.lzma for s in scored)),
        ),
        x_label="text",
        y_label="bits per byte",
        caption="The same texts in a unit that does not depend on the tokenizer",
    )


def white_space(f: Findings) -> Table:
    """Where the loss is."""
    return Table(
        columns=(
            "text",
            "share of white-space tokens",
            "their loss (nats)",
            "loss of the others (nats)",
            "all (nats)",
        ),
        rows=tuple((name, s.blank_share, s.blank_loss, s.other_loss, s.loss) for name, s in f.scored.items()),
        caption="What code and prose spend their tokens on: white space and the rest",
        name="white_space",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """High precision, constant logits, the model's own loss, and a round trip of the units."""
    result = [
        Check.close("ln 25 against 50-digit decimal arithmetic (nats)", math.log(GIVEN), f.exact_log, 1e-15),
        Check.close("a model that gives the right token 1/25 has perplexity 25", f.given_perplexity, GIVEN, 1e-9),
        Check.close("constant logits over 50,000 tokens: perplexity", f.uniform_perplexity, UNIFORM, 1e-6),
    ]
    for name, s in f.scored.items():
        again = 2 ** (s.bits_per_byte * s.bytes_per_token)
        result += [
            Check.at_most(f"{name}: loss against the model's own (nats/token)", s.own_difference, 1e-3),
            Check.close(f"{name}: perplexity from bits per byte and bytes per token", again / s.perplexity, 1.0, 1e-9),
        ]
    return (
        *result,
        Check.at_most(
            "Python costs no more bits per byte than prose (bits per byte, difference)",
            f.code.bits_per_byte - f.prose.bits_per_byte,
            0.0,
            "empirical",
        ),
    )
