"""Outputs on a disk that machines share, and a store that users share."""

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from flows import guard
from flows.shared_server import shared_server
from tasks.cache import objects
from tasks.cache.objects import Objects
from tasks.cache.store import Store


@pytest.fixture
def nfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """``flock`` as NFS version 4 does it: a shared lock wants a file open to read, an exclusive one open to write.

    flock(2), "NFS details"; Linux, fs/nfs/nfs4proc.c, ``nfs4_proc_lock``: F_RDLCK without FMODE_READ is EBADF.
    """
    real = fcntl.flock

    def flock(file: Any, operation: int) -> None:
        descriptor = file if isinstance(file, int) else file.fileno()
        mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
        refused = {fcntl.LOCK_SH: os.O_WRONLY, fcntl.LOCK_EX: os.O_RDONLY}.get(operation & ~fcntl.LOCK_NB)
        if mode == refused:
            raise OSError(errno.EBADF, "Bad file descriptor")
        real(file, operation)

    monkeypatch.setattr(fcntl, "flock", flock)


def test_a_server_is_joined_on_nfs(tmp_path: Path, nfs: None) -> None:
    assert guard.is_free(tmp_path / "alive.lock")


def test_a_server_is_started_on_nfs(tmp_path: Path, nfs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    class Started(Exception):
        pass

    def start(*_: object) -> None:
        raise Started

    monkeypatch.setattr("flows.shared_server._start", start)
    with (
        pytest.raises(Started),
        shared_server(tmp_path, lambda port: [], lambda port: {}, "/health", None),
    ):
        pass


def test_who_shares_the_store_can_read_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects, "MODE", 0o640)
    store = Objects(str(tmp_path))
    store.write("record", b"x")
    store.write_stream("blob", [b"x"])
    store.create("lease", b"x")
    assert {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("record", "blob", "lease")} == {0o640}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_store_that_two_users_share(tmp_path: Path) -> None:
    """A group's folder, umask 002: the second user's look-up is a hit or a miss, and no exception."""
    for folder in (tmp_path, *tmp_path.parents):
        if not stat.S_IMODE(folder.stat().st_mode) & 0o001:
            folder.chmod(0o711)
    store = Store(str(tmp_path / "store"))
    store.write("records/" + "0" * 64, b"{}")
    os.seteuid(65534)
    try:
        assert store.record("0" * 64) is None
    finally:
        os.seteuid(0)
