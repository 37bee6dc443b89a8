"""Hosts whose date can be set, each for itself, where there is a C compiler.

A library that every process of a host loads before all others answers for the time of day; Debian's libfaketime would,
but its 0.9.10 lets ``time.sleep`` of Python 3.11 fail.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")


def built(folder: Path) -> Path | None:
    """The library, built in a folder; None where that cannot be done."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None or sys.platform != "linux":
        return None
    folder.mkdir(parents=True, exist_ok=True)
    library = folder / "clock.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"]
    return library if subprocess.run(command, capture_output=True).returncode == 0 else None


@dataclass
class Clock:
    """The date of one host; ``file`` says how far it is from that of all others."""

    library: Path
    file: Path

    def set(self, seconds: float) -> None:
        """So far ahead of the others from now on, or behind them; for processes that run already as well."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        # In place: processes have mapped the file, and would not see another one of its name.
        with self.file.open("r+b" if self.file.exists() else "wb") as file:
            file.write(round(seconds * 1e9).to_bytes(8, sys.byteorder, signed=True))

    def environment(self) -> Mapping[str, str]:
        """What a process of the host is started with."""
        return {"LD_PRELOAD": str(self.library), "CHAPTER_SOAK_CLOCK": str(self.file)}
