"""Measures 21.10: probes, gaps, the next character and texts of both models, and what each of them can see."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from minigpt.decoding import infill
from minigpt.decoding.sampling import generate
from minigpt.evaluation.evaluate import token_losses
from minigpt.model import GPT
from minigpt.precision import Precision
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex10_causal_bidirectional.corruption import letters, make_task
from tasks.exercises.ex10_causal_bidirectional.findings import TASKS, Findings, Gap, Model, Written
from tasks.exercises.ex10_causal_bidirectional.reading import probed, read, read_twice, untrained
from tasks.recipes.catalogue import LARGE, MEDIUM, SMALL_LONG, STUDY_MASKED, STUDY_ROPE

LARGER = (SMALL_LONG, MEDIUM, LARGE)  # and longer trained


def measure(context: Context) -> Findings:
    """Everything the answer rests on."""
    e = Evidence(context)
    accuracy = e.classify(context)
    context.progress(0.5, "filling gaps")
    gaps = e.fill(context.numbers["gap_windows"])
    context.progress(0.8, "predicting the next character")
    ahead = e.predict(context.numbers["next_windows"])
    corruptions = {name: corruption(context, name, e) for name in TASKS}
    return Findings(
        causal=model(e.causal),
        masked=model(e.masked),
        larger={name: model([trained]) for name, trained in e.larger.items()},
        baselines=e.causal[0].baselines,
        vocab_size=e.causal[0].model.config.vocab_size,
        length=e.length,
        masking_rate=masking_rate(e),
        accuracy=accuracy,
        gaps=gaps,
        next=ahead,
        written=written(context, e),
        leaks=leaks(e),
        scoring_error=scoring_error(e),
        moved={name: found[0] for name, found in corruptions.items()},
        corrupted={name: found[1] for name, found in corruptions.items()},
    )


def model(seeds: Sequence[TrainedModel]) -> Model:
    """A recipe's models as plain data."""
    first, losses = seeds[0], tuple(one.evaluations["validation_loss"][-1] for one in seeds)
    parameters = sum(p.numel() for p in first.model.parameters())
    return Model(first.recipe.name, parameters, first.recipe.train.steps, losses)


class Evidence:
    """The models of all seeds, and what is measured of them."""

    def __init__(self, context: Context) -> None:
        self.causal = [context.model(STUDY_ROPE, seed) for seed in context.seeds(STUDY_ROPE)]
        self.masked = [context.model(STUDY_MASKED, seed) for seed in context.seeds(STUDY_MASKED)]
        self.larger = {recipe.name: context.model(recipe) for recipe in LARGER}
        self.length = min(m.model.config.context for m in (*self.causal, *self.larger.values()))
        self.tokens = context.tokens(STUDY_ROPE)

    def classify(self, context: Context) -> dict[str, dict[str, tuple[float, ...]]]:
        """Task → features → test accuracy, one per seed."""
        result: dict[str, dict[str, tuple[float, ...]]] = {}
        for i, name in enumerate(TASKS):
            context.progress(0.25 * i, f"probes: {name}")
            task, half = (make_task(context, name, length) for length in (self.length, self.length // 2))
            found = {"letter counts": [probed(task, *letters(task, self.causal[0].model.config.vocab_size))]}
            for label, models in self._readers().items():
                for model, both, precision in models:
                    for kind, pair in read(task, model, both_ways=both, precision=precision).items():
                        found.setdefault(f"{label}, {kind}", []).append(probed(task, *pair))
            for m in self.causal:
                once, twice = read(half, m.model, both_ways=False)["mean"], read_twice(half, m.model)
                found.setdefault("half, read once", []).append(probed(half, *once))
                found.setdefault("half, read twice", []).append(probed(half, *twice))
            found["half, masked"] = [probed(half, *read(half, m.model, both_ways=True)["mean"]) for m in self.masked]
            result[name] = {features: tuple(values) for features, values in found.items()}
        return result

    def _readers(self) -> dict[str, list[tuple[GPT, bool, Precision]]]:
        """Label → models, whether they read both ways, and the precision: of the larger ones that of their training."""
        return {
            "untrained": [(untrained(m), False, "fp32") for m in self.causal],
            "causal": [(m.model, False, "fp32") for m in self.causal],
            "masked": [(m.model, True, "fp32") for m in self.masked],
            **{f"causal {label}": [(m.model, False, m.recipe.train.precision)] for label, m in self.larger.items()},
        }

    def windows(self, count: int) -> Tensor:
        """Windows of the validation text, evenly spread, (count, T)."""
        available = len(self.tokens) // self.length
        rows = self.tokens[: available * self.length].view(available, self.length)
        return rows[torch.linspace(0, available - 1, min(count, available)).long()]

    def fill(self, count: int) -> dict[str, Gap]:
        """Ways of filling the middle of a window."""
        tokens, middle = self.windows(count), self.length // 2
        ways = (
            ("masked, both sides", infill.fill_both_ways, self.masked),
            ("causal, left side only", infill.fill_from_the_left, self.causal),
            ("causal, every candidate scored", infill.fill_by_scoring, self.causal),
        )
        truth = tokens[:, middle]
        result: dict[str, Gap] = {}
        for name, fill, models in ways:
            accuracy, losses = [], []
            for trained in models:
                logs = fill(trained.model, tokens, middle).double()
                right = (logs.argmax(dim=-1) == truth).double().mean().item()
                known = truth != infill.HIDDEN  # a character the training text does not have
                loss = -logs[known].gather(-1, truth[known, None]).mean().item()
                accuracy.append(right)
                losses.append(loss)
            result[name] = Gap(tuple(accuracy), tuple(losses))
        return result

    def predict(self, count: int) -> dict[str, tuple[float, ...]]:
        """Mean loss of the next character of the same texts, one per seed, in nats."""
        tokens, first = self.windows(count), self.length // 4
        truth = tokens[:, first:]
        known = truth != infill.HIDDEN
        result: dict[str, list[float]] = {"causal": [], "masked": []}
        for one, two in zip(self.causal, self.masked, strict=True):
            pairs = (("causal", one.model, next_one_way), ("masked", two.model, infill.next_both_ways))
            for name, model, ahead in pairs:
                logs = torch.stack([ahead(model, tokens[:, :i]) for i in range(first, self.length)], dim=1)
                losses = -logs.double().gather(-1, truth[..., None])[..., 0]
                result[name].append(losses[known].mean().item())
        return {name: tuple(losses) for name, losses in result.items()}


def next_one_way(model: GPT, tokens: Tensor) -> Tensor:
    """ln P(next token | tokens) of a causal model, (B, T) → (B, V), without the token that stands for hidden."""
    padded = torch.cat([tokens, tokens[:, :1]], dim=1)
    return infill.fill_from_the_left(model, padded, tokens.shape[1])


def masking_rate(e: Evidence) -> float:
    """Share of the tokens that the masked model predicted in training."""
    return float(dict(e.masked[0].recipe.train.objective_args).get("rate", infill.RATE))


def written(context: Context, e: Evidence) -> tuple[Written, ...]:
    """The same prompts continued in three ways."""
    prompts, n_new = e.windows(context.numbers["samples"])[:, : e.length // 4], e.length - e.length // 4
    causal, masked = e.causal[0], e.masked[0]
    ways: tuple[tuple[str, Callable[[torch.Generator], Tensor]], ...] = (
        ("Causal", lambda g: generate(causal.model, prompts, n_new, generator=g)),
        ("Masked, left to right", lambda g: infill.write_left_to_right(masked.model, prompts, n_new, g)),
        ("Masked, surest character first", lambda g: infill.write_in_any_order(masked.model, prompts, n_new, g)),
    )
    samples = []
    for name, write in ways:
        for row in write(context.generator("writing")).tolist():
            prompt, text = (causal.tokenizer.decode(ids) for ids in (row[: prompts.shape[1]], row[prompts.shape[1] :]))
            samples.append(Written(name, prompt, text))
    return tuple(samples)


@torch.inference_mode()
def leaks(e: Evidence) -> tuple[int, int]:
    """At how many earlier positions the output changes when the last token does: causal, masked."""
    tokens = e.windows(1)
    other = tokens.clone()
    other[0, -1] = tokens[0, -1] % (e.causal[0].model.config.vocab_size - 1) + 1
    counts = []
    for model, mask in (
        (e.causal[0].model, None),
        (e.masked[0].model, infill.everything(tokens.shape[1], tokens.device)),
    ):
        before, after = (model.hidden(x, mask=mask)[0, :-1] for x in (tokens, other))
        counts.append(int((before != after).any(dim=-1).sum()))
    return counts[0], counts[1]


def scoring_error(e: Evidence) -> float:
    """Bayes' rule by whole texts: largest difference between scored candidates and sums of token losses, in nats."""
    tokens, middle, model = e.windows(1), e.length // 2, e.causal[0].model
    logs = infill.fill_by_scoring(model, tokens, middle)[0, 1:]
    whole = []
    for candidate in range(1, model.config.vocab_size):
        text = tokens[0].clone()
        text[middle] = candidate
        whole.append(-token_losses(model, text).double().sum())
    return (torch.stack(whole).log_softmax(dim=0) - logs.double()).abs().max().item()


def corruption(context: Context, name: str, e: Evidence) -> tuple[float, float]:
    """Of a task: by how much any letter count of a window changes, at most, and in what share of windows any letter."""
    task = make_task(context, name, e.length)
    half = len(task.test) // 2
    _, counts = letters(task, e.causal[0].model.config.vocab_size)
    changed = (task.test[:half] != task.test[half:]).any(dim=1).double().mean().item()
    return (counts[:half] - counts[half:]).abs().max().item(), changed


EXERCISE = Exercise(
    measure=measure,
    recipes=(STUDY_ROPE, STUDY_MASKED, *LARGER),
    numbers={
        "smoke": {"train_windows": 200, "test_windows": 60, "gap_windows": 16, "next_windows": 16, "samples": 1},
        "laptop": {"train_windows": 320, "test_windows": 199, "gap_windows": 96, "next_windows": 96, "samples": 2},
        "gpu": {
            "train_windows": 8_000,
            "test_windows": 3_000,
            "gap_windows": 1_000,
            "next_windows": 1_000,
            "samples": 3,
        },
    },
    seconds={"smoke": 4, "laptop": 60, "gpu": 60},
)
