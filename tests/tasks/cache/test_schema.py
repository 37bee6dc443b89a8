"""What somebody else has written into a store: a miss, and never a look or a step outside."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from reports.types import Provenance
from tasks.cache.keys import digest
from tasks.cache.schema import KINDS, Origin
from tasks.cache.store import Artifact, MissingArtifact, Store, as_record, note, parse_record
from tasks.steps import WORK
from tests.tasks.cache.whole import kept, record_of

KEY = "a" * 64
ELSEWHERE = "../outside.txt"
DEEP = "[" * 100_000 + "]" * 100_000


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "outside.txt").write_bytes(b"mine")
    return Store(str(tmp_path / "store"))


def planted(store: Store, body: dict[str, Any], key: str = KEY) -> None:
    """A record as one would write it who knows how: with a checksum that fits, under the right key."""
    result = json.dumps({**body, "checksum": digest(body)})
    metadata = {"serializer": {"type": "chapter-record", "url": store.url}, "storage_key": key}
    store.write(f"records/{key}", json.dumps({"metadata": metadata, "result": result}).encode())


def sound(store: Store) -> dict[str, Any]:
    return as_record(KEY, {"model": store.put(b"weights")}, {"seconds": 1.0})


def blob(**changes: Any) -> Any:
    def change(record: dict[str, Any]) -> None:
        record["artifacts"]["model"] |= changes

    return change


def data(**changes: Any) -> Any:
    def change(record: dict[str, Any]) -> None:
        record["data"] |= changes

    return change


def field(name: str, value: Any) -> Any:
    def change(record: dict[str, Any]) -> None:
        record[name] = value

    return change


ALTERED = {
    "a place outside": blob(url=ELSEWHERE),
    "an absolute place": blob(url="/etc/hostname"),
    "another blob's place": blob(url="blobs/bb/" + "b" * 64),
    "a short hash": blob(sha256="ab"),
    "a hash with a line end": blob(sha256="a" * 64 + "\n"),
    "a hash that is a path": blob(sha256="../" * 20 + "x" * 4, url="blobs/../" + "../" * 20 + "x" * 4),
    "a number as hash": blob(sha256=7),
    "a size that is true": blob(size=True),
    "a negative size": blob(size=-1),
    "a size beyond all disks": blob(size=10**300),
    "a size with a point": blob(size=7.0),
    "one field more": blob(mode="x"),
    "blobs in a list": field("artifacts", [["model", {}]]),
    "a blob that is a list": field("artifacts", {"model": []}),
    "data in a list": field("data", [1]),
    "seconds that are text": data(seconds="1"),
    "endless seconds": data(seconds=float("inf")),
    "seconds that are no number": data(seconds=float("nan")),
    "a list as lineage": data(lineage=[]),
    "lineage without inputs": data(lineage={"kind": "train"}),
    "curves in a list": data(history=[1, 2]),
    "evaluations that are numbers": data(evaluations={"tokens": 3}),
    "a configuration in a list": data(config=[]),
    "parameters in words": data(parameters="many"),
    "provenance in a list": data(provenance=["x"]),
}

NOTES: list[Any] = [
    [],
    {},
    {"key": KEY, "ingredients": [], "seconds": 1.0},
    {"key": KEY, "ingredients": {"inputs": [1]}, "seconds": 1.0},
    {"key": KEY, "ingredients": {"inputs": {}}, "seconds": "long"},
    {"key": KEY, "ingredients": {"inputs": {}}, "seconds": float("inf")},
    {"key": [KEY], "ingredients": {"inputs": {}}, "seconds": 1.0},
    {"key": KEY, "ingredients": {"inputs": {}, "code": 3}, "seconds": 1.0},
]


def test_what_is_sound_is_a_hit(store: Store) -> None:
    planted(store, sound(store))
    assert store.record(KEY, verify=True) == sound(store)


@pytest.mark.parametrize("what", ALTERED)
def test_what_is_not_as_we_write_it_is_a_miss(store: Store, what: str) -> None:
    body = sound(store)
    ALTERED[what](body)
    planted(store, body)
    assert store.record(KEY) is None
    assert store.record(KEY, verify=True) is None
    assert (Path(store.url).parent / "outside.txt").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "text", [DEEP, '{"a":' * 50_000 + "1" + "}" * 50_000, "9" * 5_000, "[]", "null", '"x"', "1e999"]
)
def test_any_other_json_is_a_miss(store: Store, text: str) -> None:
    metadata = {"serializer": {"type": "chapter-record", "url": ""}, "storage_key": KEY}
    for content in (text, json.dumps({"metadata": metadata, "result": text})):
        store.write(f"records/{KEY}", content.encode())
        assert store.record(KEY) is None
    with pytest.raises(ValueError):
        parse_record(text)
    with pytest.raises(ValueError):
        note(text)


def test_a_blob_is_looked_for_where_its_content_says(store: Store) -> None:
    """Whatever a record has said: nothing outside is read, and nothing there is dropped as an altered blob."""
    outside = Path(store.url).parent / "outside.txt"
    for url in (ELSEWHERE, str(outside)):
        with pytest.raises(MissingArtifact, match="not in the store"):
            store.fetch(Artifact(url, "b" * 64, 4))
        assert not store.has(Artifact(url, "b" * 64, 4))
    kept = store.put(b"weights")
    assert store.fetch_bytes(Artifact(ELSEWHERE, kept.sha256, kept.size)) == b"weights"
    assert outside.read_bytes() == b"mine"
    with pytest.raises(ValueError, match="not a SHA-256"):
        store.fetch(Artifact(ELSEWHERE, "../../outside.txt", 4))


@pytest.mark.parametrize(
    "relative", ["../outside.txt", "records/../../outside.txt", "/etc/hostname", "", "a//b", "a\\b", "a\0"]
)
def test_no_name_leads_out_of_the_store(store: Store, relative: str) -> None:
    for use in (store.read, store.open, store.delete, store.exists, store.listing, lambda name: store.write(name, b"")):
        with pytest.raises(ValueError, match="no place in a store"):
            use(relative)
    assert store.record(relative) is None
    assert (Path(store.url).parent / "outside.txt").read_bytes() == b"mine"


@pytest.mark.parametrize("entry", NOTES)
def test_what_is_no_note_is_none(store: Store, entry: Any) -> None:
    store.write("latest/train-one.json", json.dumps(entry).encode())
    assert store.last("train one") is None


def test_a_note_may_not_lead_to_a_record_outside(store: Store) -> None:
    store.remember("train one", {"key": "../../outside.txt", "ingredients": {"inputs": {}}, "seconds": 1.0})
    last = store.last("train one")
    assert last is not None
    assert store.record(last["key"]) is None


# --- What the steps of each kind say ----------------------------------------------------------------------------

REQUIRED = {  # what readers of a record take for granted: the page, the terminal, MLflow, the steps after it
    "text": ["seconds"],
    "tokens": ["seconds", "vocab_size", "tokens", "bytes"],
    "baselines": ["seconds"],
    "train": [
        *("seconds", "recipe", "config", "parameters", "history", "evaluations", "finished", "snapshots"),
        *("training_seconds", "tokens_per_second"),
    ],
    "finetune": [
        *("seconds", "recipe", "parameters", "history", "evaluations", "training_seconds", "tokens_per_second"),
        *("steps", "block", "tokens"),
    ],
    "exercise": ["seconds", "provenance"],
}


def test_each_kind_of_step_has_its_schema() -> None:
    assert KINDS.keys() == REQUIRED.keys() == WORK.keys()
    assert {field.name for field in dataclasses.fields(Provenance)} | {"type"} == Origin.model_fields.keys()


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_as_its_steps_leave_it_is_a_hit(store: Store, kind: str) -> None:
    record = record_of(store, kind, KEY)
    kept(store, record)
    assert store.record(KEY, kind=kind, verify=True) == record
    store.drop_unfit(KEY, kind)
    assert store.record(KEY) == record


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in REQUIRED.items() for name in names])
def test_a_record_without_what_others_rely_on_is_a_miss(store: Store, kind: str, name: str) -> None:
    record = record_of(store, kind, KEY)
    del record["data"][name]
    kept(store, record)
    assert store.record(KEY) is not None, "it is a record"
    assert store.record(KEY, kind=kind) is None, "but none of such a step"
    store.drop_unfit(KEY, kind)
    assert store.record(KEY) is None


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("train", "parameters", None),
        ("train", "evaluations", {"tokens": [], "validation_loss": [2.0]}),
        ("train", "evaluations", {"tokens": [64]}),
        ("train", "evaluations", {"tokens": ["many"], "validation_loss": [2.0]}),
        ("train", "training_seconds", None),
        ("finetune", "steps", "3"),
        ("tokens", "vocab_size", 2.5),
        ("exercise", "provenance", {}),
        ("exercise", "provenance", {"profile": "smoke", "seeds": "01"}),
        ("exercise", "provenance", {"profile": "smoke", "sources": ["x"]}),
        ("exercise", "provenance", {"profile": "smoke", "evil": 1}),
    ],
)
def test_a_record_that_says_it_in_another_way_is_a_miss(store: Store, kind: str, name: str, value: Any) -> None:
    record = record_of(store, kind, KEY)
    record["data"][name] = value
    kept(store, record)
    assert store.record(KEY, kind=kind) is None


@pytest.mark.parametrize("kind", KINDS)
def test_a_record_without_its_files_is_a_miss(store: Store, kind: str) -> None:
    for name in record_of(store, kind, KEY)["artifacts"]:
        record = record_of(store, kind, KEY)
        del record["artifacts"][name]
        kept(store, record)
        assert store.record(KEY, kind=kind) is None
