"""What this machine has, and what it is good at, measured once: whether products in bf16 pay on its processor.

Light: PyTorch is imported for the measurement, and where the driver finds a GPU.
"""

import ctypes
import importlib.util
import json
import os
import platform
import re
import statistics
import time
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

from minigpt.atomic import write_atomic

GAIN_THAT_PAYS = 2.0  # of a product alone: below it a whole step loses what casts cost
SHAPE = (512, 384, 1536)  # tokens, width, feed-forward width: a product of the 10 M model at 8 × 64
ROUNDS = 7

# Of a GPU's memory, for one of several processes. At ``gpu`` the tensors that a step keeps for its backward pass, the
# weights and the optimiser's state are, counted and not measured, 13 GiB where 135 M parameters are fine-tuned, up to
# 10 with GPT-2's vocabulary (before compilation), 8 for 21.16's model, and under 2 everywhere else.
MEMORY_EACH = 10 * 2**30


def processor() -> str:
    """The processor's name, or its architecture where the system tells no name."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", cpuinfo.read_text()) if cpuinfo.exists() else None
    return found.group(1).strip() if found else platform.machine()


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu() -> str | None:
    """The name of the CUDA device that PyTorch would use, or None: what ``torch.cuda`` says.

    PyTorch takes more than a second to import. Where there is no driver or the driver has no device for us
    (``CUDA_VISIBLE_DEVICES`` counts), it could not find one either, and is left alone.
    """
    if not _driver_has_devices():
        return None
    import torch

    return str(torch.cuda.get_device_name()) if torch.cuda.is_available() else None


def gpu_processes() -> int:
    """How many processes share the CUDA device that PyTorch would use, where nobody says; 1 without one.

    Steps of models this small are bound by the Python that launches them, so there is one per core, if the memory that
    is free now is enough for all.
    """
    if gpu() is None:
        return 1
    import torch

    free, _ = torch.cuda.mem_get_info()
    return max(1, min(cores(), free // MEMORY_EACH))


def _driver_has_devices() -> bool:
    """Whether the CUDA driver has devices for this process. A PyTorch for other drivers has to be asked itself."""
    if _for_amd():
        return True
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int(0)
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def _for_amd() -> bool:
    """Whether PyTorch was built for AMD's GPUs, which ``torch.cuda`` stands for, too."""
    spec = importlib.util.find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    return bool(version and version.exists() and re.search(r"^hip\b.*= *['\"]", version.read_text(), re.MULTILINE))


def hardware(device: str) -> dict[str, Any]:
    """The machine, as far as measured times depend on it."""
    facts = {"cpu": processor(), "cores": cores()}
    if device != "cuda":
        return facts
    # A parent of workers may have none itself; what they have measured, they have stored under their own key.
    return facts | {"gpu": gpu() or "none"}


def measured_bf16_gain() -> float:
    """How many times as fast as in fp32 a matrix product is in bf16, on one thread: the ratio of medians."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        M, K, N = SHAPE
        a, b = torch.randn(M, K), torch.randn(K, N)
        operands = {dtype: (a.to(dtype), b.to(dtype)) for dtype in (torch.float32, torch.bfloat16)}
        seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in operands}
        for _ in range(ROUNDS + 1):  # in turns, so that whatever else the machine does hits both
            for dtype, (left, right) in operands.items():
                started = time.perf_counter()
                left @ right
                seconds[dtype].append(time.perf_counter() - started)
    finally:
        torch.set_num_threads(before)
    slow, fast = (statistics.median(seconds[dtype][1:]) for dtype in (torch.float32, torch.bfloat16))
    return slow / fast


def bf16_gain(outputs: Path) -> float:
    """``measured_bf16_gain``, kept in the outputs: two runs on one machine are to choose alike.

    It is measured again on another processor or with another version of PyTorch.
    """
    file, facts = outputs / "machine.json", {"processor": processor(), "torch": version("torch")}
    try:
        kept = json.loads(file.read_text())
        if {name: kept[name] for name in facts} == facts:
            return float(kept["bf16_gain"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing kept, or not by us
    gain = measured_bf16_gain()
    with suppress(OSError):  # a folder that cannot be written is told of by what needs it
        outputs.mkdir(parents=True, exist_ok=True)
        write_atomic(file, json.dumps(facts | {"bf16_gain": gain}).encode())
    return gain


def chosen_precision(asked: str, device: str, outputs: Path) -> Literal["fp32", "bf16"]:
    """What ``--precision`` comes to: "auto" is bf16 on a GPU that has it, and on a processor that gains enough."""
    if asked != "auto":
        return "fp32" if asked == "fp32" else "bf16"
    pays = gpu_has_bf16() if device == "cuda" else bf16_gain(outputs) >= GAIN_THAT_PAYS
    return "bf16" if pays else "fp32"


def gpu_has_bf16() -> bool:
    """Whether this machine's GPU computes in bf16 itself; where there is none to ask, that of a worker is taken to.

    Before compute capability 8.0 (a V100, a T4) PyTorch emulates it, several times slower than fp32.
    """
    if gpu() is None:
        return True
    import torch

    return bool(torch.cuda.is_bf16_supported(including_emulation=False))
