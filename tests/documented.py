"""The commands that README and docs tell a reader to type, as they stand there."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_NEEDS = re.compile(r"\bneeds (a GPU|the Hub|Docker|Kubernetes|root)\b")


@dataclass(frozen=True)
class Command:
    """One command, whole, and the comment behind it."""

    page: str  # from the root: "docs/index.md"
    text: str
    note: str = ""

    @property
    def words(self) -> list[str]:
        """As a shell reads it; of what is in brackets, everything is given."""
        own = self.text.startswith("chapter ")  # in other commands they belong to what is said: only=["21.11"]
        return shlex.split(re.sub(r"[][]", "", self.text) if own else self.text)

    @property
    def is_marked(self) -> bool:
        """Whether it says that it needs what a test has not."""
        return _NEEDS.search(self.note) is not None


def commands() -> Iterator[Command]:
    """The commands in the shell blocks of all pages."""
    for page in PAGES:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                text, _, note = line.partition("#") if line.startswith("#") else line.partition(" #")
                if text.strip():
                    yield Command(str(page.relative_to(ROOT)), " ".join(text.split()), note.strip())


def mentioned() -> Iterator[Command]:
    """The commands ``chapter …`` and ``make …`` within sentences and tables."""
    for page in PAGES:
        prose = _FENCED.sub("", page.read_text(encoding="utf-8"))
        for text in re.findall(r"`((?:chapter|make) [^`…]+)`", prose):
            yield Command(str(page.relative_to(ROOT)), " ".join(text.split()))


def blocks(page: Path) -> dict[str, str]:
    """The code blocks of a page that name a file, by that name."""
    found = re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```', page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return dict(found)
