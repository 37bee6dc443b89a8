"""What a run consists of: a node per corpus, encoded corpus, its n-grams, trained model, exercise; what each needs.

Building the graph runs nothing and reads no store, but it imports all exercises: ``kept`` spares commands that look.
"""

import functools
import importlib
import importlib.metadata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from flows.execution.nodes import Node as Node  # who builds or runs a graph finds it here
from flows.machine import hardware
from flows.options import UsageError
from reports.chapter import QUESTIONS
from tasks.cache.keys import canonical
from tasks.context import baselines_role, text_role, tokens_role, training_role, tuning_role
from tasks.exercise import Exercise
from tasks.exercises import modules
from tasks.recipes.catalogue import STAND_IN
from tasks.recipes.profiles import Profile
from tasks.recipes.recipe import FineTune, Recipe
from tasks.sources.resolve import Sources

TEXT_CODE = ("tasks.sources.corpora",)
TOKENS_CODE = ("minigpt.tokenizers", "tasks.sources.corpora")
BASELINES_CODE = ("minigpt.evaluation.ngrams",)
TRAIN_CODE = ("tasks.models.training",)
TUNE_CODE = ("tasks.models.finetuning",)
PRETRAINED_CODE = ("tasks.models.reading", "tasks.models.stand_in")


@dataclass(frozen=True)
class Request:
    """What somebody wants to have run."""

    profile: Profile
    sources: Sources
    exercises: tuple[Exercise, ...]
    device: str = "cpu"
    recipes: tuple[tuple[Recipe, int], ...] = ()  # models wanted for themselves, with their seeds
    tunings: tuple[FineTune, ...] = ()  # likewise


def load_exercises(ids: Sequence[str]) -> tuple[Exercise, ...]:
    """The exercises with these ids.

    Raises:
        KeyError: there is no such exercise.
        UsageError: a folder without a question.
    """
    known = modules()
    for id in ids:
        if id not in QUESTIONS:
            raise UsageError(
                f"{known[id]}: exercise {id} has a folder but no question; add `### Exercise {id}: …` to "
                "reports/data/chapter-21.md"
            )
    return tuple(importlib.import_module(known[id]).EXERCISE for id in ids)


def environment(device: str, *packages: str) -> dict[str, Any]:
    """What results depend on besides code and inputs: the device, and the versions of PyTorch and other packages."""
    versions = {package: _version(package) for package in ("torch", *packages)}
    return {"device": device, **versions, "torch": versions["torch"].split("+")[0]}  # without "+cpu", "+cu130"


@functools.cache  # a build asks hundreds of times, and each time a file is searched for and parsed
def _version(package: str) -> str:
    return importlib.metadata.version(package)


def build(request: Request) -> dict[str, Node]:
    """All nodes of a request by name, each after what it needs."""
    builder = _Builder(request)
    for recipe, seed in request.recipes:
        builder.training(recipe, seed)
    for tuning in request.tunings:
        builder.tuning(tuning)
    for exercise in request.exercises:
        builder.exercise(exercise)
    return builder.nodes


class _Builder:
    def __init__(self, request: Request) -> None:
        self.request = request
        self.nodes: dict[str, Node] = {}

    def _add(self, name: str, make: Callable[[], Node]) -> str:
        if name not in self.nodes:
            node = make()
            self.nodes[name] = node
        return name

    def text(self, corpus: str) -> str:
        profile, reference = self.request.profile, self.request.sources.corpus(corpus)

        def make() -> Node:
            inputs = {
                "reference": reference.key(),
                "train_characters": profile.train_characters,
                "validation_characters": profile.validation_characters,
            }
            local = {"reference": reference.to_json()}
            return Node(text_role(corpus), "text", f"text {corpus}", {}, inputs, TEXT_CODE, 3.0, local)

        return self._add(text_role(corpus), make)

    def tokens(self, corpus: str, tokenizer: str) -> str:
        name = tokens_role(corpus, tokenizer)

        def make() -> Node:
            needs = {"text": self.text(corpus)}
            inputs: dict[str, Any] = {"tokenizer": tokenizer}
            if tokenizer == "bpe":
                inputs["bpe"] = self.request.sources.bpe.key()
            if tokenizer == "bpe-2k":
                inputs["environment"] = {"tokenizers": _version("tokenizers")}  # which trains it
            return Node(name, "tokens", f"tokens {corpus}, {tokenizer}", needs, inputs, TOKENS_CODE, 2.0)

        return self._add(name, make)

    def baselines(self, corpus: str, tokenizer: str) -> str:
        name = baselines_role(corpus, tokenizer)

        def make() -> Node:
            needs = {"tokens": self.tokens(corpus, tokenizer)}
            return Node(name, "baselines", f"n-grams {corpus}, {tokenizer}", needs, {}, BASELINES_CODE, 2.0)

        return self._add(name, make)

    def training(self, recipe: Recipe, seed: int) -> str:
        name = training_role(recipe, seed)

        def make() -> Node:
            resolved = self.request.profile.resolve(recipe).with_seed(seed)
            needs = {"tokens": self.tokens(recipe.corpus, resolved.tokenizer)}
            if recipe.teacher:
                needs["teacher"] = self.training(recipe.teacher, self.request.profile.seeds(recipe.teacher)[0])
            # The names are labels: two recipes that say the same train the same model.
            fields = {k: v for k, v in canonical(resolved).items() if k not in ("name", "group", "teacher")}
            return Node(
                name,
                "train",
                f"train {recipe.name}, seed {seed}",
                needs,
                {"recipe": fields, "environment": environment(self.request.device)},
                TRAIN_CODE,
                training_seconds(resolved, self.request.profile.validation_characters),
                models=True,
                subject=recipe.name,
                seed=seed,
            )

        return self._add(name, make)

    def tuning(self, tuning: FineTune) -> str:
        request, name = self.request, tuning_role(tuning)

        def make() -> Node:
            resolved, pretrained = request.profile.resolve_tuning(tuning), request.sources.pretrained
            fields = {k: v for k, v in canonical(resolved).items() if k not in ("name", "corpus")}
            return Node(
                name,
                "finetune",
                f"fine-tune on the {tuning.corpus} corpus",
                {"text": self.text(tuning.corpus), **self.stand_in()},
                {
                    "recipe": fields,
                    "pretrained": pretrained.key(),
                    "environment": environment(request.device, "transformers"),
                },
                TUNE_CODE + PRETRAINED_CODE,
                tuning_seconds(resolved, stand_in=pretrained.kind == "stand-in"),
                {"pretrained": pretrained.to_json()},
                models=True,
                subject=tuning.name,
            )

        return self._add(name, make)

    def stand_in(self) -> dict[str, str]:
        """What the pretrained model is made of, where this project makes it: role -> node."""
        if self.request.sources.pretrained.kind != "stand-in":
            return {}
        seed = self.request.profile.seeds(STAND_IN)[0]
        return {training_role(STAND_IN, seed): self.training(STAND_IN, seed)}

    def exercise(self, exercise: Exercise) -> str:
        request, name = self.request, f"exercise/{exercise.id}"
        profile, sources = request.profile, request.sources

        def make() -> Node:
            needs: dict[str, str] = {}
            for recipe in exercise.recipes:
                for seed in profile.seeds(recipe):
                    needs[training_role(recipe, seed)] = self.training(recipe, seed)
                tokenizer = profile.resolve(recipe).tokenizer
                needs[tokens_role(recipe.corpus, tokenizer)] = self.tokens(recipe.corpus, tokenizer)
                needs[baselines_role(recipe.corpus, tokenizer)] = self.baselines(recipe.corpus, tokenizer)
                needs[text_role(recipe.corpus)] = self.text(recipe.corpus)
            for source in exercise.sources:
                if source in ("main", "domain", "code"):
                    needs[text_role(source)] = self.text(source)
            inputs: dict[str, Any] = {
                "module": modules()[exercise.id],
                "profile": profile.name,
                "numbers": profile.numbers(exercise.numbers),
                "seeds": {recipe.name: profile.seeds(recipe) for recipe in exercise.recipes},
                # Findings hold curves and budgets, which the weights alone do not tell apart.
                "recipes": {recipe.name: canonical(profile.resolve(recipe)) for recipe in exercise.recipes},
                "tunings": {tuning.name: canonical(profile.resolve_tuning(tuning)) for tuning in exercise.finetunes},
                # One thread also where time is measured: on models of this size a second one gains little, and it loses
                # far more than that where something else wants the core.
                "environment": {**environment(request.device), "threads": 1},
            }
            used = {*exercise.sources, *(recipe.corpus for recipe in exercise.recipes)}
            used |= {tuning.corpus for tuning in exercise.finetunes}
            local: dict[str, Any] = {
                "sources": sources.lines(used),
                "budget": profile.budget,
                "precision": profile.precision,
            }
            code: tuple[str, ...] = (modules()[exercise.id],)
            for tuning in exercise.finetunes:
                needs[tuning_role(tuning)] = self.tuning(tuning)
            if "pretrained" in exercise.sources:
                needs |= self.stand_in()
                inputs["pretrained"] = sources.pretrained.key()
                inputs["environment"] |= environment(request.device, "transformers")
                inputs["environment"]["precision"] = profile.pretrained_precision
                code += PRETRAINED_CODE
                local["pretrained"] = sources.pretrained.to_json()
            if "bpe" in exercise.sources:
                inputs["bpe"] = sources.bpe.key()
            if exercise.timed:
                inputs["hardware"] = hardware(request.device)
            return Node(
                name,
                "exercise",
                f"exercise {exercise.id}",
                needs,
                inputs,
                code,
                profile.seconds(exercise.seconds),
                local,
                exercise.version,
                alone=exercise.timed,
                ahead=profile.seconds(exercise.seconds_ahead) if exercise.ahead else 0.0,
                models=bool(exercise.recipes) or "pretrained" in exercise.sources,
                subject=exercise.id,
            )

        return self._add(name, make)


# What is known of a vocabulary and of a token's length in characters before there is a tokenizer.
VOCABULARY = {"char": 100, "word": 5_000, "bpe": 50_257, "bpe-2k": 2_048}
CHARACTERS = {"char": 1.0, "word": 4.0, "bpe": 3.5, "bpe-2k": 3.0}
CORE_FLOPS = 60e9  # per second of one core of a laptop, measured
BF16_STEPS = 1.8  # times as many a second as in fp32, where bf16 is chosen at all


def training_seconds(recipe: Recipe, validation_characters: int) -> float:
    """Expected seconds of a training on one core of a laptop, evaluations included.

    6 FLOPs per weight and token, 2 where nothing is learned (Kaplan et al., 2020, section 2.1), at a rate measured on
    such cores, and a fixed cost per step and layer.
    """
    model, train = recipe.model, recipe.train
    weights = _weights(recipe)
    each = 6.0 * weights + (2.0 * _weights(recipe.teacher) if recipe.teacher else 0.0)
    layers = model.n_layer + (recipe.teacher.model.n_layer / 3 if recipe.teacher else 0)
    rate = CORE_FLOPS * (BF16_STEPS if train.precision == "bf16" else 1.0)
    step = each * train.batch_size * model.context / rate + 0.0012 * layers + 0.002
    evaluations = 1 + train.steps // (train.eval_every or max(1, -(-train.steps // 8))) + len(train.early_budgets)
    read = validation_characters / CHARACTERS[recipe.tokenizer]
    return train.updates * step + evaluations * 2.0 * weights * read / CORE_FLOPS


def _weights(recipe: Recipe) -> float:
    """Multiplications of one token's forward pass, attention included."""
    model = recipe.model
    attention = model.d_model * (2 * model.d_model + 2 * model.kv_heads * model.head_dim)
    blocks = model.n_layer * (attention + 2 * model.d_model * model.ff_dim + model.context * model.d_model)
    return float(blocks + model.n_future * VOCABULARY[recipe.tokenizer] * model.d_model)


def tuning_seconds(tuning: FineTune, *, stand_in: bool) -> float:
    """Expected seconds of a fine-tuning on one core of a laptop, by rates measured there with 135 M parameters."""
    trained, evaluated = tuning.epochs * tuning.train_tokens, (tuning.epochs + 1) * tuning.validation_tokens
    return trained / (3_000 if stand_in else 70) + evaluated / (10_000 if stand_in else 130)
