"""Measures 21.24: what a text costs the pretrained model, by token and by word, and the same on other ways."""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import torch

from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.word_losses import KINDS, Token
from minigpt.pretrained.limits import context_of
from tasks.exercise import Context, Exercise
from tasks.exercises.ex24_loss_decomposition.effects import comparisons
from tasks.exercises.ex24_loss_decomposition.findings import (
    BOUNDS,
    EXTREMES,
    FLAGS,
    PLACES,
    Findings,
    FirstWords,
    Group,
    Line,
    Modern,
    Oracle,
    PassageToken,
    Text,
    mean,
    share,
)
from tasks.exercises.ex24_loss_decomposition.reading import Reading, position_bin, read, read_modern


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    pretrained, reading = ctx.pretrained(), read(ctx)
    whole = reading.whole_words
    ctx.progress(0.9, "comparing words")
    return Findings(
        model=pretrained.name,
        note=pretrained.note,
        before=reading.before,
        window=reading.window,
        passage=passage(reading),
        text=whole_text(reading),
        words=len(whole),
        function_words=mean(float(word.function) for word in whole),
        different_function_words=len({word.text.lower() for word in whole if word.function}),
        different_content_words=len({word.text.lower() for word in whole if not word.function}),
        first_words=first_words(reading),
        by_position=by_position(reading),
        by_place=by_place(reading),
        comparisons=comparisons(ctx, reading),
        modern=modern(ctx),
        oracle=oracle(ctx, reading),
    )


def modern(ctx: Context) -> Modern:
    """The modern passage."""
    reading = read_modern(ctx)
    return Modern(
        begins=reading.before,
        pieces=reading.text.pieces,
        losses=tuple(reading.text.losses.tolist()),
        bits_per_byte=reading.text.bits_per_byte,
        first_words=first_words(reading),
        comparisons=comparisons(ctx, reading),
    )


def passage(reading: Reading) -> tuple[PassageToken, ...]:
    """The tokens that are shown, each with the end of what stands before it."""
    found = []
    for token, (choice, probability) in zip(reading.tokens[: reading.passage], reading.choices, strict=True):
        start = reading.text.ends[token.index - 1] if token.index else 0
        found.append(
            PassageToken(
                index=token.index,
                piece=token.piece,
                before=(reading.before + reading.text.text[:start])[-32:],
                loss=token.loss,
                choice=choice,
                probability=probability,
                kind=token.kind,
                word=token.word.text if token.word else "",
                name=token.name,
                rare=token.rare,
                begins=token.begins,
                seen=token.seen,
            )
        )
    return tuple(found)


def whole_text(reading: Reading) -> Text:
    """What the text costs, and what its tokens are."""
    tokens, text = reading.tokens, reading.text
    size = max(EXTREMES, text.tokens // 20)
    total = sum(token.loss for token in tokens)
    kinds = {}
    for kind in KINDS:
        own = [token.loss for token in tokens if token.kind == kind]
        kinds[kind] = Group(len(own), mean(own) if own else None, sum(own) / total)
    return Text(
        tokens=text.tokens,
        nats=text.nats,
        perplexity=text.perplexity,
        bits_per_byte=text.bits_per_byte,
        kinds=kinds,
        shares=shares(tokens),
        extremes=size,
        highest=shares(sorted(tokens, key=lambda token: token.loss, reverse=True)[:size]),
        lowest=shares(sorted(tokens, key=lambda token: token.loss)[:size]),
    )


def shares(tokens: Sequence[Token]) -> dict[str, float]:
    """By flag."""
    return {flag: share(tokens, flag) for flag in FLAGS}


def line(name: str, groups: Mapping[str, list[float]] | Mapping[int, list[float]]) -> Line:
    """Means with standard errors."""
    kept = {x: values for x, values in groups.items() if len(values) > 1}
    stats = [mean_std(values) for values in kept.values()]
    errors = (spread / math.sqrt(len(values)) for (_, spread), values in zip(stats, kept.values(), strict=True))
    return Line(name, tuple(kept), tuple(m for m, _ in stats), tuple(errors))


def by_position(reading: Reading) -> Line:
    """Loss by position in the window."""
    edges = [0, *(bound for bound in BOUNDS if bound < reading.window), reading.window]
    bins: dict[str, list[float]] = {f"{low}–{high - 1}": [] for low, high in itertools.pairwise(edges)}
    for token in reading.tokens:
        list(bins.values())[position_bin(token.index % reading.window)].append(token.loss)
    return line("all tokens", bins)


def by_place(reading: Reading) -> tuple[Line, ...]:
    """Loss by place in the sentence."""
    words = [word for word in reading.whole_words if word.place is not None]
    groups = {
        "all words": words,
        "function words": [word for word in words if word.function],
        "content words": [word for word in words if not word.function],
    }
    return tuple(
        line(name, {place + 1: [word.first for word in own if word.place == place] for place in range(PLACES)})
        for name, own in groups.items()
    )


def first_words(reading: Reading) -> FirstWords | None:
    """What sentences begin with."""
    starts = [word for word in reading.whole_words if word.place == 0]
    if not starts:
        return None
    text, number = Counter(word.text for word in starts).most_common(1)[0]
    own, others = ([word.first for word in starts if (word.text == text) is same] for same in (True, False))
    return FirstWords(
        sentences=len(starts),
        commonest=text,
        number=number,
        loss=mean(own),
        others=mean(others) if others else None,
        function=mean(float(word.function) for word in starts),
        inner_function=mean(float(word.function) for word in reading.whole_words if word.place),
    )


# --- On other ways ------------------------------------------------------------------------------------------------


@torch.inference_mode()
def oracle(ctx: Context, reading: Reading) -> Oracle:
    """Alignment, and sums."""
    model, text = ctx.pretrained().model, reading.text
    size = min(64, reading.window, context_of(model) - 1)
    ids = reading.ids[None, : size + 1].to(ctx.device)
    output = model(ids, labels=ids)
    logp = output.logits[0].float().log_softmax(dim=-1).cpu()
    moved = -logp[: size - 1].gather(1, reading.ids[2 : size + 1, None])[:, 0]  # each read against the token after it
    outside = sum(token.loss for token in reading.tokens if token.word is None)
    slices = [text.text[a:b] for a, b in itertools.pairwise((0, *text.ends))]
    pairs = zip(text.pieces, slices, strict=True)
    return Oracle(
        size=size,
        ours=text.losses[:size].double().mean().item(),
        transformers=output.loss.item(),
        moved=(moved - text.losses[: size - 1]).abs().max().item(),
        misplaced=sum(piece.strip() != there.strip() and "\ufffd" not in piece for piece, there in pairs),
        alone=(reading.alone - text.losses[: reading.passage]).abs().max().item(),
        total=text.losses.double().sum().item(),
        by_kind=sum(sum(token.loss for token in reading.tokens if token.kind == kind) for kind in KINDS),
        by_words=sum(word.loss for word in reading.words) + outside,
        slope=regression(reading),
    )


def regression(reading: Reading) -> float | None:
    """Content words at equal position: least squares with a constant per bin."""
    words = reading.whole_words
    group = torch.tensor([not word.function for word in words]).double()
    if not len(words):
        return None
    bins = torch.tensor([position_bin(word.position) for word in words])
    design = torch.column_stack([group, torch.nn.functional.one_hot(bins).double()])
    losses = torch.tensor([word.first for word in words], dtype=torch.float64)
    return float(torch.linalg.lstsq(design, losses[:, None], driver="gelsd").solution[0, 0])


EXERCISE = Exercise(
    measure=measure,
    sources=("main", "pretrained"),
    numbers={
        "smoke": {"tokens": 1_024, "window": 128, "batch": 4, "passage": 200, "draws": 200},
        "laptop": {"tokens": 4_096, "window": 512, "batch": 4, "passage": 200, "draws": 2_000},
        "gpu": {"tokens": 32_768, "window": 1_024, "batch": 16, "passage": 240, "draws": 10_000},
    },
    seconds={"smoke": 3, "laptop": 25, "gpu": 20},
)
