"""What a source is: a reference that names, identifies and describes it, and the sources of one run."""

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["text", "dataset", "kjv", "psalms", "stdlib", "hub-model", "directory", "gguf", "stand-in", "gpt2-bpe"]
Bundle = Literal["hub", "embedded"]
LABELS = {
    "main": "main corpus",
    "domain": "domain corpus",
    "code": "code corpus",
    "pretrained": "pretrained model",
    "bpe": "GPT-2 vocabulary",
}
GPT2 = "openai-community/gpt2"


class SourceError(ValueError):
    """A source cannot be used; the text is one sentence that names the option, its value and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One source. Everything but ``location``, ``description`` and ``licence`` may be part of its identity."""

    kind: Kind
    name: str  # as shown to readers
    location: str = ""  # path or address
    revision: str = ""  # commit of a repository, version of a package
    sha256: str = ""  # of the bytes, where it is known beforehand
    config: str = ""  # of a data set, as are the next three
    split: str = ""
    column: str = ""
    file: str = ""
    description: str = ""
    licence: str = ""

    def key(self) -> dict[str, str]:
        """What identifies the content, for cache keys: never a path or an address."""
        if self.sha256 and self.kind != "hub-model":  # there it is of the weights, without tokenizer and configuration
            return {"kind": self.kind, "sha256": self.sha256}
        fields = ("kind", "name", "revision", "config", "split", "column", "file")
        return {field: getattr(self, field) for field in fields if getattr(self, field)}

    def to_json(self) -> dict[str, str]:
        """Plain JSON, the inverse of ``corpus_reference``."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The sources of one run. ``note`` says why ``auto`` chose this bundle, or what stands in for what."""

    bundle: Bundle
    main: Reference
    domain: Reference
    code: Reference
    pretrained: Reference
    bpe: Reference
    note: str = ""

    def corpus(self, name: str) -> Reference:
        """The reference of one of the three corpora."""
        return {"main": self.main, "domain": self.domain, "code": self.code}[name]

    def summary(self) -> dict[str, str]:
        """The bundle and a line per source, for the top of the report."""
        return {"bundle": self.bundle + (f" ({self.note})" if self.note else ""), **self.lines(LABELS)}

    def lines(self, names: Collection[str]) -> dict[str, str]:
        """A line for each of the named sources: ``main``, ``domain``, ``code``, ``pretrained``, ``bpe``."""
        parts: dict[str, Reference] = {LABELS[name]: getattr(self, name) for name in LABELS if name in names}
        return {label: f"{part.name}: {part.description} Licence: {part.licence}." for label, part in parts.items()}


def corpus_reference(data: Mapping[str, Any]) -> Reference:
    """A reference from its JSON."""
    return Reference(**data)
