"""On a GPU: a training compiles as if it were its process's first, as CUDA graphs, and leaves the compiled code."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._inductor import config
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

from minigpt.accumulation import Accumulation
from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.train import TrainResult, train
from minigpt.train_config import TrainConfig
from tasks import steps
from tasks.cache.keys import Step
from tasks.cache.progress import StopRequested
from tasks.gpu import with_graphs_or_without, working_on
from tasks.place import Place
from tests.minigpt.test_train import Stopped, same_results, stop_before

BASE = GPTConfig(n_layer=1, n_head=2, d_model=16, context=16, vocab_size=11)
TOKENS = torch.arange(400) % 11
SYMBOLIC = "a size that stands for all"


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the user, and what is set goes with the test."""
    for name in ("TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_CUDAGRAPHS"):
        monkeypatch.setenv(name, "")  # so that the variable as it was comes back, whoever sets it meanwhile
        monkeypatch.delenv(name)
    yield
    torch.compiler.reset()


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """For each graph that ``torch.compile`` finds from here on, the kinds of its inputs. None is made faster."""
    found: list[set[str]] = []

    def backend(graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        inputs = [node.meta["example_value"] for node in graph.graph.nodes if node.op == "placeholder"]
        found.append({SYMBOLIC if isinstance(value, torch.SymInt) else "tensor" for value in inputs})
        return graph.forward

    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=backend))
    return found


def trained(model: GPTConfig, **fields: Any) -> None:
    tc = TrainConfig(steps=2, batch_size=2, compile=True, **fields)
    train(model, tc, TOKENS[:300], TOKENS[300:], seed=0)


def test_what_was_trained_before_changes_nothing(tmp_path: Path, compiled: list[set[str]]) -> None:
    """Models of other lengths, then more kinds of models than PyTorch compiles one function for."""
    kinds = [replace(BASE, context=context) for context in (16, 24)]
    kinds += [replace(BASE, d_ff=width) for width in (24, 32, 40)]
    with torch._dynamo.config.patch(recompile_limit=2):  # of eight, else
        for model in kinds:
            with working_on("cuda", tmp_path):
                trained(model)
    assert compiled == [{"tensor"}] * len(kinds)


def test_without_it_the_process_remembers(compiled: list[set[str]]) -> None:
    """The reason for the above, and when it goes, so can that."""
    for context in (16, 24):
        trained(replace(BASE, context=context))
    assert SYMBOLIC in set.union(*compiled)


def test_graphs_are_recorded_for_the_step_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not config.triton.cudagraphs
    with working_on("cuda", tmp_path):
        assert config.triton.cudagraphs
    assert not config.triton.cudagraphs
    monkeypatch.setenv("TORCHINDUCTOR_CUDAGRAPHS", "0")
    with working_on("cuda", tmp_path):
        assert not config.triton.cudagraphs


def test_what_graphs_cannot_do_is_done_without(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_graphs: list[bool] = []

    def work() -> str:
        with_graphs.append(config.triton.cudagraphs)
        if config.triton.cudagraphs:
            raise RuntimeError("overwritten by a subsequent run")
        return "trained"

    with working_on("cuda", tmp_path):
        assert with_graphs_or_without(work) == "trained"
        assert config.triton.cudagraphs, "for the rest of the step"
    assert with_graphs == [True, False]
    assert "overwritten by a subsequent run" in caplog.text


@pytest.mark.parametrize(
    ("error", "attempts"), [(RuntimeError("no kernel"), 2), (StopRequested("Ctrl-C"), 1), (ValueError("tokens"), 1)]
)
def test_an_error_that_is_not_of_the_graphs_gets_through(error: Exception, attempts: int, tmp_path: Path) -> None:
    tried: list[int] = []

    def work() -> None:
        tried.append(1)
        raise error

    with working_on("cuda", tmp_path), pytest.raises(type(error), match=str(error)):
        with_graphs_or_without(work)
    assert len(tried) == attempts


def test_compiled_code_is_kept_unless_the_user_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with working_on("cpu", tmp_path):
        assert "TORCHINDUCTOR_CACHE_DIR" not in os.environ
    with working_on("cuda", tmp_path):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", default_cache_dir())
    with working_on("cuda", tmp_path):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path)
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/elsewhere")
    with working_on("cuda", tmp_path):
        assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == "/elsewhere"


SECOND = """
import sys
from pathlib import Path
import torch
from torch._dynamo.utils import counters  # sets the variable, as transformers does
from tasks.gpu import with_graphs_or_without, working_on

with working_on("cuda", Path(sys.argv[1])):  # compiled for the processor: what is asked is where the code goes
    assert torch.compile(lambda x: (x * 2).sin() + 1)(torch.zeros(8)).tolist() == [1.0] * 8
found = counters["aot_autograd"]["autograd_cache_hit"], counters["inductor"]["fxgraph_cache_hit"]
print("from the disk" if any(found) else "compiled")
"""


@pytest.mark.slow
def test_a_second_process_finds_what_the_first_has_compiled(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "ignore", "-c", SECOND, str(tmp_path)]
    said = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip() for _ in range(2)]
    assert said == ["compiled", "from the disk"]


def test_every_step_says_where_it_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[Any, ...]] = []

    def recorded(*where: Any) -> AbstractContextManager[None]:
        said.append(where)
        return nullcontext()

    monkeypatch.setattr(steps, "working_on", recorded)
    monkeypatch.setitem(steps.WORK, "text", lambda job: job.done({}, {}))
    place = Place(str(tmp_path / "store"), str(tmp_path))
    for inputs in ({}, {"environment": {"device": "cuda"}}, {"environment": {"tokenizers": "0.22"}}):
        steps.run_step.fn(Step("text", "a step", inputs, {}, {}), {}, place)
    assert said == [(device, tmp_path / "compiled") for device in ("cpu", "cuda", "cpu")]


# --- With a GPU ------------------------------------------------------------------------------------------------

needs_gpu = [
    pytest.mark.gpu,
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="PyTorch finds no CUDA device"),
]
MODEL = GPTConfig(n_layer=2, n_head=4, d_model=64, context=64, vocab_size=11)
WAYS: dict[str, tuple[GPTConfig, dict[str, Any]]] = {
    "causal": (MODEL, {"schedule": "trapezoid", "budgets": (0.5,)}),
    "dropout": (replace(MODEL, dropout=0.1), {}),
    "window": (replace(MODEL, position="rope", window=16), {}),
    "muon": (replace(MODEL, qk_norm=True, activation="relu2"), {"optimizer": "muon"}),
    "masked": (MODEL, {"objective": "masked"}),
    "prefix": (MODEL, {"objective": "prefix"}),
    "multi_token": (replace(MODEL, n_future=4), {"objective": "multi_token"}),
    "distill": (MODEL, {"objective": "distill"}),
}


def on_the_gpu(way: str, compiled: Path, checkpoints: Path | None = None) -> TrainResult:
    model, fields = WAYS[way]
    tc = TrainConfig(steps=40, batch_size=8, precision="bf16", compile=True, **fields)
    text = torch.randint(11, (40, 5), generator=torch.Generator().manual_seed(1))
    tokens = text[torch.randint(40, (4_000,), generator=torch.Generator().manual_seed(2))].flatten()
    torch.manual_seed(0)
    teacher = GPT(replace(model, n_layer=3)) if way == "distill" else None
    with working_on("cuda", compiled):
        return train(
            model,
            tc,
            tokens[:18_000],
            tokens[18_000:],
            seed=3,
            device="cuda",
            teacher=teacher,
            checkpoint_dir=checkpoints,
            checkpoint_seconds=0.0,
        )


class TestOnAGpu:
    """With kernels. Not yet run: written where there was no GPU."""

    pytestmark = needs_gpu

    @pytest.mark.parametrize("way", WAYS)
    def test_graphs_are_replayed_and_change_no_bit(
        self, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            recorded = on_the_gpu(way, tmp_path)
        launches = sum(event.count for event in profile.key_averages() if event.key == "cudaGraphLaunch")
        assert launches >= 2 * (40 - 4), "a forward and a backward pass of each step, once they are recorded"
        monkeypatch.setenv("TORCHINDUCTOR_CUDAGRAPHS", "0")
        assert same_results(on_the_gpu(way, tmp_path), recorded)

    @pytest.mark.parametrize("way", WAYS)
    def test_stopped_and_taken_up_again_it_ends_with_the_same_bits(
        self, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        expected = on_the_gpu(way, tmp_path)
        with monkeypatch.context() as patch:
            stop_before(23, patch)
            with pytest.raises(Stopped):
                on_the_gpu(way, tmp_path, tmp_path / "checkpoints")
        assert same_results(on_the_gpu(way, tmp_path, tmp_path / "checkpoints"), expected)

    def test_what_was_trained_before_changes_no_bit(self, tmp_path: Path) -> None:
        first = on_the_gpu("causal", tmp_path)
        for way in ("multi_token", "distill", "window"):
            on_the_gpu(way, tmp_path)
        assert same_results(on_the_gpu("causal", tmp_path), first)

    def test_a_batch_that_is_read_in_parts_is_learned_from_as_without_graphs(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def short_of_memory(self: Accumulation, parameters: Any, rows: int) -> None:
            self.parameters, self.rows, self.at_once = parameters, rows, rows // 2

        monkeypatch.setattr(Accumulation, "__init__", short_of_memory)
        with_graphs = on_the_gpu("causal", tmp_path)
        monkeypatch.setenv("TORCHINDUCTOR_CUDAGRAPHS", "0")
        assert same_results(on_the_gpu("causal", tmp_path), with_graphs)

    def test_the_memory_is_given_back(self, tmp_path: Path) -> None:
        before = torch.cuda.memory_reserved()
        on_the_gpu("causal", tmp_path)
        assert torch.cuda.memory_reserved() <= before + 2**25  # the model, and workspaces of cuBLAS
