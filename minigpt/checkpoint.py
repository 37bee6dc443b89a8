"""Where a training stands, on disk: what a killed process needs to go on as if nothing had happened.

A checkpoint is ``step-N.safetensors`` (weights, optimiser state) and then ``step-N.json`` (step, curves, and the digest
of the tensors). The JSON is written last, so a checkpoint without it was never finished. The two latest are kept: if
one proves damaged, the other serves. Snapshots of the weights are files of their own, written once.
"""

import hashlib
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load as load_tensors
from safetensors.torch import save_file
from torch import Tensor

from minigpt.atomic import replaced_atomically, write_atomic


class Checkpoints:
    """The checkpoints of one training in one directory.

    Args:
        directory: created when first needed.
        identity: everything the final weights depend on; a checkpoint of another identity is ignored.
    """

    def __init__(self, directory: Path, identity: Mapping[str, Any]) -> None:
        self.directory = directory
        self.identity = json.loads(json.dumps(identity))

    def save(self, step: int, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], snapshots: list[int]) -> None:
        """Write a checkpoint, which names the snapshots taken so far, and drop all but the two latest."""
        digest = self._write(f"step-{step:09d}", tensors)
        record = {"identity": self.identity, "step": step, "sha256": digest, "snapshots": snapshots, **facts}
        record["checksum"] = _checksum(record)
        write_atomic(self.directory / f"step-{step:09d}.json", json.dumps(record).encode())
        for old in self._records()[2:]:
            old.unlink(missing_ok=True)
            old.with_suffix(".safetensors").unlink(missing_ok=True)

    def save_snapshot(self, step: int, weights: Mapping[str, Tensor]) -> None:
        """Keep the weights of one step for good; written once, however many checkpoints follow."""
        digest = self._write(f"snapshot-{step:09d}", weights)
        write_atomic(self.directory / f"snapshot-{step:09d}.sha256", digest.encode())

    def latest(self) -> tuple[dict[str, Tensor], dict[str, Any], dict[int, dict[str, Tensor]]] | None:
        """Tensors, facts and snapshots of the latest sound checkpoint of this training, or None.

        One that is damaged or belongs to another training is ignored with a warning. What a killed process left
        half-written is removed: only one training writes to the directory at a time.
        """
        for leftover in self.directory.glob(".*"):
            leftover.unlink(missing_ok=True)
        for path in self._records():
            try:
                record = json.loads(path.read_text(encoding="utf-8"))
                if record.pop("checksum") != _checksum(record):
                    raise ValueError(f"{path.name} is not what was written")
                if record["identity"] != self.identity:
                    warnings.warn(f"{path} belongs to another training and is ignored", stacklevel=3)
                    continue
                snapshots = {step: self._load_snapshot(step) for step in record["snapshots"]}
                return self._read(path.stem, record["sha256"]), record, snapshots
            except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                warnings.warn(f"{path} is damaged and is ignored: {error}", stacklevel=3)
        return None

    def _load_snapshot(self, step: int) -> dict[str, Tensor]:
        stem = f"snapshot-{step:09d}"
        return self._read(stem, (self.directory / f"{stem}.sha256").read_text(encoding="utf-8"))

    def _records(self) -> list[Path]:
        return sorted(self.directory.glob("step-*.json"), reverse=True)

    def _write(self, stem: str, tensors: Mapping[str, Tensor]) -> str:
        with replaced_atomically(self.directory / f"{stem}.safetensors") as path:
            save_file(dict(tensors), path)  # from where the tensors are: a copy of them might not fit
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()

    def _read(self, stem: str, sha256: str) -> dict[str, Tensor]:
        data = (self.directory / f"{stem}.safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"{stem}.safetensors is not what was written")
        return load_tensors(data)


def _checksum(record: Mapping[str, Any]) -> str:
    """SHA-256 of a record's JSON, the same before it is written and after it is read."""
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
