"""Tables, curves, samples and checks of 21.15; the text is in answer.md."""

import math

from minigpt.evaluation.words import words
from minigpt.tokenizers import UNKNOWN
from reports.answers import Draft
from reports.types import Check, Figure, Sample, Series, Table
from tasks.exercises.ex15_mini_gpt_training.findings import Findings

NEAR = 0.3  # nats by which the untrained loss may miss ln V


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    others = {
        "bigrams": f.baselines.bigram,
        f"smoothed {f.baselines.n}-grams": f.baselines.ngram,
        "the compressor xz after the same training text": f.baselines.xz,
    }
    # The finished model, and the other seeds: a claim has to hold for all.
    seeds = [f.last.nats, *(bits * math.log(2) for bits in f.bits[1:])]
    return Draft(
        blocks={"setting": setting(f), "curves": curves(f), "epochs": by_epoch(f), "samples": samples(f)},
        checks=checks(f),
        values={
            "near": NEAR,
            "wordless": not any(len(words(epoch.text.replace(UNKNOWN, ""))) > 1 for epoch in f.epochs),
            "xz_ahead": min(seeds) >= f.baselines.xz,
            "beaten": [f"{name} ({loss:.3f})" for name, loss in others.items() if max(seeds) < loss],
            "lost": [f"{name} ({loss:.3f})" for name, loss in others.items() if min(seeds) >= loss],
            "level": [f"{name} ({loss:.3f})" for name, loss in others.items() if min(seeds) < loss <= max(seeds)],
        },
    )


def setting(f: Findings) -> Table:
    """What is trained on what."""
    s = f.setting
    rows = (
        ("parameters", s.parameters),
        ("layers × width, heads", f"{s.n_layer} × {s.d_model}, {s.n_head}"),
        ("context, characters", s.context),
        ("vocabulary, characters", s.vocab_size),
        ("steps", s.steps),
        ("characters per step", s.batch_size * s.context),
        ("characters per epoch", f.tokens_per_epoch),
        ("epochs", f.last.number),
        ("training time, seconds", s.seconds),
        ("peak learning rate of AdamW", s.learning_rate),
    )
    return Table(("setting", "value"), rows, "The model and its training.", "setting")


def curves(f: Findings) -> Figure:
    """Training and validation loss against epochs."""
    per_epoch, base = f.steps_per_epoch, f.baselines
    series = (
        Series("training", tuple(s / per_epoch for s in f.training.steps), f.training.losses),
        Series(
            "validation",
            tuple(s / per_epoch for s in f.validation.steps),
            f.validation.losses,
        ),
    )
    hlines = (
        (base.uniform, "ln V"),
        (base.unigram, "unigrams"),
        (base.bigram, "bigrams"),
        (base.ngram, f"{base.n}-grams"),
        (base.xz, "xz"),
    )
    caption = "Loss in training. Lines: what the validation text costs a model that knows less, and the compressor xz."
    return Figure("line", series, "epoch", "loss, nats per character", caption, hlines=hlines)


def by_epoch(f: Findings) -> Table:
    """The numbers after every epoch."""
    rows = tuple(
        (
            epoch.number,
            epoch.step,
            epoch.train_loss,
            epoch.nats,
            epoch.bits,
            epoch.perplexity,
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
    caption = (
        f"After every epoch. Real words: share of the words in {f.samples} samples of {f.characters} characters that "
        "occur in the training text."
    )
    return Table(columns, rows, caption, "epochs")


def samples(f: Findings) -> tuple[Sample, ...]:
    """The first sample of every epoch."""
    return tuple(
        Sample(
            "Untrained" if epoch.step == 0 else f"After epoch {epoch.number:.3g} (step {epoch.step:,})",
            f.prompt,
            epoch.text,
            f"Temperature {f.temperature:g}; {epoch.bits:.3f} bits per character on held-out text.",
        )
        for epoch in f.epochs
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    first, last, recorded = f.epochs[0], f.last, f.validation.losses
    passes = math.floor(f.setting.steps / f.steps_per_epoch + 1e-9)
    heard = {math.floor(epoch.number + 1e-9) for epoch in f.epochs} - {0}
    return (
        Check.close("untrained loss, nats, near ln V", first.nats, f.baselines.uniform, NEAR, "empirical"),
        Check.close("… and it is the loss recorded before step 1", first.nats, recorded[0], 1e-3),
        Check.close("the last snapshot is the finished model", last.nats, recorded[-1], 1e-3),
        Check.equal("a snapshot for every whole pass over the training text", len(heard), passes),
        Check.equal("validation targets scored", last.targets, f.targets),
        Check.at_most(
            "final validation loss against a bigram model, nats",
            last.nats,
            f.baselines.bigram,
            "empirical",
        ),
        Check.at_most(
            "final validation loss against that after the first epoch, nats",
            last.nats,
            f.epochs[1].nats,
            "empirical",
        ),
        Check.at_least(
            "share of real words at the end against that after the first epoch",
            last.real_words,
            f.epochs[1].real_words,
            "empirical",
        ),
    )
