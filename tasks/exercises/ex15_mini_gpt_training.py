"""Exercise 21.15: a character-level mini-GPT on a real text, heard after every epoch."""

import lzma
import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from minigpt.cost.counting import count_parameters
from minigpt.data import Windows
from minigpt.decoding.sampling import Sampling, generate
from minigpt.evaluation.curves import mean_between
from minigpt.evaluation.entropy import unigram_loss
from minigpt.evaluation.evaluate import Evaluation, evaluate
from minigpt.evaluation.statistics import format_mean_std, mean_std
from minigpt.evaluation.words import share_of_real_words, words
from minigpt.model import GPT
from minigpt.tokenizers import Tokenizer
from reports.types import Answer, Block, Check, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import SMALL_LONG


@dataclass(frozen=True)
class Epoch:
    """The model after so many passes over the training text."""

    number: float  # 0 is the untrained model; the last may be a part of a pass
    step: int
    train_loss: float | None  # mean over the steps since the epoch before, nats
    validation: Evaluation  # over the whole validation split
    text: str  # the first sample
    real_words: float  # share of the words in all samples that occur in the training text


@dataclass(frozen=True)
class Baselines:
    """What the validation text costs without a Transformer, nats per character."""

    uniform: float
    unigram: float
    bigram: float
    xz: float  # what it adds to the xz-compressed training text


def untrained(trained: TrainedModel, device: torch.device) -> GPT:
    """The model before its first step: training draws its weights first of all from the recipe's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trained.recipe.seed)
        return GPT(trained.model.config).eval().to(device)


def count_baselines(train: Tensor, validation: Tensor, texts: tuple[str, str], vocab_size: int) -> Baselines:
    """Uniform, unigram and bigram (add-one) models of characters, and a general-purpose compressor."""
    pairs = torch.bincount(train[:-1] * vocab_size + train[1:], minlength=vocab_size**2).double() + 1
    bigram = pairs.view(vocab_size, vocab_size)
    log_bigram = (bigram / bigram.sum(dim=1, keepdim=True)).log()
    size = [len(lzma.compress(text.encode(), preset=9)) for text in (texts[0], texts[0] + texts[1])]
    return Baselines(
        uniform=math.log(vocab_size),
        unigram=unigram_loss(train, validation, vocab_size),
        bigram=-log_bigram[validation[:-1], validation[1:]].mean().item(),
        xz=(size[1] - size[0]) * 8 * math.log(2) / len(texts[1]),
    )


class Listener:
    """Scores and samples a model in the same way at every epoch: same prompt, same seed, same whole split."""

    def __init__(self, ctx: Context, tokenizer: Tokenizer) -> None:
        self.ctx, self.tokenizer = ctx, tokenizer
        self.text = ctx.text("validation")
        self.tokens = ctx.tokens(SMALL_LONG)
        self.known = set(words(ctx.text("train")))
        self.prompt = " ".join(self.text[self.text.find("\n") + 1 :][:60].split()[:6])  # a line's beginning

    def epoch(self, model: GPT, number: float, step: int, train_loss: float | None) -> Epoch:
        """Evaluate the model and let it speak."""
        n = self.ctx.numbers
        prompt = torch.tensor([self.tokenizer.encode(self.prompt)] * n["samples"], device=self.ctx.device)
        generator = self.ctx.generator("samples")
        tokens = generate(model, prompt, n["characters"], sampling=Sampling(n["temperature"]), generator=generator)
        texts = [self.tokenizer.decode(row) for row in tokens[:, prompt.shape[1] :].tolist()]
        return Epoch(
            number=number,
            step=step,
            train_loss=train_loss,
            validation=evaluate(model, self.tokens, n_bytes=len(self.text.encode())),
            text=texts[0],
            real_words=share_of_real_words(texts, self.known),
        )


@dataclass(frozen=True)
class Findings:
    """All that was measured; the answer only words it."""

    trained: TrainedModel
    epochs: tuple[Epoch, ...]
    steps_per_epoch: float
    tokens_per_epoch: int
    baselines: Baselines
    targets: int  # characters of the validation text but the first
    prompt: str
    bits: tuple[float, ...]  # of every seed at the end, per character
    numbers: tuple[int, int, float]  # samples, characters, temperature

    @property
    def last(self) -> Epoch:
        """The finished model."""
        return self.epochs[-1]

    @property
    def best(self) -> Epoch:
        """The epoch with the lowest validation loss."""
        return min(self.epochs, key=lambda epoch: epoch.validation.nats_per_token)

    @property
    def wobble(self) -> float:
        """The largest rise of the validation loss from one epoch to the next before its lowest point, in nats."""
        losses = [epoch.validation.nats_per_token for epoch in self.epochs[: self.epochs.index(self.best) + 1]]
        return max(0.0, *(after - before for before, after in pairwise(losses)))

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        first, last = self.epochs[0].validation, self.last.validation
        seeds = {"final_validation_bits_per_character_mean_of_seeds": mean_std(self.bits)[0]}
        seeds["final_validation_bits_per_character_std"] = mean_std(self.bits)[1]
        return (seeds if len(self.bits) > 1 else {}) | {
            "start_loss_nats": first.nats_per_token,
            "ln_vocab_nats": self.baselines.uniform,
            "final_train_loss_nats": float(self.last.train_loss or math.nan),
            "final_validation_loss_nats": last.nats_per_token,
            "final_validation_bits_per_character": last.bits_per_token,
            "final_validation_bits_per_byte": last.bits_per_byte,
            "final_validation_perplexity_per_character": last.perplexity,
            "best_validation_loss_nats": self.best.validation.nats_per_token,
            "best_epoch": self.best.number,
            "epochs": self.last.number,
            "unigram_loss_nats": self.baselines.unigram,
            "bigram_loss_nats": self.baselines.bigram,
            "xz_loss_nats": self.baselines.xz,
            "real_words_first_epoch_share": self.epochs[1].real_words,
            "real_words_last_epoch_share": self.last.real_words,
            "parameters": count_parameters(self.trained.model),
            "training_seconds": self.trained.seconds,
        }


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
        trained=trained,
        epochs=tuple(epochs),
        steps_per_epoch=steps_per_epoch,
        tokens_per_epoch=windows.per_epoch * trained.model.config.context,
        baselines=count_baselines(train, listener.tokens, texts, trained.tokenizer.vocab_size),
        targets=len(listener.tokens) - 1,
        prompt=listener.prompt,
        bits=(epochs[-1].validation.bits_per_token, *others),
        numbers=(n["samples"], n["characters"], n["temperature"]),
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    first, last, recorded = f.epochs[0], f.last, f.trained.evaluations["validation_loss"]
    passes = math.floor(f.trained.recipe.train.steps / f.steps_per_epoch + 1e-9)
    heard = {math.floor(epoch.number + 1e-9) for epoch in f.epochs} - {0}
    return (
        Check.close("untrained loss, nats, near ln V", first.validation.nats_per_token, f.baselines.uniform, 0.3),
        Check.close("… and it is the loss recorded before step 1", first.validation.nats_per_token, recorded[0], 1e-3),
        Check.close("the last snapshot is the finished model", last.validation.nats_per_token, recorded[-1], 1e-3),
        Check.equal("a snapshot for every whole pass over the training text", len(heard), passes),
        Check.equal("validation targets scored", last.validation.tokens, f.targets),
        Check.at_most(
            "final validation loss against a bigram model, nats",
            last.validation.nats_per_token,
            f.baselines.bigram,
            "empirical",
        ),
        Check.at_most(
            "final validation loss against that after the first epoch, nats",
            last.validation.nats_per_token,
            f.epochs[1].validation.nats_per_token,
            "empirical",
        ),
        Check.at_least(
            "share of real words at the end against that after the first epoch",
            last.real_words,
            f.epochs[1].real_words,
            "empirical",
        ),
    )


def setting(f: Findings) -> tuple[Prose, Table]:
    """What is trained on what."""
    config, train = f.trained.model.config, f.trained.recipe.train
    rows = (
        ("parameters", f.metrics["parameters"]),
        ("layers × width, heads", f"{config.n_layer} × {config.d_model}, {config.n_head}"),
        ("context, characters", config.context),
        ("vocabulary, characters", config.vocab_size),
        ("steps", train.steps),
        ("characters per step", train.batch_size * config.context),
        ("characters per epoch", f.tokens_per_epoch),
        ("epochs", f.last.number),
        ("training time, seconds", f.trained.seconds),
        ("peak learning rate of AdamW", train.learning_rate),
    )
    text = (
        "The mini-GPT reads the chapter's main corpus character by character. An epoch is one pass over the training "
        "text in windows of the context's length; losses are in nats per character, and the validation loss is over "
        f"the whole held-out split, {f.targets:,} characters."
    )
    return Prose(text), Table(("", "value"), rows, "The model and its training.", "setting")


def curves(f: Findings) -> Figure:
    """Training and validation loss against epochs."""
    history, evaluations = f.trained.history, f.trained.evaluations
    per_epoch, base = f.steps_per_epoch, f.baselines
    series = (
        Series("training", tuple(s / per_epoch for s in history["step"]), tuple(history["train_loss"])),
        Series(
            "validation",
            tuple(s / per_epoch for s in evaluations["step"]),
            tuple(evaluations["validation_loss"]),
        ),
    )
    hlines = ((base.uniform, "ln V"), (base.unigram, "unigrams"), (base.bigram, "bigrams"), (base.xz, "xz"))
    caption = "Loss in training. Lines: what the validation text costs a model that knows less, and the compressor xz."
    return Figure("line", series, "epoch", "loss, nats per character", caption, hlines=hlines)


def by_epoch(f: Findings) -> Table:
    """The numbers after every epoch."""
    rows = tuple(
        (
            epoch.number,
            epoch.step,
            epoch.train_loss,
            epoch.validation.nats_per_token,
            epoch.validation.bits_per_token,
            epoch.validation.perplexity,
            epoch.real_words,
        )
        for epoch in f.epochs
    )
    columns = (
        "epoch",
        "step",
        "training loss, nats (mean of the epoch)",
        "validation loss, nats",
        "bits per character",
        "perplexity per character",
        "real words in samples",
    )
    samples, characters, _ = f.numbers
    caption = (
        f"After every epoch. Real words: share of the words in {samples} samples of {characters} characters that occur "
        "in the training text."
    )
    return Table(columns, rows, caption, "epochs")


def how_it_went(f: Findings) -> Prose:
    """What the curves show, chosen by what they are."""
    first, last, best, base = f.epochs[0].validation, f.last.validation, f.best, f.baselines
    start = (
        f"Before the first step the loss is {first.nats_per_token:.3f} nats; knowing nothing costs "
        f"$\\ln {f.trained.tokenizer.vocab_size} = {base.uniform:.3f}$, and random initial logits add the rest. "
    )
    others = (("bigrams", base.bigram), ("the compressor xz after the same training text", base.xz))
    beaten = " and ".join(f"{name} ({loss:.3f})" for name, loss in others if last.nats_per_token < loss)
    lost = " and ".join(f"{name} ({loss:.3f})" for name, loss in others if last.nats_per_token >= loss)
    end = (
        f"At the end it is {last.nats_per_token:.3f} nats, {last.bits_per_token:.3f} bits per character"
        + (f" ({format_mean_std(f.bits)} over {len(f.bits)} seeds)" if len(f.bits) > 1 else " (one seed)")
        + (f", less than {beaten}" if beaten else "")
        + (f"{' but' if beaten else ','} more than {lost}. " if lost else ". ")
    )
    rise = last.nats_per_token - best.validation.nats_per_token
    gap = last.nats_per_token - float(f.last.train_loss or math.nan)
    if rise > max(0.005, f.wobble):
        fit = (
            f"The validation loss was lowest after epoch {best.number:.3g} and has risen by {rise:.3f} nats since, "
            f"while the training loss is {gap:.3f} below it: overfitting has begun. "
        )
    elif rise > 0.005:
        fit = (
            f"Training and validation loss are {gap:.3f} nats apart. The validation loss was lowest after epoch "
            f"{best.number:.3g}; the {rise:.3f} nats since are no more than it has moved between epochs before. "
        )
    elif gap > 0.05:
        fit = (
            f"Training and validation loss are {gap:.3f} nats apart, yet the validation loss is at its "
            "lowest: the model fits its own text better, and that does no harm so far. "
        )
    else:
        fit = f"Training and validation loss are {gap:.3f} nats apart: with this budget there is no overfitting. "
    real = (
        f"The share of real words in the samples goes from {f.epochs[0].real_words:.0%} untrained and "
        f"{f.epochs[1].real_words:.0%} after the first snapshot to {f.last.real_words:.0%}."
    )
    return Prose(start + end + fit + real)


def samples(f: Findings) -> tuple[Sample, ...]:
    """The first sample of every epoch."""
    temperature = f.numbers[2]
    return tuple(
        Sample(
            "Untrained" if epoch.step == 0 else f"After epoch {epoch.number:.3g} (step {epoch.step:,})",
            f.prompt,
            epoch.text,
            f"Temperature {temperature:g}; {epoch.validation.bits_per_token:.3f} bits per character on held-out text.",
        )
        for epoch in f.epochs
    )


def answer(ctx: Context) -> Answer:
    """The curves, the numbers and the samples."""
    f = measure(ctx)
    heard = Prose("The same prompt and the same random numbers after every epoch, so that only the model differs:")
    blocks: tuple[Block, ...] = (*setting(f), curves(f), how_it_went(f), by_epoch(f), heard, *samples(f))
    return Answer(
        summary=f"From {f.epochs[0].validation.bits_per_token:.2f} to {f.last.validation.bits_per_token:.2f} bits per "
        f"character in {f.last.number:.3g} epochs; {f.last.real_words:.0%} of the words it then writes are real.",
        parts=(Part("", blocks),),
        checks=checks(f),
        metrics=f.metrics,
    )


EXERCISE = Exercise(
    id="21.15",
    title="Complete Mini-GPT Training",
    recipes=(SMALL_LONG,),
    numbers={
        "smoke": {"samples": 2, "characters": 100, "temperature": 0.8},
        "laptop": {"samples": 4, "characters": 200, "temperature": 0.8},
        "gpu": {"samples": 16, "characters": 400, "temperature": 0.8},
    },
    seconds={"smoke": 3, "laptop": 12, "gpu": 60},
    answer=answer,
)
