"""Tables, figures, the coloured passage and checks of 21.24; the text is in answer.md."""

import math

from minigpt.evaluation.word_losses import CONTENT, FUNCTION, KINDS, LATER, MARK
from minigpt.pretrained.gpt2_published import ZERO_SHOT
from reports.answers import Draft
from reports.types import Cell, Check, Figure, Series, Table, TokenScores
from reports.words import shown_text, shown_token
from tasks.exercises.ex24_loss_decomposition.findings import (
    BOUNDS,
    EXTREMES,
    FLAGS,
    PLACES,
    RARE,
    Findings,
    Line,
    PassageToken,
    mean,
    share,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    highest, lowest = f.extremes(highest=True), f.extremes(highest=False)
    most = max((FUNCTION, CONTENT, LATER, MARK), key=lambda kind: share(highest, kind))
    return Draft(
        blocks={
            "passage": passage(f),
            "kinds": kinds(f),
            "highest": token_table(highest, "The tokens of the passage with the highest loss.", "highest"),
            "shares of the highest": share_table(f, highest=True),
            "lowest": token_table(lowest, "The tokens of the passage with the lowest loss.", "lowest"),
            "shares of the lowest": share_table(f, highest=False),
            "effects": effect_table(f),
            "modern passage": modern_passage(f),
            "both texts": both_texts(f),
            "gpt2": gpt2(f),
            "by place": Figure(
                "line",
                tuple(series(line) for line in f.by_place),
                "word of the sentence",
                "loss of its first piece (nats)",
                f"Loss by place in the sentence. Mean ± standard error, words 1 to {PLACES}.",
            ),
            "by position": Figure(
                "bar",
                (series(f.by_position),),
                "position in the window",
                "loss (nats)",
                "Loss by position. Mean ± standard error. A comparison that ignores it compares contexts.",
            ),
        },
        checks=checks(f),
        values={
            "highest": highest,
            "lowest": lowest,
            "in_names": count(highest, "in a name"),
            "in_rare_words": count(highest, "in a rare word"),
            "at_beginnings": count(highest, "begins a sentence"),
            "early": sum(token.index % f.window < BOUNDS[0] for token in highest),
            "early_bound": BOUNDS[0],
            "most": most,
            "most_share": share(highest, most),
            "most_share_of_all": f.text.shares[most],
            "sure": mean(token.probability for token in highest),
            "sure_in_all": mean(token.probability for token in f.passage),
            "least_probability": math.exp(-lowest[-1].loss),
            "later": count(lowest, LATER),
            "later_share": f.text.shares[LATER],
            "seen": count(lowest, "pair seen before"),
            "seen_share": f.text.shares["pair seen before"],
            "intervals": intervals(f),
        },
    )


def intervals(f: Findings) -> int:
    """How many are shown, of both texts; each held-out one once."""
    own = [effect for comparison in f.comparisons for effect in comparison.effects.values()]
    effects = [*own, *(f.modern.controlled(question) for question in ("sentence start", "word class"))]
    return sum(effect is not None and effect.verdict != "too few" for effect in effects)


def count(tokens: list[PassageToken], flag: str) -> int:
    """How many have it."""
    return sum(FLAGS[flag](token) for token in tokens)


def passage(f: Findings) -> TokenScores:
    """The passage in colours."""
    return TokenScores(
        (f.before, *(token.piece for token in f.passage)),
        (None, *(token.loss for token in f.passage)),
        "loss (nats)",
        f"Loss of each token of the passage. Model: {f.model}. The first token has nothing before it, and no loss.",
    )


def kinds(f: Findings) -> Table:
    """What the loss is made of."""
    rows: list[tuple[Cell, ...]] = []
    total = sum(token.loss for token in f.passage)
    for kind in KINDS:
        own, text = [token.loss for token in f.passage if token.kind == kind], f.text.kinds[kind]
        shown = (len(own), mean(own) if own else None, sum(own) / total)
        rows.append((kind, *shown, text.tokens, text.loss, text.share))
    whats = ("tokens", "mean loss (nats)", "share of the loss")
    columns = ("kind of token", *(f"{where}: {what}" for where in ("passage", "text") for what in whats))
    caption = (
        f"What the loss is made of. The text is {f.text.tokens:,} held-out tokens in windows of {f.window}, and begins "
        "with the passage. Shares of the loss sum to 1."
    )
    return Table(columns, tuple(rows), caption, "kinds")


def token_table(tokens: list[PassageToken], caption: str, name: str) -> Table:
    """Tokens with what stands before them and what was expected."""
    rows: list[tuple[Cell, ...]] = []
    for rank, token in enumerate(tokens, 1):
        piece, context, expected = shown_token(token.piece), shown_text(f"…{token.before}"), shown_token(token.choice)
        flags = ("yes" if flag else "" for flag in (token.name, token.rare, token.begins, token.seen))
        numbers = (token.index + 1, token.loss, math.exp(-token.loss))
        rows.append((rank, piece, context, *numbers, expected, token.probability, token.kind, token.word, *flags))
    columns = (
        "rank",
        "token",
        "after",
        "position",
        "loss (nats)",
        "probability",
        "the model's first choice",
        "its probability",
        "kind",
        "word",
        "name",
        "rare word",
        "begins a sentence",
        "pair seen before",
    )
    counted = "Positions are those in the passage, from 0; the first choice is what the model would have put there."
    return Table(columns, tuple(rows), f"{caption} {counted}", name)


def share_table(f: Findings, *, highest: bool) -> Table:
    """What the extreme tokens are, beside all tokens."""
    which, tokens = "highest" if highest else "lowest", f.extremes(highest=highest)
    groups = {
        f"{EXTREMES} {which} of the passage": {flag: share(tokens, flag) for flag in FLAGS},
        f"{f.text.extremes:,} {which} of the text": f.text.highest if highest else f.text.lowest,
        f"all {f.text.tokens:,} tokens of the text": f.text.shares,
    }
    rows: list[tuple[Cell, ...]] = [(name, *(shares[flag] for flag in FLAGS)) for name, shares in groups.items()]
    caption = (
        f"What tokens of {which} loss are. Shares. Names have a capital wherever they stand; a rare word is less than "
        f"one in {RARE:,} of the training text; a pair was seen before where the token followed the same token in its "
        "window."
    )
    return Table(("tokens", *FLAGS), tuple(rows), caption, f"{which}_shares")


def modern_passage(f: Findings) -> TokenScores:
    """The modern one in colours."""
    shown = len(f.passage)
    return TokenScores(
        (f.modern.begins, *f.modern.pieces[:shown]),
        (None, *f.modern.losses[:shown]),
        "loss (nats)",
        f"Loss of each token of modern prose, its beginning. Model: {f.model}.",
    )


def both_texts(f: Findings) -> Table:
    """The two texts beside each other: what they cost, and the effects of (d)."""
    rows: list[tuple[Cell, ...]] = []
    texts = (
        ("held-out text", f.text.tokens, f.text.nats, f.text.bits_per_byte, f.first_words, f.controlled),
        ("modern prose", len(f.modern.losses), f.modern.nats, f.modern.bits_per_byte, f.modern.first_words, None),
    )
    for name, tokens, nats, bits, first, controlled in texts:
        effects = controlled or f.modern.controlled
        cells: list[Cell] = []
        for question in ("sentence start", "word class"):
            effect = effects(question)
            cells += (
                [None, None, None, "too little text"]
                if effect is None
                else [effect.difference, *effect.interval, effect.verdict]
            )
        begins = (first.commonest, first.number / first.sentences) if first else (None, None)
        rows.append((name, tokens, nats, bits, *begins, *cells))
    effect_columns = [
        f"{question}: {what}"
        for question in ("first − other words", "content − function words")
        for what in ("difference (nats)", "95 % from", "95 % to", "verdict")
    ]
    columns = (
        "text",
        "tokens",
        "loss (nats/token)",
        "bits per byte",
        "commonest first word",
        "its share",
        *effect_columns,
    )
    caption = (
        "Two texts under the same model. Differences of the loss of first pieces at equal position, with bootstrap "
        "intervals over sentences."
    )
    return Table(columns, tuple(rows), caption, "both_texts")


def gpt2(f: Findings) -> Table:
    """Published values, and what was measured here in the unit that can be compared."""
    rows: list[tuple[Cell, ...]] = [(x.what, f"GPT-2 {x.model}", x.value, x.source) for x in ZERO_SHOT]
    rows += [
        ("bits per byte, held-out text", f.model, f.text.bits_per_byte, "here"),
        ("bits per byte, modern prose", f.model, f.modern.bits_per_byte, "here"),
    ]
    caption = "GPT-2 beside the model that was used. Texts and tokenizers differ: only bits per byte are of one kind."
    return Table(("measure", "model", "value", "source"), tuple(rows), caption, "gpt2")


def effect_table(f: Findings) -> Table:
    """All comparisons, with and without control."""
    rows: list[tuple[Cell, ...]] = []
    for c in f.comparisons:
        for held, effect in c.effects.items():
            if effect is not None:
                what = (f"{c.groups[1]} − {c.groups[0]}", c.measure, held)
                means = (*effect.counts[::-1], *effect.means[::-1])
                rows.append((*what, effect.difference, *effect.interval, effect.verdict, *means))
    columns = (
        "difference",
        "loss of the",
        "held equal",
        "difference (nats)",
        "95 % from",
        "95 % to",
        "the first is",
        "n of the first",
        "n of the second",
        "mean of the first",
        "mean of the second",
    )
    caption = (
        "Differences of loss between groups. Held equal: differences within bins of positions, or of positions and "
        "another property, weighted as in a regression with a constant per bin. Intervals: bootstrap over sentences, "
        "percentiles. Means are raw; the first is what stands before the minus."
    )
    return Table(columns, tuple(rows), caption, "effects")


def series(line: Line) -> Series:
    """A line of means, to be drawn."""
    return Series(line.name, line.x, line.means, line.errors)


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    o, kind = f.oracle, f.controlled("word class")
    regression = (
        ()
        if kind is None or o.slope is None
        else (Check.close("difference at equal position against least squares (nats)", kind.difference, o.slope, 1e-8),)
    )
    claims = {
        "content words have the higher loss, first piece at equal position: lower end (nats)": (kind, 0, 1),
        "sentences begin with the higher loss, first piece at equal position: lower end (nats)": (
            f.controlled("sentence start"),
            0,
            1,
        ),
        "later pieces have the lower loss, at equal position: lower end of the fall (nats)": (
            f.controlled("pieces", "token"),
            1,
            -1,
        ),
    }
    return (
        Check.close(
            "loss of the first tokens against Transformers' own, which shifts labels itself (nats per token)",
            o.ours,
            o.transformers,
            1e-3,
        ),
        Check.at_least(
            "losses moved by one place would be others (largest difference, nats)", o.moved, 0.01, "empirical"
        ),
        Check.equal("scored tokens whose text is not what stands at their place", o.misplaced, 0),
        Check.at_most(
            "the passage scored alone has the losses that it has in the text (largest difference, nats)", o.alone, 1e-3
        ),
        Check.close("kinds of tokens: their losses sum to that of the text (nats)", o.by_kind, o.total, 1e-6 * o.total),
        Check.close(
            "words and tokens outside of words: their losses sum to that of the text (nats)",
            o.by_words,
            o.total,
            1e-6 * o.total,
        ),
        *regression,
        *(
            Check.at_least(claim, sign * effect.interval[end], 0.0, "empirical")
            for claim, (effect, end, sign) in claims.items()
            if effect is not None and effect.verdict != "too few"
        ),
    )
