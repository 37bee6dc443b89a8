"""The cached steps: text → tokens → train → exercise; baselines and finetune beside train.

One Prefect task, ``run_step``, runs them all (``do_ahead`` may have done a part before). It gets a ``Step`` (all that
its result depends on), ``local`` (where things lie on this machine; not in the key) and a ``Place``, and returns a
record: references to blobs and plain JSON. Prefect keeps the record under the step's key, lets one process at a time
work on a key, and calls nothing on a hit. What each kind of step does is a function of ``WORK``.
"""

import dataclasses
import functools
import json
import logging
import shutil
import time
import traceback
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from prefect import Task, task
from prefect.cache_policies import CachePolicy
from prefect.context import TaskRunContext
from safetensors.torch import save

from tasks.cache import mirror
from tasks.cache.keys import Step, canonical, digest
from tasks.cache.leases import drop_leases
from tasks.cache.locks import FlockManager, LeasedLockManager
from tasks.cache.patience import StoreRefused, StoreUnreachable
from tasks.cache.progress import ProgressFile
from tasks.cache.results import RecordSerializer, RecordStorage
from tasks.cache.store import Artifact
from tasks.context import load_tokenizer, load_tokens, smallest_integers
from tasks.failures import StepFailed, kind_of, memory_hint
from tasks.gpu import with_graphs_or_without, working_on
from tasks.job import Job as Job  # who looks at a step at work finds it here
from tasks.job import Record, checkpoint_folder, device_of, load_pretrained
from tasks.measuring import measure, measure_ahead
from tasks.place import Place

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


@task(name="ahead", persist_result=False)
def do_ahead(step: Step, local: dict[str, Any], place: Place) -> None:
    """Do what of a timed exercise's step needs no quiet machine; ``run_step`` finds it done, in the step's folder.

    Without the lock on its key: two runs at once may find a part twice, and it is the same.

    Raises:
        StepFailed: the step's own code failed.
    """
    progress = ProgressFile(place.progress, step.key, f"{step.name}, ahead")
    try:
        with _in_its_place(step, place):
            measure_ahead(Job(step, local, place, progress))
    finally:
        progress.close()


@task(name="step")
def run_step(step: Step, local: dict[str, Any], place: Place) -> Record:
    """Do a step: with progress, its duration and lineage in the record, and errors as text.

    Raises:
        StepFailed: the step's own code failed.
    """
    progress = ProgressFile(place.progress, step.key, step.name)
    started = time.perf_counter()
    try:
        with _in_its_place(step, place):
            record = WORK[step.kind](Job(step, local, place, progress))
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


@contextmanager
def _in_its_place(step: Step, place: Place) -> Iterator[None]:
    """Where a step does its work, on the device that is its; whatever goes wrong there is told as text."""
    try:
        with _checkpoints_in_the_store(step, place), working_on(device_of(step), place.compiled):
            yield
    except (StoreUnreachable, StoreRefused) as error:
        raise StepFailed(str(error)) from error
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        raise StepFailed(f"{said}{memory_hint(said)}\n\n{traceback.format_exc()}", kind_of(error)) from error


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


WORK: Mapping[str, Callable[[Job], Record]] = {
    "text": prepare_text,
    "tokens": encode,
    "baselines": baselines,
    "train": train,
    "finetune": finetune,
    "exercise": measure,
}
