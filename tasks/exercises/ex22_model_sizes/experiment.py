"""Measures 21.22: scores, samples and times of every size and budget."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from minigpt.config import GPTConfig
from minigpt.cost.counting import count_parameters, training_flops
from minigpt.decoding.sampling import Sampling, generate
from minigpt.evaluation.craft import Source
from minigpt.evaluation.evaluate import evaluate
from minigpt.evaluation.timing import Timing
from minigpt.files import blank_model
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex22_model_sizes.findings import BYTE_PAIRS, Count, Findings, Run
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
    prompts, known = line_beginnings(ctx.text(), ctx.numbers["texts"]), Source(ctx.text("train"))
    runs = {}
    for i, name in enumerate(trained):
        runs[name] = described(ctx, name, timed[name], prompts, known)
        ctx.progress(0.3 + 0.7 * (i + 1) / len(trained), name)
    own, characters = runs["small"].vocab_size, ctx.numbers["characters"]
    return Findings(
        runs=runs,
        missing=tuple(name for name in RUNS if name not in trained),
        counts=tuple(
            count(size, label, vocab_size)
            for size in SIZES
            for label, vocab_size in ((f"{own} characters", own), *VOCABULARIES)
        ),
        heldout=known.judge(pieces(ctx.text(), len(prompts), characters)),
        epoch=len(ctx.tokens(SMALL, "train")) - 1,
        prompts=prompts,
        characters=characters,
        temperature=ctx.numbers["temperature"],
        device=ctx.device.type,
    )


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


def described(ctx: Context, name: str, variant: Variant, prompts: Sequence[str], known: Source) -> Run:
    """A recipe's trainings with what their first seed writes."""
    first = ctx.model(RUNS[name])
    config, tokens = first.model.config, ctx.tokens(RUNS[name])
    found = evaluate(first.model, tokens)
    per_token = (len(ctx.text()) - 1) / found.tokens
    texts = write(ctx, first, prompts, per_token)
    return Run(
        name=name,
        variant=variant,
        tokens_per_step=first.recipe.train.batch_size * config.context,
        vocab_size=config.vocab_size,
        characters_per_token=per_token,
        flops_per_token=training_flops(config, 1, config.context) / config.context,
        trained_steps=tuple(first.history["step"]),
        trained_losses=tuple(first.history["train_loss"]),
        rescored=found.nats_per_token,
        targets=found.tokens,
        texts=texts,
        craft=known.judge(texts),
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
    numbers={
        "smoke": {"repeats": 3, "texts": 3, "characters": 100, "temperature": 0.8},
        "laptop": {"repeats": 5, "texts": 8, "characters": 160, "temperature": 0.8},
        "gpu": {"repeats": 7, "texts": 32, "characters": 400, "temperature": 0.8},
    },
    seconds={"smoke": 4, "laptop": 45, "gpu": 35},
    timed=True,
)
