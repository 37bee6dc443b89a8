"""The commands that README and docs tell a reader to type, as they stand there."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))

_BLOCK = re.compile(r"^```bash\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Command:
    """One command, whole, and the comment behind it."""

    page: str  # from the root: "docs/index.md"
    text: str
    note: str

    @property
    def words(self) -> list[str]:
        """As a shell reads it; what stands in brackets is given, too."""
        return shlex.split(
            self.text.replace("[", "").replace("]", "") if self.text.startswith("chapter") else self.text
        )

    @property
    def is_marked(self) -> bool:
        """Whether it says that it needs what a test has not."""
        return "needs a GPU" in self.note or "needs the Hub" in self.note


def commands(*pages: Path) -> Iterator[Command]:
    """The commands in the shell blocks of some pages, or of all."""
    for page in pages or PAGES:
        for block in _BLOCK.findall(page.read_text(encoding="utf-8")):
            for line in block.replace("\\\n", " ").splitlines():
                text, _, note = line.partition(" #") if not line.startswith("#") else ("", "", "")
                if text.strip():
                    yield Command(str(page.relative_to(ROOT)), " ".join(text.split()), note.strip())


def blocks(page: Path) -> dict[str, str]:
    """The code blocks of a page that name a file, by that name."""
    found = re.findall(r'^```\w+ title="(.+?)"\n(.*?)^```', page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return dict(found)
