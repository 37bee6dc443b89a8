"""Exercise 21.22: the mini-GPT in three sizes, at equal steps and at equal time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from minigpt.config import GPTConfig
from minigpt.cost.counting import count_parameters, training_flops
from minigpt.decoding.sampling import Sampling, generate
from minigpt.evaluation.curves import mean_between, smoothed
from minigpt.evaluation.evaluate import Evaluation, evaluate
from minigpt.evaluation.statistics import compare, describe, mean_std
from minigpt.evaluation.words import longest_copy, share_of_real_words, words
from minigpt.files import blank_model
from reports.types import Answer, Cell, Check, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import LARGE, MEDIUM, MEDIUM_LONG, SMALL, SMALL_LONG

SIZES = {"small": SMALL, "medium": MEDIUM, "large": LARGE}
RUNS = {**SIZES, "small, longer": SMALL_LONG, "medium, longer": MEDIUM_LONG}
EQUAL_TIME = ("small, longer", "medium, longer", "large")
CLAIMED = {"small": 2e6, "medium": 10e6, "large": 30e6}  # the chapter's figures
VOCABULARIES = (("10,000 words", 10_000), ("GPT-2's 50,257", 50_257))


@dataclass(frozen=True)
class Run:
    """One recipe with all its seeds."""

    name: str
    trained: tuple[TrainedModel, ...]
    scores: tuple[Evaluation, ...]  # over the whole validation split, one per seed
    texts: tuple[str, ...]  # samples of the first seed
    real_words: float
    copied: float  # mean over samples of the longest run that the training text has too, characters

    @property
    def first(self) -> TrainedModel:
        """The first seed."""
        return self.trained[0]

    @property
    def losses(self) -> list[float]:
        """Validation loss of each seed, nats per character."""
        return [score.nats_per_token for score in self.scores]

    @property
    def loss(self) -> float:
        """Mean over the seeds."""
        return mean_std(self.losses)[0]

    @property
    def training_loss(self) -> float:
        """Mean over the last tenth of the steps, nats per character; of the first seed."""
        history = self.first.history
        return mean_between(history["step"], history["train_loss"], 0.9 * self.steps, self.steps)

    @property
    def steps(self) -> int:
        """Updates of the weights."""
        return self.first.recipe.train.steps

    @property
    def tokens_per_step(self) -> int:
        """Targets in a batch."""
        return self.first.recipe.train.batch_size * self.first.model.config.context

    @property
    def step_seconds(self) -> float:
        """Median over the history of the training, of which the median over seeds."""
        rates = sorted(trained.tokens_per_second for trained in self.trained)
        return self.tokens_per_step / rates[len(rates) // 2]

    @property
    def seconds(self) -> float:
        """Of the training: steps times the median step, so that a pause of the machine does not count."""
        return self.steps * self.step_seconds

    @property
    def parameters(self) -> int:
        """Trained numbers, shared ones once."""
        return count_parameters(self.first.model)

    @property
    def flops_per_token(self) -> float:
        """Of a training step."""
        config = self.first.model.config
        return training_flops(config, 1, config.context) / config.context


@dataclass(frozen=True)
class Findings:
    """All that was measured; the answer only words it."""

    runs: dict[str, Run]
    epoch: int  # training characters
    targets: int  # validation characters but the first
    prompt: str
    samples: tuple[int, int, float]  # how many, characters, temperature
    device: str

    def time_ratio(self, name: str) -> float:
        """Training time of a run over that of large."""
        return self.runs[name].seconds / self.runs["large"].seconds

    def best(self, names: Sequence[str]) -> Run:
        """The run with the lowest mean validation loss."""
        return min((self.runs[name] for name in names), key=lambda run: run.loss)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for name, run in self.runs.items():
            key = name.replace(", ", "_")
            metrics |= {
                f"{key}_parameters": run.parameters,
                f"{key}_steps": run.steps,
                f"{key}_training_loss_nats": run.training_loss,
                f"{key}_validation_loss_nats": run.loss,
                f"{key}_validation_perplexity_per_character": mean_std([s.perplexity for s in run.scores])[0],
                f"{key}_bits_per_character": run.loss / math.log(2),
                f"{key}_bits_per_byte": mean_std([s.bits_per_byte for s in run.scores])[0],
                f"{key}_seconds_per_epoch": self.epoch / self.runs[name].tokens_per_step * run.step_seconds,
                f"{key}_tokens_per_second": run.tokens_per_step / run.step_seconds,
                f"{key}_training_seconds": run.seconds,
                f"{key}_real_words_share": run.real_words,
                f"{key}_longest_copied_run_characters": run.copied,
            }
            if len(run.losses) > 1:
                metrics[f"{key}_validation_loss_nats_std"] = mean_std(run.losses)[1]
        for name, recipe in SIZES.items():
            for _, vocab_size in VOCABULARIES:
                metrics[f"{name}_parameters_vocab_{vocab_size}"] = book_parameters(recipe.model, vocab_size)
        return metrics


def book_parameters(config: GPTConfig, vocab_size: int) -> int:
    """Parameters of a size as the book has it, whatever the profile trains."""
    return count_parameters(replace(config, vocab_size=vocab_size))


def instantiated_parameters(config: GPTConfig, vocab_size: int) -> int:
    """The same, counted on a model that is really built."""
    return sum(weight.numel() for weight in blank_model(replace(config, vocab_size=vocab_size)).parameters())


def evaluate_run(ctx: Context, name: str, prompt: str, known: set[str]) -> Run:
    """Score all seeds of a recipe and sample from the first."""
    recipe, n = RUNS[name], ctx.numbers
    trained = tuple(ctx.model(recipe, seed) for seed in ctx.seeds(recipe))
    n_bytes = len(ctx.text().encode())
    scores = tuple(evaluate(one.model, ctx.tokens(recipe), n_bytes=n_bytes) for one in trained)
    tokenizer = trained[0].tokenizer
    start = torch.tensor([tokenizer.encode(prompt)] * n["samples"], device=ctx.device)
    generator = ctx.generator("samples")
    tokens = generate(
        trained[0].model, start, n["characters"], sampling=Sampling(n["temperature"]), generator=generator
    )
    texts = tuple(tokenizer.decode(row) for row in tokens[:, start.shape[1] :].tolist())
    copied = mean_std([longest_copy(text, ctx.text("train")) for text in texts])[0]
    return Run(name, trained, scores, texts, share_of_real_words(texts, known), copied)


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    text, n = ctx.text(), ctx.numbers
    prompt = " ".join(text[text.find("\n") + 1 :][:60].split()[:6])  # a line's beginning
    known = set(words(ctx.text("train")))
    runs = {}
    for i, name in enumerate(RUNS):
        ctx.progress(i / len(RUNS), name)
        runs[name] = evaluate_run(ctx, name, prompt, known)
    return Findings(
        runs=runs,
        epoch=len(ctx.tokens(SMALL, "train")) - 1,
        targets=len(ctx.tokens(SMALL)) - 1,
        prompt=prompt,
        samples=(n["samples"], n["characters"], n["temperature"]),
        device=ctx.device.type,
    )


# --- What is said ---------------------------------------------------------------------------------------------


def listed(names: Sequence[str]) -> str:
    """A, B and C."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def parameter_part(f: Findings) -> Part:
    """True parameter counts beside the book's."""
    own = f.runs["small"].first.model.config.vocab_size
    vocabularies = ((f"{own} characters", own), *VOCABULARIES)
    rows: list[tuple[Cell, ...]] = []
    agree, fitting = [], []
    for name, recipe in SIZES.items():
        counts = [book_parameters(recipe.model, vocab_size) for _, vocab_size in vocabularies]
        C, claimed = recipe.model.d_model, CLAIMED[name]
        fitting.append(round((claimed - counts[0]) / C + own))  # each token of the vocabulary adds C
        rows.append((name, claimed, *counts, fitting[-1], f.runs[name].parameters))
        agree += [
            f"{name} with {label}"
            for (label, _), n in zip(vocabularies, counts, strict=True)
            if abs(n / claimed - 1) < 0.1
        ]
    columns = (
        "size",
        "the book's figure",
        *(f"V = {label}" for label, _ in vocabularies),
        "V that would give the book's figure",
        "trained here",
    )
    verdict = (
        f"Within a tenth of the book's figures: {listed(agree)}; no other combination. "
        if agree
        else "None of these combinations comes within a tenth of the book's figures. "
    )
    return Part(
        "",
        (
            Prose(
                "The embedding table holds $V \\cdot C$ numbers and is shared with the output, so that the size of a "
                "small model is mostly a statement about its vocabulary. Depth, width, heads and context of the book:"
            ),
            Table(columns, tuple(rows), "Parameters, shared ones once, context 256.", "parameters"),
            Prose(
                verdict
                + "The three figures do not belong to one vocabulary: it would have to be "
                + listed([f"{v:,} for {name}" for v, name in zip(fitting, SIZES, strict=True)])
                + ". The models below read characters and are therefore much smaller than the figures suggest."
            ),
        ),
        "How large the models are",
    )


def training_curve(run: Run, unit: float) -> Series:
    """Training loss of the first seed against steps times ``unit``, in means of groups of steps."""
    steps, losses = smoothed(run.first.history["step"], run.first.history["train_loss"], points=50)
    return Series(run.name, tuple(step * unit for step in steps), tuple(losses))


def validation_curve(run: Run, unit: float) -> Series:
    """Validation loss of the first seed against steps times ``unit``."""
    evaluations = run.first.evaluations
    steps = tuple(step * unit for step in evaluations["step"])
    return Series(run.name, steps, tuple(evaluations["validation_loss"]))


def part_a(f: Findings) -> Part:
    """Curves by tokens and by seconds."""
    runs = f.runs
    per_step = runs["small"].tokens_per_step
    times = listed([f"{f.time_ratio(name):.2f} for {name}" for name in EQUAL_TIME[:-1]])
    names = tuple(SIZES)
    order = sorted(names, key=lambda name: runs[name].training_loss)
    ends = listed([f"{runs[name].training_loss:.3f} for {name}" for name in order])
    return Part(
        "a",
        (
            Prose(
                f"All three see the same {runs['small'].steps * per_step:,} characters in the same order, "
                f"{runs['small'].steps * per_step / f.epoch:.2f} epochs, with a peak learning rate that falls as "
                "1 / width. Losses are in nats per character."
            ),
            Figure(
                "line",
                tuple(training_curve(runs[name], per_step) for name in names),
                "characters seen",
                "training loss, nats per character",
                "Equal steps: training loss (means of groups of steps, first seed).",
            ),
            Figure(
                "line",
                tuple(validation_curve(runs[name], per_step) for name in names),
                "characters seen",
                "validation loss, nats per character",
                "Equal steps: validation loss.",
            ),
            Figure(
                "line",
                tuple(validation_curve(runs[name], runs[name].step_seconds) for name in EQUAL_TIME),
                "seconds of training (steps × step time)",
                "validation loss, nats per character",
                "Equal time: the smaller models train longer.",
            ),
            Prose(
                f"Over the last tenth of equal steps the training loss is {ends}. For "
                f"equal time, small and medium get more steps ({runs['small, longer'].steps:,} and "
                f"{runs['medium, longer'].steps:,} instead of {runs['large'].steps:,}), fixed beforehand from step "
                f"times; measured, their time is {times}, in units of large's."
            ),
        ),
        "Training loss curves",
    )


def part_b(f: Findings) -> Part:
    """The table of losses, and what may be concluded."""
    rows: list[tuple[Cell, ...]] = []
    for name, run in f.runs.items():
        loss, spread = mean_std(run.losses)
        tokens = run.steps * run.tokens_per_step
        rows.append(
            (
                name,
                run.steps,
                tokens / f.epoch,
                tokens / run.parameters,
                run.seconds,
                loss,
                spread if len(run.losses) > 1 else None,
                mean_std([score.perplexity for score in run.scores])[0],
                loss / math.log(2),
                mean_std([score.bits_per_byte for score in run.scores])[0],
            )
        )
    columns = (
        "model",
        "steps",
        "epochs",
        "characters per parameter",
        "training, s",
        "validation loss, nats",
        "± over seeds",
        "perplexity per character",
        "bits per character",
        "bits per byte",
    )
    seeds = len(f.runs["large"].losses)
    caption = f"Over the whole validation split, {f.targets:,} characters; {seeds} seed{'s' * (seeds > 1)}."
    return Part(
        "b", (Table(columns, tuple(rows), caption, "validation"), Prose(conclusions(f))), "Validation perplexity"
    )


def conclusions(f: Findings) -> str:
    """What the losses say, chosen by what they are."""
    runs = f.runs
    at_equal_steps = compare(runs["small"].losses, runs["large"].losses)
    steps = describe(at_equal_steps, "large", "small")
    time = describe(compare(runs["small, longer"].losses, runs["large"].losses), "large", "small, trained longer")
    best_steps, best_time = f.best(tuple(SIZES)), f.best(EQUAL_TIME)
    scarce = runs["large"].steps * runs["large"].tokens_per_step / runs["large"].parameters
    if best_steps.name == "large" and best_time.name == "large":
        moral = "The large model is the best choice both ways."
    elif best_steps.name == "large":
        moral = (
            "Token for token the large model learns most, as it should (Kaplan et al., 2020); second for second "
            f"{best_time.name.split(',')[0]} does."
        )
    elif at_equal_steps.verdict in ("noise", "one seed"):
        losses = [runs[name].loss for name in SIZES]
        moral = (
            f"Token for token the three end within {max(losses) - min(losses):.3f} nats of each other, "
            f"{best_steps.name} lowest: that larger models use each token better (Kaplan et al., 2020) does not show "
            f"with so few tokens. Second for second {best_time.name.split(',')[0]} does best."
        )
    else:
        moral = (
            f"Even token for token {best_steps.name} comes out lowest here, against the expectation that larger models "
            f"use each token better (Kaplan et al., 2020), and second for second {best_time.name.split(',')[0]} does."
        )
    return (
        f"*Equal steps.* {steps} Lowest: {best_steps.name}.\n\n*Equal time.* {time} Lowest: {best_time.name}.\n\n"
        f"{moral} The large model sees {scarce:.2g} characters per parameter; Hoffmann et al. (2022) find about 20 "
        "tokens per parameter to be the best use of a budget, for tokens that hold several characters each."
    )


def part_c(f: Findings) -> Part:
    """Samples, and numbers to hold against one's impression."""
    count, characters, temperature = f.samples
    samples = tuple(
        Sample(
            f"{name} ({run.steps:,} steps)",
            f.prompt,
            run.texts[0],
            f"Temperature {temperature:g}; validation {run.loss:.3f} nats per character.",
        )
        for name, run in f.runs.items()
    )
    rows = tuple((name, run.loss, run.real_words, run.copied) for name, run in f.runs.items())
    columns = ("model", "validation loss, nats", "share of real words", "longest copied run, characters")
    caption = (
        f"{count} samples of {characters} characters each. Real words occur in the training text; a copied run is the "
        "longest piece of a sample that the training text has too (mean over samples)."
    )
    spelling = max(f.runs.values(), key=lambda run: run.real_words)
    agree = spelling.loss == min(run.loss for run in f.runs.values())
    reading = (
        f"The judgement of quality is the reader's. What can be counted: {spelling.name} writes the largest share of "
        f"real words, {spelling.real_words:.0%}, "
        + ("and it also has the lowest validation loss." if agree else "though it does not have the lowest loss.")
    )
    intro = "The same prompt, from held-out text, and the same random numbers for all."
    return Part(
        "c", (Prose(intro), *samples, Table(columns, rows, caption, "samples"), Prose(reading)), "Generated text"
    )


def part_d(f: Findings) -> Part:
    """Time per epoch, and why it does not follow the parameters."""
    small = f.runs["small"]
    rows = []
    for name in SIZES:
        run = f.runs[name]
        rate = run.tokens_per_step / run.step_seconds
        rows.append(
            (
                name,
                run.parameters,
                run.step_seconds * 1e3,
                rate,
                f.epoch / rate,
                run.step_seconds / small.step_seconds,
                run.flops_per_token / small.flops_per_token,
                run.flops_per_token * rate / 1e9,
            )
        )
    columns = (
        "model",
        "parameters",
        "ms per step",
        "characters/s",
        "seconds per epoch",
        "time, small = 1",
        "FLOPs, small = 1",
        "GFLOP/s reached",
    )
    caption = f"One epoch is {f.epoch:,} characters. Medians over the training, on {f.device}."
    large = f.runs["large"]
    time, flops = large.step_seconds / small.step_seconds, large.flops_per_token / small.flops_per_token
    if time < 0.9 * flops:
        reading = (
            "less than its arithmetic: the rate in the last column grows with size, as larger matrices keep the "
            "processor busier and a part of each step costs the same at every size."
        )
    elif time > 1.1 * flops:
        reading = (
            "more than its arithmetic: the rate in the last column falls with size, as it does where weights no longer "
            "fit the processor's caches."
        )
    else:
        reading = "about what its arithmetic says."
    epochs = Series("seconds", tuple(SIZES), tuple(row[4] for row in rows))
    return Part(
        "d",
        (
            Table(columns, tuple(rows), caption, "time"),
            Figure("bar", (epochs,), "model", "seconds per epoch", "Training time per epoch.", y_log=True),
            Prose(
                f"An epoch of large takes {time:.1f} times as long as one of small for {flops:.1f} times the FLOPs, "
                f"{reading} Times are those of the trainings themselves, during which other work ran on the machine."
            ),
        ),
        "Training time per epoch",
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    runs = f.runs
    counts = [
        (book_parameters(recipe.model, v), instantiated_parameters(recipe.model, v))
        for recipe in SIZES.values()
        for v in (runs["small"].first.model.config.vocab_size, *(v for _, v in VOCABULARIES))
    ]
    recorded = [
        abs(score.nats_per_token - trained.evaluations["validation_loss"][-1])
        for run in runs.values()
        for trained, score in zip(run.trained, run.scores, strict=True)
    ]
    starts = [
        abs(trained.evaluations["validation_loss"][0] - math.log(trained.model.config.vocab_size))
        for run in runs.values()
        for trained in run.trained
    ]
    seen = {run.steps * run.tokens_per_step for run in (runs[name] for name in SIZES)}
    scored = {score.tokens for run in runs.values() for score in run.scores}
    large, longer = runs["large"], runs["small, longer"]
    return (
        Check.equal(
            f"of {len(counts)} parameter counts in closed form, those that a built model confirms",
            sum(closed == built for closed, built in counts),
            len(counts),
        ),
        Check.equal("different numbers of characters seen by the three at equal steps", len(seen), 1),
        Check.equal("every model is scored on the whole validation split", scored == {f.targets}, True),
        Check.at_most("scored again, no loss differs from the recorded one by more than", max(recorded), 2e-3),
        Check.at_most("no training starts further from ln V, in nats, than", max(starts), 0.3),
        Check.at_most("equal steps: large is at or below small, nats", large.loss, runs["small"].loss, "empirical"),
        Check.at_least("equal time: large is at or above small, nats", large.loss, longer.loss, "empirical"),
        *(
            Check.close(f"training time of {name} over large's", f.time_ratio(name), 1.0, 0.25, "empirical")
            for name in EQUAL_TIME[:-1]
        ),
    )


def answer(ctx: Context) -> Answer:
    """The sizes, part by part."""
    f = measure(ctx)
    parts = (parameter_part(f), part_a(f), part_b(f), part_c(f), part_d(f))
    steps, time = f.best(tuple(SIZES)), f.best(EQUAL_TIME)
    one_seed = len(f.runs["large"].losses) == 1
    notes: tuple[str, ...] = ("One seed per model: small differences may be noise.",) if one_seed else ()
    return Answer(
        summary=f"Lowest validation loss at equal steps: {steps.name} ({steps.loss:.3f} nats); at equal time: "
        f"{time.name} ({time.loss:.3f} nats).",
        parts=parts,
        checks=checks(f),
        metrics=f.metrics,
        notes=notes,
    )


EXERCISE = Exercise(
    id="21.22",
    title="Model Size Experiment",
    recipes=tuple(RUNS.values()),
    numbers={
        "smoke": {"samples": 2, "characters": 100, "temperature": 0.8},
        "laptop": {"samples": 4, "characters": 200, "temperature": 0.8},
        "gpu": {"samples": 16, "characters": 400, "temperature": 0.8},
    },
    seconds={"smoke": 3, "laptop": 38, "gpu": 60},
    answer=answer,
)
