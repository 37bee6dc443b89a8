"""A user's own text or model: what ``--corpus`` and ``--pretrained`` accept, and what is wrong with the rest."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks.cache.urls import without_secrets
from tasks.folders import named_path
from tasks.sources import hub
from tasks.sources.embedded import sha256_of
from tasks.sources.hub import NotThere, Unreachable
from tasks.sources.references import Reference, SourceError

MIN_CHARACTERS = 2_000  # the validation tenth must still hold a few contexts of the smallest models
MAX_BYTES = 512 * 2**20

WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
KEPT_SUFFIXES = (".json", ".safetensors", ".bin", ".txt", ".model", ".jinja")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "tokenizer.model", "spiece.model", "vocab.txt")


# --- A user's own text ----------------------------------------------------------------------------------------


def user_corpus(value: str, cache: Path) -> Reference:
    """The text that ``--corpus`` names: a file, ``hf:NAME[@CONFIG][:SPLIT[:COLUMN]]`` or an address.

    Raises:
        SourceError: it is not a text that a model can be trained on, or cannot be had.
    """
    if value.startswith("hf:"):
        return _dataset(value)
    if "://" in value:
        return _address(value, cache)
    path = _path("--corpus", value)
    if not path.exists():
        raise SourceError(f"--corpus {value}: there is no such file; give a UTF-8 text, hf:NAME or an address.")
    if not path.is_file():
        what = "a directory" if path.is_dir() else "not a regular file"
        raise SourceError(f"--corpus {value}: this is {what}; give a UTF-8 text file.")
    if path.stat().st_size > MAX_BYTES:
        raise SourceError(f"--corpus {value}: larger than {MAX_BYTES >> 20} MiB; give an excerpt.")
    try:
        content = path.read_bytes()
    except OSError as error:
        raise SourceError(f"--corpus {value}: cannot be read ({error.strerror}); check its permissions.") from error
    characters = check_text(content, f"--corpus {value}")
    return Reference(
        kind="text",
        name=Path(value).name,
        location=str(path),
        sha256=hashlib.sha256(content).hexdigest(),
        description=f"{characters:,} characters of the user's own text.",
        licence="as its owner says",
    )


def _path(option: str, value: str) -> Path:
    """A file or directory as a person names it.

    Raises:
        SourceError: it can be none.
    """
    try:
        value.encode()  # records, and the report, hold it as UTF-8
        path = named_path(value)
        path.exists()
    except UnicodeEncodeError as error:
        shown = value.encode(errors="backslashreplace").decode()
        raise SourceError(f"{option} {shown}: its name is not UTF-8; rename it.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise SourceError(f"{option} {value}: {reason}; give a path that can be read.") from error
    return path


def check_text(content: bytes, where: str) -> int:
    """Number of characters of a UTF-8 text that is fit for training.

    Raises:
        SourceError: empty, binary, too short, or of one single character.
    """
    if not content:
        raise SourceError(f"{where}: the text is empty; give at least {MIN_CHARACTERS:,} characters.")
    nul = content.find(b"\0")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        offset = min(error.start, nul) if nul >= 0 else error.start
        raise SourceError(f"{where}: not UTF-8 text at byte offset {offset}; convert it to UTF-8 first.") from error
    if nul >= 0:
        raise SourceError(f"{where}: a NUL byte at byte offset {nul}, so this is not text; give a UTF-8 text file.")
    if len(text) < MIN_CHARACTERS:
        plural = "" if len(text) == 1 else "s"
        raise SourceError(f"{where}: only {len(text):,} character{plural}; give at least {MIN_CHARACTERS:,}.")
    if len(set(text.strip())) < 2:
        raise SourceError(f"{where}: the text repeats one single character; give a real text.")
    return len(text)


def _address(value: str, cache: Path) -> Reference:
    if not value.startswith(("http://", "https://")):
        raise SourceError(f"--corpus {value}: only http and https addresses are read; download it and give the file.")
    return text_at(value, cache, hub.download)


def text_at(url: str, cache: Path, download: Callable[[str, Path], tuple[Path, str]]) -> Reference:
    """The text that a ``download`` brings from an address, with its SHA-256.

    Raises:
        SourceError: it cannot be had, or is no text to train on.
    """
    try:
        path, sha256 = download(url, cache)
    except (Unreachable, NotThere) as error:
        raise SourceError(f"--corpus: {error}; check the address, or download the text and give the file.") from error
    shown = without_secrets(url)
    characters = check_text(path.read_bytes(), f"--corpus {shown}")
    return Reference(
        kind="text",
        name=shown.rstrip("/").rpartition("/")[2] or shown,
        location=url,
        sha256=sha256,
        description=f"{characters:,} characters from {shown}.",
        licence="as its publisher says",
    )


def _dataset(value: str) -> Reference:
    """``hf:NAME[@CONFIG][:SPLIT[:COLUMN]]``, its revision pinned to today's commit."""
    name, *rest = value.removeprefix("hf:").split(":")
    name, _, config = name.partition("@")
    if not name or len(rest) > 2:
        raise SourceError(f"--corpus {value}: not hf:NAME[@CONFIG][:SPLIT[:COLUMN]]; write it like hf:imdb:test:text.")
    split, column = [*rest, "", ""][:2]
    try:
        revision = hub.repo_info("dataset", name).sha
    except NotThere as error:
        raise SourceError(f"--corpus {value}: {error}; check the spelling, or log in if it is private.") from error
    except Unreachable as error:
        raise SourceError(f"--corpus {value}: {error}; give a text file instead, or try again later.") from error
    return Reference(
        kind="dataset",
        name=name,
        location=f"{hub.endpoint()}/datasets/{name}",
        revision=revision,
        config=config,
        split=split or "train",
        column=column,
        description=f"split {split or 'train'} of a data set of the Hugging Face Hub, commit {revision[:7]}.",
        licence="as its publisher says",
    )


# --- A user's own model ---------------------------------------------------------------------------------------


def user_model(value: str, pinned: Reference | None = None) -> Reference:
    """The causal language model that ``--pretrained`` names: a directory, or a repository of the Hub.

    ``pinned`` is the reference to return, once it is known to be there, when the repository is named that way.

    Raises:
        SourceError: it is not one, lacks a file, or cannot be had.
    """
    path = _path("--pretrained", value)
    if path.is_dir():
        return _directory(value, path)
    if path.exists():
        raise SourceError(f"--pretrained {value}: this is a file; give a directory in Transformers format.")
    if value.startswith((".", "/", "~")) or value.count("/") > 1 or "\\" in value:
        raise SourceError(f"--pretrained {value}: there is no such directory; give one in Transformers format.")
    return _hub_model(value, pinned)


def not_causal(config: Mapping[str, Any]) -> str:
    """What a ``config.json`` describes instead of a causal language model, or "" if it may be one."""
    architectures = [str(name) for name in config.get("architectures") or []]
    if config.get("is_encoder_decoder"):
        return f"an encoder-decoder model ({', '.join(architectures) or config.get('model_type')})"
    causal = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
    if architectures and not any(name.endswith(causal) for name in architectures):
        return f"a {architectures[0]}"
    return ""


def _directory(value: str, path: Path) -> Reference:
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(
            f"--pretrained {value}: no readable config.json in it; use save_pretrained to make one."
        ) from error
    if not isinstance(config, dict) or "model_type" not in config:
        raise SourceError(f"--pretrained {value}: its config.json names no model_type; save one with save_pretrained.")
    if problem := not_causal(config):
        raise SourceError(f"--pretrained {value}: this is {problem}, not a causal language model like GPT-2; give one.")
    names = {file.name for file in path.iterdir() if file.is_file()}
    _has_files(names, f"--pretrained {value}")
    try:
        sha256 = directory_sha256(path)
    except OSError as error:
        raise SourceError(f"--pretrained {value}: {error.filename}: {error.strerror}; let it be read.") from error
    return Reference(
        kind="directory",
        name=path.resolve().name,
        location=str(path.resolve()),
        sha256=sha256,
        description=f"the user's own {config['model_type']} model.",
        licence="as its owner says",
    )


def directory_sha256(path: Path) -> str:
    """Identity of a model's directory: names and contents of the files that Transformers may read."""
    names = sorted(file.name for file in path.iterdir() if file.is_file() and file.name.endswith(KEPT_SUFFIXES))
    lines = "".join(f"{name}\0{sha256_of(path / name)}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def _has_files(names: set[str], where: str) -> None:
    if not names & set(WEIGHT_FILES):
        raise SourceError(f"{where}: no weights ({WEIGHT_FILES[0]}) in it; give a model saved by save_pretrained.")
    if not names & set(TOKENIZER_FILES):
        raise SourceError(f"{where}: no tokenizer in it; save one beside the weights with tokenizer.save_pretrained.")


def _hub_model(value: str, pinned: Reference | None) -> Reference:
    name = "openai-community/gpt2" if value == "gpt2" else value  # the Hub's own alias
    revision = pinned.revision if pinned and pinned.name == name else None
    try:
        info = hub.repo_info("model", name, revision)
    except NotThere as error:
        raise SourceError(f"--pretrained {value}: {error}; check the spelling, or give a directory.") from error
    except Unreachable as error:
        cached = hub.newest_snapshot("model", name) if revision is None else None
        config = cached / "config.json" if cached else hub.cached_file("model", name, "config.json", revision)
        if config is None or not config.exists():
            raise SourceError(f"--pretrained {value}: {error}; give a directory, or use --sources embedded.") from error
        names = {file.name: 0 for file in config.parent.iterdir()}
        info = hub.RepoInfo(config.parent.name, names, config=json.loads(config.read_text(encoding="utf-8")))
    if problem := not_causal(info.config):
        raise SourceError(f"--pretrained {value}: this is {problem}, not a causal language model like GPT-2; give one.")
    _has_files(set(info.files), f"--pretrained {value}")
    if pinned and revision:
        return pinned
    return Reference(
        kind="hub-model",
        name=name,
        location=f"{hub.endpoint()}/{name}",
        revision=info.sha,
        sha256=info.sha256.get("model.safetensors", ""),
        description=f"a causal language model of the Hugging Face Hub, commit {info.sha[:7]}.",
        licence="as its publisher says",
    )
