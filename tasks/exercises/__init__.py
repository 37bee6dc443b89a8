"""One file per exercise; each defines a module-level ``EXERCISE``."""

from pathlib import Path


def modules() -> dict[str, str]:
    """Ids of all exercises and the modules that hold them, in the chapter's order. Imports none of them."""
    stems = sorted(path.stem for path in Path(__file__).parent.glob("ex[0-9][0-9]_*.py"))
    return {f"21.{int(stem[2:4])}": f"{__name__}.{stem}" for stem in stems}
