"""What must be so after a soak, each with what was found, and the table that is printed."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from tasks.cache.store import Store
from tasks.tracking import runs
from tasks.tracking.client import connect
from tasks.tracking.tracker import EXPERIMENT
from tests.flows.conftest import wait_until
from tests.soak import undisturbed
from tests.soak.faults import SAID
from tests.soak.machines import marked
from tests.soak.soak import Soak

FOLDERS = {"blobs", "records", "latest", "leases", "checkpoints"}


@dataclass(frozen=True)
class Check:
    """One thing that must be so, and what speaks against it."""

    claim: str
    found: str
    against: tuple[str, ...] = ()

    @property
    def holds(self) -> bool:
        """Whether nothing does."""
        return not self.against


def after(soak: Soak) -> list[Check]:
    """Bring a soak whose faults are over to its end, and look at all that is left."""
    soak.settle()
    written = _written(soak.store.journal)
    first = [chapter for chapter in soak.chapters if chapter.completed]
    for chapter in list(first):
        soak.again(chapter)
    soak.settle()
    logged = _logged(soak.mlflow.root)
    soak.close()
    store = Store(str(soak.store.objects))
    records = {key: store.record(key, verify=True) for key in store.record_keys()}
    expected = {
        key: record
        for budget in {chapter.budget for chapter in first}
        for key, record in undisturbed.models(soak.course.only, budget, soak.folder / "undisturbed").items()
    }
    return [
        *_chapters(soak),
        _bits(expected, records),
        _once(_written(soak.store.journal)),
        _nothing_new(written, _written(soak.store.journal)),
        _sound(records, soak.store.objects),
        _tracked(records, logged),
        _nothing_left(soak),
        *_no_trace(soak),
    ]


# --- What was lost ----------------------------------------------------------------------------------------------


def _chapters(soak: Soak) -> Iterator[Check]:
    started_again = [why for chapter in soak.chapters for why in chapter.given_up]
    open_ = tuple(f"budget {chapter.budget:g}" for chapter in soak.chapters if not chapter.completed)
    completed = len(soak.chapters) - len(open_)
    found = f"{completed} of {len(soak.chapters)} completed, of them {len(started_again)} after another request"
    yield Check("every chapter ended", found, open_)
    forgotten = tuple(why for why in started_again if why.startswith("forgotten"))
    yield Check("what crashed was taken up again", f"{soak.told.swept} of them by a sweep", forgotten)


def _bits(expected: Mapping[str, Any], records: Mapping[str, Any]) -> Check:
    against = []
    for key, record in expected.items():
        made = records.get(key)
        name = record["data"]["lineage"]["name"]
        if made is None:
            against.append(f"{name} is missing")
        elif made["artifacts"] != record["artifacts"]:
            against.append(f"{name} has other weights")
        elif made["data"]["history"]["train_loss"] != record["data"]["history"]["train_loss"]:
            against.append(f"{name} has another curve")
    return Check("weights are those of an undisturbed run", f"{len(expected)} models, bit by bit", tuple(against))


def _once(written: Mapping[str, set[str]]) -> Check:
    """A record that is made again has other seconds in it, and so another SHA-256; a repeated request has not."""
    twice = tuple(f"{name} {len(bodies)} times" for name, bodies in written.items() if len(bodies) > 1)
    return Check("nothing finished was made again", f"{len(written)} records, each made once", twice)


def _nothing_new(before: Mapping[str, set[str]], now: Mapping[str, set[str]]) -> Check:
    new = tuple(sorted(now.keys() - before.keys()))
    return Check("a second run of each chapter finds everything", "no record more", new)


def _sound(records: Mapping[str, Any], objects: Path) -> Check:
    damaged = [f"record {key}" for key, record in records.items() if record is None]
    blobs = [path for path in (objects / "blobs").rglob("*") if path.is_file()]
    damaged += [f"blob {p.name}" for p in blobs if hashlib.sha256(p.read_bytes()).hexdigest() != p.name]
    return Check("the store is sound", f"{len(records)} records, {len(blobs)} blobs, read", tuple(damaged))


def _tracked(records: Mapping[str, Any], logged: Mapping[str, int]) -> Check:
    kinds = {key: record["data"]["lineage"] for key, record in records.items() if record}
    wanted = {key: line["name"] for key, line in kinds.items() if line["kind"] in ("train", "exercise")}
    against = [f"{name} is there {logged.get(key, 0)} times" for key, name in wanted.items() if logged.get(key) != 1]
    return Check("MLflow has each model and answer once", f"{len(wanted)} of them", tuple(against))


# --- What was left ----------------------------------------------------------------------------------------------


def _nothing_left(soak: Soak) -> Check:
    objects = soak.store.objects
    left = [str(path.relative_to(objects)) for name in ("leases", "checkpoints") for path in _files(objects / name)]
    left += [path.name for path in objects.iterdir() if path.name not in FOLDERS]
    return Check("no lease and no checkpoint is left in the store", "none", tuple(left))


def _no_trace(soak: Soak) -> Iterator[Check]:
    held, temporary, waiting = [], [], []
    for host in soak.hosts:
        for path in _files(host.outputs):
            name = str(path.relative_to(soak.folder))
            if path.suffix == ".lock" and _is_held(path):
                held.append(name)
            elif path.name.startswith(".") or path.suffix in (".part", ".tmp"):
                temporary.append(name)
            elif path.name.startswith("outbox-") and path.suffix == ".jsonl":
                waiting.append(name)
        own = [path for path in _files(host.folder / "tmp") if not _is_prefects(path.relative_to(host.folder / "tmp"))]
        temporary += [str(path.relative_to(soak.folder)) for path in own]
    yield Check("no lock is held", "none", tuple(held))
    yield Check("no temporary file is left", "none", tuple(temporary))
    yield Check("nothing waits for MLflow", "nothing", tuple(waiting))
    wait_until(lambda: not marked(soak.mark), 60, f"the last processes end: {marked(soak.mark)}")
    yield Check("no process is left", "none", tuple(map(str, marked(soak.mark))))


def _is_prefects(path: Path) -> bool:
    """Whether it lies in the folder that a worker of Prefect's has for a run, and leaves when it is killed."""
    return path.parts[0].startswith("prefect-")


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return False
    except Timeout:
        return True


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _written(journal: Path) -> dict[str, set[str]]:
    """The SHA-256 of all that was ever written as a record, by its name."""
    found: dict[str, set[str]] = defaultdict(set)
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if entry["name"].startswith("records/"):
            found[entry["name"]].add(entry["sha256"])
    return dict(found)


def _logged(url: str) -> dict[str, int]:
    """How many finished runs MLflow has of each step."""
    client = connect(url)
    experiment = client.get_experiment_by_name(EXPERIMENT).experiment_id
    found: dict[str, int] = defaultdict(int)
    for run in runs._all(client, experiment, "attributes.status = 'FINISHED'"):
        if fingerprint := run.data.tags.get("fingerprint"):
            found[fingerprint] += 1
    return dict(found)


# --- The table --------------------------------------------------------------------------------------------------


def table(soak: Soak, checks: list[Check], seed: int, minutes: float) -> str:
    """What happened, and what is so."""
    told = soak.told
    rows = [(f"{SAID[kind]}", f"{count} times") for kind, count in told.kills.items()]
    rows += [(SAID[kind], f"{count} times, {told.away[kind]:.0f} s") for kind, count in told.outages.items()]
    rows += [(f"{name}: ended by itself, was started again", f"{count} times") for name, count in told.ended.items()]
    rows += [("requests that the store refused", f"{soak.store.refused}")]
    head = (
        f"soak, seed {seed}: {minutes:.1f} minutes, {sum(told.kills.values())} kills, "
        f"{sum(told.outages.values())} outages, {len(soak.chapters)} chapters"
    )
    lines = [head, *(f"  {what:<58} {many}" for what, many in rows), ""]
    for check in checks:
        said = check.found if check.holds else "; ".join(check.against[:6])
        lines.append(f"  {'holds' if check.holds else 'FAILS'}  {check.claim:<50} {said}")
    lost = [check.claim for check in checks if not check.holds]
    return "\n".join([*lines, "", f"lost: {'nothing' if not lost else '; '.join(lost)}"])
