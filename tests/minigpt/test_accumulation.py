"""Batches that memory does not hold: the same gradient in parts, found by running out of memory."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from minigpt import train as training
from minigpt.accumulation import add_gradient
from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.objectives import OBJECTIVES, causal
from minigpt.train import TrainConfig, TrainResult, train

CONFIG = GPTConfig(n_layer=2, n_head=2, d_model=16, context=8, vocab_size=11, position="rope", dropout=0.0)
TRAIN = TrainConfig(steps=6, batch_size=7, learning_rate=1e-2, warmup_steps=1, eval_every=6)
TOKENS = torch.randint(11, (400,), generator=torch.Generator().manual_seed(0))


def trained(config: GPTConfig = CONFIG, tc: TrainConfig = TRAIN, **more: Any) -> TrainResult:
    return train(config, tc, TOKENS, TOKENS[:50], seed=3, **more)


def weights(result: TrainResult) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in result.model.parameters()])


@pytest.fixture
def room(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many sequences fit, and then what was asked for: as a GPU's memory would have it."""
    asked = [3]

    def with_room(model: GPT, batch: Tensor, **others: Any) -> Tensor:
        asked.append(len(batch))
        loss = OBJECTIVES["causal"](model, batch, **others)
        if len(batch) > asked[0]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return loss

    monkeypatch.setattr(training, "OBJECTIVES", {"causal": with_room})
    return asked


@pytest.mark.parametrize("at_once", [1, 2, 3, 6, 7, 100])
def test_the_gradient_of_parts_is_that_of_the_whole(at_once: int) -> None:
    torch.manual_seed(0)
    model = GPT(CONFIG).double()
    batch = TOKENS[:63].view(7, 9)
    loss = causal(model, batch)
    expected = torch.autograd.grad(loss, list(model.parameters()))
    found = add_gradient(lambda part: causal(model, part), batch, at_once, list(model.parameters()))
    assert torch.allclose(found.double(), loss, atol=1e-6)
    for weight, gradient in zip(model.parameters(), expected, strict=True):
        assert weight.grad is not None
        assert torch.allclose(weight.grad, gradient, atol=1e-12)


def test_a_part_may_write_where_the_gradient_before_it_lay() -> None:
    """As CUDA graphs do: here each backward pass returns one tensor, filled anew."""
    shared, weight = torch.zeros(2), torch.nn.Parameter(torch.ones(2))

    class Graph(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, weight: Tensor, rows: Tensor) -> Tensor:
            ctx.rows = rows
            return (rows @ weight).mean()

        @staticmethod
        def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
            return shared.copy_(ctx.rows.mean(dim=0) * slope), None

    batch = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0], [7.0, 8.0]])
    add_gradient(lambda part: Graph.apply(weight, part), batch, 1, [weight])
    assert weight.grad is not None
    assert weight.grad.tolist() == [4.0, 5.0]


def test_a_training_goes_on_in_parts_and_learns_the_same(room: list[int]) -> None:
    room[0] = 7
    whole = trained()
    del room[1:]
    room[0] = 3
    said: list[str] = []
    parts = trained(progress=lambda _, note: said.append(note))
    assert room[1:8] == [7, 4, 2, 2, 2, 1, 2], "each attempt with half as many, and from then on at once"
    assert set(room[5:]) == {2, 1}
    assert (whole.at_once, parts.at_once) == (7, 2)
    assert torch.allclose(weights(parts), weights(whole), atol=1e-5)
    assert parts.history["train_loss"] == pytest.approx(whole.history["train_loss"], abs=1e-5)
    assert parts.history["gradient_norm"] == pytest.approx(whole.history["gradient_norm"], rel=1e-4)
    assert said[-1].endswith(", 2 sequences at once for want of memory")


def test_draws_begin_anew_with_each_attempt(room: list[int]) -> None:
    """Dropout of a training that ran out of memory once is that of one which knew from the start."""
    config = replace(CONFIG, dropout=0.2)
    room[0] = 4
    found = trained(config)
    room[0] = 5  # 7, then 4 at once: the same parts
    assert torch.equal(weights(found), weights(trained(config)))


def test_where_not_even_one_fits_the_remedy_is_named(room: list[int]) -> None:
    room[0] = 0
    with pytest.raises(MemoryError, match="of batch_size 7, memory does not hold even one sequence of 9 tokens: fewer"):
        trained()


def test_other_errors_are_not_taken_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> Tensor:
        raise RuntimeError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(training, "OBJECTIVES", {"causal": broken})
    with pytest.raises(RuntimeError, match="device-side assert"):
        trained()


LIMITED = """
import resource, torch
from minigpt.config import GPTConfig
from minigpt.train import TrainConfig, train
config = GPTConfig(n_layer=1, n_head=1, d_model=8, context=64, vocab_size=8000)
tokens = torch.arange(9000) % 8000
tc = TrainConfig(steps=2, batch_size=64, eval_every=2)
train(config, TrainConfig(steps=1, batch_size=1, eval_every=1), tokens, tokens[:65], seed=0)
[size] = [int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmSize")]
resource.setrlimit(resource.RLIMIT_AS, (size + (300 << 20),) * 2)
print(train(config, tc, tokens, tokens[:65], seed=0).at_once)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is Linux's")
def test_a_process_whose_memory_really_runs_out() -> None:
    """Logits of a whole batch are 131 MB, four times over in training; there is room for 300 MB more."""
    environment = {
        "PYTHONPATH": str(Path(__file__).parent.parent.parent),
        "OMP_NUM_THREADS": "1",
        "MALLOC_ARENA_MAX": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) in (8, 16, 32)
