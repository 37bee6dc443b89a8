"""Checkpoints of a step that go through the store, so that any worker goes on where another one has died.

Where the store is a folder they lie in it anyway. Else a training writes them on its machine, as ever, and a thread
carries the newest one over: tensors first, then the JSON that names them, so that a checkpoint whose JSON is there is
whole. It never holds the training up: what it is too slow for it leaves out, and what it has begun it carries to the
end. The two latest are kept. Whoever begins the step looks in the store first, and takes what is further than what is
here.
"""

import logging
import re
import shutil
import tempfile
import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from minigpt.atomic import write_atomic
from tasks.cache.objects import Objects

logger = logging.getLogger("chapter")

SECONDS = 5.0  # between two looks at what there is to carry
KEPT = 2
STEP = re.compile(r"step-([0-9]{9,12})\.json")
# What ``minigpt.checkpoint`` and ``tasks.context`` write beside checkpoints, each once.
LASTING = re.compile(r"snapshot-[0-9]{9,12}\.(safetensors|sha256)|[0-9a-f]{16}\.json")


@contextmanager
def mirrored(objects: Objects, folder: Path, key: str) -> Iterator[None]:
    """Bring the checkpoints of a step, and carry those over that are written to ``folder`` meanwhile.

    If the step ends with an exception, its last checkpoint is carried over, too.
    """
    mirror = Mirror(objects, folder, key)
    mirror.bring()
    over = threading.Event()

    def work() -> None:
        while not over.wait(SECONDS):
            mirror.carry()

    thread = threading.Thread(target=work, name="checkpoints", daemon=True)
    thread.start()
    try:
        yield
    except BaseException:
        over.set()
        thread.join()
        mirror.carry()
        raise
    over.set()
    thread.join()


class Mirror:
    """The checkpoints of one step, in a folder of this machine and in the store."""

    def __init__(self, objects: Objects, folder: Path, key: str) -> None:
        self.objects, self.folder, self.place = objects, folder, f"checkpoints/{key}"
        self._there: set[str] = set()  # names in the store that are known to be as they are here
        self._steps: list[int] = []  # checkpoints in the store, oldest first

    def _here(self) -> set[str]:
        return {path.name for path in self.folder.glob("*")}

    def bring(self) -> None:
        """Take from the store what is further than what is here."""
        there, here = set(self.objects.names(self.place)), self._here()
        self._steps = _steps(there)
        wanted = sorted(name for name in there - here if LASTING.fullmatch(name))
        if self._steps[-1:] > _steps(here)[-1:]:
            for step in self._steps[-KEPT:]:
                wanted += [f"step-{step:09d}.safetensors", f"step-{step:09d}.json"]
        for name in wanted:
            try:
                write_atomic(self.folder / name, self.objects.read(f"{self.place}/{name}"))
            except FileNotFoundError:  # half of a checkpoint: the one before it serves
                continue
            self._there.add(name)
        for half in sorted(name for name in there if name not in self._there and _is_half(name, there)):
            self.objects.delete(f"{self.place}/{half}")

    def carry(self) -> None:
        """Take to the store what is new here; that it cannot be reached is told and costs no training."""
        try:
            self._carry()
        except FileNotFoundError:
            pass  # the training has dropped it meanwhile for a newer one, which is next
        except Exception as error:
            logger.warning("no checkpoint is carried to the store now: %s", error)

    def _carry(self) -> None:
        here = self._here()
        newest = _steps(here)[-1:]
        lasting = sorted(name for name in here if LASTING.fullmatch(name))  # ".safetensors" before ".sha256"
        pair = [f"step-{step:09d}.{kind}" for step in newest for kind in ("safetensors", "json")]
        names = [name for name in [*lasting, *pair] if name not in self._there]
        if names:
            # The training drops the files while they travel; where the line is slow, always.
            with tempfile.TemporaryDirectory(prefix=".carried-", dir=self.folder.parent) as held:
                files = {name: _held(self.folder / name, Path(held) / name) for name in names}
                self._steps = sorted({*self._steps, *newest})  # from its first byte on, so that no half of it stays
                for name, file in files.items():
                    self.objects.write_file(f"{self.place}/{name}", file)
                    self._there.add(name)
        for old in self._steps[:-KEPT]:
            for kind in ("json", "safetensors"):
                self.objects.delete(f"{self.place}/step-{old:09d}.{kind}")
            self._steps.remove(old)


def _is_half(name: str, there: Collection[str]) -> bool:
    """Whether these are a checkpoint's tensors without the JSON that names them: their machine has died on the way."""
    stem, _, kind = name.partition(".")
    return stem.startswith("step-") and kind == "safetensors" and f"{stem}.json" not in there


def _held(file: Path, name: Path) -> Path:
    """Another name of a file, under which it stays when the first one goes; a copy where there are no links."""
    try:
        name.hardlink_to(file)
    except FileNotFoundError:
        raise
    except OSError:
        shutil.copyfile(file, name)
    return name


def _steps(names: Collection[str]) -> list[int]:
    return sorted(int(found[1]) for name in names if (found := STEP.fullmatch(name)))


def drop(objects: Objects, key: str) -> None:
    """Remove the checkpoints of a step from the store; what stays there costs room only, see ``chapter gc``."""
    try:
        for name in sorted(objects.names(f"checkpoints/{key}")):  # a JSON before its tensors
            objects.delete(f"checkpoints/{key}/{name}")
    except OSError as error:
        logger.warning("the checkpoints of step %s stay in the store: %s", key[:12], error)
