"""The context of an exercise, backed by the records of the steps before it."""

import contextlib
import copy
import functools
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load
from torch import Tensor

from minigpt.atomic import write_atomic
from minigpt.evaluation.ngrams import Baselines
from minigpt.model import GPT
from minigpt.precision import Precision
from minigpt.tokenizers import Tokenizer, from_json
from tasks.cache.keys import canonical
from tasks.cache.store import Artifact, MissingArtifact, Store
from tasks.exercise import Exercise, FineTuned, Pretrained, Source, Split, TrainedModel
from tasks.models.training import load_model
from tasks.recipes.profiles import Profile
from tasks.recipes.recipe import FineTune, Recipe


def training_role(recipe: Recipe, seed: int) -> str:
    """The role of a trained model among a step's upstream records."""
    return f"train/{recipe.name}/{seed}"


def tuning_role(tuning: FineTune) -> str:
    """The role of a fine-tuned model."""
    return f"finetune/{tuning.name}"


def tokens_role(corpus: str, tokenizer: str) -> str:
    """The role of an encoded corpus."""
    return f"tokens/{corpus}/{tokenizer}"


def baselines_role(corpus: str, tokenizer: str) -> str:
    """The role of the n-grams on an encoded corpus."""
    return f"baselines/{corpus}/{tokenizer}"


def text_role(corpus: str) -> str:
    """The role of a corpus's text."""
    return f"text/{corpus}"


class StoreContext:
    """``tasks.exercise.Context`` over the store. Models are loaded when they are asked for, and once.

    ``upstream`` maps roles to references of records: ``{"key", "artifacts"}``.
    """

    def __init__(
        self,
        exercise: Exercise,
        profile: Profile,
        store: Store,
        upstream: Mapping[str, Mapping[str, Any]],
        device: torch.device,
        *,
        load_pretrained: Callable[[], Pretrained],
        load_bpe: Callable[[], Tokenizer],
        progress: Callable[[float, str], None],
        parts: Path,
        precision: Precision = "fp32",
    ) -> None:
        self.exercise = exercise
        self.profile = profile.name
        self.numbers = profile.numbers(exercise.numbers)
        self.device = device
        self.precision = precision
        self._profile, self._store, self._upstream = profile, store, upstream
        self._load_pretrained, self._load_bpe, self._progress = load_pretrained, load_bpe, progress
        self._parts = parts
        self._models = functools.lru_cache(maxsize=None)(self._model)
        self.pretrained = functools.lru_cache(maxsize=None)(self._pretrained)
        self.bpe = functools.lru_cache(maxsize=None)(self._bpe)

    def blob(self, role: str, name: str) -> bytes:
        """Content of one artifact of an upstream record.

        Raises:
            KeyError: the exercise does not declare what it asks for.
        """
        if role not in self._upstream:
            raise KeyError(f"exercise {self.exercise.id} asks for {role}, which it does not declare")
        return self._store.fetch_bytes(Artifact(**self._upstream[role]["artifacts"][name]))

    def _record(self, role: str) -> Mapping[str, Any]:
        record = self._store.record(self._upstream[role]["key"])
        if record is None:
            raise MissingArtifact(f"the record of {role} has vanished from the store")
        return record

    def seeds(self, recipe: Recipe) -> tuple[int, ...]:
        """See ``tasks.exercise.Context``."""
        return self._profile.seeds(recipe)

    def model(self, recipe: Recipe, seed: int | None = None) -> TrainedModel:
        """See ``tasks.exercise.Context``."""
        return self._models(recipe, self.seeds(recipe)[0] if seed is None else seed)

    def _model(self, recipe: Recipe, seed: int) -> TrainedModel:
        role = training_role(recipe, seed)
        content = self.blob(role, "model")
        data = self._record(role)["data"]

        def load_snapshot(step: int) -> GPT:
            return load_model(self.blob(role, f"snapshot-{step}"), data["config"], self.device)

        return TrainedModel(
            recipe=self._profile.resolve(recipe).with_seed(seed),
            model=load_model(content, data["config"], self.device),
            tokenizer=self._tokenizer(recipe),
            history=data["history"],
            evaluations=data["evaluations"],
            finished=data["finished"],
            seconds=data["training_seconds"],
            tokens_per_second=data["tokens_per_second"],
            train_tokens=len(self.tokens(recipe, "train")),
            baselines=self._baselines(recipe),
            snapshot_steps=tuple(data["snapshots"]),
            load_snapshot=load_snapshot,
        )

    def _baselines(self, recipe: Recipe) -> Baselines:
        role = baselines_role(recipe.corpus, self._profile.resolve(recipe).tokenizer)
        return Baselines(**json.loads(self.blob(role, "baselines")))

    def _tokenizer(self, recipe: Recipe) -> Tokenizer:
        return load_tokenizer(self.blob(self._tokens_role(recipe), "tokenizer"))

    def _tokens_role(self, recipe: Recipe) -> str:
        return tokens_role(recipe.corpus, self._profile.resolve(recipe).tokenizer)

    def text(self, split: Split = "validation", corpus: Source = "main") -> str:
        """See ``tasks.exercise.Context``."""
        return self.blob(text_role(corpus), split).decode()

    def tokens(self, recipe: Recipe, split: Split = "validation") -> Tensor:
        """See ``tasks.exercise.Context``."""
        return load_tokens(self.blob(self._tokens_role(recipe), "tokens"))[split].to(self.device)

    def _pretrained(self) -> Pretrained:
        if "pretrained" not in self.exercise.sources:
            raise KeyError(f"exercise {self.exercise.id} asks for the pretrained model, which it does not declare")
        return self._load_pretrained()

    def finetuned(self, recipe: FineTune) -> FineTuned:
        """See ``tasks.exercise.Context``."""
        from tasks.models.finetuning import load_weights

        role = tuning_role(recipe)
        content = self.blob(role, "model")
        data = self._record(role)["data"]
        base = self.pretrained()
        model = load_weights(copy.deepcopy(base.model), content)
        return FineTuned(
            recipe=self._profile.resolve_tuning(recipe),
            pretrained=replace(base, model=model),
            steps=data["steps"],
            block=data["block"],
            tokens=data["tokens"],
            history=data["history"],
            evaluations=data["evaluations"],
            seconds=data["training_seconds"],
            tokens_per_second=data["tokens_per_second"],
        )

    def _bpe(self) -> Tokenizer:
        if "bpe" not in self.exercise.sources:
            raise KeyError(f"exercise {self.exercise.id} asks for GPT-2's tokenizer, which it does not declare")
        return self._load_bpe()

    def generator(self, salt: str = "") -> torch.Generator:
        """See ``tasks.exercise.Context``."""
        seed = hashlib.sha256(f"{self.exercise.id}/{salt}".encode()).digest()[:7]
        return torch.Generator().manual_seed(int.from_bytes(seed))

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """See ``tasks.exercise.Context``."""
        file = self._parts / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
        with contextlib.suppress(FileNotFoundError, ValueError):
            return json.loads(file.read_bytes())
        value = canonical(compute())
        write_atomic(file, json.dumps(value).encode())
        return value

    def progress(self, fraction: float, note: str = "") -> None:
        """See ``tasks.exercise.Context``."""
        self._progress(fraction, note)


def load_tokens(content: bytes) -> dict[str, Tensor]:
    """The splits of an encoded corpus, (N,) int64 each."""
    return {split: tokens.long() for split, tokens in load(content).items()}


def load_tokenizer(content: bytes) -> Tokenizer:
    """A tokenizer from its JSON."""
    return from_json(json.loads(content))


def smallest_integers(ids: Sequence[int], vocab_size: int) -> Tensor:
    """Token ids in the smallest integer type that safetensors and torch share for them."""
    return torch.tensor(ids, dtype=torch.uint8 if vocab_size <= 256 else torch.int32)
