"""What whole processes take: time on processors, memory, disk."""

import os
import resource
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent.parent
FOREIGN = ("CHAPTER_STORE", "PREFECT_API_URL", "MLFLOW_TRACKING_URI", "PYTHONDONTWRITEBYTECODE")
MIB = 2**20


def python(*command: str) -> tuple[str, float]:
    """Run Python with a command line to its end: what it printed, and its seconds on processors.

    Those are not lengthened by what else the machine does, as the time on the wall is.

    Raises:
        RuntimeError: it ended with an error.
    """
    process = subprocess.Popen([sys.executable, *command], cwd=ROOT, env=_environment(), stdout=subprocess.PIPE)
    assert process.stdout is not None
    printed = process.stdout.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode:
        raise RuntimeError(f"python {' '.join(command)} ended with {process.returncode}")
    return printed, usage.ru_utime + usage.ru_stime


def own_peak() -> int:
    """Bytes that this process has held in memory at most.

    On Linux from its status: what ``getrusage`` tells of a process begins with the memory of the one that started it.
    """
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().partition("VmHWM:")[2].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@dataclass(frozen=True)
class Footprint:
    """What a run took: wall-clock, memory of all its processes together at once, and disk."""

    seconds: float
    memory: int  # bytes
    disk: int  # bytes


def chapter(outputs: Path, *options: str) -> Footprint:
    """``chapter run`` with options into a folder that stays, watched twice a second. What it prints is put beside it.

    Raises:
        FileExistsError: there is something in the folder, so that the run would not be a cold one.
        RuntimeError: it ended with an error.
    """
    if outputs.exists() and any(outputs.iterdir()):
        raise FileExistsError(f"{outputs} is not empty: a cold run needs a folder of its own")
    command = [sys.executable, "-m", "flows", "run", "--sources", "embedded", *options]
    log = outputs.with_name(f"{outputs.name}.log")
    peak, started = 0, time.perf_counter()
    with log.open("w") as file:
        process = subprocess.Popen(command, cwd=ROOT, env=as_a_user(outputs), stdout=file, stderr=file)
        while process.poll() is None:
            peak = max(peak, family_memory(process.pid))
            time.sleep(0.5)
    seconds = time.perf_counter() - started
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}: {log.read_text()[-500:]}")
    return Footprint(seconds, peak, disk_of(outputs))


def as_a_user(outputs: Path) -> dict[str, str]:
    """An environment as a user's: bytecode is kept, and nothing of a server or a store elsewhere."""
    return {name: value for name, value in os.environ.items() if name not in FOREIGN} | {
        "CHAPTER_OUTPUTS": str(outputs)
    }


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
