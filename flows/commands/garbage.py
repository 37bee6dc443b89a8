"""``chapter gc``: drop what no current recipe or exercise needs.

A record is live if a node of some current graph would make it again: same inputs, same code, live inputs. Device,
hardware and library versions do not count, so that collecting on a laptop leaves what a GPU worker has
made. What rests on a user's own text stays unless asked for.

In the outputs lie checkpoints of trainings that were given up, copies of a remote store's blobs, models that were
exported, what earlier versions have made of the packaged model, and the progress of runs that were killed.

What was made with a ``--budget`` other than 1 is none that a current recipe needs.
"""

import re
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from flows.execution.graph import Request, build, load_exercises
from minigpt.precision import PRECISIONS
from tasks.cache.keys import canonical, code_digests, digest, portable, syntax_kept_in
from tasks.cache.store import Store, artifacts_of, note
from tasks.cache.urls import without_credentials
from tasks.exercises import modules
from tasks.models.pretrained import packaged_folder
from tasks.place import Place
from tasks.recipes.catalogue import recipes
from tasks.recipes.profiles import PROFILES
from tasks.sources.resolve import Sources, named_sources

Record = Mapping[str, Any]
DAY = 86_400


def collect(outputs: Path, url: str, grace_days: float, user_corpora: bool, dry_run: bool) -> int:
    """Collect garbage and say what went; returns the exit status."""
    store = Store(url)
    keys = store.record_keys()
    found = {key: record for key in keys if (record := store.record(key))}
    records = {key: record for key, record in found.items() if record["data"].get("lineage")}  # others are not ours
    with syntax_kept_in(Place(url, str(outputs)).syntax):
        signatures, built_in = current_signatures()
    live = live_keys(records, signatures)
    if not user_corpora:
        live |= on_user_texts(records, built_in)
    before = time.time() - grace_days * DAY
    # What has been finished meanwhile may name an old blob: an edit can change a key and not a bit of the result.
    later = [record for key in set(store.record_keys()) - set(keys) if (record := store.record(key))]
    named = artifacts_of([*(records[key] for key in live), *later])
    doomed = [entry for entry in _unreferenced(store, live, named) if _old(entry["modified"], before)]
    leftovers = {path: _newest(path) for path in _leftovers(outputs, store, named)}
    doomed += [{"path": path, "size": _size(path)} for path, newest in leftovers.items() if _old(newest, before)]
    shared = sum(entry["size"] for entry in doomed if _has_another_name(entry["path"], store)) / 2**20
    for entry in [] if dry_run else doomed:
        _drop(entry["path"], store)
    size = sum(entry["size"] for entry in doomed) / 2**20
    kept = sum(key in live for key in records)
    verb = "would drop" if dry_run else "dropped"
    still = f" ({shared:.1f} MiB of it stay on the disk as artifacts on MLflow)" if shared else ""
    print(f"{verb} {len(doomed)} objects, {size:.1f} MiB{still}; {kept} records are live ({without_credentials(url)})")
    return 0


def current_signatures() -> tuple[set[str], set[str]]:
    """Signatures of all nodes of all current graphs, and digests of the built-in texts' identities."""
    signatures, built_in = set(), set()
    exercises = load_exercises(tuple(modules()))
    for sources in _bundles():
        for profile in (one.computed_in(precision) for one in PROFILES.values() for precision in PRECISIONS):
            wanted = tuple((r, seed) for r in recipes().values() for seed in profile.seeds(r))
            for node in build(Request(profile, sources, exercises, recipes=wanted)).values():
                signatures.add(_signature(node.kind, node.version, canonical(node.inputs), code_digests(node.code)))
        built_in |= {digest(sources.corpus(name).key()) for name in ("main", "domain", "code")}
    return signatures, built_in


def _bundles() -> list[Sources]:
    # As they are named, not as they can be had: what was made of the Hub's texts is judged where the Hub is far, too.
    return [named_sources("embedded"), named_sources("hub")]


def _signature(kind: str, version: int, inputs: Mapping[str, Any], code: Mapping[str, str]) -> str:
    anywhere = {name: value for name, value in portable(inputs).items() if name != "pretrained"}
    return digest({"kind": kind, "version": version, "inputs": anywhere, "code": code})


def live_keys(records: Mapping[str, Record], signatures: set[str]) -> set[str]:
    """Keys of the records that current nodes would make, from live inputs, and of others with the same artifacts.

    A step's key holds its inputs' digests, so what was made from an equal input is a hit, and names the other's key.
    """
    same: dict[str, list[str]] = {}
    for key, record in records.items():
        same.setdefault(_content(record), []).append(key)
    verdicts: dict[str, bool] = {}

    def is_made(key: str) -> bool:
        lineage = records[key]["data"]["lineage"]
        signature = _signature(lineage["kind"], lineage["version"], lineage["inputs"], lineage["code"])
        return signature in signatures and all(is_live(upstream) for upstream in lineage["upstream"].values())

    def is_live(key: str) -> bool:
        if key not in records:
            return False
        content = _content(records[key])
        if content not in verdicts:
            verdicts[content] = any(is_made(other) for other in same[content])
        return verdicts[content]

    return {key for key in records if is_live(key)}


def _content(record: Record) -> str:
    files = {name: artifact["sha256"] for name, artifact in record["artifacts"].items()}
    return digest({"kind": record["data"]["lineage"]["kind"], "files": files})


def on_user_texts(records: Mapping[str, Record], built_in: set[str]) -> set[str]:
    """Keys of the records that rest on a text which is not one of the built-in ones."""

    def rests(key: str) -> bool:
        lineage: Any = records[key]["data"]["lineage"] if key in records else {"kind": "", "upstream": {}}
        if lineage["kind"] == "text":
            reference = lineage["inputs"].get("reference")
            return _is_users(reference) and digest(reference) not in built_in
        return any(rests(upstream) for upstream in lineage["upstream"].values())

    return {key for key in records if rests(key)}


def _is_users(reference: Any) -> bool:
    """Whether a text was given by somebody, and is not, say, the library of another Python."""
    return not isinstance(reference, dict) or reference.get("kind") in ("text", "dataset", None)


def _unreferenced(store: Store, live: set[str], named: set[str]) -> list[dict[str, Any]]:
    gone = [entry for entry in store.listing("records") if entry["path"].rpartition("/")[2] not in live]
    gone += [entry for entry in store.listing("blobs") if entry["path"] not in named]
    # Of machines that have vanished: what somebody is at work on is renewed all the time, and so never old.
    gone += store.listing("leases")
    gone += [entry for entry in store.listing("latest") if _is_of_none(entry["path"], store, live)]
    return gone if store.local is not None else gone + store.listing("checkpoints")


def _is_of_none(path: str, store: Store, live: set[str]) -> bool:
    """Whether this is a note by ``Step.name_elsewhere``, one more with every edit, and of no live record."""
    if not re.search(r"-[0-9a-f]{16}\.json$", path):
        return False
    with suppress(ValueError, OSError):
        return note(store.read(path))["key"] not in live
    return True


def _leftovers(outputs: Path, store: Store, named: set[str]) -> set[Path]:
    """Files and folders beside the store that nobody needs once they are old."""
    checkpoints = {folder for root in (store.local or outputs, outputs) for folder in root.glob("checkpoints/*")}
    wanted = {url.rpartition("/")[2] for url in named}
    copies = {path for path in outputs.glob("blobs/*") if path.is_file() and path.name not in wanted}
    pretrained = set(outputs.glob("pretrained/smollm2-*-*")) - {packaged_folder(outputs / "pretrained")}
    exported = {path for path in outputs.glob("models/*") if path.name not in {name[:16] for name in wanted}}
    half = {path for folder in ("answers", "sections") for path in outputs.glob(f"{folder}/*.tmp")}
    return checkpoints | copies | pretrained | exported | half | set(outputs.glob("progress/*"))


def _newest(path: Path) -> float | None:
    """When a file, or anything in a folder, was last modified; None for what changes under our eyes."""
    try:
        return max(inner.stat().st_mtime for inner in (path, *path.rglob("*")))
    except FileNotFoundError:
        return None


def _size(path: Path) -> int:
    return sum(inner.stat().st_size for inner in (path, *path.rglob("*")) if inner.is_file())


def _has_another_name(path: str | Path, store: Store) -> bool:
    """Whether an object of a local store is an artifact on MLflow, too: dropping it then frees no room."""
    file = store.local / path if isinstance(path, str) and store.local is not None else None
    return file is not None and file.exists() and file.stat().st_nlink > 1


def _drop(path: str | Path, store: Store) -> None:
    if isinstance(path, str):
        store.delete(path)
    elif path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _old(modified: float | None, before: float) -> bool:
    return modified is not None and modified < before  # where nobody says when: never old enough
