"""``python -m tests.soak``: chapters for minutes under kills and outages; prints what was lost, which is nothing."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.soak.faults import SAID, planned
from tests.soak.soak import Course, Soak, cannot_be_had
from tests.soak.verdict import after, table


def main() -> int:
    """Soak; returns the exit status, 0 if all that must be so is so."""
    options = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=20, help="over which the faults are spread (default 20)")
    options.add_argument("--kills", type=int, default=30)
    options.add_argument("--outages", type=int, default=14)
    options.add_argument("--seed", type=int, default=0, help="of the faults and of who is hit")
    options.add_argument("--silence", type=float, help="seconds after which a silent run is dead; as on any server")
    options.add_argument("--folder", type=Path, help="for everything; by default one that goes if all is well")
    told = options.parse_args()
    folder = (told.folder or Path(tempfile.mkdtemp(prefix="soak-"))).resolve()
    without = cannot_be_had(folder)
    course = Course(planned(told.seed, told.minutes, told.kills, told.outages, without=without), silence=told.silence)
    begun = time.monotonic()
    print("; ".join([f"in {folder}", *(f"not {SAID[kind]}: this cannot be done here" for kind in without)]), flush=True)
    with Soak(folder, course, told.seed, lambda line: print(line, flush=True)) as soak:
        soak.run()
        checks = after(soak)
    print(table(soak, checks, told.seed, (time.monotonic() - begun) / 60))
    whole = all(check.holds for check in checks)
    if whole and not told.folder:
        import shutil

        shutil.rmtree(folder)
    return 0 if whole else 1


if __name__ == "__main__":
    sys.exit(main())
