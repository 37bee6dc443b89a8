"""``chapter gc``: drop what no current recipe or exercise needs.

A record is live if a node of some current graph would make it again: same inputs, same code, live inputs. Device,
hardware and library versions do not count, so that collecting on a laptop leaves what a GPU worker has
made. What rests on a user's own text stays unless asked for.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.graph import Request, build, load_exercises
from tasks.catalogue import recipes
from tasks.exercises import modules
from tasks.keys import canonical, code_digests, digest
from tasks.profiles import PROFILES
from tasks.sources import SourceError, Sources, resolve_sources
from tasks.store import Store, artifacts_of

Record = Mapping[str, Any]
DAY = 86_400


def collect(outputs: Path, url: str, grace_days: float, user_corpora: bool, dry_run: bool) -> int:
    """Collect garbage and say what went; returns the exit status."""
    store = Store(url)
    records = {key: record for key in store.record_keys() if (record := store.record(key))}
    signatures, built_in = current_signatures()
    live = live_keys(records, signatures)
    if not user_corpora:
        live |= on_user_texts(records, built_in)
    before = time.time() - grace_days * DAY
    doomed = [entry for entry in _unreferenced(store, live, records) if _modified(entry) < before]
    for entry in doomed:
        if not dry_run:
            store.delete(entry["path"])
    size = sum(entry["size"] for entry in doomed) / 2**20
    kept = sum(key in live for key in records)
    verb = "would drop" if dry_run else "dropped"
    print(f"{verb} {len(doomed)} objects, {size:.1f} MiB; {kept} records are live ({url})")
    return 0


def current_signatures() -> tuple[set[str], set[str]]:
    """Signatures of all nodes of all current graphs, and digests of the built-in texts' identities."""
    signatures, built_in = set(), set()
    exercises = load_exercises(tuple(modules()))
    for sources in _bundles():
        for profile in PROFILES.values():
            wanted = tuple((r, seed) for r in recipes().values() for seed in profile.seeds(r))
            for node in build(Request(profile, sources, exercises, recipes=wanted)).values():
                signatures.add(_signature(node.kind, node.version, canonical(node.inputs), code_digests(node.code)))
        built_in |= {digest(sources.corpus(name).key()) for name in ("main", "domain", "code")}
    return signatures, built_in


def _bundles() -> list[Sources]:
    found = []
    for bundle in ("embedded", "hub"):
        try:
            found.append(resolve_sources(bundle))
        except SourceError:
            continue  # what cannot be had here cannot be judged here: the grace period protects it
    return found


def _signature(kind: str, version: int, inputs: Mapping[str, Any], code: Mapping[str, str]) -> str:
    portable = {name: value for name, value in inputs.items() if name not in ("environment", "hardware", "pretrained")}
    return digest({"kind": kind, "version": version, "inputs": portable, "code": code})


def live_keys(records: Mapping[str, Record], signatures: set[str]) -> set[str]:
    """Keys of the records that current nodes would make, from live inputs."""
    verdicts: dict[str, bool] = {}

    def is_live(key: str) -> bool:
        if key not in verdicts:
            lineage = records[key]["data"]["lineage"] if key in records else None
            verdicts[key] = (
                lineage is not None
                and _signature(lineage["kind"], lineage["version"], lineage["inputs"], lineage["code"]) in signatures
                and all(is_live(upstream) for upstream in lineage["upstream"].values())
            )
        return verdicts[key]

    return {key for key in records if is_live(key)}


def on_user_texts(records: Mapping[str, Record], built_in: set[str]) -> set[str]:
    """Keys of the records that rest on a text which is not one of the built-in ones."""

    def rests(key: str) -> bool:
        lineage: Any = records[key]["data"]["lineage"] if key in records else {"kind": "", "upstream": {}}
        if lineage["kind"] == "text":
            return digest(lineage["inputs"]["reference"]) not in built_in
        return any(rests(upstream) for upstream in lineage["upstream"].values())

    return {key for key in records if rests(key)}


def _unreferenced(store: Store, live: set[str], records: Mapping[str, Record]) -> list[dict[str, Any]]:
    named = artifacts_of(records[key] for key in live)
    gone = [entry for entry in store.listing("records") if entry["path"].rpartition("/")[2] not in live]
    gone += [entry for entry in store.listing("blobs") if entry["path"] not in named]
    return gone + list(store.listing("checkpoints"))


def _modified(entry: Mapping[str, Any]) -> float:
    modified = entry["modified"]
    if modified is None:
        return time.time()  # a file system that does not say: never old enough
    return float(modified) if isinstance(modified, int | float) else float(modified.timestamp())
