"""One folder per exercise, ``exNN_slug``: ``tasks.answers`` says what is in it."""

from pathlib import Path


def folders() -> dict[str, str]:
    """Ids of all exercises and their packages, in the chapter's order. Imports none of them."""
    stems = sorted(path.parent.name for path in Path(__file__).parent.glob("ex[0-9][0-9]_*/experiment.py"))
    return {f"21.{int(stem[2:4])}": f"{__name__}.{stem}" for stem in stems}


def folder(id: str) -> str:
    """The package of one exercise."""
    return folders()[id]


def modules() -> dict[str, str]:
    """Ids of all exercises and the modules that hold their ``EXERCISE``, in the chapter's order."""
    stems = {path.stem: path.stem for path in Path(__file__).parent.glob("ex[0-9][0-9]_*.py")}
    stems |= {name.rpartition(".")[2]: f"{name.rpartition('.')[2]}.experiment" for name in folders().values()}
    return {f"21.{int(stem[2:4])}": f"{__name__}.{stems[stem]}" for stem in sorted(stems)}
