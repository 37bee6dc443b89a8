"""Peak memory of a training, ours and Transformers', each in a process of its own; memory and disk of a chapter.

python -m tests.benchmarks.bench_memory ours|theirs    # one training, as ``trainings`` starts it
"""

import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from minigpt.model import GPT
from minigpt.train import TrainConfig
from tests.benchmarks.bench_gpt2 import SHAPES, Ours, Theirs, text

ROOT = Path(__file__).parent.parent.parent
MIB = 2**20


def peak_of(command: list[str]) -> int:
    """Bytes that a command held at most in memory, by the kernel's account of it (its children are not in it).

    Raises:
        RuntimeError: it ended with an error.
    """
    process = subprocess.Popen(command, cwd=ROOT, env=_environment(), stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def trainings(rounds: int) -> dict[str, list[int]]:
    """Peak bytes of the training of the 10 M model by both sides, in turns: {"ours": […], "theirs": […]}."""
    command = [sys.executable, "-m", "tests.benchmarks.bench_memory"]
    peaks: dict[str, list[int]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for side, found in peaks.items():
            found.append(peak_of([*command, side]))
    return peaks


@dataclass(frozen=True)
class Footprint:
    """What a run took: wall-clock, memory of all its processes together at once, and disk."""

    seconds: float
    memory: int  # bytes
    disk: int  # bytes


def chapter(*options: str) -> Footprint:
    """``chapter run`` with options, into an empty folder, watched twice a second.

    Raises:
        RuntimeError: it ended with an error.
    """
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "flows", "run", "--sources", "embedded", *options]
        log = Path(folder) / "log"
        outputs = Path(folder) / "outputs"
        started = time.perf_counter()
        with log.open("w") as file:
            process = subprocess.Popen(
                command, cwd=ROOT, env=_environment() | {"CHAPTER_OUTPUTS": str(outputs)}, stdout=file, stderr=file
            )
            peak = 0
            while process.poll() is None:
                peak = max(peak, family_memory(process.pid))
                time.sleep(0.5)
        seconds = time.perf_counter() - started
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {log.read_text()[-500:]}")
        return Footprint(seconds, peak, disk_of(outputs))


def family_memory(pid: int) -> int:
    """Bytes that a process and its descendants hold now.

    Pages that several of them share count once where the system tells (proportional set size), else with each.
    """
    total = 0
    with suppress(psutil.Error):
        parent = psutil.Process(pid)
        for process in (parent, *parent.children(recursive=True)):
            with suppress(psutil.Error):
                usage = process.memory_full_info()
                total += getattr(usage, "pss", usage.rss)
    return total


def disk_of(folder: Path) -> int:
    """Bytes of disk that the files below a folder take: whole blocks, and a file once under all its hard links."""
    files = [path.lstat() for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
    return sum({(file.st_dev, file.st_ino): file.st_blocks * 512 for file in files}.values())


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    return os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1"}


def main(side: str) -> None:
    """Train a few steps and end: what is measured is what the kernel says of this process."""
    config, batch_size, _ = SHAPES["10M"]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tc = TrainConfig(steps=3, batch_size=batch_size, threads=1, eval_every=10**9)
    {"ours": Ours, "theirs": Theirs}[side](GPT(config), text(), tc, "fp32")()


if __name__ == "__main__":
    main(sys.argv[1])
