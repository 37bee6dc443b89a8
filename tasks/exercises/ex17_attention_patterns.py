"""Exercise 21.17: attention maps of five sentences, heads that specialise, and induction heads put to three tests."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.analysis.head_ablation import Head, head_outputs, output_projections, random_heads, without_heads
from minigpt.analysis.head_scores import row_shares, row_uniform_shares, same_token
from minigpt.analysis.head_survey import SHARE, TIMES, HeadScores, heads_to_draw, kinds, read_maps, survey
from minigpt.analysis.induction import CopyRows, copy_rows
from minigpt.evaluation.statistics import compare_paired, mean_std
from minigpt.evaluation.words import is_punctuation
from minigpt.pretrained.causal_lm import ordinary_tokens, row_losses
from minigpt.pretrained.limits import context_of
from reports.types import Answer, AttentionMaps, Block, Check, Figure, Heatmap, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise

SENTENCES = {
    "plain": "The old man walked slowly down to the river to see the boats.",
    "quotation": '"Stop," she said, "for the bridge, I fear, is closed today."',
    "repeated names": "Tom Marlow met Ann Perth; later Tom Marlow wrote to Ann Perth.",
    "code": "for word in words: print(word, len(word))",
    "question": "Why did the doctor who saw the children leave so early?",
}
KINDS = {
    "previous": "previous token",
    "first": "first token",
    "own": "own token",
    "punctuation": "punctuation",
    "same": "same token earlier",
    "induction": "induction",
}


@dataclass(frozen=True)
class Sentence:
    """A sentence as the model reads it."""

    name: str
    ids: Tensor  # (1, T), on the CPU
    pieces: tuple[str, ...]
    maps: tuple[Tensor, ...]  # per layer (1, H, T, T), on the CPU


@dataclass(frozen=True)
class Copying:
    """Losses in random tokens, (R, T - 1)."""

    rows: CopyRows
    losses: Tensor  # of tokens that repeat
    controls: Tensor  # of tokens that do not


@dataclass(frozen=True)
class Ablation:
    """Losses without some heads: in rows that repeat, and in text."""

    name: str
    heads: list[Head]
    first: list[float]  # loss per row, nats
    repeated: list[float]
    text: float  # in held-out text


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    scores: dict[str, HeadScores]  # by kind of key
    window: int  # tokens
    sentences: list[Sentence]
    marks: list[Tensor]  # which tokens of the sentences are punctuation, (1, T) each
    drawn: dict[int, list[int]]  # layer: heads
    copying: Copying
    ablations: list[Ablation] | str  # or why there are none

    def in_sentence(self, i: int, kind: str, head: Head) -> float | None:
        """A head's share in one sentence; None where it has no such key."""
        sentence, (layer, number) = self.sentences[i], head
        wanted = kinds(sentence.ids, self.marks[i])[kind]
        rows = row_shares([sentence.maps[layer]], wanted)
        return rows[0][0][number] if rows else None


# --- Measuring --------------------------------------------------------------------------------------------------


def marks(tokenizer: Any, ids: Tensor) -> Tensor:
    """Which tokens are punctuation, (B, T) bool."""
    known = {token: is_punctuation(tokenizer.decode([token])) for token in set(ids.flatten().tolist())}
    return torch.tensor([[known[token] for token in row] for row in ids.tolist()], device=ids.device)


def text_windows(ctx: Context) -> Tensor:
    """Held-out text in windows, (W, T)."""
    pretrained, n = ctx.pretrained(), ctx.numbers
    length = min(n["window"], context_of(pretrained.model))
    text = pretrained.tokenizer(ctx.text("validation"), add_special_tokens=False)["input_ids"]
    count = min(n["windows"], len(text) // length)
    return torch.tensor(text[: count * length], device=ctx.device).view(count, length)


def on_text(ctx: Context, ids: Tensor) -> dict[str, HeadScores]:
    """Scores of every kind but induction, over windows of held-out text (W, T)."""
    pretrained = ctx.pretrained()
    wanted = kinds(ids, marks(pretrained.tokenizer, ids))
    del wanted["induction"]
    found = ctx.once("held-out text", lambda: survey(pretrained.model, ids, wanted))
    return {
        kind: HeadScores(torch.tensor(rows), mean_std(row_uniform_shares(wanted[kind]))[0])
        for kind in KINDS
        if (rows := found.get(kind))  # a text may have no punctuation
    }


def on_repeats(ctx: Context) -> tuple[HeadScores, Copying]:
    """Induction: scores, and losses, in random tokens that repeat and in others that do not."""
    model, choices = ctx.pretrained().model, ordinary_tokens(ctx.pretrained().tokenizer)
    length = min(ctx.numbers["length"], context_of(model))
    rows = copy_rows(choices, ctx.numbers["rows"], length, ctx.generator("random tokens"))

    def compute() -> list[Any]:
        both = (rows.tokens.to(ctx.device), rows.controls.to(ctx.device))
        scores = (survey(model, ids, {"induction": rows.wanted})["induction"] for ids in both)
        return [*scores, *(row_losses(model, ids).tolist() for ids in both)]

    repeats, controls, losses, other = map(torch.tensor, ctx.once("random tokens", compute))
    blind = mean_std(row_uniform_shares(rows.wanted))[0]
    return HeadScores(repeats, blind, control=controls.mean(dim=0)), Copying(rows, losses, other)


def read_sentences(ctx: Context) -> list[Sentence]:
    """The five sentences, cut to what is drawn and to the model's context."""
    pretrained, result = ctx.pretrained(), []
    most = min(ctx.numbers["shown"], context_of(pretrained.model))
    for name, text in SENTENCES.items():
        tokens = pretrained.tokenizer(text, add_special_tokens=False)["input_ids"][:most]
        ids = torch.tensor([tokens])
        maps = tuple(layer.cpu() for layer in read_maps(pretrained.model, ids.to(ctx.device)))
        result.append(Sentence(name, ids, tuple(pretrained.tokenizer.decode([token]) for token in tokens), maps))
    return result


def ablations(ctx: Context, scores: Mapping[str, HeadScores], copying: Copying, text: Tensor) -> list[Ablation]:
    """Losses without the best induction heads, without the best previous-token heads, and without random ones."""
    model, ranked = ctx.pretrained().model, scores["induction"].ranked
    size = min(ctx.numbers["ablated"], len(ranked) // 4)
    chosen = ranked[:size]
    others = [head for head in scores["previous"].ranked if head not in chosen][:size]
    sets = {"none": [], f"{size} best for induction": chosen, f"{size} best for the previous token": others}
    for draw in range(ctx.numbers["draws"]):
        sets[f"random {draw + 1}"] = random_heads(chosen, ranked, ctx.generator(f"random heads {draw}"))
    result = []
    for i, (name, heads) in enumerate(sets.items()):
        ctx.progress(0.5 + 0.45 * i / len(sets), f"without heads: {name}")

        def compute(heads: list[Head] = heads) -> Any:
            with without_heads(model, heads):
                repeats = row_losses(model, copying.rows.tokens.to(ctx.device)) if heads else copying.losses
                return [repeats.tolist(), row_losses(model, text).mean().item()]

        losses, nats = ctx.once(f"without heads: {name}", compute)
        result.append(Ablation(name, heads, *copying.rows.split(torch.tensor(losses)), nats))
    return result


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    text = text_windows(ctx)
    ctx.progress(0.05, "attention in held-out text")
    scores = on_text(ctx, text)
    ctx.progress(0.2, "random tokens that repeat")
    scores["induction"], copying = on_repeats(ctx)
    removed: list[Ablation] | str
    try:
        output_projections(ctx.pretrained().model)
    except LookupError as unknown:
        removed = str(unknown)
    else:
        removed = ablations(ctx, scores, copying, text[: ctx.numbers["ablation_windows"]])
    ctx.progress(0.95, "five sentences")
    sentences = read_sentences(ctx)
    return Findings(
        scores=scores,
        window=text.shape[1],
        sentences=sentences,
        marks=[marks(ctx.pretrained().tokenizer, sentence.ids) for sentence in sentences],
        drawn=heads_to_draw(list(scores.values())),
        copying=copying,
        ablations=removed,
    )


# --- The parts --------------------------------------------------------------------------------------------------


def name_of(*heads: Head) -> str:
    """As readers see them: layer and head, from 0."""
    return ", ".join(f"L{layer}H{number}" for layer, number in heads)


def signed(value: float) -> str:
    """With two decimals and a sign."""
    return f"{value:+.2f}".replace("-", "−")


def part_a(f: Findings) -> Part:
    """The maps."""
    weights = tuple(
        tuple(
            tuple(
                tuple(tuple(round(w, 4) for w in row) for row in sentence.maps[layer][0, head].tolist())
                for head in heads
            )
            for layer, heads in f.drawn.items()
        )
        for sentence in f.sentences
    )
    drawn = {kind: [head for head in s.named if is_drawn(f, head)] for kind, s in f.scores.items()}
    named = ", ".join(f"{name_of(heads[0])} ({KINDS[kind]})" for kind, heads in drawn.items() if heads)
    caption = (
        f"Attention in five sentences, {len(f.drawn)} layers × {len(f.drawn[min(f.drawn)])} heads. Rows are queries, "
        "columns keys; layers and heads count from 0. "
        + (f"Among them are heads that (b) names: {named}." if named else "No head that (b) names is among them.")
    )
    pieces = tuple(sentence.pieces for sentence in f.sentences)
    maps = AttentionMaps(pieces, tuple(f.drawn), tuple(map(tuple, f.drawn.values())), weights, caption)
    text = (
        "A row is a query $i$, which shares its attention among the keys $j \\le i$: $\\sum_{j \\le i} A_{ij} = 1$. "
        "There is one layer of each quarter of the depth: those that come, together, closest to the best head of every "
        "kind in (b), and in each layer one head after another that adds most to that. A stripe below the diagonal "
        "looks at the token before, a dark first column rests on the first token, and a dark column elsewhere is a "
        "token that many queries look at."
    )
    return Part("a", (Prose(text), maps), "Attention patterns of five sentences")


def is_drawn(f: Findings, head: Head) -> bool:
    """Whether (a) shows it."""
    return head[1] in f.drawn.get(head[0], ())


def specialists(f: Findings) -> Table:
    """The best head of each kind."""
    rows = []
    for kind, s in f.scores.items():
        mean, spread = mean_std(s.of(s.best))
        where = "repeated random tokens" if kind == "induction" else "held-out text"
        named = str(len(s.named)) if s.named else "none"
        drawn = "yes" if is_drawn(f, s.best) else "no"
        rows.append((KINDS[kind], name_of(s.best), where, mean, spread, s.blind, mean / s.blind, named, drawn))
    columns = (
        *("kind of key", "best head", "measured in", "share of its attention", "± std over rows", "blind head"),
        *("times the blind head", "heads named", "drawn in (a)"),
    )
    caption = (
        "The best head of each kind; L1H0 is head 0 of layer 1. A blind head attends uniformly to all keys that it may "
        f"see. Rows: {len(f.scores['previous'].rows)} windows of {f.window} tokens of held-out text, or the random "
        "rows of (c)."
    )
    return Table(columns, tuple(rows), caption, "specialists")


def by_sentence(f: Findings) -> Table:
    """What the best heads do in the five sentences."""
    rows = []
    for i, sentence in enumerate(f.sentences):
        came_before = same_token(sentence.ids)[0].any(dim=-1).tolist()
        again = [piece.strip() for piece, known in zip(sentence.pieces, came_before, strict=True) if known]
        shares = (f.in_sentence(i, kind, s.best) for kind, s in f.scores.items())
        rows.append((sentence.name, len(sentence.pieces), *shares, " ".join(again)))
    columns = ("sentence", "tokens", *(f"{KINDS[kind]}: {name_of(s.best)}" for kind, s in f.scores.items()))
    caption = (
        "The same heads in each of the five sentences. Share of attention, empty where there is no such key; the last "
        "column has the tokens that came before, for which there is something to copy."
    )
    return Table((*columns, "tokens that came before"), tuple(rows), caption, "sentences")


def every_head(f: Findings) -> Table:
    """All scores of all heads."""
    control = f.scores["induction"].control
    assert control is not None
    rows = []
    for head in sorted(f.scores["previous"].ranked):
        names = ", ".join(KINDS[kind] for kind, s in f.scores.items() if head in s.named)
        shares = (s.mean[head].item() for s in f.scores.values())
        rows.append((name_of(head), *head, *shares, control[head].item(), names))
    kinds_and_blind = (f"{KINDS[kind]} (blind {s.blind:.3f})" for kind, s in f.scores.items())
    columns = ("head", "layer", "number", *kinds_and_blind, "same places, no repetition", "named")
    caption = (
        "Every head. Share of its attention on each kind of key, mean over rows; a blind head's is in the heading. The "
        "last share is that on the places which count for induction, where tokens do not repeat."
    )
    return Table(columns, tuple(rows), caption, "heads")


def part_b(f: Findings) -> Part:
    """Specialists."""
    found, missing = [], []
    for kind, s in f.scores.items():
        share, spread = mean_std(s.of(s.best))
        others = f" and {len(s.named) - 1} more" if len(s.named) > 1 else ""
        if s.named:
            measured = f"{share:.2f} ± {spread:.2f}, {share / s.blind:.0f} times blind"
            found.append(f"**{KINDS[kind]}** {name_of(s.best)} ({measured}){others}")
        else:
            missing.append(f"{KINDS[kind]} (the highest is {name_of(s.best)} with {share:.2f})")
    heads = f.scores["previous"].mean.numel()
    nameless = heads - len({head for s in f.scores.values() for head in s.named})
    text = (
        "The score of a head for a kind of key is the share of its attention on such keys, "
        "$\\frac{1}{|Q|} \\sum_{i \\in Q} \\sum_{j \\in K_i} A_{ij}$, over the queries $Q$ that have one. A head is "
        f"named where that is at least {SHARE:g} and at least {TIMES} times what a blind head has; for induction, also "
        f"{TIMES} times its own control in (c). Marks in a window's first place do not count as punctuation: heads "
        "that rest on the first token would score on them.\n\n"
        + (f"Named: {'; '.join(found)}. " if found else f"None of the {heads} heads is named. ")
        + (f"None for {'; '.join(missing)}. " if missing else "")
        + f"{nameless} of {heads} heads have no name: they share their attention between kinds, spread it, or look for "
        "something that no score here asks for. Heads that rest on the first token are the subject of Exercise 21.29."
    )
    layers, numbers = (tuple(map(str, range(size))) for size in f.scores["previous"].mean.shape)
    maps = tuple(
        Heatmap(
            tuple(map(tuple, s.mean.tolist())),
            *("head", "layer", f"{KINDS[kind].capitalize()}. Share of attention; a blind head has {s.blind:.3f}."),
            *(numbers, layers),
        )
        for kind, s in f.scores.items()
    )
    return Part("b", (Prose(text), specialists(f), by_sentence(f), *maps, every_head(f)), "Heads that specialise")


def aligned(f: Findings, losses: Tensor, name: str) -> Series:
    """Mean loss by distance from the first token that can be copied, with its standard error."""
    distances, rows = f.copying.rows.aligned(losses)
    means, spreads = zip(*(mean_std(column) for column in rows.T.tolist()), strict=True)
    return Series(name, tuple(distances), means, tuple(spread / math.sqrt(len(rows)) for spread in spreads))


def attention_said(f: Findings) -> str:
    """Where the heads look."""
    s = f.scores["induction"]
    best, control = s.best, s.control
    assert control is not None
    highest = (
        f"The highest, {name_of(best)}, puts {s.mean[best]:.2f} of its attention on such keys, where a blind head has "
        f"{s.blind:.3f} and the same head, at the same places of rows that do not repeat, {control[best]:.3f}."
    )
    if not s.named:
        return f"**Attention.** No head has the score of an induction head. {highest}"
    rest = [f.scores["first"].mean[head].item() for head in s.named]
    have, who = ("One head has", "it gives") if len(s.named) == 1 else (f"{len(s.named)} heads have", "they give")
    given = " to ".join(dict.fromkeys(f"{value:.2f}" for value in (min(rest), max(rest))))
    return (
        f"**Attention.** {have} the score of an induction head: {name_of(*s.named)}. {highest} {circuit(f)} In "
        f"held-out text {who} the first token {given} of the attention. {in_the_five(f)}"
    )


def circuit(f: Findings) -> str:
    """Whether previous-token heads lie below the induction heads, of which there is at least one."""
    heads, previous = f.scores["induction"].named, f.scores["previous"].named
    above = [head for head in heads if any(layer < head[0] for layer, _ in previous)]
    if not above:
        return "Below none of them lies a named previous-token head, as the circuit of Olsson et al. would need it."
    below = [head for head in previous if head[0] < max(layer for layer, _ in heads)]
    which = "it" if len(heads) == 1 else "all of them" if above == heads else f"{len(above)} of them"
    return (
        f"Below {which} lie previous-token heads ({name_of(*below)}), as the two-layer circuit of Olsson et al. needs "
        "them: there, they tell each key which token came before it."
    )


def in_the_five(f: Findings) -> str:
    """The best induction head in the five sentences."""
    best = f.scores["induction"].best
    found = {
        s.name: share for i, s in enumerate(f.sentences) if (share := f.in_sentence(i, "induction", best)) is not None
    }
    if len(found) < 2:
        return ""
    top = max(found, key=lambda name: found[name])
    least, most = min(found.values()), sorted(found.values())[-2]
    return (
        f"Of the five sentences, the one called *{top}* in (b) has the highest share of {name_of(best)} on tokens to "
        f"copy, {found[top]:.2f}; others have {least:.2f} to {most:.2f}."
    )


def copiers(f: Findings) -> Table:
    """The heads with the highest induction scores."""
    s, control = f.scores["induction"], f.scores["induction"].control
    assert control is not None
    rows = []
    for head in s.ranked[:10]:
        first, verdict = f.scores["first"].mean[head].item(), "induction head" if head in s.named else ""
        rows.append((name_of(head), *mean_std(s.of(head)), s.blind, control[head].item(), first, verdict))
    (count, length), periods = f.copying.rows.tokens.shape, f.copying.rows.periods
    caption = (
        f"The highest induction scores. {count} rows of {length} random tokens; each repeats a block of a length of "
        f"its own, from {min(periods)} to {max(periods)} tokens."
    )
    columns = ("head", "share on induction keys", "± std over rows", "blind head", "same places, no repetition")
    return Table((*columns, "first token, in text", "verdict"), tuple(rows), caption, "induction")


def part_c(ctx: Context, f: Findings) -> tuple[Part, list[Check]]:
    """Induction heads: where they look, what the model predicts, and what it loses without them."""
    figure = Figure(
        "line",
        (aligned(f, f.copying.losses, "tokens repeat"), aligned(f, f.copying.controls, "they do not")),
        *("tokens since the first that can be copied", "loss (nats)"),
        "Loss where random tokens begin to repeat. Mean ± standard error over rows. From 0 on, the token before was "
        "seen earlier in the row, and so was what followed it.",
        hlines=((math.log(ctx.pretrained().model.config.vocab_size), "uniform guess"),),
    )
    text = (
        "An induction head completes *A B … A* with *B*: from the second *A* it looks at what followed the first, and "
        "predicts it again (Olsson et al., 2022). Random tokens have no meaning to go by. The rows repeat after "
        "different numbers of tokens: a head that always looks equally far back scores on one period only.\n\n"
        f"{attention_said(f)}\n\n{prediction_said(f)}"
    )
    named = len(f.scores["induction"].named)
    end = compare_paired(*f.copying.rows.split(f.copying.losses)).interval[1]
    removed, more = causal(f)
    checks = [
        Check.at_least("heads with the score of an induction head", named, 1, "empirical"),
        Check.at_most("loss where tokens repeat less loss before, upper end (nats)", end, 0.0, "empirical"),
        *more,
    ]
    return Part("c", (Prose(text), copiers(f), figure, *removed), "Evidence of induction heads"), checks


def prediction_said(f: Findings) -> str:
    """What the model expects of tokens that repeat."""
    first, repeated = f.copying.rows.split(f.copying.losses)
    drop, (distances, around) = compare_paired(first, repeated), f.copying.rows.aligned(f.copying.losses)
    same_places = mean_std(f.copying.rows.split(f.copying.controls)[1])[0]
    start = around[:, distances.index(0) :].mean(dim=0)
    low, high = drop.interval
    falls = {"lower": "falls", "higher": "rises"}.get(drop.verdict, "does not change beyond noise")
    gradual, lowest = "", start.min().item()
    if drop.verdict == "lower" and lowest < mean_std(first)[0]:
        half = int((start < (mean_std(first)[0] + lowest) / 2).nonzero()[0])
        later = f"; {half} token{'s' * (half != 1)} later it is" if half else ", which is"
        gradual = f" At the first token that can be copied it is {start[0]:.2f}{later} more than half of the way down."
    return (
        f"**Prediction.** The loss {falls} where the tokens repeat: {mean_std(first)[0]:.2f} nats before, "
        f"{mean_std(repeated)[0]:.2f} after (95 % interval of the change over rows {signed(low)} to {signed(high)}), "
        f"and {same_places:.2f} at the same places of rows that do not repeat.{gradual}"
    )


def rises(f: Findings) -> tuple[list[float], list[float]]:
    """Change of each row's loss in the repetitions, nats: without the best heads, and without random ones (mean)."""
    assert not isinstance(f.ablations, str)
    whole, chosen, _, *draws = f.ablations
    rises = [[b - a for a, b in zip(whole.repeated, each.repeated, strict=True)] for each in (chosen, *draws)]
    return rises[0], [sum(row) / len(row) for row in zip(*rises[1:], strict=True)]


def causal(f: Findings) -> tuple[list[Block], list[Check]]:
    """What the model loses without the heads."""
    if isinstance(f.ablations, str):
        return [Prose(f"**Cause.** Not tested: {f.ablations}.")], []
    whole, best, before, *draws = f.ablations
    rows = []
    for each in f.ablations:
        change, early = compare_paired(whole.repeated, each.repeated), compare_paired(whole.first, each.first)
        means = mean_std(each.repeated)[0], change.difference, *change.interval, early.difference
        rows.append((each.name, name_of(*each.heads), *means, each.text, each.text - whole.text))
    columns = (
        *("removed", "heads", "loss where tokens repeat (nats)", "change (nats)", "95 % from", "95 % to"),
        *("change before they repeat (nats)", "loss in text (nats)", "change in text (nats)"),
    )
    chosen, random = rises(f)
    difference = compare_paired(random, chosen)
    low, high = difference.interval
    verdict = {
        "higher": "the model does rest its copying on them",
        "lower": "the score does not find what the model copies with",
    }.get(difference.verdict, "no difference beyond noise")
    elsewhere = mean_std([each.text - whole.text for each in draws])[0]
    lost = compare_paired(whole.repeated, before.repeated).difference
    text = (
        f"**Cause.** With the outputs of the {len(best.heads)} heads of the highest induction scores set to zero, the "
        f"loss where tokens repeat changes by {signed(mean_std(chosen)[0])} nats; without as many random heads, of the "
        f"same layers while they have others, by {signed(mean_std(random)[0])}. The difference is "
        f"{signed(difference.difference)} (95 % interval over rows {signed(low)} to {signed(high)}): {verdict}. In "
        f"held-out text the loss changes by {signed(best.text - whole.text)} without the former and by "
        f"{signed(elsewhere)} without the latter. Without the {len(before.heads)} others that attend most to the "
        f"previous token, the loss where tokens repeat changes by {signed(lost)}, and in text by "
        f"{signed(before.text - whole.text)}."
    )
    caption = (
        "Losses without some heads. Intervals over rows of random tokens, paired; random heads come from the layers of "
        "the best for induction, while these have others."
    )
    claim = "removing the best induction heads costs more than removing random ones, lower end (nats)"
    check = Check.at_least(claim, low, 0.0, "empirical")
    return [Prose(text), Table(columns, tuple(rows), caption, "ablation")], [check]


# --- Checks -----------------------------------------------------------------------------------------------------


def exact_checks(ctx: Context, f: Findings) -> list[Check]:
    """The maps and the scores against what must hold of them."""
    maps = [layer for sentence in f.sentences for layer in sentence.maps]
    sums = max((layer.sum(dim=-1) - 1).abs().max().item() for layer in maps)
    future = max(layer.triu(1).abs().max().item() for layer in maps)
    sentence = max(f.sentences, key=lambda sentence: len(sentence.pieces))
    wanted = kinds(sentence.ids, f.marks[f.sentences.index(sentence)])
    T = len(sentence.pieces)
    uniform = (torch.ones(T, T).tril() / torch.arange(1, T + 1)[:, None])[None, None]
    errors = (
        abs(value[0][0] - blind)
        for keys in wanted.values()
        for value, blind in zip(row_shares([uniform], keys), row_uniform_shares(keys), strict=True)
    )
    planted = uniform.repeat(1, 3, 1, 1)
    planted[:, 1, 1:] = 0.8 * wanted["previous"][:, 1:] + 0.2 * uniform[0, :, 1:]
    found = HeadScores(
        torch.tensor(row_shares([planted], wanted["previous"])), row_uniform_shares(wanted["previous"])[0]
    )
    expected = 0.8 + 0.2 * found.blind
    tokens = f.copying.rows.tokens
    row, query, key = f.copying.rows.wanted[:, :-1].nonzero().T
    follows = (tokens[row, key] == tokens[row, query + 1]).double().mean().item()
    return [
        Check.at_most("rows of the maps sum to 1 (largest error)", sums, 1e-4),
        Check.equal("attention on the future (largest weight)", future, 0.0),
        Check.at_most("a blind head has the blind share for every kind of key (largest error)", max(errors), 1e-6),
        Check.close("a planted head, 4/5 on the token before, has the share", found.mean[0, 1].item(), expected, 1e-6),
        Check.equal("heads named beside two blind ones: the planted one", name_of(*found.named), "L0H1"),
        Check.equal("the keys of induction hold the token that comes next (share)", follows, 1.0),
        *rebuilt(ctx, sentence),
    ]


def rebuilt(ctx: Context, sentence: Sentence) -> list[Check]:
    """The maps against what the model's own attention puts out: maps times values."""
    try:
        values, outputs = head_outputs(ctx.pretrained().model, sentence.ids.to(ctx.device))
    except LookupError:
        return []
    triples = zip(sentence.maps, values, outputs, strict=True)
    errors = [((m @ v.cpu() - o.cpu()).abs().max() / o.abs().max().cpu()).item() for m, v, o in triples]
    claim = "maps times values against the outputs of the model's own heads, all layers (largest relative error)"
    return [Check.at_most(claim, max(errors), 1e-4)]


def metrics_of(f: Findings) -> dict[str, float | int]:
    """Every number that the exercise asks for."""
    found: dict[str, float | int] = {"heads": f.scores["previous"].mean.numel()}
    for kind, s in f.scores.items():
        where = f"layer_{s.best[0]}_head_{s.best[1]}"
        found[f"share_{kind}_best"], found[f"share_{kind}_best_std"] = mean_std(s.of(s.best))
        found[f"share_{kind}_{where}"] = found[f"share_{kind}_best"]
        found[f"share_{kind}_blind"] = s.blind
        found[f"heads_named_{kind}"] = len(s.named)
    induction = f.scores["induction"]
    if induction.control is not None:
        found["share_induction_best_no_repetition"] = induction.control[induction.best].item()
    first, repeated = f.copying.rows.split(f.copying.losses)
    found["loss_before_repetition_nats"], found["loss_in_repetition_nats"] = mean_std(first)[0], mean_std(repeated)[0]
    found["loss_same_places_no_repetition_nats"] = mean_std(f.copying.rows.split(f.copying.controls)[1])[0]
    if not isinstance(f.ablations, str):
        chosen, random = rises(f)
        found["loss_change_without_induction_heads_nats"] = mean_std(chosen)[0]
        found["loss_change_without_random_heads_nats"] = mean_std(random)[0]
        difference, name = compare_paired(random, chosen), "loss_change_induction_less_random_heads"
        found[f"{name}_nats"] = difference.difference
        found[f"{name}_low_nats"], found[f"{name}_high_nats"] = difference.interval
        found["heads_removed"] = len(f.ablations[1].heads)
        found["loss_text_nats"] = f.ablations[0].text
        found["loss_text_without_induction_heads_nats"] = f.ablations[1].text
    return found


def answer(ctx: Context) -> Answer:
    """All three parts."""
    pretrained, f = ctx.pretrained(), measure(ctx)
    evidence, checks = part_c(ctx, f)
    named = {KINDS[kind]: s for kind, s in f.scores.items() if s.named}
    best = ", ".join(f"{kind} {name_of(s.best)} ({s.mean[s.best]:.2f})" for kind, s in named.items())
    copied = f.copying.rows.split(f.copying.losses)
    share = f.scores["previous"].mean[f.scores["previous"].best].item()
    checks.insert(0, Check.at_least("share of the best previous-token head", share, SHARE, "empirical"))
    return Answer(
        summary=f"{pretrained.name}: {f'best heads {best}' if best else 'no head specialises'}; where random tokens "
        f"repeat, the loss goes from {mean_std(copied[0])[0]:.1f} to {mean_std(copied[1])[0]:.1f} nats.",
        parts=(part_a(f), part_b(f), evidence),
        checks=(*exact_checks(ctx, f), *checks),
        metrics=metrics_of(f),
        notes=(pretrained.note,) if pretrained.note else (),
    )


EXERCISE = Exercise(
    id="21.17",
    title="Attention Pattern Analysis",
    answer=answer,
    sources=("main", "pretrained"),
    numbers={
        "smoke": {
            **{"windows": 4, "window": 64, "rows": 4, "length": 48},
            **{"ablated": 4, "draws": 2, "ablation_windows": 2, "shown": 32},
        },
        "laptop": {
            **{"windows": 16, "window": 128, "rows": 8, "length": 96},
            **{"ablated": 8, "draws": 3, "ablation_windows": 4, "shown": 32},
        },
        "gpu": {
            **{"windows": 64, "window": 256, "rows": 32, "length": 192},
            **{"ablated": 8, "draws": 8, "ablation_windows": 16, "shown": 32},
        },
    },
    seconds={"smoke": 6, "laptop": 48, "gpu": 30},
)
