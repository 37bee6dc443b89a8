"""The cached tasks: text → tokens → train → exercise, and finetune beside train.

A task gets a ``Step`` (all that its result depends on), ``local`` (where things lie on this machine; not in the
key) and a ``Place``. It returns a record: references to blobs and plain JSON. Prefect keeps the
record under the step's key, lets one process at a time work on a key, and calls nothing on a hit.
"""

import importlib
import json
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from safetensors.torch import save

from reports.types import Provenance, Result, to_json
from tasks.cache.keys import Step, canonical, digest
from tasks.cache.locks import FlockManager, LeasedLockManager
from tasks.cache.progress import ProgressFile
from tasks.cache.store import Artifact, RecordSerializer, RecordStorage, Store, as_record
from tasks.context import StoreContext, load_tokenizer, load_tokens, smallest_integers
from tasks.exercise import Exercise, Pretrained
from tasks.recipes.catalogue import STAND_IN
from tasks.recipes.profiles import PROFILES

Record = dict[str, Any]


class StepFailed(Exception):
    """A step's own code failed; the text is the traceback, which does not survive the way between processes."""


@dataclass(frozen=True)
class Place:
    """Where a step works: the store's URL, a folder of this machine for progress and caches, and the run's name.

    ``shared``: workers on other machines may want the same step.
    """

    store: str
    outputs: str
    run: str = "run"
    shared: bool = False

    @property
    def progress(self) -> Path:
        """Where the steps of this run tell how far they are."""
        return Path(self.outputs) / "progress" / self.run

    @property
    def folder(self) -> Path:
        """For locks and checkpoints: the store if that is a folder, so that all who share it share them, too."""
        return self.open_store().local or Path(self.outputs)

    def open_store(self) -> Store:
        """The store, with a cache for its blobs if it is remote."""
        return Store(self.store, cache=Path(self.outputs) / "blobs")


@dataclass
class StepKey(CachePolicy):
    """Prefect's cache policy: the key is the step's own."""

    def compute_key(
        self, task_ctx: TaskRunContext, inputs: dict[str, Any], flow_parameters: dict[str, Any], **kwargs: Any
    ) -> str | None:
        """See ``prefect.cache_policies.CachePolicy``."""
        return str(inputs["step"].key)


def cached_task(step: Step, place: Place, storage: RecordStorage) -> Task[..., Record]:
    """The Prefect task that runs ``step``, with the cache over ``storage``, a block that is saved on the server."""
    locks = (LeasedLockManager if place.shared else FlockManager)(place.folder / "locks")
    policy = StepKey(lock_manager=locks, isolation_level="SERIALIZABLE")
    return TASKS[step.kind].with_options(
        task_run_name=step.name,
        cache_policy=policy,
        result_storage=storage,
        result_serializer=RecordSerializer(url=place.store),
        persist_result=True,
        cache_result_in_memory=False,
    )


def save_storage(place: Place) -> RecordStorage:
    """The store as a Prefect block, saved on the server under a name of its own. Prefect wants that of a storage."""
    storage = RecordStorage(url=place.store)
    storage.save(f"chapter-{digest(place.store)[:12]}", overwrite=True)
    return storage


# --- What each kind of step does ------------------------------------------------------------------------------


def _upstream(store: Store, step: Step, role: str, name: str) -> bytes:
    return store.fetch_bytes(Artifact(**step.upstream[role]["artifacts"][name]))


def _text(step: Step, local: Mapping[str, Any], place: Place, progress: ProgressFile) -> Record:
    from tasks.sources.corpora import prepare_text
    from tasks.sources.resolve import corpus_reference

    store = place.open_store()
    sizes = step.inputs["train_characters"], step.inputs["validation_characters"]
    train, validation, facts = prepare_text(corpus_reference(local["reference"]), *sizes)
    artifacts = {"train": store.put(train.encode()), "validation": store.put(validation.encode())}
    return as_record(step.key, artifacts, {"characters": {"train": len(train), "validation": len(validation)}, **facts})


def _tokens(step: Step, local: Mapping[str, Any], place: Place, progress: ProgressFile) -> Record:
    from tasks.sources.corpora import build_tokenizer

    store = place.open_store()
    texts = {split: _upstream(store, step, "text", split).decode() for split in ("train", "validation")}
    tokenizer = build_tokenizer(step.inputs["tokenizer"], texts["train"])
    ids = {split: smallest_integers(tokenizer.encode(text), tokenizer.vocab_size) for split, text in texts.items()}
    artifacts = {
        "tokenizer": store.put(json.dumps(tokenizer.to_json()).encode()),
        "tokens": store.put(save(ids)),
    }
    facts = {
        "vocab_size": tokenizer.vocab_size,
        "tokens": {split: len(tensor) for split, tensor in ids.items()},
        "bytes": {split: len(text.encode()) for split, text in texts.items()},
    }
    return as_record(step.key, artifacts, facts)


def _train(step: Step, local: Mapping[str, Any], place: Place, progress: ProgressFile) -> Record:
    from tasks.models.training import load_model, train_recipe

    store = place.open_store()
    device = torch.device(step.inputs["environment"]["device"])
    teacher = None
    if "teacher" in step.upstream:
        record = store.record(step.upstream["teacher"]["key"])
        if record is None:
            raise LookupError("the teacher's record has vanished from the store")
        teacher = load_model(_upstream(store, step, "teacher", "model"), record["data"]["config"], device)
    tokenizer = load_tokenizer(_upstream(store, step, "tokens", "tokenizer"))
    checkpoints = checkpoint_folder(place, step.key)
    tokens = load_tokens(_upstream(store, step, "tokens", "tokens"))
    files, data = train_recipe(
        step.inputs["recipe"],
        tokens,
        tokenizer.vocab_size,
        device=device,
        teacher=teacher,
        checkpoint_dir=checkpoints,
        progress=progress,
    )
    artifacts = {name: store.put(content) for name, content in files.items()}
    artifacts["tokenizer"] = Artifact(**step.upstream["tokens"]["artifacts"]["tokenizer"])
    data["samples"] = _samples(files["model"], data["config"], tokenizer, tokens["validation"])
    corpus = store.record(step.upstream["tokens"]["key"])
    if corpus is not None:  # what bits per byte need
        data |= {f"validation_{unit}": corpus["data"][unit]["validation"] for unit in ("tokens", "bytes")}
    return as_record(step.key, artifacts, data)


def _samples(model: bytes, config: Mapping[str, Any], tokenizer: Any, tokens: torch.Tensor) -> list[str]:
    """Two short texts, for those who look at the model in MLflow: nothing is computed from them.

    They are made here and not in the training, whose key would otherwise change with the code that samples.
    """
    from minigpt.decoding.sampling import Sampling, generate
    from tasks.models.training import load_model

    prompt = tokens[None, : min(8, config["context"] // 2)].repeat(2, 1)
    n_new = min(120, config["context"] - prompt.shape[1])
    generator = torch.Generator().manual_seed(0)
    rows = generate(load_model(model, config), prompt, n_new, sampling=Sampling(0.8), generator=generator)
    return [tokenizer.decode(row) for row in rows.tolist()]


def _finetune(step: Step, local: Mapping[str, Any], place: Place, progress: ProgressFile) -> Record:
    from tasks.models.finetuning import fine_tune

    store = place.open_store()
    device = torch.device(step.inputs["environment"]["device"])
    pretrained = load_pretrained(step, local, place, device)
    checkpoints = checkpoint_folder(place, step.key)
    files, data = fine_tune(
        step.inputs["recipe"],
        pretrained.model,
        pretrained.tokenizer,
        {split: _upstream(store, step, "text", split).decode() for split in ("train", "validation")},
        device=device,
        checkpoint_dir=checkpoints,
        progress=progress,
    )
    artifacts = {name: store.put(content) for name, content in files.items()}
    return as_record(step.key, artifacts, {**data, "base": pretrained.name})


def checkpoint_folder(place: Place, key: str) -> Path:
    """Where a training keeps its checkpoints, and an exercise its finished parts; see ``Place.folder``."""
    return place.folder / "checkpoints" / key


def drop_checkpoints(place: Place, key: str) -> None:
    """For when the step's record is safely in the store, and not before."""
    shutil.rmtree(checkpoint_folder(place, key), ignore_errors=True)


def _exercise(step: Step, local: Mapping[str, Any], place: Place, progress: ProgressFile) -> Record:
    store = place.open_store()
    exercise: Exercise = importlib.import_module(step.inputs["module"]).EXERCISE
    profile = PROFILES[step.inputs["profile"]].scaled(local["budget"])
    environment = step.inputs["environment"]
    device = torch.device(environment["device"])
    context = StoreContext(
        exercise,
        profile,
        store,
        step.upstream,
        device,
        load_pretrained=lambda: load_pretrained(step, local, place, device),
        load_bpe=_bpe,
        progress=progress,
        parts=checkpoint_folder(place, step.key),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(environment["threads"])
    started = time.perf_counter()
    try:
        answer = exercise.answer(context)
    finally:
        torch.set_num_threads(before)
    provenance = Provenance(
        profile=profile.name,
        sources=dict(local["sources"]),
        seeds=tuple(sorted({seed for recipe in exercise.recipes for seed in profile.seeds(recipe)})),
        fingerprint=step.key,
        code_version=digest(step.code)[:12],
        device=environment["device"],
        seconds=time.perf_counter() - started,
        prefect_run_id=_task_run_id(),
    )
    result = Result(
        id=exercise.id,
        title=exercise.title,
        status="ok",
        provenance=provenance,
        parts=answer.parts,
        checks=answer.checks,
        metrics=answer.metrics,
        summary=answer.summary,
        notes=answer.notes,
    )
    content = json.dumps(to_json(result), ensure_ascii=False, allow_nan=False).encode()
    passed = sum(check.passed for check in answer.checks)
    return as_record(step.key, {"result": store.put(content)}, {"checks": len(answer.checks), "passed": passed})


def _task_run_id() -> str | None:
    run = TaskRunContext.get()
    return str(run.task_run.id) if run else None


def load_pretrained(step: Step, local: Mapping[str, Any], place: Place, device: torch.device) -> Pretrained:
    """The pretrained model of a step's run: of its sources, or this project's own in its place."""
    from tasks.models.pretrained import load

    def own() -> Pretrained:
        from tasks.models.stand_in import stand_in
        from tasks.models.training import load_model

        store = place.open_store()
        [role] = [role for role in step.upstream if role.startswith(f"train/{STAND_IN.name}/")]
        record = store.record(step.upstream[role]["key"])
        if record is None:
            raise LookupError(f"the record of {role} has vanished from the store")
        model = load_model(_upstream(store, step, role, "model"), record["data"]["config"])
        return stand_in(model, load_tokenizer(_upstream(store, step, role, "tokenizer")))

    loaded = load(local["pretrained"], Path(place.outputs) / "pretrained", stand_in=own)
    loaded.model.to(device)
    return loaded


def _bpe() -> Any:
    from tasks.sources.corpora import gpt2_tokenizer

    return gpt2_tokenizer()


def _guarded(work: Callable[..., Record]) -> Callable[..., Record]:
    """A step's function with progress, its duration in the record, and errors as text."""

    def run(step: Step, local: dict[str, Any], place: Place) -> Record:
        progress = ProgressFile(place.progress, step.key, step.name)
        started = time.perf_counter()
        try:
            record = work(step, local, place, progress)
        except Exception as error:
            raise StepFailed(f"{type(error).__name__}: {error}\n\n{traceback.format_exc()}") from error
        finally:
            progress.close()
        record["data"]["seconds"] = time.perf_counter() - started
        record["data"]["lineage"] = {
            "kind": step.kind,
            "name": step.name,
            "version": step.version,
            "inputs": canonical(step.inputs),
            "code": dict(step.code),
            "upstream": {role: reference["key"] for role, reference in step.upstream.items()},
        }
        place.open_store().remember(
            step.name, {"key": step.key, "ingredients": step.ingredients(), "seconds": record["data"]["seconds"]}
        )
        return record

    return run


# Prefect wants a plain function with named parameters behind each task.


@task(name="text")
def text_task(step: Step, local: dict[str, Any], place: Place) -> Record:
    """A corpus's training and validation text."""
    return _guarded(_text)(step, local, place)


@task(name="tokens")
def tokens_task(step: Step, local: dict[str, Any], place: Place) -> Record:
    """A tokenizer, trained where it needs to be, and a corpus encoded with it."""
    return _guarded(_tokens)(step, local, place)


@task(name="train")
def train_task(step: Step, local: dict[str, Any], place: Place) -> Record:
    """A trained model."""
    return _guarded(_train)(step, local, place)


@task(name="finetune")
def finetune_task(step: Step, local: dict[str, Any], place: Place) -> Record:
    """The pretrained model, trained further."""
    return _guarded(_finetune)(step, local, place)


@task(name="exercise")
def exercise_task(step: Step, local: dict[str, Any], place: Place) -> Record:
    """An exercise's result."""
    return _guarded(_exercise)(step, local, place)


TASKS: dict[str, Task[..., Record]] = {
    "text": text_task,
    "tokens": tokens_task,
    "train": train_task,
    "finetune": finetune_task,
    "exercise": exercise_task,
}
