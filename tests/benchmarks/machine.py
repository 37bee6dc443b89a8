"""What the times depend on: processor, threads, versions, and how fast the machine was in the same minutes."""

import datetime
import os
import platform
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from flows.machine import GAIN_THAT_PAYS, hardware

ROOT = Path(__file__).parent.parent.parent


def facts(threads: int) -> dict[str, Any]:
    """The machine and its state: names, versions, and rates measured now with ``threads`` threads.

    ``gflops``: products of 1024² matrices. ``read_gbytes``: a vector read once, of 512 MiB (memory) and of 40 MiB
    (as large as the weights of the 10 M model, which may lie in the processor's cache).
    """
    torch.set_num_threads(threads)
    with torch.inference_mode():
        gflops = {name: _gflops(dtype) for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16))}
        reading = {f"{mib} MiB": _read_gbytes(mib) for mib in (512, 40)}
    return {
        **hardware("cpu"),
        "threads": threads,
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "instructions": _instructions(),
        "gflops": gflops,
        "read_gbytes": reading,
        "fast_bf16": gflops["bf16"] >= GAIN_THAT_PAYS * gflops["fp32"],
    }


def why_no_bf16(machine: dict[str, Any]) -> str | None:
    """Why bf16 is not worth measuring on this machine; None where it is."""
    if machine["fast_bf16"]:
        return None
    fp32, bf16 = (machine["gflops"][name] for name in ("fp32", "bf16"))
    return f"bf16 is slow here: {bf16:.0f} GFLOP/s against {fp32:.0f} in fp32"


def sentence(machine: dict[str, Any]) -> str:
    """The facts in two lines of Markdown."""
    gflops, reading = machine["gflops"], machine["read_gbytes"]
    rates = ", ".join(f"{rate:,.0f} GFLOP/s in {name}" for name, rate in gflops.items())
    reads = ", ".join(f"{rate:,.0f} GB/s from {size}" for size, rate in reading.items())
    return (
        f"{machine['cpu']} ({', '.join(machine['instructions']) or 'no wide instructions known'}), {machine['cores']} "
        f"cores, {machine['threads']} threads used, load {machine['load']} before the run; PyTorch {machine['torch']}, "
        f"Python {machine['python']}; commit {machine['commit']}, {machine['date']}.\n"
        f"Measured in the same run: {rates}; {reads}."
    )


def _best(function: Callable[[], object], repeats: int = 7) -> float:
    """Seconds of the fastest call: a rate of the machine is what it reaches undisturbed."""
    function()
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times)


def _gflops(dtype: torch.dtype, size: int = 1024) -> float:
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return 2e-9 * size**3 / _best(lambda: a @ b)


def _read_gbytes(mib: int) -> float:
    vector = torch.ones(mib * 2**18)
    return 1e-9 * vector.nbytes / _best(vector.sum)


def _instructions() -> list[str]:
    """Those among the processor's flags that matrix products use."""
    wanted = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16", "sve")
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return [flag for flag in wanted if flag in flags]


def _commit() -> str:
    """The commit of the tree, with a plus if files differ from it; "unknown" outside of a checkout."""
    try:
        git = ["git", "-C", str(ROOT)]
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=True).stdout
        changed = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return head.strip() + ("+" if changed.strip() else "")
