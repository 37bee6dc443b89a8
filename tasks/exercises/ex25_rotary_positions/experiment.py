"""Measures 21.25: the rotation, trained models with four kinds of positions, and how far they read."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from minigpt.decoding.sampling import generate
from minigpt.evaluation.extrapolation import losses_by_bucket, readings
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex25_rotary_positions.attention import measure_attention
from tasks.exercises.ex25_rotary_positions.findings import Extrapolation, Findings, Written, escape
from tasks.exercises.ex25_rotary_positions.rotation import measure_rotation
from tasks.parts import part
from tasks.recipes.catalogue import POSITIONS_LEARNED, POSITIONS_NONE, POSITIONS_ROPE, POSITIONS_SINUSOIDAL
from tasks.study import variants

TRAINED = {
    "learned positions": POSITIONS_LEARNED,
    "RoPE": POSITIONS_ROPE,
    "sinusoidal": POSITIONS_SINUSOIDAL,
    "no positions": POSITIONS_NONE,
}


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    rows = variants(ctx, TRAINED)
    rope, tokens = ctx.model(POSITIONS_ROPE), ctx.tokens(POSITIONS_ROPE)
    rotation = measure_rotation(ctx, rope.model.config.context)
    ctx.progress(0.2, "the rotation compared")
    attention = measure_attention(ctx, rope.model, tokens)
    models = {label: [ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for label, recipe in TRAINED.items()}
    extrapolation = ahead(ctx)
    bigram = entropy_of_pairs(ctx.tokens(POSITIONS_ROPE, "train"))
    escapes = {
        label: tuple(escape(m.history["step"], m.history["train_loss"], bigram) for m in seeds)
        for label, seeds in models.items()
    }
    written = write(ctx, rope, tokens, extrapolation.length)
    return Findings(rotation, attention, tuple(rows), bigram, escapes, extrapolation, written)


def entropy_of_pairs(tokens: Tensor) -> float:
    """Conditional entropy of each token (T,) given the one before, nats: no bigram model of this text has less loss."""
    _, pairs = torch.unique(torch.stack([tokens[:-1], tokens[1:]]), dim=1, return_counts=True)
    _, firsts = tokens[:-1].unique(return_counts=True)
    within = torch.special.entr(pairs.double()).sum() - torch.special.entr(firsts.double()).sum()
    return float(within / (len(tokens) - 1))


def ahead(ctx: Context) -> Extrapolation:
    """See ``Exercise.ahead``."""

    def find() -> Extrapolation:
        models = {label: [ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for label, recipe in TRAINED.items()}
        return extrapolate(models, ctx.tokens(POSITIONS_ROPE), ctx.numbers["times_longer"])

    return part(ctx, Extrapolation, "extrapolation", find)


def extrapolate(models: Mapping[str, Sequence[TrainedModel]], tokens: Tensor, times_longer: int) -> Extrapolation:
    """Read windows of several times the training length with every model that can."""
    learned = models["learned positions"][0].model
    context = learned.config.context
    length, bucket = times_longer * context, context // 2
    losses: dict[str, list[tuple[float, ...]]] = {}
    for kind, seeds in models.items():
        for trained in seeds:
            model = trained.model
            if kind in ("learned positions", "RoPE"):  # learned ones cannot go on, so they start again
                again = losses_by_bucket(model, tokens, length, bucket, restart=context)
                losses.setdefault(f"{kind}, restarted", []).append(tuple(again))
            if kind == "learned positions":
                continue
            ways = readings(model, length) if kind == "RoPE" else {kind: model}
            for label, way in ways.items():
                losses.setdefault(label, []).append(tuple(losses_by_bucket(way, tokens, length, bucket)))
    try:
        learned(tokens[None, : context + 1])
        refusal = "nothing: it went on"
    except ValueError as error:
        refusal = str(error)
    return Extrapolation(bucket, context, length, {label: tuple(found) for label, found in losses.items()}, refusal)


def write(ctx: Context, rope: TrainedModel, tokens: Tensor, length: int) -> Written:
    """A text of so many tokens, the first of them held out."""
    prompt = tokens[None, : rope.model.config.context // 2]
    text = generate(rope.model, prompt, length - prompt.shape[1], generator=ctx.generator("text"), limit=length)[
        0
    ].tolist()
    decode = rope.tokenizer.decode
    return Written(decode(text[: prompt.shape[1]]), decode(text[prompt.shape[1] :]), rope.recipe.seed)


EXERCISE = Exercise(
    measure=measure,
    recipes=tuple(TRAINED.values()),
    numbers={
        "smoke": {"positions": 64, "trap_tokens": 48, "times_longer": 4},
        "laptop": {"positions": 512, "trap_tokens": 256, "times_longer": 8},
        "gpu": {"positions": 512, "trap_tokens": 512, "times_longer": 8},
    },
    timed=True,
    ahead=ahead,
    seconds={"smoke": 1, "laptop": 3, "gpu": 4},
    seconds_ahead={"smoke": 1, "laptop": 6, "gpu": 4},
)
