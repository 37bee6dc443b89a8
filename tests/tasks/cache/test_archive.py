"""Packs: equal content makes equal bytes, and nothing but what was packed comes out, or one sentence."""

import hashlib
import io
import json
import shutil
import tarfile
import tracemalloc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.cache import archive
from tasks.cache.archive import MANIFEST, Member, PackError, Source, open_pack, read_manifest, write_pack


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def blob(content: bytes) -> str:
    return f"blobs/{sha256(content)[:2]}/{sha256(content)}"


def source(path: str, content: bytes) -> Source:
    return Source(Member(path, len(content), sha256(content)), lambda: io.BytesIO(content))


def write(folder: Path, contents: Mapping[str, bytes], part_size: int = 16_384) -> Path:
    write_pack(folder, [source(path, content) for path, content in contents.items()], part_size)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    pack = open_pack(folder)
    return {path: b"".join(pack.chunks(member)) for path, member in pack.members.items()}


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


CONTENTS = {blob(content): content for content in (b"", b"x", b"weights" * 1_000, bytes(range(256)) * 200)}
CONTENTS |= {f"records/{'a' * 64}": b"{}", "latest/train-small-seed-0.json": b'{"key": 1}'}


@settings(max_examples=60, deadline=None)
@given(
    files=st.lists(st.binary(max_size=30_000) | st.sampled_from([b"", bytes(512), bytes(16_384)]), max_size=8),
    part_size=st.sampled_from([8_192, 8_193, 10_000, 16_384, 1 << 20]),
    order=st.randoms(use_true_random=False),
)
def test_what_goes_in_comes_out(
    files: list[bytes], part_size: int, order: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("pack")
    contents = {blob(content): content for content in files}
    write(folder / "one", contents, part_size)
    assert read(folder / "one") == contents
    assert all(file.stat().st_size <= part_size for file in (folder / "one").glob("*.tar"))
    shuffled = list(contents.items())
    order.shuffle(shuffled)
    assert bytes_of(write(folder / "two", dict(shuffled), part_size)) == bytes_of(folder / "one")
    shutil.rmtree(folder)


def test_parts_are_tar_files_as_others_read_them(tmp_path: Path) -> None:
    pieces: dict[str, bytes] = {}
    for part in sorted(write(tmp_path / "pack", CONTENTS).glob("*.tar")):
        with tarfile.open(part) as tar:
            for info in tar:
                file = tar.extractfile(info)
                assert file is not None
                name = info.name.partition("@")[0]
                assert (info.mtime, info.uid, info.gid, info.uname) == (0, 0, 0, "")
                pieces[name] = pieces.get(name, b"") + file.read()
    assert pieces == CONTENTS


def test_the_manifest_holds_the_digest_of_every_part_and_file(tmp_path: Path) -> None:
    manifest = json.loads((write(tmp_path / "pack", CONTENTS) / MANIFEST).read_text())
    for part in manifest["parts"]:
        content = (tmp_path / "pack" / part["name"]).read_bytes()
        assert (part["size"], part["sha256"]) == (len(content), sha256(content))
    found = {member["path"]: (member["size"], member["sha256"]) for member in manifest["members"]}
    assert found == {path: (len(content), sha256(content)) for path, content in CONTENTS.items()}


def test_a_large_file_is_never_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "CHUNK", 1 << 16)
    size = 24 << 20
    digest = hashlib.sha256(bytes(size)).hexdigest()
    file = tmp_path / "zeros"
    with file.open("wb") as zeros:
        zeros.truncate(size)
    path = f"blobs/{digest[:2]}/{digest}"
    tracemalloc.start()
    try:
        write_pack(tmp_path / "pack", [Source(Member(path, size, digest), lambda: file.open("rb"))], 1 << 20)
        for chunk in open_pack(tmp_path / "pack").chunks(Member(path, size, digest)):
            assert not any(chunk)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("content", [b"short", b"altered content"])
def test_a_file_that_changes_while_it_is_packed_leaves_nothing(tmp_path: Path, content: bytes) -> None:
    said = source(blob(b"promised bytes!"), b"promised bytes!").member
    first = source(blob(b"1" * 9_000), b"1" * 9_000)
    with pytest.raises(PackError, match=r"changed while it was packed|not what its SHA-256 says"):
        write_pack(tmp_path / "pack", [first, Source(said, lambda: io.BytesIO(content))], 8_192)
    assert list((tmp_path / "pack").iterdir()) == []


def test_two_packs_do_not_share_a_folder(tmp_path: Path) -> None:
    write(tmp_path / "pack", CONTENTS)
    with pytest.raises(PackError, match="not an empty folder"):
        write(tmp_path / "pack", CONTENTS)
    with pytest.raises(PackError, match="too small"):
        write(tmp_path / "other", CONTENTS, 1_000)


# --- What is not a pack -----------------------------------------------------------------------------------------


def resealed(folder: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """Change the manifest, and let it fit the parts as they are now: what somebody does who means harm."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for part in manifest["parts"]:
        content = (folder / part["name"]).read_bytes()
        part["size"], part["sha256"] = len(content), sha256(content)
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def hostile_tar(name: str, content: bytes = b"x", type: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.type, info.linkname = type, link
        info.size = len(content) if type == tarfile.REGTYPE else 0
        tar.addfile(info, io.BytesIO(content))
    header_and_content = -(-info.size // 512) * 512 + 512
    return out.getvalue()[: header_and_content + 1024]


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "/etc/passwd",
        "blobs/../../outside",
        f"blobs/ab/{'ab' * 32}/../../../outside",
        f"records/{'a' * 64}\n",
        f"records/{'A' * 64}",
        f"checkpoints/{'a' * 64}/../{'b' * 64}",
        f"checkpoints/{'a' * 64}/weights.pickle",
        "latest/../records/x.json",
        "locks/x",
        "",
        ".",
        "C:\\windows",
    ],
)
def test_a_name_that_is_no_place_in_a_store(tmp_path: Path, name: str) -> None:
    folder = write(tmp_path / "pack", {blob(b"x"): b"x"})
    if name and name != ".":
        (folder / "chapter-0001.tar").write_bytes(hostile_tar(name))
    resealed(folder, lambda manifest: manifest["members"][0].update(path=name))
    with pytest.raises(PackError, match="is no place in a store"):
        open_pack(folder)


def test_a_name_in_a_part_that_the_manifest_does_not_give(tmp_path: Path) -> None:
    folder = write(tmp_path / "pack", {blob(b"x"): b"x"})
    (folder / "chapter-0001.tar").write_bytes(hostile_tar("../../outside"))
    resealed(folder)
    with pytest.raises(PackError, match=r"holds '../../outside' where manifest.json does not say so"):
        open_pack(folder)


@pytest.mark.parametrize(
    "type", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, b"L", b"x"]
)
def test_what_is_no_plain_file(tmp_path: Path, type: bytes) -> None:
    folder = write(tmp_path / "pack", {blob(b"x"): b"x"})
    (folder / "chapter-0001.tar").write_bytes(hostile_tar(blob(b"x"), type=type, link="/etc/passwd"))
    resealed(folder)
    with pytest.raises(PackError, match="not a plain file"):
        open_pack(folder)


def edit_part(folder: Path) -> None:
    for file in folder.glob("*.tar"):
        file.write_bytes(file.read_bytes().replace(b"weights", b"WEIGHTS"))


def edit_content(folder: Path) -> None:
    edit_part(folder)
    resealed(folder)


def mix(folder: Path) -> None:
    other = write(folder.parent / "other", {blob(bytes([i]) * 60_000): bytes([i]) * 60_000 for i in range(2)})
    shutil.copy(other / "chapter-0002.tar", folder)


def add(folder: Path) -> None:
    shutil.copy(folder / "chapter-0001.tar", folder / "chapter-0099.tar")


def rename_first(folder: Path) -> None:
    resealed(folder, lambda manifest: manifest["parts"][0].update(name="../chapter-0001.tar"))


def lose_last_part(folder: Path) -> None:
    last = sorted(folder.glob("*.tar"))[-1]
    last.unlink()
    resealed_manifest = json.loads((folder / MANIFEST).read_text())
    resealed_manifest["parts"].pop()
    (folder / MANIFEST).write_text(json.dumps(resealed_manifest))


def truncate_sealed(folder: Path) -> None:
    last = sorted(folder.glob("*.tar"))[-1]
    last.write_bytes(last.read_bytes()[:-1500])
    resealed(folder)


def append_sealed(folder: Path) -> None:
    last = sorted(folder.glob("*.tar"))[-1]
    last.write_bytes(last.read_bytes() + hostile_tar("../../outside"))
    resealed(folder)


def edit_manifest(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: resealed(folder, lambda manifest: manifest.update(changes))


def edit_member(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: resealed(folder, lambda manifest: manifest["members"][0].update(changes))


DAMAGE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no manifest": (lambda folder: (folder / MANIFEST).unlink(), "is not there"),
    "not JSON": (lambda folder: (folder / MANIFEST).write_text("{"), "cannot be read as JSON"),
    "nested without end": (lambda folder: (folder / MANIFEST).write_text("[" * 100_000), "cannot be read as JSON"),
    "other JSON": (lambda folder: (folder / MANIFEST).write_text("[]"), "is not the manifest of a pack"),
    "other format": (edit_manifest(format="zip"), "is not the manifest of a pack"),
    "later version": (edit_manifest(version=2), "is of version 2"),
    "no members": (edit_manifest(members=None), "lacks its name, size or SHA-256"),
    "a negative size": (edit_member(size=-1), "lacks its name, size or SHA-256"),
    "a size that is none": (edit_member(size=True), "lacks its name, size or SHA-256"),
    "a digest that is none": (edit_member(sha256="z" * 64), "lacks its name, size or SHA-256"),
    "another digest than the name": (edit_member(sha256="0" * 64), "another SHA-256 than its name"),
    "a missing part": (lambda folder: (folder / "chapter-0002.tar").unlink(), "chapter-0002.tar is missing"),
    "a truncated part": (
        lambda folder: (folder / "chapter-0002.tar").write_bytes((folder / "chapter-0002.tar").read_bytes()[:-1]),
        "copy it again",
    ),
    "an altered part": (edit_part, "was altered, or is a part of another pack"),
    "two packs mixed": (mix, "part of another pack|bytes instead of"),
    "a part too many": (add, "is not of the pack of this manifest.json"),
    "a part elsewhere": (rename_first, "names parts other than"),
    "an altered file, sealed again": (edit_content, "is not what manifest.json says"),
    "parts that end early, sealed again": (lose_last_part, "is not of the pack|end before"),
    "a truncated part, sealed again": (truncate_sealed, "ends within|does not end"),
    "more behind the end, sealed again": (append_sealed, "does not end where its last file does"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_told_in_one_sentence(tmp_path: Path, damage: str) -> None:
    folder = write(tmp_path / "pack", CONTENTS)
    assert len(list(folder.glob("*.tar"))) > 2
    harm, words = DAMAGE[damage]
    harm(folder)
    with pytest.raises(PackError, match=words) as refused:
        open_pack(folder)
    assert "\n" not in str(refused.value)


def test_a_file_named_twice(tmp_path: Path) -> None:
    folder = write(tmp_path / "pack", {blob(b"x"): b"x"})
    resealed(folder, lambda manifest: manifest["members"].append(manifest["members"][0]))
    with pytest.raises(PackError, match="twice"):
        open_pack(folder)


def test_a_part_that_changes_after_it_was_checked(tmp_path: Path) -> None:
    folder = write(tmp_path / "pack", CONTENTS)
    pack = open_pack(folder)
    edit_part(folder)
    with pytest.raises(PackError, match="is not what"):
        list(pack.chunks(pack.members[blob(b"weights" * 1_000)]))


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_any_changed_byte_of_any_file_is_noticed(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("flip") / "pack"
    write(folder, {blob(b"w" * 5_000): b"w" * 5_000, f"records/{'b' * 64}": b"{}"}, 8_192)
    before = read(folder)
    file = folder / data.draw(st.sampled_from(sorted(file.name for file in folder.iterdir())))
    content = bytearray(file.read_bytes())
    position = data.draw(st.integers(0, len(content) - 1))
    content[position] ^= data.draw(st.integers(1, 255))
    file.write_bytes(content)
    try:
        after = read(folder)
    except PackError:
        pass
    else:
        assert file.name == MANIFEST
        assert json.loads(file.read_bytes())  # white space, or a record's name: the bytes are those that were packed
        assert sorted(after.values()) == sorted(before.values())
    shutil.rmtree(folder.parent)


def test_an_empty_pack_is_one(tmp_path: Path) -> None:
    assert read(write(tmp_path / "pack", {})) == {}
    assert read_manifest(tmp_path / "pack" / MANIFEST) == ([], {})
