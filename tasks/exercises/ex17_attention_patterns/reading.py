"""What 21.17 reads off the model, as tensors: attention in text and in random tokens, and losses without heads."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from minigpt.analysis.head_ablation import Head, output_projections, random_heads, without_heads
from minigpt.analysis.head_scores import row_shares, row_uniform_shares
from minigpt.analysis.head_survey import HeadScores, heads_to_draw, kinds, read_maps, survey
from minigpt.analysis.induction import CopyRows, copy_rows
from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.words import is_punctuation
from minigpt.pretrained.causal_lm import ordinary_tokens, row_losses
from minigpt.pretrained.limits import context_of
from minigpt.pretrained.quick import quick
from tasks.exercise import Context
from tasks.exercises.ex17_attention_patterns.findings import KINDS

FEWEST = 8  # different tokens, with which rows can repeat after different numbers of them

SENTENCES = {
    "plain": "The old man walked slowly down to the river to see the boats.",
    "quotation": '"Stop," she said, "for the bridge, I fear, is closed today."',
    "repeated names": "Tom Marlow met Ann Perth; later Tom Marlow wrote to Ann Perth.",
    "code": "for word in words: print(word, len(word))",
    "question": "Why did the doctor who saw the children leave so early?",
}


@dataclass(frozen=True)
class ReadSentence:
    """A sentence as the model reads it."""

    name: str
    ids: Tensor  # (1, T), on the CPU
    pieces: tuple[str, ...]
    maps: tuple[Tensor, ...]  # per layer (1, H, T, T), on the CPU
    marks: Tensor  # which tokens are punctuation, (1, T)

    def share(self, kind: str, head: Head) -> float | None:
        """A head's share on one kind of key; None where the sentence has no such key."""
        layer, number = head
        rows = row_shares([self.maps[layer]], kinds(self.ids, self.marks)[kind])
        return rows[0][0][number] if rows else None


@dataclass(frozen=True)
class RandomTokens:
    """Losses in random tokens, (R, T - 1)."""

    rows: CopyRows
    losses: Tensor  # of tokens that repeat
    controls: Tensor  # of tokens that do not


@dataclass(frozen=True)
class Removal:
    """Losses without some heads: in rows that repeat, and in text."""

    name: str
    heads: list[Head]
    first: list[float]  # loss per row, nats
    repeated: list[float]
    text: float  # in held-out text


@dataclass(frozen=True)
class Readings:
    """All of it."""

    scores: dict[str, HeadScores]  # by kind of key
    window: int  # tokens
    sentences: list[ReadSentence]
    drawn: dict[int, list[int]]  # layer: heads
    copying: RandomTokens | None  # None where there are too few tokens to choose from
    removals: list[Removal] | str  # or why there are none
    beside_previous: list[Removal]  # random heads of the layers of those that were removed for the previous token


def read(ctx: Context) -> Readings:
    """Everything that needs the model."""
    text = text_windows(ctx)
    ctx.progress(0.05, "attention in held-out text")
    scores = on_text(ctx, text)
    ctx.progress(0.2, "random tokens that repeat")
    copying: RandomTokens | None = None
    removed: list[Removal] | str = "without rows that repeat there is no score of induction to go by"
    beside: list[Removal] = []
    if len(ordinary_tokens(ctx.pretrained().tokenizer)) >= FEWEST:
        scores["induction"], copying = on_repeats(ctx)
        try:
            output_projections(ctx.pretrained().model)
        except LookupError as unknown:
            removed = str(unknown)
        else:
            removed, beside = removals(ctx, scores, copying, text[: ctx.numbers["ablation_windows"]])
    ctx.progress(0.95, "five sentences")
    return Readings(
        scores=scores,
        window=text.shape[1],
        sentences=read_sentences(ctx),
        drawn=heads_to_draw(list(scores.values())),
        copying=copying,
        removals=removed,
        beside_previous=beside,
    )


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


def on_repeats(ctx: Context) -> tuple[HeadScores, RandomTokens]:
    """Induction: scores, and losses, in random tokens that repeat and in others that do not."""
    model, choices = ctx.pretrained().model, ordinary_tokens(ctx.pretrained().tokenizer)
    length = min(ctx.numbers["length"], context_of(model))
    rows = copy_rows(choices, ctx.numbers["rows"], length, ctx.generator("random tokens"))

    def compute() -> list[Any]:
        both = (rows.tokens.to(ctx.device), rows.controls.to(ctx.device))
        scores = (survey(model, ids, {"induction": rows.wanted})["induction"] for ids in both)
        reader = quick(model, ctx.precision)  # as without heads: losses are compared
        return [*scores, *(row_losses(reader, ids).tolist() for ids in both)]

    repeats, controls, losses, other = map(torch.tensor, ctx.once("random tokens", compute))
    blind = mean_std(row_uniform_shares(rows.wanted))[0]
    return HeadScores(repeats, blind, control=controls.mean(dim=0)), RandomTokens(rows, losses, other)


def read_sentences(ctx: Context) -> list[ReadSentence]:
    """The five sentences, cut to what is drawn and to the model's context."""
    pretrained, result = ctx.pretrained(), []
    tokenizer = pretrained.tokenizer
    most = min(ctx.numbers["shown"], context_of(pretrained.model))
    for name, text in SENTENCES.items():
        tokens = tokenizer(text, add_special_tokens=False)["input_ids"][:most]
        ids = torch.tensor([tokens])
        maps = tuple(layer.cpu() for layer in read_maps(pretrained.model, ids.to(ctx.device)))
        pieces = tuple(tokenizer.decode([token]) for token in tokens)
        result.append(ReadSentence(name, ids, pieces, maps, marks(tokenizer, ids)))
    return result


def removals(
    ctx: Context, scores: Mapping[str, HeadScores], copying: RandomTokens, text: Tensor
) -> tuple[list[Removal], list[Removal]]:
    """Losses without the best induction heads, without the best previous-token heads, and without random ones.

    The random ones of the first list are of the layers of the former, those of the second of the layers of the latter.
    """
    model, ranked = quick(ctx.pretrained().model, ctx.precision), scores["induction"].ranked
    size = min(ctx.numbers["ablated"], len(ranked) // 4)
    chosen = ranked[:size]
    others = [head for head in scores["previous"].ranked if head not in chosen][:size]
    sets = {"none": [], f"{size} best for induction": chosen, f"{size} best for the previous token": others}
    draws = range(ctx.numbers["draws"])
    for draw in draws:
        sets[f"random {draw + 1}"] = random_heads(chosen, ranked, ctx.generator(f"random heads {draw}"))
    matched = [head for head in ranked if head not in chosen]  # else copying would be hurt by way of the best
    for draw in draws:
        generator = ctx.generator(f"random heads beside the previous token's {draw}")
        sets[f"random {draw + 1}, layers of the previous token's"] = random_heads(others, matched, generator)
    result = []
    for i, (name, heads) in enumerate(sets.items()):
        ctx.progress(0.5 + 0.45 * i / len(sets), f"without heads: {name}")

        def compute(heads: list[Head] = heads) -> Any:
            with without_heads(model, heads):
                repeats = row_losses(model, copying.rows.tokens.to(ctx.device)) if heads else copying.losses
                return [repeats.tolist(), row_losses(model, text).mean().item()]

        losses, nats = ctx.once(f"without heads: {name}", compute)
        result.append(Removal(name, heads, *copying.rows.split(torch.tensor(losses)), nats))
    return result[: 3 + len(draws)], result[3 + len(draws) :]
