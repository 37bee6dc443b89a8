"""What the JSON of a store may say. Who can write to a shared store can write anything: what is not this is a miss.

A place is never read from JSON: a blob lies where its SHA-256 says. Numbers have bounds, since a float that is read may
be infinite and an integer as long as its file. What others rely on in the records of one kind of step is required of
them (``as_its_kind``); further fields of ``data`` are each step's own.
"""

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

SERIALIZER: Literal["chapter-record"] = "chapter-record"
SHA256 = re.compile(r"[0-9a-f]{64}")
LARGEST = 2**53  # bytes; whatever claims to be larger is no blob
Model = TypeVar("Model", bound=BaseModel)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Seconds = Annotated[float, Field(ge=0), AfterValidator(_finite)]


class _Open(BaseModel):
    """Of fields that are named here the type counts, others are as they are."""

    model_config = ConfigDict(strict=True, extra="ignore")


class _Closed(BaseModel):
    """Nothing but these fields."""

    model_config = ConfigDict(strict=True, extra="forbid")


class Blob(_Closed):
    """A record's word on one of its blobs."""

    url: str
    sha256: Sha256
    size: Annotated[int, Field(ge=0, le=LARGEST)]

    @model_validator(mode="after")
    def _lies_where_its_content_says(self) -> "Blob":
        if self.url != blob_path(self.sha256):
            raise ValueError("not a place of this blob")
        return self


class Lineage(_Open):
    """What a step was made from."""

    kind: str
    name: str | None = None
    version: int
    inputs: dict[str, Any]
    code: dict[str, str]
    upstream: dict[str, str]


class Data(_Open):
    """What steps of every kind say, and what the page reads of a model."""

    seconds: Seconds | None = None
    lineage: Lineage | None = None
    parameters: int | None = None
    training_seconds: Seconds | None = None
    config: dict[str, Any] | None = None
    history: dict[str, list[Any]] | None = None
    evaluations: dict[str, list[Any]] | None = None
    provenance: dict[str, Any] | None = None


class Record(_Closed):
    """A finished step; ``checksum`` is the digest of the rest."""

    key: str
    artifacts: dict[str, Blob]
    data: Data
    checksum: Sha256


# --- What the steps of each kind say, and others rely on --------------------------------------------------------

Count = Annotated[int, Field(ge=0, le=LARGEST)]


class Finished(_Open):
    """A step of any kind."""

    seconds: Seconds


class Encoded(Finished):
    """A corpus in tokens."""

    vocab_size: Count
    tokens: dict[str, Count]
    bytes: dict[str, Count]


class Evaluations(_Open):
    """The curve of which every page shows the end."""

    tokens: Annotated[list[Count], Field(min_length=1)]
    validation_loss: Annotated[list[float], Field(min_length=1)]


class AnyModel(Finished):
    """A model, however it was made."""

    recipe: dict[str, Any]
    parameters: Count
    history: dict[str, list[Any]]
    evaluations: Evaluations
    training_seconds: Seconds
    tokens_per_second: float


class Trained(AnyModel):
    """A model that was trained from scratch."""

    config: dict[str, Any]
    finished: dict[str, list[Any]]
    snapshots: list[Count]


class Tuned(AnyModel):
    """The pretrained model, trained further."""

    steps: Count
    block: Count
    tokens: dict[str, Count]


class Origin(_Closed):
    """``reports.types.Provenance`` as JSON."""

    type: str | None = None
    profile: str
    sources: dict[str, str] = {}
    seeds: list[int] = []
    fingerprint: str = ""
    code_version: str = ""
    device: str = ""
    precision: str = ""
    machine: str = ""
    seconds: Seconds = 0.0
    mlflow_run_id: str | None = None
    mlflow_url: str | None = None
    prefect_run_id: str | None = None
    prefect_url: str | None = None


class Measured(Finished):
    """An exercise."""

    provenance: Origin


# Per kind of step (``tasks.steps.WORK``) what its data say, and the files that it has made.
KINDS: Mapping[str, tuple[type[Finished], tuple[str, ...]]] = {
    "text": (Finished, ("train", "validation")),
    "tokens": (Encoded, ("tokenizer", "tokens")),
    "baselines": (Finished, ("baselines",)),
    "train": (Trained, ("model", "tokenizer")),
    "finetune": (Tuned, ("model",)),
    "exercise": (Measured, ("findings",)),
}


def as_its_kind(kind: str, record: Mapping[str, Any]) -> None:
    """Refuse a record, plain JSON that fits ``Record``, that is none of a step of this kind.

    Raises:
        ValueError: it lacks a file or a number that others rely on; names the first.
    """
    data, files = KINDS[kind]
    lacking = [name for name in files if name not in record["artifacts"]]
    if lacking:
        raise ValueError(f"not a record of a step of kind {kind}: it has no {lacking[0]}")
    checked(data, record["data"], f"not a record of a step of kind {kind}")


# --- What lies around a record ----------------------------------------------------------------------------------


class Serializer(_Closed):
    """Prefect would import and run whatever it names."""

    type: Literal["chapter-record"]
    url: str | None = None


class Metadata(_Open):
    """What Prefect keeps beside a result."""

    serializer: Serializer
    prefect_version: Annotated[str, Field(max_length=40)] | None = None


class Stored(_Open):
    """A record as Prefect keeps it: the result is its text."""

    metadata: Metadata
    result: str


class Ingredients(_Open):
    """What a key was made of, as far as it is compared."""

    inputs: dict[str, Any]
    kind: str | None = None
    version: int | None = None
    upstream: dict[str, Any] = {}
    code: dict[str, Any] = {}


class Note(_Open):
    """The last run of a named step."""

    key: str
    ingredients: Ingredients
    seconds: Seconds


def checked(model: type[Model], value: object, what: str) -> Model:
    """What ``value``, plain JSON, says as a ``model``.

    Raises:
        ValueError: it is something else; names the first field that is wrong, in one line.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"])
        raise ValueError(f"{what}: {where or 'all of it'}: {first['msg']}"[:300]) from None
    except RecursionError:
        raise ValueError(f"{what} is nested too deeply") from None


def blob_path(sha256: str) -> str:
    """Where a blob is, relative to the store.

    Raises:
        ValueError: not a SHA-256.
    """
    if not SHA256.fullmatch(sha256):
        raise ValueError(f"{sha256[:80]!r} is not a SHA-256")
    return f"blobs/{sha256[:2]}/{sha256}"
