"""README.md's table of model sizes, written from the recipes.

python -m flows.sizes --write     after a size's recipe or a profile has changed
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.recipes.sizes import markdown

FILE = Path(__file__).parent.parent / "README.md"
_TABLE = re.compile(r"(<!-- sizes: [^\n]*-->\n).*?(<!-- /sizes -->)", re.DOTALL)


def renewed(text: str) -> str:
    """A text with the table between its two marks as the recipes have it now.

    Raises:
        ValueError: the marks are not there.
    """
    if not _TABLE.search(text):
        raise ValueError("no table of sizes: <!-- sizes: … --> and <!-- /sizes --> are missing")
    return _TABLE.sub(lambda marks: f"{marks[1]}\n{markdown()}\n{marks[2]}", text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the table, or check it; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.sizes", description="Write or check README.md's sizes.")
    parser.add_argument("--write", action="store_true", help="write it; without this, only compare")
    parsed = parser.parse_args(arguments)
    before = FILE.read_text(encoding="utf-8")
    if parsed.write:
        FILE.write_text(renewed(before), encoding="utf-8")
    elif renewed(before) != before:
        print("README.md's sizes are not in step: run python -m flows.sizes --write", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
