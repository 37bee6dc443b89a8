"""``chapter doctor``: what this machine has, what is missing, and what a run would use."""

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from flows.machine import GAIN_THAT_PAYS, bf16_gain, cores, gpu
from tasks.cache.urls import without_credentials
from tasks.sources.resolve import SourceError, resolve_sources

PACKAGES = ("prefect", "torch", "datasets", "transformers", "mlflow", "pandas", "matplotlib", "fastapi")
GIB = 2**30
NEEDED_GIB = 6.0  # at laptop size: results take 0.8, the checkpoints of a fine-tuned 135 M model up to 4.6 for a while


def findings(outputs: Path, store: str) -> list[tuple[str, str, str]]:
    """(verdict, subject, finding) for everything that a run depends on; a verdict is "ok", "note" or "missing"."""
    found = [("ok" if sys.version_info >= (3, 11) else "missing", "Python", platform.python_version())]
    for package in PACKAGES:
        try:
            found.append(("ok", package, importlib.metadata.version(package)))
        except importlib.metadata.PackageNotFoundError:
            found.append(("missing", package, "not installed: run `make setup`"))
    found.append(("ok", "processor", f"{cores()} cores"))
    device = gpu()
    found.append(("ok", "GPU", device) if device else ("note", "GPU", "none; only the profile gpu needs one"))
    gain = bf16_gain(outputs)
    used = "bf16" if gain >= GAIN_THAT_PAYS else "fp32"
    found.append(
        ("ok", "precision", f"{used}: a product in bf16 is {gain:.1f} times as fast as in fp32 (`--precision`)")
    )
    folder = next(path for path in (outputs, *outputs.parents) if path.exists())
    free = shutil.disk_usage(folder).free / GIB
    enough = free >= NEEDED_GIB
    found.append(
        (
            "ok" if enough else "missing",
            "disk",
            f"{free:.1f} GiB free at {folder}" + ("" if enough else f", {NEEDED_GIB:.0f} wanted"),
        )
    )
    found.append(("ok" if os.access(folder, os.W_OK) else "missing", "outputs", f"{outputs}"))
    found.append(("ok", "store", without_credentials(store)))
    for variable in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        found.append(
            ("ok", variable, without_credentials(os.environ.get(variable, "")) or "not set: a local one is used")
        )
    try:
        sources = resolve_sources()
    except SourceError as error:
        found.append(("missing", "sources", str(error)))
    else:
        found += [("note" if what == "bundle" else "ok", what, line) for what, line in sources.summary().items()]
    return found


def print_findings(outputs: Path, store: str) -> int:
    """Print them as a table; the exit status is 1 if something is missing."""
    rows = findings(outputs, store)
    table = Table(box=None, show_header=False, padding=(0, 1))
    marks = {"ok": "[green]✓[/]", "note": "[yellow]·[/]", "missing": "[red]✗[/]"}
    for verdict, subject, finding in rows:
        table.add_row(marks[verdict], subject, finding)
    Console().print(table)
    missing = [subject for verdict, subject, _ in rows if verdict == "missing"]
    if missing:
        print(f"chapter: {', '.join(missing)}: see above", file=sys.stderr)
    return 1 if missing else 0
