"""Measures 21.22: scores, samples and times of every size and budget."""

from dataclasses import replace

import torch

from minigpt.config import GPTConfig
from minigpt.cost.counting import count_parameters, training_flops
from minigpt.decoding.sampling import Sampling, generate
from minigpt.evaluation.evaluate import evaluate
from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.words import longest_copy, share_of_real_words, words
from minigpt.files import blank_model
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex22_model_sizes.findings import Count, Findings, Run, Seed
from tasks.recipes.catalogue import LARGE, MEDIUM, MEDIUM_LONG, SMALL, SMALL_LONG

SIZES = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
RUNS = {**SIZES, "small, longer": SMALL_LONG, "medium, longer": MEDIUM_LONG}
VOCABULARIES = (("10,000 words", 10_000), ("GPT-2's 50,257", 50_257))


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    text, n = ctx.text(), ctx.numbers
    prompt = " ".join(text[text.find("\n") + 1 :][:60].split()[:6])  # a line's beginning
    known = set(words(ctx.text("train")))
    runs = {}
    for i, name in enumerate(RUNS):
        ctx.progress(i / len(RUNS), name)
        runs[name] = evaluate_run(ctx, name, prompt, known)
    own = runs["small"].vocab_size
    return Findings(
        runs=runs,
        counts=tuple(
            count(size, label, vocab_size)
            for size in SIZES
            for label, vocab_size in ((f"{own} characters", own), *VOCABULARIES)
        ),
        epoch=len(ctx.tokens(SMALL, "train")) - 1,
        targets=len(ctx.tokens(SMALL)) - 1,
        prompt=prompt,
        samples=n["samples"],
        characters=n["characters"],
        temperature=n["temperature"],
        device=ctx.device.type,
    )


def evaluate_run(ctx: Context, name: str, prompt: str, known: set[str]) -> Run:
    """Score all seeds of a recipe and sample from the first."""
    recipe, n = RUNS[name], ctx.numbers
    trained = tuple(ctx.model(recipe, seed) for seed in ctx.seeds(recipe))
    first = trained[0]
    start = torch.tensor([first.tokenizer.encode(prompt)] * n["samples"], device=ctx.device)
    generator = ctx.generator("samples")
    tokens = generate(first.model, start, n["characters"], sampling=Sampling(n["temperature"]), generator=generator)
    texts = tuple(first.tokenizer.decode(row) for row in tokens[:, start.shape[1] :].tolist())
    config = first.model.config
    return Run(
        name=name,
        seeds=tuple(score(ctx, one) for one in trained),
        steps=first.recipe.train.steps,
        tokens_per_step=first.recipe.train.batch_size * config.context,
        parameters=count_parameters(first.model),
        vocab_size=config.vocab_size,
        flops_per_token=training_flops(config, 1, config.context) / config.context,
        texts=texts,
        real_words=share_of_real_words(texts, known),
        copied=mean_std([longest_copy(text, ctx.text("train")) for text in texts])[0],
    )


def score(ctx: Context, trained: TrainedModel) -> Seed:
    """One training: scored again over the whole validation split, and its curves."""
    found = evaluate(trained.model, ctx.tokens(trained.recipe), n_bytes=len(ctx.text().encode()))
    return Seed(
        nats=found.nats_per_token,
        perplexity=found.perplexity,
        bits_per_byte=found.bits_per_byte,
        targets=found.tokens,
        tokens_per_second=trained.tokens_per_second,
        evaluated_steps=tuple(trained.evaluations["step"]),
        evaluated_losses=tuple(trained.evaluations["validation_loss"]),
        trained_steps=tuple(trained.history["step"]),
        trained_losses=tuple(trained.history["train_loss"]),
    )


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
        "smoke": {"samples": 2, "characters": 100, "temperature": 0.8},
        "laptop": {"samples": 4, "characters": 200, "temperature": 0.8},
        "gpu": {"samples": 16, "characters": 400, "temperature": 0.8},
    },
    seconds={"smoke": 3, "laptop": 38, "gpu": 60},
)
