"""Where things lie: the outputs and the store, as people name them in the environment or on the command line.

A name is a path and nothing else, whatever characters are in it: only ``~`` is a home folder, and only what has a
"://" is an address. Standard library only.
"""

import os
from pathlib import Path


def named_path(name: str) -> Path:
    """The absolute path of a file or a folder that a person has named.

    Raises:
        ValueError: it can be no path here; the text says why.
    """
    try:
        path = Path(name)  # which forgets the "./" of "./~"
        return (path.expanduser() if name.startswith("~") else path.absolute()).resolve()
    except (OSError, RuntimeError) as error:  # the current folder is gone; no such home; links in a circle
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(reason.rstrip(".")) from error


def is_address(name: str) -> bool:
    """Whether a name is an address, such as ``s3://bucket/store``, and not a path."""
    return "://" in name


def named_source(name: str | None) -> str | None:
    """A text or a model as it is found from any folder: a path that exists as an absolute one, all else as it is."""
    if name is None or name in ("none", "stand-in", "embedded") or name.startswith("hf:") or is_address(name):
        return name
    path = Path(name).expanduser()
    return str(path.absolute()) if path.exists() else name


def outputs_folder() -> Path:
    """Where runs write: ``CHAPTER_OUTPUTS``, or ``outputs`` in the current folder; raises as ``named_path`` does."""
    return named_path(os.environ.get("CHAPTER_OUTPUTS") or "outputs")


def store_url() -> str:
    """Where blobs and records are: ``CHAPTER_STORE``, a folder or any fsspec URL, or a folder in the outputs.

    A folder is given as an absolute path. Raises as ``named_path`` does.
    """
    name = os.environ.get("CHAPTER_STORE")
    if name and is_address(name):
        return name
    return str(named_path(name) if name else outputs_folder() / "store")
