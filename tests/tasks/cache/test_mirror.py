"""A training that dies on one machine goes on at another, to the same bits; only the store is common to them."""

import itertools
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.files import model_state
from minigpt.train import TrainConfig, train
from tasks.cache.mirror import STEP, Mirror, drop, mirrored
from tasks.cache.objects import Objects
from tests.tasks.cache.flaky import Clock, Flaky, busy, flaky_objects

KEY = "c" * 64
CONFIG = GPTConfig(vocab_size=16, context=8, d_model=16, n_layer=1, n_head=2)
TRAINING = TrainConfig(steps=12, batch_size=2, learning_rate=1e-2, snapshots="epoch")
TOKENS = torch.randint(0, 16, (104,), generator=torch.Generator().manual_seed(3))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def objects(clock: Clock) -> Iterator[Objects]:
    yield from flaky_objects("chapter-mirror", clock)


class Killed(Exception):
    pass


def trained(folder: Path | None, kill_at: float = 2.0, told: list[float] | None = None) -> Any:
    """The result of a training that writes a checkpoint after each step, and dies at a fraction of its way."""

    def progress(fraction: float, note: str) -> None:
        if told is not None:
            told.append(fraction)
        if fraction >= kill_at:
            raise Killed

    device = torch.device("cpu")
    return train(
        CONFIG,
        TRAINING,
        TOKENS,
        TOKENS[:50],
        seed=1,
        device=device,
        checkpoint_dir=folder,
        checkpoint_seconds=0.0,
        progress=progress,
    )


def test_another_machine_goes_on_to_the_same_bits(
    objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = itertools.count(1.0)  # a training tells of its progress five times a second: here after each step
    tick = lambda: next(ticks)  # noqa: E731
    monkeypatch.setattr("minigpt.train.time", SimpleNamespace(monotonic=tick, perf_counter=tick))
    whole = trained(None)
    here, there = tmp_path / "here" / KEY, tmp_path / "there" / KEY
    with pytest.raises(Killed), mirrored(objects, here, KEY):
        trained(here, kill_at=0.6)
    shutil.rmtree(here)
    told: list[float] = []
    with mirrored(objects, there, KEY):
        resumed = trained(there, told=told)
    assert 0.6 < told[0] < 0.8, "it did not begin anew"
    assert model_state(resumed.model).keys() == model_state(whole.model).keys()
    for name, weight in model_state(whole.model).items():
        assert torch.equal(weight, model_state(resumed.model)[name])
    assert resumed.history["train_loss"] == whole.history["train_loss"]
    assert resumed.snapshots.keys() == whole.snapshots.keys() == {6, 11, 12}
    for name, weight in whole.snapshots[6].items():
        assert torch.equal(weight, resumed.snapshots[6][name])
    drop(objects, KEY)
    assert objects.names(f"checkpoints/{KEY}") == []


def checkpoint(folder: Path, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"step-{step:09d}.safetensors").write_bytes(b"tensors %d" % step)
    (folder / f"step-{step:09d}.json").write_text(f'{{"step": {step}}}')


def test_two_are_kept_and_nothing_half_written_travels(objects: Objects, tmp_path: Path) -> None:
    mirror = Mirror(objects, tmp_path, KEY)
    (tmp_path / ".step-000000001.json.abc").write_text("half")
    (tmp_path / "step-000000009.safetensors").write_bytes(b"its JSON is not written yet")
    (tmp_path / "notes.txt").write_text("not ours")
    for step in (1, 2, 3, 4):
        checkpoint(tmp_path, step)
        mirror.carry()
    pairs = [f"step-00000000{step}.{kind}" for step in (3, 4) for kind in ("json", "safetensors")]
    assert sorted(objects.names(f"checkpoints/{KEY}")) == pairs


def test_what_is_further_wins(objects: Objects, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    checkpoint(here, 5)
    Mirror(objects, here, KEY).carry()
    checkpoint(there, 7)
    Mirror(objects, there, KEY).bring()
    assert not (there / "step-000000005.json").exists()
    checkpoint(here, 9)
    Mirror(objects, here, KEY).carry()
    Mirror(objects, there, KEY).bring()
    assert (there / "step-000000009.safetensors").read_bytes() == b"tensors 9"


def test_half_a_checkpoint_is_no_checkpoint(objects: Objects, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    mirror = Mirror(objects, here, KEY)
    for step in (1, 2):
        checkpoint(here, step)
        mirror.carry()
    objects.delete(f"checkpoints/{KEY}/step-000000002.safetensors")
    Mirror(objects, there, KEY).bring()
    assert (there / "step-000000001.safetensors").exists()
    assert (there / "step-000000001.json").exists()


def test_names_that_are_no_checkpoints_are_not_brought(objects: Objects, tmp_path: Path) -> None:
    for name in ("step-1.json", "evil.py", "step-000000001.json.py", "snapshot-000000001.pt"):
        objects.write(f"checkpoints/{KEY}/{name}", b"x")
    Mirror(objects, tmp_path / "here", KEY).bring()
    assert not (tmp_path / "here").exists()


def test_a_store_that_is_away_holds_no_training_up(objects: Objects, clock: Clock, tmp_path: Path) -> None:
    mirror = Mirror(objects, tmp_path, KEY)
    checkpoint(tmp_path, 1)
    Flaky.fault = staticmethod(busy)
    mirror.carry()
    assert clock.now >= 600
    Flaky.fault = staticmethod(lambda: None)
    mirror.carry()
    assert "step-000000001.json" in objects.names(f"checkpoints/{KEY}")


def test_a_checkpoint_that_goes_while_it_travels(objects: Objects, tmp_path: Path) -> None:
    """A training keeps two: the third one drops the first, whoever reads it."""
    mirror = Mirror(objects, tmp_path, KEY)
    checkpoint(tmp_path, 1)
    (tmp_path / "step-000000001.safetensors").unlink()
    mirror.carry()
    assert objects.names(f"checkpoints/{KEY}") == []
    checkpoint(tmp_path, 2)
    mirror.carry()
    assert len(objects.names(f"checkpoints/{KEY}")) == 2


def test_it_carries_while_the_training_runs(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.cache.mirror.SECONDS", 0.01)
    carried = threading.Event()
    put = Flaky.put_file

    def noted(self: Flaky, lpath: str, rpath: str, **options: Any) -> None:
        put(self, lpath, rpath, **options)
        if rpath.endswith(".json"):
            carried.set()

    monkeypatch.setattr(Flaky, "put_file", noted)
    with mirrored(objects, tmp_path, KEY):
        checkpoint(tmp_path, 1)
        assert carried.wait(30)


def test_a_slow_line_carries_some_checkpoint(objects: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While the tensors travel the training writes two more, and drops these: the JSON is gone when its turn comes."""
    step, put = [1], Flaky.put_file
    checkpoint(tmp_path, 1)

    def slow(self: Flaky, lpath: str, rpath: str, **options: Any) -> None:
        put(self, lpath, rpath, **options)
        if lpath.endswith(".safetensors"):
            for _ in range(2):
                step[0] += 1
                checkpoint(tmp_path, step[0])
            for path in tmp_path.glob("step-*"):
                if int(path.stem.removeprefix("step-")) < step[0] - 1:
                    path.unlink()

    monkeypatch.setattr(Flaky, "put_file", slow)
    mirror = Mirror(objects, tmp_path, KEY)
    for _ in range(5):
        mirror.carry()
    there = objects.names(f"checkpoints/{KEY}")
    whole = [name for name in there if STEP.fullmatch(name)]
    orphans = [name for name in there if name.endswith(".safetensors")]
    assert whole, f"nothing to go on from, and {len(orphans)} files that nobody can use"
