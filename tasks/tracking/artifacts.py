"""A run's files and texts as its artifacts on MLflow.

Where MLflow keeps artifacts in a folder of this machine, as it does without a server, a file becomes a second name of
the one that is in the store already (a hard link), and takes no room of its own. That is safe because both sides only
ever replace and remove names: the store writes blobs aside and renames them, and so does this module with artifacts
(MLflow's ``log_artifacts`` copies in place, so nothing is left there for it to write into). So deleting or replacing
either leaves the other as it is. Only somebody who edits an artifact in place edits the blob, too; the store's SHA-256
then finds it, and the step runs again.

Everywhere else files are copied: to a server, to another disk, and where a file system knows no links.
"""

import contextlib
import os
import sqlite3
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit


def attach(client: Any, run_id: str, uri: str, files: Mapping[str, str], texts: Mapping[str, str]) -> None:
    """Keep files (name to path) and texts (name to content) as artifacts of a run whose artifacts are at ``uri``.

    A file must never be written to in place, since it may come to be shared; one that has gone meanwhile is left out.
    """
    kept = _local_folder(uri)
    with tempfile.TemporaryDirectory() as temporary:
        for name, source in files.items():
            path = Path(source).resolve()
            if (kept is None or not _linked(path, kept / name)) and path.exists():
                _place(temporary, name).symlink_to(path)
        for name, text in texts.items():
            _place(temporary, name).write_text(text, encoding="utf-8")
        if any(Path(temporary).iterdir()):
            client.log_artifacts(run_id, temporary)


def _local_folder(uri: str) -> Path | None:
    """The folder of this machine that MLflow's client would write to; None where artifacts travel."""
    from mlflow.store.artifact.local_artifact_repo import LocalArtifactRepository
    from mlflow.utils.uri import is_local_uri

    # Only a local address is opened: that of a server's artifacts means nothing without the server's own address.
    local = is_local_uri(uri, is_tracking_or_registry_uri=False)  # type: ignore[no-untyped-call]
    return Path(LocalArtifactRepository(uri).artifact_dir) if local else None


def _linked(source: Path, target: Path) -> bool:
    """Whether ``target`` could be made another name of ``source``; if not, what stood there is gone."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists() and source.exists() and target.samefile(source):  # what is told twice
        return True
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".") as aside:
        try:
            os.link(source, Path(aside) / "name")
            os.replace(Path(aside) / "name", target)
        except OSError:  # another disk, no such thing as links there, too many of them, not ours
            target.unlink(missing_ok=True)  # MLflow copies in place, and this may be another name of an earlier file
            return False
    return True


def _place(folder: str, name: str) -> Path:
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def follow(database: Path, experiment: str, place: str) -> None:
    """Have MLflow's database find artifacts at ``place``, a URI, where its outputs were moved to or renamed.

    MLflow keeps absolute addresses, and would make the old folder again.
    """
    if not database.exists():
        return
    with contextlib.closing(sqlite3.connect(database)) as connection, connection:
        try:
            found = connection.execute(
                "SELECT experiment_id, artifact_location FROM experiments WHERE name = ?", (experiment,)
            ).fetchone()
        except sqlite3.OperationalError:  # not made yet
            return
        if found is None or not found[1].startswith("file:") or _is_same(found[1], place):
            return
        id, before = found
        connection.execute(
            "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
            "WHERE experiment_id = ? AND instr(artifact_uri, ?) = 1",
            (place, len(before) + 1, id, before),
        )
        connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (place, id))


def _is_same(one: str, other: str) -> bool:
    """Whether two URIs of folders lead to the same place, by whatever names."""
    first, second = (Path(unquote(urlsplit(uri).path)) for uri in (one, other))
    return first == second or (first.exists() and second.exists() and first.samefile(second))
