"""Exercise 21.24: the loss of every token of a passage; of words by class and place, with the position held equal."""

import bisect
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.stratified import Effect, stratified_difference
from minigpt.evaluation.word_losses import (
    CONTENT,
    FUNCTION,
    KINDS,
    LATER,
    MARK,
    Token,
    Word,
    describe,
    names_in,
    sentence_starts,
    words_of,
)
from minigpt.evaluation.words import words as words_in
from minigpt.pretrained.causal_lm import ScoredText, first_choices, row_losses, score_text, target_windows
from minigpt.pretrained.limits import context_of
from reports.types import Answer, Cell, Check, Figure, Part, Prose, Series, Table, TokenScores
from tasks.exercise import Context, Exercise

EXTREMES = 10  # tokens in (b) and (c)
RARE = 10_000  # a word is rare that is less than one in so many of the training text
BOUNDS = (8, 16, 32, 64, 128, 256)  # of the bins of positions: up to 8 tokens before it, up to 16, …
PLACES = 12  # of a word in its sentence, in the figure
Control = tuple[str, Callable[[Word], object]]  # what else is held equal: its name, and its value for a word


@dataclass(frozen=True)
class Comparison:
    """One question of (d): a number per word or token, a group, and the effect with and without control."""

    name: str
    groups: tuple[str, str]  # what the difference is: the second less the first
    measure: str
    effects: dict[str, Effect | None]  # by what is held equal


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    before: str  # the first token, which nothing precedes
    text: ScoredText
    ids: Tensor  # (N + 1,)
    window: int
    words: list[Word]
    tokens: list[Token]
    passage: int  # scored tokens shown
    choices: list[tuple[str, float]]  # of the passage: the likeliest token and its probability
    alone: Tensor  # losses of the passage scored by itself
    comparisons: list[Comparison]


# --- Measuring --------------------------------------------------------------------------------------------------


def score(ctx: Context) -> tuple[ScoredText, Tensor]:
    """Held-out text from the start of a sentence on: its losses, and the ids of all its tokens, the first included."""
    pretrained, n = ctx.pretrained(), ctx.numbers
    text = ctx.text("validation")
    text = text[next(iter(sentence_starts(text[:5_000])), 0) :]

    def compute() -> list[Any]:
        scored = score_text(
            pretrained.model, pretrained.tokenizer, text, tokens=n["tokens"], window=n["window"], batch_size=n["batch"]
        )
        return [scored.losses.tolist(), scored.pieces, scored.text, scored.ends]

    losses, pieces, covered, ends = ctx.once("losses", compute)
    ids = pretrained.tokenizer(text, add_special_tokens=False)["input_ids"][: len(losses) + 1]
    return ScoredText(torch.tensor(losses), tuple(pieces), covered, tuple(ends)), torch.tensor(ids)


def tokens_of(ctx: Context, text: ScoredText, ids: Tensor, words: list[Word], window: int) -> list[Token]:
    """The scored tokens; names and rare words by the training text."""
    train = ctx.text("train")
    names, counts = names_in(f"{train}\n\n{text.text}"), Counter(words_in(train))
    least = sum(counts.values()) / RARE
    losses = text.losses.tolist()
    return describe(
        text.pieces, ids.tolist(), losses, words, window, names=names, rare=lambda word: counts[word] < least
    )


def position_bin(position: int) -> int:
    """Which bin a position in the window is in."""
    return bisect.bisect_right(BOUNDS, position)


def compare_words(
    ctx: Context, name: str, groups: tuple[str, str], words: list[Word], group: Callable[[Word], bool], more: Control
) -> list[Comparison]:
    """Two groups of words, by the loss of their first piece and by that of the whole word."""
    controls: dict[str, Callable[[Word], object]] = {
        "nothing": lambda word: 0,
        "position": lambda word: position_bin(word.position),
        f"position and {more[0]}": lambda word: (position_bin(word.position), more[1](word)),
    }
    measures: dict[str, Callable[[Word], float]] = {"first piece": lambda w: w.first, "whole word": lambda w: w.loss}
    return [
        Comparison(
            name,
            groups,
            measure,
            {
                held: stratified_difference(
                    [value(word) for word in words],
                    [group(word) for word in words],
                    [stratum(word) for word in words],
                    [word.sentence for word in words],
                    generator=ctx.generator(f"{name}, {measure}, {held}"),
                    draws=ctx.numbers["draws"],
                )
                for held, stratum in controls.items()
            },
        )
        for measure, value in measures.items()
    ]


def compare_pieces(ctx: Context, tokens: list[Token], window: int) -> Comparison:
    """First pieces of words against later ones."""
    chosen = [token for token in tokens if token.word is not None and token.kind in (CONTENT, FUNCTION, LATER)]
    controls: dict[str, Callable[[int], object]] = {
        "nothing": lambda index: 0,
        "position": lambda index: position_bin(index % window),
    }
    effects = {
        held: stratified_difference(
            [token.loss for token in chosen],
            [token.kind == LATER for token in chosen],
            [stratum(token.index) for token in chosen],
            [token.word.sentence for token in chosen if token.word],
            generator=ctx.generator(f"later pieces, {held}"),
            draws=ctx.numbers["draws"],
        )
        for held, stratum in controls.items()
    }
    return Comparison("pieces", ("first pieces", "later pieces"), "token", effects)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    pretrained = ctx.pretrained()
    ctx.progress(0.05, f"scoring {ctx.numbers['tokens']:,} tokens with {pretrained.name}")
    text, ids = score(ctx)
    window = min(ctx.numbers["window"], context_of(pretrained.model), text.tokens)
    ctx.progress(0.85, "the passage")
    passage = min(ctx.numbers["passage"], text.tokens)
    rows = target_windows(ids[: passage + 1].to(ctx.device), window)
    chosen = [first_choices(pretrained.model, row) for row in rows]
    choices = [
        (pretrained.tokenizer.decode([token]), p)
        for tokens, probabilities in chosen
        for token, p in zip(tokens.flatten().tolist(), probabilities.flatten().tolist(), strict=True)
    ]
    alone = torch.cat([row_losses(pretrained.model, row).flatten() for row in rows]).cpu()
    words = words_of(text.text, text.ends, text.losses.tolist(), window)
    whole = [word for word in words if word.whole]
    placed = [word for word in whole if word.place is not None]
    tokens = tokens_of(ctx, text, ids, words, window)
    ctx.progress(0.9, "comparing words")
    begins: Control = ("place in the sentence", lambda word: word.place == 0)
    kinds: Control = ("word class", lambda word: word.function)
    comparisons = [
        *compare_words(ctx, "sentence start", ("other words", "first words"), placed, lambda w: w.place == 0, kinds),
        *compare_words(ctx, "word class", ("function words", "content words"), whole, lambda w: not w.function, begins),
        compare_pieces(ctx, tokens, window),
    ]
    before = pretrained.tokenizer.decode(ids[:1].tolist())
    return Findings(before, text, ids, window, words, tokens, passage, choices, alone, comparisons)


# --- The parts --------------------------------------------------------------------------------------------------


def signed(value: float) -> str:
    """With two decimals and a sign."""
    return f"{value:+.2f}".replace("-", "−")


def mean(values: Iterable[float]) -> float:
    """Of at least one value; 0 of none."""
    found = list(values)
    return mean_std(found)[0] if found else 0.0


def part_a(ctx: Context, f: Findings) -> Part:
    """The passage in colours, and what its loss is made of."""
    shown, name = f.tokens[: f.passage], ctx.pretrained().name
    scores = TokenScores(
        (f.before, *(token.piece for token in shown)),
        (None, *(token.loss for token in shown)),
        "loss (nats)",
        f"Loss of each token of the passage. Model: {name}. The first token has nothing before it, and no loss.",
    )
    rows = []
    for kind in KINDS:
        cells: list[Cell] = [kind]
        for tokens in (shown, f.tokens):
            own = [token.loss for token in tokens if token.kind == kind]
            cells += [len(own), mean(own) if own else None, sum(own) / sum(token.loss for token in tokens)]
        rows.append(tuple(cells))
    whats = ("tokens", "mean loss (nats)", "share of the loss")
    columns = ("kind of token", *(f"{where}: {what}" for where in ("passage", "text") for what in whats))
    caption = (
        f"What the loss is made of. The text is {f.text.tokens:,} held-out tokens in windows of {f.window}, and begins "
        "with the passage. Shares of the loss sum to 1."
    )
    nats = mean(token.loss for token in shown)
    text = (
        "The loss of a token is $-\\ln P(x_t \\mid x_{<t})$: the logits at position $t - 1$ are read for token $t$. "
        f"The passage is {f.passage} scored tokens of held-out text, from the start of a sentence on. Its mean loss is "
        f"{nats:.3f} nats, its perplexity {math.exp(nats):.2f}. Over all {f.text.tokens:,} tokens of the text these "
        f"are {f.text.nats:.3f} nats and {f.text.perplexity:.2f}, or {f.text.bits_per_byte:.3f} bits per byte."
    )
    return Part("a", (Prose(text), scores, Table(columns, tuple(rows), caption, "kinds")), "The loss of every token")


def extremes(f: Findings, *, highest: bool) -> list[Token]:
    """The tokens of the passage with the highest or lowest loss, in order."""
    return sorted(f.tokens[: f.passage], key=lambda token: token.loss, reverse=highest)[:EXTREMES]


def share_of_loss(f: Findings) -> float:
    """What part of the passage's loss the tokens with the highest loss hold."""
    top, shown = extremes(f, highest=True), f.tokens[: f.passage]
    return sum(token.loss for token in top) / sum(token.loss for token in shown)


def token_table(f: Findings, tokens: list[Token], caption: str, name: str) -> Table:
    """Tokens with what stands before them and what was expected."""
    rows: list[tuple[Cell, ...]] = []
    for rank, token in enumerate(tokens, 1):
        start = f.text.ends[token.index - 1] if token.index else 0
        before = (f.before + f.text.text[:start])[-32:]
        choice, probability = f.choices[token.index]
        piece, context, expected = (line_feeds(text) for text in (token.piece, f"…{before}", choice))
        flags = ("yes" if flag else "" for flag in (token.name, token.rare, token.begins, token.seen))
        numbers = (token.index + 1, token.loss, math.exp(-token.loss))
        word = token.word.text if token.word else ""
        rows.append((rank, piece, context, *numbers, expected, probability, token.kind, word, *flags))
    columns = (
        *("rank", "token", "after", "position", "loss (nats)", "probability", "the model's first choice"),
        *("its probability", "kind", "word", "name", "rare word", "begins a sentence", "pair seen before"),
    )
    counted = "Positions are those in the passage, from 0; the first choice is what the model would have put there."
    return Table(columns, tuple(rows), f"{caption} {counted}", name)


def line_feeds(text: str) -> str:
    """Made visible."""
    return text.replace("\n", "↵")


FLAGS: dict[str, Callable[[Token], bool]] = {
    "in a name": lambda token: token.name,
    "in a rare word": lambda token: token.rare,
    "begins a sentence": lambda token: token.begins,
    CONTENT: lambda token: token.kind == CONTENT,
    FUNCTION: lambda token: token.kind == FUNCTION,
    LATER: lambda token: token.kind == LATER,
    MARK: lambda token: token.kind == MARK,
    "pair seen before": lambda token: token.seen,
}


def share(tokens: Sequence[Token], flag: str) -> float:
    """Of tokens that have it."""
    return mean(float(FLAGS[flag](token)) for token in tokens)


def share_table(f: Findings, *, highest: bool) -> Table:
    """What the extreme tokens are, beside all tokens."""
    size = max(EXTREMES, f.text.tokens // 20)
    ranked = sorted(f.tokens, key=lambda token: token.loss, reverse=highest)[:size]
    which = "highest" if highest else "lowest"
    groups = {
        f"{EXTREMES} {which} of the passage": extremes(f, highest=highest),
        f"{size:,} {which} of the text": ranked,
        f"all {f.text.tokens:,} tokens of the text": f.tokens,
    }
    rows: list[tuple[Cell, ...]] = [(name, *(share(own, flag) for flag in FLAGS)) for name, own in groups.items()]
    caption = (
        f"What tokens of {which} loss are. Shares. Names have a capital wherever they stand; a rare word is less than "
        f"one in {RARE:,} of the training text; a pair was seen before where the token followed the same token in its "
        "window."
    )
    return Table(("tokens", *FLAGS), tuple(rows), caption, f"{which}_shares")


def count(tokens: Sequence[Token], flag: str) -> int:
    """How many have it."""
    return sum(FLAGS[flag](token) for token in tokens)


def part_b(f: Findings) -> Part:
    """The most surprising tokens."""
    tokens, shown = extremes(f, highest=True), f.tokens[: f.passage]
    most = max((FUNCTION, CONTENT, LATER, MARK), key=lambda kind: share(tokens, kind))
    early = sum(token.index % f.window < BOUNDS[0] for token in tokens)
    sure = [mean(f.choices[token.index][1] for token in group) for group in (tokens, shown)]
    text = (
        f"The {len(tokens)} hold {share_of_loss(f):.0%} of the passage's loss in {len(tokens) / f.passage:.0%} of its "
        f"tokens. Of them, {count(tokens, 'in a name')} are in names, {count(tokens, 'in a rare word')} in words that "
        f"are rare in the training text, {count(tokens, 'begins a sentence')} at the beginning of a sentence, and "
        f"{early} among the first {BOUNDS[0]} tokens of a window. The most frequent kind is *{most}*: "
        f"{share(tokens, most):.0%} of them, {share(f.tokens, most):.0%} of all tokens. In their places the model gave "
        f"its first choice a probability of {sure[0]:.0%} in the mean, in the whole passage {sure[1]:.0%}."
    )
    table = token_table(f, tokens, "The tokens of the passage with the highest loss.", "highest")
    return Part("b", (Prose(text), table, share_table(f, highest=True)), "The ten most surprising tokens")


def part_c(f: Findings) -> Part:
    """The most predictable tokens."""
    tokens = extremes(f, highest=False)
    text = (
        f"Each of the {len(tokens)} has a probability of {math.exp(-tokens[-1].loss):.1%} or more. "
        f"{count(tokens, LATER)} of them go on with a word that has begun, as {share(f.tokens, LATER):.0%} of all "
        f"tokens do; {count(tokens, 'pair seen before')} follow a token that they have followed before in the window, "
        f"and could be copied, as {share(f.tokens, 'pair seen before'):.0%} of all tokens could."
    )
    table = token_table(f, tokens, "The tokens of the passage with the lowest loss.", "lowest")
    return Part("c", (Prose(text), table, share_table(f, highest=False)), "The ten most predictable tokens")


def effect_table(f: Findings) -> Table:
    """All comparisons, with and without control."""
    rows = []
    for c in f.comparisons:
        for held, effect in c.effects.items():
            if effect is not None:
                what = (f"{c.groups[1]} − {c.groups[0]}", c.measure, held)
                means = (*effect.counts[::-1], *effect.means[::-1])
                rows.append((*what, effect.difference, *effect.interval, effect.verdict, *means))
    columns = (
        *("difference", "loss of the", "held equal", "difference (nats)", "95 % from", "95 % to", "the first is"),
        *("n of the first", "n of the second", "mean of the first", "mean of the second"),
    )
    caption = (
        "Differences of loss between groups. Held equal: differences within bins of positions, or of positions and "
        "another property, weighted as in a regression with a constant per bin. Intervals: bootstrap over sentences, "
        "percentiles. Means are raw; the first is what stands before the minus."
    )
    return Table(columns, tuple(rows), caption, "effects")


def said(f: Findings, name: str, measure: str) -> str:
    """A comparison in words: raw, and with each control."""
    c = comparison(f, name, measure)
    phrases = []
    for held, effect in c.effects.items():
        if effect is not None:
            verdict = {"noise": "inside the noise", "too few": "too few to say"}.get(effect.verdict, effect.verdict)
            low, high = map(signed, effect.interval)
            where = "raw" if held == "nothing" else f"at equal {held}"
            phrases.append(f"{where} {signed(effect.difference)} ({low} to {high}, {verdict})")
    return ", ".join(phrases) if phrases else "the text does not have enough of both"


def comparison(f: Findings, name: str, measure: str) -> Comparison:
    """One of those measured."""
    return next(c for c in f.comparisons if (c.name, c.measure) == (name, measure))


def controlled(f: Findings, name: str, measure: str = "first piece") -> Effect | None:
    """The effect at equal position."""
    return comparison(f, name, measure).effects["position"]


def line(name: str, groups: dict[Any, list[float]]) -> Series:
    """Means with standard errors."""
    kept = {x: values for x, values in groups.items() if len(values) > 1}
    stats = [mean_std(values) for values in kept.values()]
    errors = (spread / math.sqrt(len(values)) for (_, spread), values in zip(stats, kept.values(), strict=True))
    return Series(name, tuple(kept), tuple(m for m, _ in stats), tuple(errors))


def by_position(f: Findings) -> Series:
    """Loss by position in the window."""
    edges = [0, *(bound for bound in BOUNDS if bound < f.window), f.window]
    bins: dict[str, list[float]] = {f"{low}–{high - 1}": [] for low, high in itertools.pairwise(edges)}
    for token in f.tokens:
        list(bins.values())[position_bin(token.index % f.window)].append(token.loss)
    return line("all tokens", bins)


def by_place(f: Findings) -> Figure:
    """Loss by place in the sentence."""
    words = [word for word in f.words if word.whole and word.place is not None]
    groups = {
        "all words": words,
        "function words": [word for word in words if word.function],
        "content words": [word for word in words if not word.function],
    }
    return Figure(
        "line",
        tuple(
            line(name, {place + 1: [word.first for word in own if word.place == place] for place in range(PLACES)})
            for name, own in groups.items()
        ),
        *("word of the sentence", "loss of its first piece (nats)"),
        f"Loss by place in the sentence. Mean ± standard error, words 1 to {PLACES}.",
    )


def first_words(f: Findings) -> str:
    """What sentences begin with."""
    starts = [word for word in f.words if word.whole and word.place == 0]
    if not starts:
        return "No sentence begins inside the text."
    text, number = Counter(word.text for word in starts).most_common(1)[0]
    own, others = ([word.first for word in starts if (word.text == text) is same] for same in (True, False))
    rest = f", against {mean(others):.2f} for other first words" if others else ""
    inner = mean(float(word.function) for word in f.words if word.whole and word.place)
    return (
        f"Of {len(starts)} sentences, {number} begin with *{text}*, whose first piece costs {mean(own):.2f} nats there"
        f"{rest}. {mean(float(word.function) for word in starts):.0%} of first words are function words, of other "
        f"words {inner:.0%}: at equal word class, that part of the difference is gone."
    )


def part_d(f: Findings) -> tuple[Part, list[Check]]:
    """Sentence starts, and content against function words."""
    positions = by_position(f)
    start, kind, later = controlled(f, "sentence start"), controlled(f, "word class"), controlled(f, "pieces", "token")
    verdicts = {"higher": "yes, it is higher", "lower": "no, it is lower", "noise": "no difference beyond noise"}
    verdicts["too few"] = "too little text to say"
    said_start, said_kind = (verdicts[e.verdict] if e else "too little text to say" for e in (start, kind))
    whole = [word for word in f.words if word.whole]
    distinct = {same: len({w.text.lower() for w in whole if w.function is same}) for same in (True, False)}
    text = (
        "Words are compared, not tokens: a first piece has to choose the word, later pieces finish it. So there is the "
        "loss of a word's first piece, and the sum over its pieces. A sentence begins after a full stop, question mark "
        "or exclamation mark before a capital, or after a blank line. Function words are a closed list (determiners, "
        "pronouns, prepositions, conjunctions, auxiliaries, particles; early modern forms included): "
        f"{mean(float(word.function) for word in whole):.0%} of {len(whole):,} words. Early tokens of a window have "
        f"less to go by ({positions.y[0]:.2f} nats at positions {positions.x[0]}, {positions.y[-1]:.2f} at "
        f"{positions.x[-1]}), so the position is held equal. Differences are in nats, with 95 % intervals.\n\n"
        f"**Higher at the beginning of sentences? At equal position, {said_start}.** First words less other words, "
        f"first piece: {said(f, 'sentence start', 'first piece')}. {first_words(f)}\n\n"
        f"**Higher at content words? At equal position, {said_kind}.** Content less function words, first piece: "
        f"{said(f, 'word class', 'first piece')}. Whole words: {said(f, 'word class', 'whole word')}. Later pieces "
        f"less first pieces: {said(f, 'pieces', 'token')}. In this text, a function "
        f"word is one of {distinct[True]:,}, a content word one of {distinct[False]:,}."
    )
    claims = {
        "content words have the higher loss, first piece at equal position: lower end (nats)": (kind, 0, 1),
        "sentences begin with the higher loss, first piece at equal position: lower end (nats)": (start, 0, 1),
        "later pieces have the lower loss, at equal position: lower end of the fall (nats)": (later, 1, -1),
    }
    checks = [
        Check.at_least(claim, sign * effect.interval[end], 0.0, "empirical")
        for claim, (effect, end, sign) in claims.items()
        if effect is not None and effect.verdict != "too few"
    ]
    figure = Figure(
        *("bar", (positions,), "position in the window", "loss (nats)"),
        "Loss by position. Mean ± standard error. A comparison that ignores it compares contexts.",
    )
    blocks = (Prose(text), effect_table(f), by_place(f), figure)
    return Part("d", blocks, "Beginnings of sentences, content words and function words"), checks


# --- Checks -----------------------------------------------------------------------------------------------------


@torch.inference_mode()
def exact_checks(ctx: Context, f: Findings) -> list[Check]:
    """Alignment, and sums."""
    model = ctx.pretrained().model
    size = min(64, f.window, context_of(model) - 1)
    ids = f.ids[None, : size + 1].to(ctx.device)
    output = model(ids, labels=ids)
    logp = output.logits[0].float().log_softmax(dim=-1).cpu()
    moved = -logp[: size - 1].gather(1, f.ids[2 : size + 1, None])[:, 0]  # each read against the token after its own
    total = f.text.losses.double().sum().item()
    by_kind = sum(sum(token.loss for token in f.tokens if token.kind == kind) for kind in KINDS)
    outside = sum(token.loss for token in f.tokens if token.word is None)
    starts = (0, *f.text.ends)
    slices = [f.text.text[a:b] for a, b in zip(starts, f.text.ends, strict=False)]
    pairs = zip(f.text.pieces, slices, strict=True)
    wrong = sum(piece.strip() != there.strip() and "\ufffd" not in piece for piece, there in pairs)
    return [
        Check.close(
            "loss of the first tokens against Transformers' own, which shifts labels itself (nats per token)",
            *(f.text.losses[:size].double().mean().item(), output.loss.item(), 1e-3),
        ),
        Check.at_least(
            "losses moved by one place would be others (largest difference, nats)",
            *((moved - f.text.losses[: size - 1]).abs().max().item(), 0.01),
        ),
        Check.equal("scored tokens whose text is not what stands at their place", wrong, 0),
        Check.at_most(
            "the passage scored alone has the losses that it has in the text (largest difference, nats)",
            *((f.alone - f.text.losses[: f.passage]).abs().max().item(), 1e-3),
        ),
        Check.close("kinds of tokens: their losses sum to that of the text (nats)", by_kind, total, 1e-6 * total),
        Check.close(
            "words and tokens outside of words: their losses sum to that of the text (nats)",
            *(sum(word.loss for word in f.words) + outside, total, 1e-6 * total),
        ),
        *regression(f),
    ]


def regression(f: Findings) -> list[Check]:
    """Content words at equal position against least squares with a constant per bin."""
    effect = controlled(f, "word class")
    if effect is None:
        return []
    words = [word for word in f.words if word.whole]
    bins = torch.tensor([position_bin(word.position) for word in words])
    group = torch.tensor([not word.function for word in words]).double()
    design = torch.column_stack([group, torch.nn.functional.one_hot(bins).double()])
    losses = torch.tensor([word.first for word in words], dtype=torch.float64)
    slope = torch.linalg.lstsq(design, losses[:, None], driver="gelsd").solution[0, 0].item()
    return [Check.close("difference at equal position against least squares (nats)", effect.difference, slope, 1e-8)]


def metrics_of(f: Findings) -> dict[str, float | int]:
    """Every number that the exercise asks for."""
    shown = f.tokens[: f.passage]
    found: dict[str, float | int] = {
        "passage_tokens": f.passage,
        "passage_loss_nats": mean(token.loss for token in shown),
        "passage_perplexity": math.exp(mean(token.loss for token in shown)),
        "text_tokens": f.text.tokens,
        "text_loss_nats": f.text.nats,
        "text_perplexity": f.text.perplexity,
        "text_bits_per_byte": f.text.bits_per_byte,
        "function_word_share": mean(float(word.function) for word in f.words if word.whole),
    }
    for which, highest in (("highest", True), ("lowest", False)):
        tokens = extremes(f, highest=highest)
        for rank, token in enumerate(tokens, 1):
            found[f"loss_{which}_{rank}_nats"] = token.loss
        for flag in FLAGS:
            found[f"share_{key(flag)}_{which}_10"] = share(tokens, flag)
    found["share_of_passage_loss_highest_10"] = share_of_loss(f)
    for kind in (FUNCTION, CONTENT, LATER, MARK):
        if losses := [token.loss for token in f.tokens if token.kind == kind]:
            found[f"loss_{key(kind)}_nats"] = mean(losses)
    for c in f.comparisons:
        for held, effect in c.effects.items():
            if effect is not None:
                name = f"difference_{key(c.groups[1])}_{key(c.measure)}_held_{key(held)}"
                found[f"{name}_nats"] = effect.difference
                found[f"{name}_low_nats"], found[f"{name}_high_nats"] = effect.interval
    return found


def key(text: str) -> str:
    """As part of a metric's name."""
    return text.replace(",", "").replace(" ", "_")


def answer(ctx: Context) -> Answer:
    """All four parts."""
    pretrained, f = ctx.pretrained(), measure(ctx)
    discussed, checks = part_d(f)
    effects = {"content words": controlled(f, "word class"), "first words": controlled(f, "sentence start")}
    found = ", ".join(f"{name} {signed(e.difference)} ({e.verdict})" for name, e in effects.items() if e is not None)
    return Answer(
        summary=f"{pretrained.name}: perplexity {math.exp(mean(t.loss for t in f.tokens[: f.passage])):.1f} on the "
        f"passage, {share_of_loss(f):.0%} of its loss in {EXTREMES} tokens; loss at equal position (nats): "
        f"{found or 'too little text'}.",
        parts=(part_a(ctx, f), part_b(f), part_c(f), discussed),
        checks=(*exact_checks(ctx, f), *checks),
        metrics=metrics_of(f),
        notes=(pretrained.note,) if pretrained.note else (),
    )


EXERCISE = Exercise(
    id="21.24",
    title="Cross-Entropy Loss Decomposition",
    answer=answer,
    sources=("main", "pretrained"),
    numbers={
        "smoke": {"tokens": 1_024, "window": 128, "batch": 4, "passage": 200, "draws": 200},
        "laptop": {"tokens": 4_096, "window": 512, "batch": 4, "passage": 200, "draws": 2_000},
        "gpu": {"tokens": 32_768, "window": 1_024, "batch": 16, "passage": 240, "draws": 10_000},
    },
    seconds={"smoke": 3, "laptop": 24, "gpu": 20},
)
