"""A step at work: what it was given, and how it reads what other steps have made."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tasks.cache.keys import Step
from tasks.cache.store import Artifact, MissingArtifact, Store, as_record
from tasks.context import load_tokenizer
from tasks.exercise import Pretrained
from tasks.place import Place
from tasks.recipes.catalogue import STAND_IN

Record = dict[str, Any]


def device_of(step: Step) -> str:
    """Where the step's models are; of one without models, the processor."""
    return str(step.inputs.get("environment", {}).get("device", "cpu"))


def checkpoint_folder(place: Place, key: str) -> Path:
    """Where a training keeps its checkpoints, and an exercise its finished parts; see ``Place.folder``."""
    return place.folder / "checkpoints" / key


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
        return torch.device(device_of(self.step))

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
