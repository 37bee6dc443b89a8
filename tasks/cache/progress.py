"""Progress that crosses processes: each running step writes a small file, the parent reads them."""

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path


class StopRequested(Exception):
    """The run was asked to stop; raised into the step from its own progress calls."""


STOP = "stop"
INTERVAL_SECONDS = 0.25


class ProgressFile:
    """The progress of one step, callable as ``progress(fraction, note)``.

    A file called ``stop`` beside it asks all steps of the run to end: the next call then raises ``StopRequested``,
    and a training saves its checkpoint on the way out.
    """

    def __init__(self, folder: Path, key: str, name: str) -> None:
        self._file, self._stop, self._name = folder / f"{key}.json", folder / STOP, name
        self._started = time.time()
        self._written = 0.0  # by a clock that never jumps
        folder.mkdir(parents=True, exist_ok=True)
        self._write(0.0, "")

    def __call__(self, fraction: float, note: str = "") -> None:
        """Tell how far the step is, from 0 to 1; written a few times a second at most."""
        if time.monotonic() - self._written >= INTERVAL_SECONDS:
            self._write(fraction, note)
            if self._stop.exists():
                raise StopRequested("the run was asked to stop")

    def _write(self, fraction: float, note: str) -> None:
        self._written = time.monotonic()
        state = {"name": self._name, "fraction": fraction, "note": note, "started": self._started, "pid": os.getpid()}
        temporary = self._file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(state))  # no fsync: a lost progress file is no loss
        temporary.replace(self._file)

    def close(self) -> None:
        """The step has ended."""
        self._file.unlink(missing_ok=True)


@dataclass(frozen=True)
class Running:
    """A step at work, as its progress file says."""

    name: str
    fraction: float
    note: str
    seconds: float
    pid: int


def running(folder: Path, key: str) -> Running | None:
    """The progress of the step with this key, or None if it has not begun or has ended."""
    try:
        state = json.loads((folder / f"{key}.json").read_text())
    except (FileNotFoundError, ValueError):
        return None
    return Running(state["name"], state["fraction"], state["note"], time.time() - state["started"], state["pid"])
