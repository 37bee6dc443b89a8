"""Measures 21.15: scores and samples the model after every epoch, and prices the text without a Transformer."""

import lzma
import math

import torch

from minigpt.cost.counting import count_parameters
from minigpt.data import Windows
from minigpt.decoding.sampling import Sampling, generate
from minigpt.evaluation import ngrams
from minigpt.evaluation.curves import mean_between
from minigpt.evaluation.evaluate import evaluate
from minigpt.evaluation.excerpts import opening
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.model import GPT
from minigpt.tokenizers import Tokenizer
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex15_mini_gpt_training.findings import Baselines, Curve, Epoch, Findings, Setting
from tasks.recipes.catalogue import SMALL_LONG


def untrained(trained: TrainedModel, device: torch.device) -> GPT:
    """The model before its first step: training draws its weights first of all from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trained.recipe.seed)
        return GPT(trained.model.config).eval().to(device)


def count_baselines(grams: ngrams.Baselines, texts: tuple[str, str], vocab_size: int) -> Baselines:
    """Uniform and smoothed n-gram models of characters, and a general-purpose compressor."""
    size = [len(lzma.compress(text.encode(), preset=9)) for text in (texts[0], texts[0] + texts[1])]
    return Baselines(
        uniform=math.log(vocab_size),
        unigram=grams.unigram,
        bigram=grams.bigram,
        xz=(size[1] - size[0]) * 8 * math.log(2) / len(texts[1]),
        ngram=grams.ngram,
        n=grams.n,
    )


class Listener:
    """Scores and samples a model in the same way at every epoch: same prompt, same seed, same whole split."""

    def __init__(self, ctx: Context, tokenizer: Tokenizer) -> None:
        self.ctx, self.tokenizer = ctx, tokenizer
        self.text = ctx.text("validation")
        self.tokens = ctx.tokens(SMALL_LONG)
        self.known = set(words(ctx.text("train")))
        self.prompt = opening(self.text)

    def epoch(self, model: GPT, number: float, step: int, train_loss: float | None) -> Epoch:
        """Evaluate the model and let it speak."""
        n = self.ctx.numbers
        prompt = torch.tensor([self.tokenizer.encode(self.prompt)] * n["samples"], device=self.ctx.device)
        generator = self.ctx.generator("samples")
        tokens = generate(model, prompt, n["characters"], sampling=Sampling(n["temperature"]), generator=generator)
        texts = [self.tokenizer.decode(row) for row in tokens[:, prompt.shape[1] :].tolist()]
        found = evaluate(model, self.tokens, n_bytes=len(self.text.encode()))
        return Epoch(
            number=number,
            step=step,
            train_loss=train_loss,
            nats=found.nats_per_token,
            bits_per_byte=found.bits_per_byte,
            targets=found.tokens,
            text=texts[0],
            real_words=share_of_real_words(texts, self.known),
        )


def measure(ctx: Context) -> Findings:
    """Load every snapshot, score it on the whole validation split and sample from it."""
    seeds = ctx.seeds(SMALL_LONG)
    trained = ctx.model(SMALL_LONG, seeds[0])
    listener, n = Listener(ctx, trained.tokenizer), ctx.numbers
    train = ctx.tokens(SMALL_LONG, "train")
    windows = Windows(train, trained.model.config.context, trained.recipe.seed)
    steps_per_epoch = windows.steps_per_epoch(trained.recipe.train.batch_size)
    epochs = [listener.epoch(untrained(trained, ctx.device), 0.0, 0, None)]
    for step in trained.snapshot_steps:
        ctx.progress(step / trained.snapshot_steps[-1], f"after step {step}")
        loss = mean_between(trained.history["step"], trained.history["train_loss"], epochs[-1].step, step)
        epochs.append(listener.epoch(trained.load_snapshot(step), step / steps_per_epoch, step, loss))
    others = [evaluate(ctx.model(SMALL_LONG, seed).model, listener.tokens).bits_per_token for seed in seeds[1:]]
    texts = ctx.text("train"), ctx.text("validation")
    return Findings(
        setting=setting(trained),
        training=Curve(tuple(trained.history["step"]), tuple(trained.history["train_loss"])),
        validation=Curve(tuple(trained.evaluations["step"]), tuple(trained.evaluations["validation_loss"])),
        epochs=tuple(epochs),
        steps_per_epoch=steps_per_epoch,
        tokens_per_epoch=windows.per_epoch * trained.model.config.context,
        baselines=count_baselines(trained.baselines, texts, trained.tokenizer.vocab_size),
        targets=len(listener.tokens) - 1,
        prompt=listener.prompt,
        bits=(epochs[-1].bits, *others),
        samples=n["samples"],
        characters=n["characters"],
        temperature=n["temperature"],
    )


def setting(trained: TrainedModel) -> Setting:
    """What is trained, and how."""
    config, train = trained.model.config, trained.recipe.train
    return Setting(
        parameters=count_parameters(trained.model),
        n_layer=config.n_layer,
        d_model=config.d_model,
        n_head=config.n_head,
        context=config.context,
        vocab_size=config.vocab_size,
        steps=train.steps,
        batch_size=train.batch_size,
        learning_rate=train.learning_rate,
        seconds=trained.seconds,
    )


EXERCISE = Exercise(
    measure=measure,
    recipes=(SMALL_LONG,),
    numbers={
        "smoke": {"samples": 2, "characters": 100, "temperature": 0.8},
        "laptop": {"samples": 4, "characters": 200, "temperature": 0.8},
        "gpu": {"samples": 16, "characters": 400, "temperature": 0.8},
    },
    seconds={"smoke": 3, "laptop": 12, "gpu": 60},
)
