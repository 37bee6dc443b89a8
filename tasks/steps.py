"""The cached steps: text → tokens → train → exercise; baselines and finetune beside train.

One Prefect task, ``run_step``, runs them all. It gets a ``Step`` (all that its result depends on), ``local`` (where
things lie on this machine; not in the key) and a ``Place``, and returns a record: references to blobs and plain JSON.
Prefect keeps the record under the step's key, lets one process at a time work on a key, and calls nothing on a hit.
What each kind of step does is a function of ``WORK``.
"""

import dataclasses
import functools
import importlib
import json
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from safetensors.torch import save

from reports.plain import to_json
from reports.types import Provenance
from tasks.cache import mirror
from tasks.cache.keys import Step, canonical, digest
from tasks.cache.leases import drop_leases
from tasks.cache.locks import FlockManager, LeasedLockManager
from tasks.cache.patience import StoreRefused, StoreUnreachable
from tasks.cache.progress import ProgressFile
from tasks.cache.results import RecordSerializer, RecordStorage
from tasks.cache.store import Artifact, MissingArtifact, Store, as_record
from tasks.context import StoreContext, load_tokenizer, load_tokens, smallest_integers
from tasks.exercise import Exercise, Pretrained
from tasks.failures import StepFailed, kind_of, memory_hint
from tasks.gpu import with_graphs_or_without, working_on
from tasks.place import Place
from tasks.recipes.catalogue import STAND_IN
from tasks.recipes.profiles import PROFILES

Record = dict[str, Any]

logger = logging.getLogger("chapter")


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
    place.open_store().drop_unfit(step.key, step.kind)
    local = FlockManager(place.folder / "locks")
    locks = LeasedLockManager(local.folder, place.store) if place.shares_steps else local
    policy = StepKey(lock_manager=locks, isolation_level="SERIALIZABLE")
    return run_step.with_options(
        name=step.kind,
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


@task(name="step")
def run_step(step: Step, local: dict[str, Any], place: Place) -> Record:
    """Do a step: with progress, its duration and lineage in the record, and errors as text.

    Raises:
        StepFailed: the step's own code failed.
    """
    progress = ProgressFile(place.progress, step.key, step.name)
    started = time.perf_counter()
    try:
        with _checkpoints_in_the_store(step, place), working_on(_device(step), place.compiled):
            record = WORK[step.kind](Job(step, local, place, progress))
    except (StoreUnreachable, StoreRefused) as error:
        raise StepFailed(str(error)) from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise StepFailed(f"{said}{memory_hint(said)}\n\n{traceback.format_exc()}", kind_of(error)) from error
    finally:
        progress.close()
    seconds = time.perf_counter() - started
    record["data"]["seconds"] = seconds
    record["data"]["lineage"] = {
        "kind": step.kind,
        "name": step.name,
        "version": step.version,
        "inputs": canonical(step.inputs),
        "code": dict(step.code),
        "upstream": {role: reference["key"] for role, reference in step.upstream.items()},
    }
    last = {"key": step.key, "ingredients": step.ingredients(), "seconds": seconds}
    store = place.open_store()
    store.remember(step.name, last)
    if "hardware" in step.inputs:  # whoever waits for it on another machine does not know its key
        store.remember(step.name_elsewhere, last)
    return record


def _device(step: Step) -> str:
    """Where the step's models are; of one without models, the processor."""
    return str(step.inputs.get("environment", {}).get("device", "cpu"))


def checkpoint_folder(place: Place, key: str) -> Path:
    """Where a training keeps its checkpoints, and an exercise its finished parts; see ``Place.folder``."""
    return place.folder / "checkpoints" / key


def drop_checkpoints(place: Place, key: str) -> None:
    """For when the step's record is safely in the store, and not before."""
    shutil.rmtree(checkpoint_folder(place, key), ignore_errors=True)
    store = place.open_store()
    if store.local is None:
        mirror.drop(store, key)


def drop_leftovers(place: Place, keys: Collection[str]) -> None:
    """What processes that were killed between a step's record and their own end have left of these finished steps.

    Nobody takes up what is finished, so nobody else would come by.
    """
    store, here = place.open_store(), (place.folder / "checkpoints").glob("*")
    try:
        for key in set(keys) & {*store.names("checkpoints"), *(path.name for path in here)}:
            drop_checkpoints(place, key)
        if place.shares_steps:
            drop_leases(store, keys)
    except OSError as error:  # it costs room only, see ``chapter gc``
        logger.warning("what is left of finished steps stays in the store: %s", error)


def _checkpoints_in_the_store(step: Step, place: Place) -> AbstractContextManager[None]:
    """Where the store is elsewhere, for steps that keep any."""
    store = place.open_store()
    if store.local is not None or step.kind not in ("train", "finetune", "exercise"):
        return nullcontext()
    return mirror.mirrored(store, checkpoint_folder(place, step.key), step.key)


# --- What each kind of step does ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Job:
    """A step at work: what ``run_step`` was given, and the store behind it."""

    step: Step
    local: Mapping[str, Any]
    place: Place
    progress: Callable[[float, str], None]

    @functools.cached_property
    def store(self) -> Store:
        """Where blobs come from and go to."""
        return self.place.open_store()

    @property
    def device(self) -> torch.device:
        """Where the step's models are."""
        return torch.device(_device(self.step))

    @property
    def checkpoints(self) -> Path:
        """See ``checkpoint_folder``."""
        return checkpoint_folder(self.place, self.step.key)

    def blob(self, role: str, name: str) -> bytes:
        """An artifact of an upstream record."""
        return self.store.fetch_bytes(Artifact(**self.step.upstream[role]["artifacts"][name]))

    def data(self, role: str) -> Mapping[str, Any]:
        """The plain JSON of an upstream record.

        Raises:
            MissingArtifact: the record is gone; it will be made again.
        """
        record = self.store.record(self.step.upstream[role]["key"])
        if record is None:
            raise MissingArtifact(f"the record of {role} has vanished from the store")
        data: Mapping[str, Any] = record["data"]
        return data

    def done(self, files: Mapping[str, bytes | Artifact], data: dict[str, Any]) -> Record:
        """The step's record, its files put into the store."""
        put = self.store.put
        artifacts = {name: file if isinstance(file, Artifact) else put(file) for name, file in files.items()}
        return as_record(self.step.key, artifacts, data)


def prepare_text(job: Job) -> Record:
    """A corpus's training and validation text."""
    from tasks.sources.corpora import prepare_text
    from tasks.sources.resolve import corpus_reference

    sizes = job.step.inputs["train_characters"], job.step.inputs["validation_characters"]
    train, validation, facts = prepare_text(corpus_reference(job.local["reference"]), *sizes)
    files = {"train": train.encode(), "validation": validation.encode()}
    return job.done(files, {"characters": {"train": len(train), "validation": len(validation)}, **facts})


def encode(job: Job) -> Record:
    """A tokenizer, trained where it needs to be, and a corpus encoded with it."""
    from tasks.sources.corpora import build_tokenizer

    texts = {split: job.blob("text", split).decode() for split in ("train", "validation")}
    tokenizer = build_tokenizer(job.step.inputs["tokenizer"], texts["train"])
    ids = {split: smallest_integers(tokenizer.encode(text), tokenizer.vocab_size) for split, text in texts.items()}
    facts = {
        "vocab_size": tokenizer.vocab_size,
        "tokens": {split: len(tensor) for split, tensor in ids.items()},
        "bytes": {split: len(text.encode()) for split, text in texts.items()},
    }
    return job.done({"tokenizer": json.dumps(tokenizer.to_json()).encode(), "tokens": save(ids)}, facts)


def baselines(job: Job) -> Record:
    """What n-grams reach on an encoded corpus: see ``minigpt.evaluation.ngrams``."""
    from minigpt.evaluation.ngrams import baselines

    tokens = load_tokens(job.blob("tokens", "tokens"))
    found = baselines(tokens["train"].numpy(), tokens["validation"].numpy(), job.data("tokens")["vocab_size"])
    return job.done({"baselines": json.dumps(dataclasses.asdict(found)).encode()}, {})


def train(job: Job) -> Record:
    """A trained model."""
    from tasks.models.training import load_model, train_recipe

    teacher = None
    if "teacher" in job.step.upstream:
        teacher = load_model(job.blob("teacher", "model"), job.data("teacher")["config"], job.device)
    tokenizer = load_tokenizer(job.blob("tokens", "tokenizer"))
    tokens, corpus = load_tokens(job.blob("tokens", "tokens")), job.data("tokens")
    work = functools.partial(
        train_recipe,
        job.step.inputs["recipe"],
        tokens,
        tokenizer.vocab_size,
        device=job.device,
        teacher=teacher,
        checkpoint_dir=job.checkpoints,
        progress=job.progress,
    )
    files, data = with_graphs_or_without(work) if job.device.type == "cuda" else work()
    data["samples"] = _samples(files["model"], data["config"], tokenizer, tokens["validation"])
    data |= {f"validation_{unit}": corpus[unit]["validation"] for unit in ("tokens", "bytes")}  # bits per byte
    artifact = Artifact(**job.step.upstream["tokens"]["artifacts"]["tokenizer"])
    return job.done({**files, "tokenizer": artifact}, data)


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


def finetune(job: Job) -> Record:
    """The pretrained model, trained further."""
    from tasks.models.finetuning import fine_tune

    pretrained = load_pretrained(job, job.device)
    files, data = fine_tune(
        job.step.inputs["recipe"],
        pretrained.model,
        pretrained.tokenizer,
        {split: job.blob("text", split).decode() for split in ("train", "validation")},
        device=job.device,
        checkpoint_dir=job.checkpoints,
        progress=job.progress,
    )
    return job.done(files, {**data, "base": pretrained.name})


def measure(job: Job) -> Record:
    """An exercise's findings; what is said of them is made later, by ``tasks.answers``."""
    from tasks.answers import dump

    step = job.step
    exercise: Exercise = importlib.import_module(step.inputs["module"]).EXERCISE
    profile = PROFILES[step.inputs["profile"]].scaled(job.local["budget"]).computed_in(job.local["precision"])
    context = StoreContext(
        exercise,
        profile,
        job.store,
        step.upstream,
        job.device,
        load_pretrained=lambda: load_pretrained(job, job.device),
        load_bpe=_bpe,
        progress=job.progress,
        parts=job.checkpoints,
        precision=step.inputs["environment"].get("precision", "fp32"),
    )
    before = torch.get_num_threads()
    torch.set_num_threads(step.inputs["environment"]["threads"])
    started = time.perf_counter()
    try:
        findings = exercise.measure(context)
    finally:
        torch.set_num_threads(before)
    provenance = Provenance(
        profile=profile.name,
        sources=dict(job.local["sources"]),
        seeds=tuple(sorted({seed for recipe in exercise.recipes for seed in profile.seeds(recipe)})),
        fingerprint=step.key,
        code_version=digest(step.code)[:12],
        device=step.inputs["environment"]["device"],
        precision=_precisions(step),
        seconds=time.perf_counter() - started,
        prefect_run_id=_task_run_id(),
    )
    return job.done({"findings": dump(findings).encode()}, {"provenance": to_json(provenance)})


def _precisions(step: Step) -> str:
    """What the models of an exercise were trained in, and the pretrained one computes in; nothing without models."""
    found = {recipe["train"]["precision"] for recipe in step.inputs["recipes"].values()}
    found |= {tuning["precision"] for tuning in step.inputs["tunings"].values()}
    found |= {step.inputs["environment"]["precision"]} if "precision" in step.inputs["environment"] else set()
    return " and ".join(sorted(found))


def _task_run_id() -> str | None:
    run = TaskRunContext.get()
    return str(run.task_run.id) if run else None


def load_pretrained(job: Job, device: torch.device) -> Pretrained:
    """The pretrained model of a step's run: of its sources, or this project's own in its place."""
    from tasks.models.pretrained import load

    def own() -> Pretrained:
        from tasks.models.stand_in import stand_in
        from tasks.models.training import load_model

        [role] = [role for role in job.step.upstream if role.startswith(f"train/{STAND_IN.name}/")]
        model = load_model(job.blob(role, "model"), job.data(role)["config"])
        return stand_in(model, load_tokenizer(job.blob(role, "tokenizer")))

    loaded = load(job.local["pretrained"], Path(job.place.outputs) / "pretrained", stand_in=own)
    loaded.model.to(device)
    return loaded


def _bpe() -> Any:
    from tasks.sources.corpora import gpt2_tokenizer

    return gpt2_tokenizer()


WORK: Mapping[str, Callable[[Job], Record]] = {
    "text": prepare_text,
    "tokens": encode,
    "baselines": baselines,
    "train": train,
    "finetune": finetune,
    "exercise": measure,
}
