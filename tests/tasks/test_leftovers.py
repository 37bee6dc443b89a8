"""What a process leaves that is killed after its step's record was written, and before it could tidy up."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tasks.cache.leases import Lease
from tasks.cache.patience import StoreUnreachable
from tasks.cache.store import Store
from tasks.place import Place
from tasks.steps import checkpoint_folder, drop_leftovers
from tests.tasks.cache.flaky import Flaky

FINISHED, AT_WORK = "a" * 64, "b" * 64


@pytest.fixture(params=["a folder", "a folder that workers share", "elsewhere"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    url = "flaky://chapter-leftovers" if request.param == "elsewhere" else str(tmp_path / "store")
    yield Place(url, str(tmp_path / "outputs"), shared=request.param != "a folder")
    Flaky.fault = staticmethod(lambda: None)
    Flaky.store.clear()


def left(place: Place, key: str) -> None:
    """As a step that is at work leaves it when it is killed."""
    store = place.open_store()
    if place.shares_steps:
        assert Lease(store, key).acquire(timeout=0)
    for name in ("step-000000001.safetensors", "step-000000001.json"):
        store.write(f"checkpoints/{key}/{name}", b"x")
        checkpoint_folder(place, key).mkdir(parents=True, exist_ok=True)
        (checkpoint_folder(place, key) / name).write_bytes(b"x")


def everything(store: Store) -> list[str]:
    return sorted(entry["path"] for folder in ("leases", "checkpoints") for entry in store.listing(folder))


def test_it_goes_and_nothing_else(place: Place) -> None:
    store = place.open_store()
    left(place, AT_WORK)
    before = everything(store)
    left(place, FINISHED)
    drop_leftovers(place, {FINISHED, "c" * 64})
    assert everything(store) == before
    assert not checkpoint_folder(place, FINISHED).exists()
    assert checkpoint_folder(place, AT_WORK).exists()
    drop_leftovers(place, {FINISHED})
    assert everything(store) == before


def test_a_store_that_is_away_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(self: Store, folder: str) -> list[str]:
        raise StoreUnreachable("the store has not answered")

    monkeypatch.setattr(Store, "names", away)
    drop_leftovers(Place(str(tmp_path / "store"), str(tmp_path)), {FINISHED})
    assert "the store has not answered" in caplog.text
