"""Measures 21.17: what is read off the model (``reading``), as plain data and held against what must hold of it."""

import math

import torch
from torch import Tensor

from minigpt.analysis.head_ablation import head_outputs
from minigpt.analysis.head_scores import row_shares, row_uniform_shares, same_token
from minigpt.analysis.head_survey import HeadScores, kinds
from minigpt.evaluation.statistics import mean_std
from tasks.exercise import Context, Exercise
from tasks.exercises.ex17_attention_patterns.findings import (
    Ablation,
    Accuracy,
    Copying,
    Curve,
    Findings,
    Scores,
    Sentence,
)
from tasks.exercises.ex17_attention_patterns.reading import RandomTokens, Readings, ReadSentence, Removal, read


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    return plain(ctx, read(ctx))


def plain(ctx: Context, r: Readings) -> Findings:
    """Readings as plain data."""
    pretrained = ctx.pretrained()
    removals = () if isinstance(r.removals, str) else r.removals
    return Findings(
        model=pretrained.name,
        note=pretrained.note,
        vocab_size=pretrained.model.config.vocab_size,
        window=r.window,
        scores={kind: scores_of(s) for kind, s in r.scores.items()},
        sentences=tuple(sentence_of(r, sentence) for sentence in r.sentences),
        drawn={layer: tuple(heads) for layer, heads in r.drawn.items()},
        copying=copying_of(r.copying) if r.copying else None,
        ablations=tuple(map(ablation_of, removals)),
        beside_previous=tuple(map(ablation_of, r.beside_previous)),
        untested=r.removals if isinstance(r.removals, str) else "",
        accuracy=accuracy(ctx, r),
    )


def ablation_of(each: Removal) -> Ablation:
    """Losses without some heads."""
    return Ablation(each.name, tuple(each.heads), tuple(each.first), tuple(each.repeated), each.text)


def scores_of(s: HeadScores) -> Scores:
    """One kind of key."""
    return Scores(
        rows=tuple(tuple(map(tuple, row)) for row in s.rows.tolist()),
        mean=tuple(map(tuple, s.mean.tolist())),
        blind=s.blind,
        control=None if s.control is None else tuple(map(tuple, s.control.tolist())),
        ranked=tuple(s.ranked),
        named=tuple(s.named),
    )


def sentence_of(r: Readings, sentence: ReadSentence) -> Sentence:
    """One sentence: the maps of the heads that are drawn, and the shares of the best head of each kind."""
    return Sentence(
        name=sentence.name,
        pieces=sentence.pieces,
        came_before=tuple(same_token(sentence.ids)[0].any(dim=-1).tolist()),
        shares={kind: sentence.share(kind, s.best) for kind, s in r.scores.items()},
        maps=tuple(
            tuple(
                tuple(tuple(round(w, 4) for w in row) for row in sentence.maps[layer][0, head].tolist())
                for head in heads
            )
            for layer, heads in r.drawn.items()
        ),
    )


def copying_of(copying: RandomTokens) -> Copying:
    """Losses in rows that repeat and in those that do not."""
    rows = copying.rows
    first, repeated = rows.split(copying.losses)
    distances, around = rows.aligned(copying.losses)
    return Copying(
        length=rows.tokens.shape[1],
        periods=tuple(rows.periods),
        first=tuple(first),
        repeated=tuple(repeated),
        control=tuple(rows.split(copying.controls)[1]),
        curve=curve_of(distances, around),
        control_curve=curve_of(*rows.aligned(copying.controls)),
        after=tuple(around[:, distances.index(0) :].mean(dim=0).tolist()),
    )


def curve_of(distances: list[int], rows: Tensor) -> Curve:
    """Mean over rows (R, distances), with its standard error."""
    means, spreads = zip(*(mean_std(column) for column in rows.T.tolist()), strict=True)
    return Curve(tuple(distances), means, tuple(spread / math.sqrt(len(rows)) for spread in spreads))


def accuracy(ctx: Context, r: Readings) -> Accuracy:
    """The maps and the scores against what must hold of them."""
    maps = [layer for sentence in r.sentences for layer in sentence.maps]
    sentence = max(r.sentences, key=lambda sentence: len(sentence.pieces))
    wanted = kinds(sentence.ids, sentence.marks)
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
    next_token = None
    if r.copying is not None:
        tokens = r.copying.rows.tokens
        row, query, key = r.copying.rows.wanted[:, :-1].nonzero().T
        next_token = (tokens[row, key] == tokens[row, query + 1]).double().mean().item()
    return Accuracy(
        row_sums=max((layer.sum(dim=-1) - 1).abs().max().item() for layer in maps),
        future=max(layer.triu(1).abs().max().item() for layer in maps),
        blind_error=max(errors),
        planted_share=found.mean[0, 1].item(),
        planted_expected=0.8 + 0.2 * found.blind,
        planted_named=tuple(found.named),
        next_token=next_token,
        rebuilt=rebuilt(ctx, sentence),
    )


def rebuilt(ctx: Context, sentence: ReadSentence) -> float | None:
    """The maps against what the model's own attention puts out: maps times values, largest relative error."""
    try:
        values, outputs = head_outputs(ctx.pretrained().model, sentence.ids.to(ctx.device))
    except LookupError:
        return None
    triples = zip(sentence.maps, values, outputs, strict=True)
    return max(((m @ v.cpu() - o.cpu()).abs().max() / o.abs().max().cpu()).item() for m, v, o in triples)


EXERCISE = Exercise(
    measure=measure,
    sources=("main", "pretrained"),
    numbers={
        "smoke": {
            "windows": 4,
            "window": 64,
            "rows": 4,
            "length": 48,
            "ablated": 4,
            "draws": 2,
            "ablation_windows": 2,
            "shown": 32,
        },
        "laptop": {
            "windows": 16,
            "window": 128,
            "rows": 8,
            "length": 96,
            "ablated": 8,
            "draws": 3,
            "ablation_windows": 4,
            "shown": 32,
        },
        "gpu": {
            "windows": 64,
            "window": 256,
            "rows": 32,
            "length": 192,
            "ablated": 8,
            "draws": 8,
            "ablation_windows": 16,
            "shown": 32,
        },
    },
    seconds={"smoke": 6, "laptop": 40, "gpu": 30},
)
