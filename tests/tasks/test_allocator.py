"""Freed memory is kept between steps: told by the kernel, which counts the pages it has to give."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks import steps
from tasks.allocator import keep_freed_memory, tuned_by
from tasks.cache.keys import Step
from tasks.place import Place

PAGES = """
import resource, sys
import torch
from minigpt.config import GPTConfig
from minigpt.train import TrainConfig, train
from tasks.allocator import keep_freed_memory

kept = sys.argv[1] == "kept" and keep_freed_memory()
tokens = torch.arange(10_000) % 11

def faults(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    recipe = TrainConfig(steps=steps, batch_size=16, eval_every=steps, warmup_steps=1, threads=1)
    train(GPTConfig(n_layer=2, n_head=4, d_model=128, context=64, vocab_size=11), recipe, tokens, tokens[:70], seed=0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults(5)  # what comes once
print(kept, faults(40) // 40)
"""


def pages(how: str, **changes: str) -> tuple[bool, int]:
    """Whether memory was kept in a new process, and the pages that a step of a training was given there."""
    plain = {name: value for name, value in os.environ.items() if not tuned_by({name: value})}
    command = [sys.executable, "-W", "ignore", "-c", PAGES, how]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, env={**plain, **changes})
    kept, count = ran.stdout.split()
    return kept == "True", int(count)


def test_a_step_is_given_the_pages_of_the_step_before() -> None:
    kept, few = pages("kept")
    _, many = pages("as it was")
    if not kept:
        pytest.skip("the C library is not glibc")
    assert many > 100, "nothing was handed back, so there is nothing to compare with"
    assert few < many / 4


def test_who_tunes_the_allocator_is_left_alone() -> None:
    assert pages("kept", MALLOC_TRIM_THRESHOLD_="131072")[0] is False


@pytest.mark.parametrize(
    ("environ", "tuned"),
    [
        ({}, False),
        ({"PATH": "/opt/malloc", "GLIBC_TUNABLES": "glibc.cpu.x86_ibt=on", "LD_PRELOAD": "/lib/libfaketime.so"}, False),
        ({"MALLOC_ARENA_MAX": "2"}, True),
        ({"GLIBC_TUNABLES": "glibc.cpu.x86_ibt=on:glibc.malloc.hugetlb=1"}, True),
        ({"LD_PRELOAD": "/usr/lib/libjemalloc.so.2"}, True),
    ],
)
def test_what_counts_as_tuned(environ: dict[str, str], tuned: bool) -> None:
    assert tuned_by(environ) is tuned


def test_every_step_computes_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(steps, "keep_freed_memory", lambda: asked.append(True))
    monkeypatch.setitem(steps.WORK, "text", lambda job: job.done({}, {"asked": len(asked)}))
    place = Place(str(tmp_path / "store"), str(tmp_path))
    record = steps.run_step.fn(Step("text", "a step", {}, {}, {}), {}, place)
    assert record["data"]["asked"] == 1  # before it began


def test_asking_twice_is_asking_once() -> None:
    assert keep_freed_memory() is keep_freed_memory()
