"""How ``chapter run`` begins: its terminal is its own, and imports take no longer than they must."""

import asyncio
import gc
import logging
import warnings
from contextlib import suppress

import pytest
from prefect.logging.handlers import APILogWorker

from flows.commands.local import _keep_quiet, imports


class NoRoom:
    """A client of a server whose disk is full."""

    async def create_logs(self, items: list[object]) -> None:
        raise OSError("no space left on device")


def send(capsys: pytest.CaptureFixture[str]) -> str:
    worker = APILogWorker.__new__(APILogWorker)  # without its thread
    worker._client = NoRoom()  # type: ignore[assignment]
    asyncio.run(worker._handle_batch([{}]))
    return capsys.readouterr().err


def test_a_log_line_that_is_lost_writes_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logging, "raiseExceptions", True)
    assert send(capsys), "this is what Prefect does"
    for name in ("TOKENIZERS_PARALLELISM", "PYTHONWARNINGS"):
        monkeypatch.setenv(name, "")
    with warnings.catch_warnings():
        _keep_quiet()
    assert send(capsys) == ""


def test_imports_are_not_searched_for_garbage() -> None:
    frozen = gc.get_freeze_count()
    try:
        with suppress(ImportError), imports():  # a failure leaves all as it was, too
            assert not gc.isenabled()
            raise ImportError
        assert gc.isenabled()
        assert gc.get_freeze_count() > frozen
    finally:
        gc.unfreeze()
