"""From store to store: what is finished and what is begun arrives whole, and nothing that is here is harmed."""

import itertools
import json
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.train import train
from tasks.cache.archive import PackError, open_pack, read_manifest, write_pack
from tasks.cache.carry import TakenIn, contents, take_in
from tasks.cache.locks import FlockManager
from tasks.cache.results import RecordSerializer, RecordStorage
from tasks.cache.store import Artifact, Store, as_record, blob_path
from tests.minigpt.killed_training import VARIANTS
from tests.tasks.cache.test_archive import bytes_of, resealed, sha256, source

LINEAGE = {"kind": "train", "name": "train", "version": 1, "inputs": {}, "code": {}, "upstream": {}}


def key_of(name: str) -> str:
    return sha256(name.encode())


def persist(store: Store, name: str, *blobs: bytes, block: str | None = None, **data: Any) -> str:
    """A finished step, as a run leaves it; returns its key."""
    key, serializer = key_of(name), RecordSerializer(url=store.url)
    artifacts = {f"file-{i}": store.put(content) for i, content in enumerate(blobs)}
    record = as_record(key, artifacts, {"seconds": 1.0, "lineage": LINEAGE, **data})
    metadata = {
        "storage_key": key,
        "expiration": None,
        "serializer": {"type": "chapter-record", "url": store.url},
        "prefect_version": "3.8.8",
        "storage_block_id": block,
    }
    body = {"metadata": metadata, "result": serializer.dumps(record).decode()}
    RecordStorage(url=store.url).write_path(key, json.dumps(body).encode())
    store.remember(name, {"key": key, "ingredients": {"inputs": {}}, "seconds": 1.0})
    return key


def checkpoint(folder: Path, name: str, step: int, content: bytes = b"tensors") -> Path:
    place = folder / "checkpoints" / key_of(name)
    place.mkdir(parents=True, exist_ok=True)
    (place / f"step-{step:09d}.safetensors").write_bytes(content)
    (place / f"step-{step:09d}.json").write_text(json.dumps({"step": step}))
    (place / ".step-000000001.json.abc").write_text("half-written")
    return place


def tree(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture
def here(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "here"))


@pytest.fixture(params=["folder", "remote"])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "there"))
    return Store(f"memory://{tmp_path.name}", cache=tmp_path / "blobs")


def folder_of(store: Store, tmp_path: Path) -> Path:
    return store.local or tmp_path / "outputs"


def packed(store: Store, to: Path, keys: set[str] | None = None, part_size: int = 16_384) -> Path:
    write_pack(to, contents(store, store.local or to.parent, keys), part_size)
    return to


def test_a_store_arrives_whole(here: Store, there: Store, tmp_path: Path) -> None:
    first = persist(here, "a", b"weights" * 9_000, b"tokenizer", block="f92ace55-d3bb-40a5-83dd-72454bfcaa65")
    second = persist(here, "b", b"tokenizer", loss=float("nan"), curve=[1.5])
    here.put(b"a blob that no record names")
    checkpoint(Path(here.root), "c", 30)
    place = folder_of(there, tmp_path)
    taken = take_in(open_pack(packed(here, tmp_path / "pack")), there, place)
    assert (taken.records, taken.blobs, taken.checkpoints, taken.there) == (2, 2, 2, 0)
    for key in (first, second):
        assert there.record(key, verify=True) == here.record(key, verify=True) is not None
    assert there.last("a") == here.last("a")
    names = {path.name for path in (place / "checkpoints" / key_of("c")).iterdir()}
    assert names == {"step-000000030.safetensors", "step-000000030.json"}
    again = take_in(open_pack(tmp_path / "pack"), there, place)
    assert again == TakenIn(0, 0, 0, 0, there=8)


def test_equal_stores_make_equal_packs(here: Store, tmp_path: Path) -> None:
    persist(here, "a", b"1" * 40_000, block="f92ace55-d3bb-40a5-83dd-72454bfcaa65")
    persist(here, "b", b"2")
    checkpoint(Path(here.root), "c", 30)
    first = packed(here, tmp_path / "first")
    elsewhere = Store(str(tmp_path / "elsewhere"))
    take_in(open_pack(first), elsewhere, Path(elsewhere.root))
    assert bytes_of(packed(elsewhere, tmp_path / "second")) == bytes_of(first)
    assert str(tmp_path).encode() not in b"".join(bytes_of(first).values()), "no path of this machine travels"


def test_only_the_steps_that_are_wanted(here: Store, tmp_path: Path) -> None:
    wanted = {persist(here, "a", b"1"), key_of("c")}
    persist(here, "b", b"2")
    checkpoint(Path(here.root), "c", 1)
    checkpoint(Path(here.root), "d", 1)
    members = read_manifest(packed(here, tmp_path / "pack", wanted) / "manifest.json")[1]
    checkpoints = {f"checkpoints/{key_of('c')}/step-000000001.{suffix}" for suffix in ("json", "safetensors")}
    assert set(members) == {f"records/{key_of('a')}", "latest/a.json", blob_path(sha256(b"1"))} | checkpoints


def test_what_is_not_sound_stays_behind(here: Store, tmp_path: Path) -> None:
    persist(here, "a", b"1")
    persist(here, "lost", b"blob")
    here.delete(blob_path(sha256(b"blob")))
    here.write("records/readme.txt", b"not ours")
    assert set(read_manifest(packed(here, tmp_path / "pack") / "manifest.json")[1]) == {
        f"records/{key_of('a')}",
        "latest/a.json",
        blob_path(sha256(b"1")),
    }
    persist(here, "altered", b"right")
    Path(here.root, blob_path(sha256(b"right"))).write_bytes(b"wrong")
    with pytest.raises(PackError, match="not what its SHA-256 says"):
        packed(here, tmp_path / "other")


def test_of_the_checkpoints_of_a_step_the_latest_travels(here: Store, tmp_path: Path) -> None:
    for step in (20, 30):
        place = checkpoint(Path(here.root), "c", step)
    (place / "step-000000040.safetensors").write_bytes(b"killed before its JSON was written")
    for name in ("snapshot-000000010.safetensors", "snapshot-000000010.sha256", f"{'0' * 16}.json"):
        (place / name).write_bytes(b"kept for good")
    members = read_manifest(packed(here, tmp_path / "pack") / "manifest.json")[1]
    assert {path.rpartition("/")[2] for path in members} == {
        "step-000000030.safetensors",
        "step-000000030.json",
        "snapshot-000000010.safetensors",
        "snapshot-000000010.sha256",
        f"{'0' * 16}.json",
    }


def test_a_step_at_work_is_left_alone(here: Store, there: Store, tmp_path: Path) -> None:
    checkpoint(Path(here.root), "c", 30)
    pack = packed(here, tmp_path / "pack")
    place = folder_of(there, tmp_path)
    for folder in (Path(here.root), place):
        assert FlockManager(folder / "locks").acquire_lock(key_of("c"), "a training")
    try:
        assert not read_manifest(packed(here, tmp_path / "none") / "manifest.json")[1]
        with pytest.raises(PackError, match="is at work here"):
            take_in(open_pack(pack), there, place)
    finally:
        for folder in (Path(here.root), place):
            FlockManager(folder / "locks").release_lock(key_of("c"), "a training")


def test_in_pieces_there_and_back(here: Store, there: Store, tmp_path: Path) -> None:
    persist(here, "text", b"text")
    place = folder_of(there, tmp_path)
    take_in(open_pack(packed(here, tmp_path / "out")), there, place)
    persist(there, "model", b"weights", b"text")
    known = set(read_manifest(tmp_path / "out" / "manifest.json")[1].values())
    new = [found for found in contents(there, place) if found.member not in known]
    assert {found.member.path for found in new} == {
        f"records/{key_of('model')}",
        "latest/model.json",
        blob_path(sha256(b"weights")),
    }
    write_pack(tmp_path / "back", new, 16_384)
    empty = Store(str(tmp_path / "empty"))
    with pytest.raises(PackError, match="unpack first what it was packed --only-new-since"):
        take_in(open_pack(tmp_path / "back"), empty, Path(empty.root))
    assert tree(tmp_path / "empty") == {}
    take_in(open_pack(tmp_path / "back"), here, Path(here.root))
    assert here.record(key_of("model"), verify=True) is not None


# --- What is here already -----------------------------------------------------------------------------------------


def test_a_sound_record_stays_and_a_damaged_one_is_mended(here: Store, there: Store, tmp_path: Path) -> None:
    persist(here, "a", b"weights", seconds=2.0)
    persist(there, "a", b"weights", seconds=3.0)
    there.remember("a", {"key": "another", "ingredients": {"inputs": {}}, "seconds": 3.0})
    pack, place = open_pack(packed(here, tmp_path / "pack")), folder_of(there, tmp_path)
    take_in(pack, there, place)
    record = there.record(key_of("a"))
    assert record is not None
    assert record["data"]["seconds"] == 3.0
    assert (there.last("a") or {})["key"] == "another", "what was done last here, too"
    there.write(f"records/{key_of('a')}", b"{}")
    there.delete(blob_path(sha256(b"weights")))
    take_in(pack, there, place)
    record = there.record(key_of("a"), verify=True)
    assert record is not None
    assert record["data"]["seconds"] == 2.0
    assert (there.last("a") or {})["key"] == key_of("a")


def test_an_altered_blob_of_a_local_store_is_mended(here: Store, tmp_path: Path) -> None:
    persist(here, "a", b"weights")
    pack = open_pack(packed(here, tmp_path / "pack"))
    Path(here.root, blob_path(sha256(b"weights"))).write_bytes(b"WEIGHTS")
    assert take_in(pack, here, Path(here.root)).blobs == 1
    assert here.record(key_of("a"), verify=True) is not None


@pytest.mark.parametrize(("step", "wins"), [(None, "pack"), (10, "pack"), (30, "here"), (40, "here")])
def test_the_checkpoint_that_is_further_is_kept(here: Store, tmp_path: Path, step: int | None, wins: str) -> None:
    checkpoint(Path(here.root), "c", 30, b"pack")
    pack = open_pack(packed(here, tmp_path / "pack"))
    other = Store(str(tmp_path / "other"))
    if step is not None:
        checkpoint(Path(other.root), "c", step, b"here")
    take_in(pack, other, Path(other.root))
    newest = sorted((Path(other.root) / "checkpoints" / key_of("c")).glob("step-*.safetensors"))[-1]
    assert newest.read_bytes() == wins.encode()
    assert newest.with_suffix(".json").exists()


def test_the_checkpoint_of_a_step_that_is_finished_here_is_not_needed(here: Store, tmp_path: Path) -> None:
    checkpoint(Path(here.root), "c", 30)
    pack = open_pack(packed(here, tmp_path / "pack"))
    other = Store(str(tmp_path / "other"))
    persist(other, "c", b"weights")
    assert take_in(pack, other, Path(other.root)).checkpoints == 0
    assert not (tmp_path / "other" / "checkpoints").exists()


def test_a_record_that_comes_makes_room_of_its_checkpoint(here: Store, there: Store, tmp_path: Path) -> None:
    persist(here, "c", b"weights")
    persist(here, "busy", b"weights")
    place = folder_of(there, tmp_path)
    for name in ("c", "busy", "other"):
        checkpoint(place, name, 30)
    assert FlockManager(place / "locks").acquire_lock(key_of("busy"), "a training")
    try:
        take_in(open_pack(packed(here, tmp_path / "pack")), there, place)
    finally:
        FlockManager(place / "locks").release_lock(key_of("busy"), "a training")
    assert {path.name for path in (place / "checkpoints").iterdir()} == {key_of("busy"), key_of("other")}


def test_an_interrupted_training_goes_on_elsewhere_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Enough(Exception):
        pass

    # A second passes with each look at the clock: progress is told after each step, however fast steps are.
    seconds = itertools.count()
    clock = SimpleNamespace(monotonic=lambda: float(next(seconds)), perf_counter=time.perf_counter)
    monkeypatch.setattr("minigpt.train.time", clock)

    def stop(fraction: float, note: str = "") -> None:
        if fraction > 0.5:
            raise Enough

    config, tc = VARIANTS["plain"]
    tokens = torch.randint(29, (2000,), generator=torch.Generator().manual_seed(0))
    here, there = Store(str(tmp_path / "here")), Store(str(tmp_path / "there"))
    key = key_of("training")
    folders = [Path(store.root) / "checkpoints" / key for store in (here, there)]
    arguments: dict[str, Any] = {"seed": 0, "device": torch.device("cpu")}
    with pytest.raises(Enough):
        train(config, tc, tokens[:1500], tokens[1500:], checkpoint_dir=folders[0], progress=stop, **arguments)
    take_in(open_pack(packed(here, tmp_path / "pack", part_size=65_536)), there, Path(there.root))
    reached = max(json.loads(file.read_text())["step"] for file in folders[1].glob("step-*.json"))
    assert 0 < reached < tc.steps
    steps: list[float] = []
    whole = train(config, tc, tokens[:1500], tokens[1500:], **arguments)
    resumed = train(
        config,
        tc,
        tokens[:1500],
        tokens[1500:],
        checkpoint_dir=folders[1],
        progress=lambda fraction, note="": steps.append(fraction),
        **arguments,
    )
    assert min(steps) >= reached / tc.steps, "it went on, and did not begin again"
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name])
    assert whole.history["train_loss"] == resumed.history["train_loss"]


# --- What means harm ----------------------------------------------------------------------------------------------


def record_bytes(key: str, **changes: Any) -> bytes:
    """A record with a checksum that fits: what somebody writes who knows the format."""
    body = {"key": key, "artifacts": {}, "data": {"seconds": 1.0, "lineage": LINEAGE}} | changes
    result = RecordSerializer(url="").dumps(body).decode()
    return json.dumps({"metadata": {"serializer": {"type": "chapter-record", "url": ""}}, "result": result}).encode()


KEY = key_of("hostile")
OUTSIDE = {"url": "../../outside", "sha256": sha256(b"precious"), "size": len(b"precious")}
FOREIGN = json.dumps({"metadata": {"serializer": {"type": "pickle"}}, "result": "gASV"}).encode()
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "not JSON": (lambda: b"\x80\x04.", "is not a record"),
    "nested without end": (lambda: b"[" * 100_000, "is not a record"),
    "another serializer": (lambda: FOREIGN, "foreign serializer"),
    "another key": (lambda: record_bytes("0" * 64), "belongs to another step"),
    "altered": (lambda: record_bytes(KEY).replace(b"1.0", b"2.0"), "altered after it was written"),
    "a blob outside": (lambda: record_bytes(KEY, artifacts={"model": OUTSIDE}), "is not a blob of a store"),
    "a blob that is none": (lambda: record_bytes(KEY, artifacts={"model": "x"}), "is not a blob of a store"),
    "artifacts that are none": (lambda: record_bytes(KEY, artifacts=[]), "is not a record"),
    "no lineage": (lambda: record_bytes(KEY, data={"seconds": 1.0}), "does not say what it was made from"),
    "a blob that is nowhere": (
        lambda: record_bytes(KEY, artifacts={"model": {**OUTSIDE, "url": blob_path(sha256(b"precious"))}}),
        "neither in it nor in the store",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_record_that_means_harm_changes_nothing(tmp_path: Path, case: str) -> None:
    make, words = HOSTILE[case]
    store = Store(str(tmp_path / "a" / "store"))
    persist(store, "mine", b"weights")
    (tmp_path / "outside").write_bytes(b"precious")
    good = b"a blob that would come along"
    write_pack(tmp_path / "pack", [source(f"records/{KEY}", make()), source(blob_path(sha256(good)), good)], 1 << 20)
    before = tree(tmp_path)
    with pytest.raises(PackError, match=words) as refused:
        take_in(open_pack(tmp_path / "pack"), store, Path(store.root))
    assert "\n" not in str(refused.value)
    assert tree(tmp_path) == before


def test_a_record_in_the_store_that_names_a_file_outside_drops_nothing(tmp_path: Path) -> None:
    """Whoever can write into a store must not be able to have other files taken for altered blobs, and deleted."""
    store = Store(str(tmp_path / "a" / "store"))
    (tmp_path / "outside").write_bytes(b"presious")
    store.write(f"records/{KEY}", record_bytes(KEY, artifacts={"model": OUTSIDE}))
    assert store.record(KEY, verify=True) is None
    assert (tmp_path / "outside").exists()


def test_a_note_that_a_plan_could_not_read(here: Store, tmp_path: Path) -> None:
    write_pack(tmp_path / "pack", [source("latest/exercise-21-1.json", b'{"key": "x"}')], 1 << 20)
    with pytest.raises(PackError, match="not a note of a finished step"):
        take_in(open_pack(tmp_path / "pack"), here, Path(here.root))


def test_a_pack_that_there_is_no_room_for(here: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    persist(here, "a", b"weights")
    pack = open_pack(packed(here, tmp_path / "pack"))
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(total=1, used=1, free=1_000))
    with pytest.raises(PackError, match=r"64 MiB are needed .* and 0 MiB are free; make room"):
        take_in(pack, Store(str(tmp_path / "other")), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_a_pack_that_changes_while_it_is_taken_in(here: Store, tmp_path: Path) -> None:
    key = persist(here, "a", b"weights" * 100)
    pack = open_pack(packed(here, tmp_path / "pack"))
    [part] = (tmp_path / "pack").glob("*.tar")
    other = Store(str(tmp_path / "other"))
    part.write_bytes(part.read_bytes().replace(b"weights", b"WEIGHTS"))
    resealed(tmp_path / "pack")
    with pytest.raises(PackError, match=r"is not what manifest\.json says"):
        take_in(pack, other, Path(other.root))
    assert other.record(key) is None
    assert not other.has(Artifact(blob_path(sha256(b"weights" * 100)), sha256(b"weights" * 100), 700))
    assert not [name for name in tree(tmp_path / "other") if not name.startswith("locks")]
