"""Tables and checks of 21.1; the text is in answer.md."""

import math

from reports.answers import Draft
from reports.types import Check, Table
from reports.words import shown_token
from tasks.exercises.ex01_factorization.findings import SENTENCE, WORDS, Findings, Reading


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "terms": terms(),
            "conditionals": conditionals(f.pretrained),
            "characters": characters(f.characters),
            "beginnings": beginnings(f),
            "sums": Table(
                columns=("length", "sequences", "sum of their probabilities"),
                rows=tuple((t.length, t.sequences, t.probability) for t in f.totals),
                caption="Sum over all sequences, random weights, fixed start token",
                name="total_probability",
            ),
        },
        checks=checks(f),
        values={
            "sentence": SENTENCE,
            "terms": len(WORDS),
            "one_token_per_word": [len(word) for word in f.pretrained.words] == [1] * len(WORDS),
            "rows_needed": {V: sum(V**i for i in range(len(WORDS))) for V in (f.vocabulary, 50_257)},
        },
    )


def terms() -> Table:
    """The six terms of the product."""
    return Table(
        columns=("t", "predicts", "given", "term"),
        rows=tuple(
            (i + 1, word, " ".join(WORDS[:i]) or "(start)", f"P({word} | {' '.join(WORDS[:i]) or 'start'})")
            for i, word in enumerate(WORDS)
        ),
        caption="The terms of the product",
        name="terms",
    )


def conditionals(reading: Reading) -> Table:
    """The product, factor by factor."""
    rows, running = [], 1.0
    for i, factor in enumerate(reading.factors):
        running *= factor.probability
        piece, guess = shown_token(factor.piece), shown_token(factor.guess)
        rows.append((i + 1, piece, factor.probability, factor.nats, factor.rank, guess, running))
    return Table(
        columns=("t", "token", "P(token | before)", "NLL (nats)", "rank", "likeliest token", "product so far"),
        rows=tuple(rows),
        caption=f"The conditionals under {reading.model}",
        name="pretrained_factors",
    )


def characters(reading: Reading) -> Table:
    """The same sentence as characters."""
    rows = tuple(
        (
            WORDS[i] if i < len(WORDS) else None,
            shown_token("".join(f.piece for f in word)),
            len(word),
            math.prod(f.probability for f in word),
            sum(f.nats for f in word),
        )
        for i, word in enumerate(reading.words)
    )
    return Table(
        columns=("word", "characters", "distributions", "P(characters | before)", "NLL (nats)"),
        rows=rows,
        caption="Products of character conditionals, grouped by word",
        name="character_factors",
    )


def beginnings(f: Findings) -> Table:
    """How much depends on the start token, and on the capital of the first word."""
    capital, small = WORDS[0], WORDS[0].lower()
    return Table(
        columns=(
            "model",
            "start",
            f"P({capital} | start)",
            f"P({small} | start)",
            "ratio",
            "NLL of the sentence (nats)",
        ),
        rows=tuple((b.model, shown_token(b.start), b.capital, b.small, b.ratio, b.nats) for b in f.beginnings),
        caption="The first factor and the whole sentence for several starts",
        name="first_factor",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """Products against sums, one pass against many, each model's own loss, total probability."""
    result = [Check.equal("terms of the product, one per word", len(terms().rows), len(WORDS))]
    for reading in (f.pretrained, f.characters):
        claim = f"{reading.model}: product against exp(-ΣNLL) (relative difference)"
        result.append(Check.at_most(claim, reading.product_error, 1e-10))
        claim = f"{reading.model}: one pass against one pass per prefix (nats, largest difference)"
        result.append(Check.at_most(claim, reading.one_pass_error, 1e-3))
    for reading, oracle, tolerance in (
        (f.pretrained, "the model's own loss", 1e-2),
        (f.characters, "minigpt.evaluation.evaluate", 1e-3),
    ):
        claim = f"{reading.model}: ΣNLL against {oracle} (nats)"
        result.append(Check.close(claim, reading.nats, reading.own_nats, tolerance))
    for total in f.totals:
        claim = f"all {total.sequences} sequences of {total.length} tokens: their probabilities sum to 1"
        result.append(Check.close(claim, total.probability, 1, 1e-12))
    return tuple(result)
