"""``chapter pack`` and ``chapter unpack``: carry the store, or a part of it, to another machine and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from flows.options import UsageError
from tasks.cache.archive import MANIFEST, PackError, open_pack, read_manifest, write_pack
from tasks.cache.carry import contents, take_in
from tasks.cache.store import Store
from tasks.cache.urls import without_credentials

if TYPE_CHECKING:
    from flows.options import Options
    from tasks.sources.resolve import Sources

MIB = 2**20


def pack(
    outputs: Path,
    url: str,
    to: Path,
    part_size: int,
    since: Sequence[Path] = (),
    chosen: "tuple[Options, Sources] | None" = None,
) -> int:
    """Write a pack of the store, or of what the chosen options name, into ``to``; returns the exit status.

    Args:
        outputs: where runs write.
        url: the store.
        to: an empty folder, or one to be made.
        part_size: bytes of a file at most.
        since: manifests of packs whose content is left out.
        chosen: options with their sources; None: everything.

    Raises:
        UsageError: it cannot be written, or a manifest cannot be read.
    """
    store = Store(url)
    try:
        known = {member for manifest in since for member in read_manifest(manifest)[1].values()}
        found = contents(store, store.local or outputs, None if chosen is None else _keys(*chosen, store))
        new = [source for source in found if source.member not in known]
        members = write_pack(to, new, part_size)
    except PackError as error:
        raise UsageError(f"--to {to}: {error}") from error
    except OSError as error:
        raise UsageError(
            f"--to {to}: cannot be written ({error.strerror or error}); make room, or name another"
        ) from error
    parts = len(list(to.glob("chapter-*.tar")))
    counts = {kind: sum(member.path.startswith(kind) for member in members) for kind in ("records", "blobs")}
    unfinished = len({member.path.split("/")[1] for member in members if member.path.startswith("checkpoints")})
    print(
        f"packed {counts['records']} records, {counts['blobs']} blobs and the checkpoints of {unfinished} unfinished "
        f"steps, {sum(member.size for member in members) / MIB:.1f} MiB in {parts} parts; "
        f"{len(found) - len(new)} files left out as known ({to / MANIFEST})"
    )
    return 0


def _keys(options: "Options", sources: "Sources", store: Store) -> set[str]:
    """Keys of all steps of a chapter with these options, as far as they can be known from what is stored."""
    from flows.execution.graph import build
    from flows.execution.plan import plan
    from flows.requests import request_of

    planned, _ = plan(build(request_of(options, sources)), store)
    return {item.key for item in planned if item.key}


def unpack(outputs: Path, url: str, folder: Path) -> int:
    """Take a pack into the store; returns the exit status.

    Raises:
        UsageError: it is not whole, or not a pack; nothing has been changed.
    """
    store = Store(url)
    try:
        taken = take_in(open_pack(folder), store, store.local or outputs)
    except PackError as error:
        raise UsageError(f"{folder}: {error}") from error
    except OSError as error:
        raise UsageError(
            f"{folder}: {error.strerror or error} ({error.filename}); mend that and unpack again"
        ) from error
    print(
        f"unpacked {taken.records} records, {taken.blobs} blobs and {taken.checkpoints} files of checkpoints, "
        f"{taken.bytes / MIB:.1f} MiB; {taken.there} files were not needed ({without_credentials(url)})"
    )
    return 0
