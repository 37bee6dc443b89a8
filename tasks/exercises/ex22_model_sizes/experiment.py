"""Measures 21.22: scores, samples and times of every size and budget."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from minigpt.config import GPTConfig
from minigpt.cost.counting import count_parameters, training_flops
from minigpt.decoding.sampling import Sampling, generate
from minigpt.evaluation.craft import Craft, Source
from minigpt.evaluation.evaluate import evaluate
from minigpt.evaluation.timing import Timing
from minigpt.evaluation.words import common_words
from minigpt.files import blank_model
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex22_model_sizes.findings import BYTE_PAIRS, Count, Findings, Run
from tasks.parts import part
from tasks.recipes.catalogue import (
    LARGE,
    LARGE_BPE,
    MEDIUM,
    MEDIUM_BPE,
    SMALL,
    SMALL_BPE,
    SMALL_LONG,
)
from tasks.study import variants
from tasks.variants import Variant

SIZES = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
RUNS = {
    **SIZES,
    "small, longer": SMALL_LONG,
    **dict(zip(BYTE_PAIRS, (SMALL_BPE, MEDIUM_BPE, LARGE_BPE), strict=True)),
}
VOCABULARIES = (("10,000 words", 10_000), ("GPT-2's 50,257", 50_257))
PROMPT = 16  # characters


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    trained = {name: recipe for name, recipe in RUNS.items() if ctx.seeds(recipe)}
    timed = with_shared_steps(variants(ctx, trained, repeats=ctx.numbers["repeats"]))
    ctx.progress(0.3, "timed the steps")
    untimed = ahead(ctx)
    runs = {name: described(ctx, name, timed[name], untimed.read[name]) for name in trained}
    own, characters = runs["small"].vocab_size, ctx.numbers["characters"]
    return Findings(
        runs=runs,
        missing=tuple(name for name in RUNS if name not in trained),
        counts=tuple(
            count(size, label, vocab_size)
            for size in SIZES
            for label, vocab_size in ((f"{own} characters", own), *VOCABULARIES)
        ),
        heldout=untimed.heldout,
        epoch=len(ctx.tokens(SMALL, "train")) - 1,
        prompts=prompts_of(ctx),
        characters=characters,
        temperature=ctx.numbers["temperature"],
        device=ctx.device.type,
    )


@dataclass(frozen=True)
class Read:
    """A recipe's first seed: its loss on the whole validation split, and what it writes."""

    nats_per_token: float
    targets: int  # tokens scored
    texts: tuple[str, ...]  # one per prompt
    craft: Craft  # of these


@dataclass(frozen=True)
class Untimed:
    """What needs no quiet machine."""

    read: dict[str, Read]  # by run
    heldout: Craft  # of pieces of the held-out text


def ahead(ctx: Context) -> Untimed:
    """See ``Exercise.ahead``."""

    def find() -> Untimed:
        trained = [name for name, recipe in RUNS.items() if ctx.seeds(recipe)]
        prompts, known = prompts_of(ctx), Source(ctx.text("train"), common_words(ctx.bpe()))
        found = {}
        for i, name in enumerate(trained):
            found[name] = read(ctx, name, prompts, known)
            ctx.progress((i + 1) / len(trained), name)
        return Untimed(found, known.judge(pieces(ctx.text(), len(prompts), ctx.numbers["characters"])))

    return part(ctx, Untimed, "losses and texts", find)


def with_shared_steps(rows: Sequence[Variant]) -> dict[str, Variant]:
    """By label. Trainings that differ only in their length have the same step, which has one time."""
    same: dict[tuple[str, int], list[Timing]] = {}
    for row in rows:
        same.setdefault((row.label.partition(",")[0], row.parameters), []).append(row.step)
    found = {}
    for row in rows:
        steps = same[row.label.partition(",")[0], row.parameters]
        step = Timing(
            median=sum(one.median for one in steps) / len(steps),
            low=min(one.low for one in steps),
            high=max(one.high for one in steps),
            repeats=sum(one.repeats for one in steps),
        )
        found[row.label] = replace(row, step=step)
    return found


def line_beginnings(text: str, count: int) -> tuple[str, ...]:
    """The first characters of lines from all over a text; of any places in one that has too few lines."""
    lines = [line[:PROMPT] for line in text.split("\n") if len(line) >= 4 * PROMPT]
    found = lines[:: max(1, len(lines) // count)][:count]
    return tuple(found) if len(found) == count else pieces(text, count, PROMPT)


def pieces(text: str, count: int, length: int) -> tuple[str, ...]:
    """Pieces of a text, evenly spread."""
    return tuple(text[i * max(0, len(text) - length) // count :][:length] for i in range(count))


def prompts_of(ctx: Context) -> tuple[str, ...]:
    """What all models go on from."""
    return line_beginnings(ctx.text(), ctx.numbers["texts"])


def read(ctx: Context, name: str, prompts: Sequence[str], known: Source) -> Read:
    """A recipe's first seed, scored; and what it writes, judged."""
    first = ctx.model(RUNS[name])
    found = evaluate(first.model, ctx.tokens(RUNS[name]))
    texts = write(ctx, first, prompts, characters_per_token(ctx, found.tokens))
    return Read(found.nats_per_token, found.tokens, texts, known.judge(texts))


def characters_per_token(ctx: Context, targets: int) -> float:
    """Of the validation text, whose first token is not scored."""
    return (len(ctx.text()) - 1) / targets


def described(ctx: Context, name: str, variant: Variant, found: Read) -> Run:
    """A recipe's trainings with what their first seed writes."""
    first = ctx.model(RUNS[name])
    config = first.model.config
    return Run(
        name=name,
        variant=variant,
        tokens_per_step=first.recipe.train.batch_size * config.context,
        vocab_size=config.vocab_size,
        characters_per_token=characters_per_token(ctx, found.targets),
        flops_per_token=training_flops(config, 1, config.context) / config.context,
        trained_steps=tuple(first.history["step"]),
        trained_losses=tuple(first.history["train_loss"]),
        rescored=found.nats_per_token,
        targets=found.targets,
        texts=found.texts,
        craft=found.craft,
    )


def write(ctx: Context, trained: TrainedModel, prompts: Sequence[str], per_token: float) -> tuple[str, ...]:
    """A text after each prompt, all with the same random numbers; at once where the prompts have equal lengths."""
    n, tokenizer = ctx.numbers, trained.tokenizer
    encoded = [tokenizer.encode(prompt) for prompt in prompts]
    batches = [encoded] if len(set(map(len, encoded))) == 1 else [[one] for one in encoded]
    generator, length, texts = ctx.generator("samples"), round(n["characters"] / per_token) + 1, []
    for batch in batches:
        start = torch.tensor(batch, device=ctx.device)
        rows = generate(trained.model, start, length, sampling=Sampling(n["temperature"]), generator=generator)
        texts += [tokenizer.decode(row)[: n["characters"]] for row in rows[:, start.shape[1] :].tolist()]
    return tuple(texts)


def count(size: str, vocabulary: str, vocab_size: int) -> Count:
    """Parameters of a size as the book has it, in closed form and on a model that is built without memory."""
    config = replace(SIZES[size].model, vocab_size=vocab_size)
    return Count(
        size, vocabulary, vocab_size, count_parameters(config), instantiated_parameters(config), config.d_model
    )


def instantiated_parameters(config: GPTConfig) -> int:
    """Weights of a real model."""
    return sum(weight.numel() for weight in blank_model(config).parameters())


EXERCISE = Exercise(
    measure=measure,
    recipes=tuple(RUNS.values()),
    sources=("main", "bpe"),
    numbers={
        "smoke": {"repeats": 3, "texts": 3, "characters": 100, "temperature": 0.8},
        "laptop": {"repeats": 5, "texts": 8, "characters": 160, "temperature": 0.8},
        "gpu": {"repeats": 7, "texts": 32, "characters": 400, "temperature": 0.8},
    },
    seconds={"smoke": 2, "laptop": 7, "gpu": 10},
    timed=True,
    ahead=ahead,
    seconds_ahead={"smoke": 2, "laptop": 36, "gpu": 25},
)
