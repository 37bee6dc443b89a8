"""One folder per exercise, ``exNN_slug``: ``tasks.answers`` says what is in it."""

from pathlib import Path


def folders() -> dict[str, str]:
    """Ids of all exercises and their packages, in the chapter's order. Imports none of them."""
    names = sorted(path.parent.name for path in Path(__file__).parent.glob("ex[0-9][0-9]_*/experiment.py"))
    return {f"21.{int(name[2:4])}": f"{__name__}.{name}" for name in names}


def modules() -> dict[str, str]:
    """Ids of all exercises and the modules that hold their ``EXERCISE``."""
    return {id: f"{package}.experiment" for id, package in folders().items()}
