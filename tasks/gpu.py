"""How a step works on a GPU: what compiled code it finds, how its kernels are launched, what it leaves behind.

None of it is to change a result, so nothing of it is in a key: a model should be the same whichever process trains
it, after whichever others, with code compiled now or found on the disk (``pytest -m gpu`` asks a GPU). What follows
is about ``torch.compile`` (PyTorch 2.13), which recipes ask for with ``TrainConfig.compile``; steps on a processor
are left alone.
"""

import gc
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import torch

Result = TypeVar("Result")

logger = logging.getLogger("chapter")


@contextmanager
def working_on(device: str, compiled: Path) -> Iterator[None]:
    """What holds while a step works on ``device``, "cpu" or "cuda"; ``compiled`` is where compiled code is kept.

    - It compiles as a fresh process does. Otherwise what the process has trained before counts: a text of another
      length makes PyTorch compile for all lengths at once, with other sums and more graphs, and after eight models of
      other shapes it compiles no more, with a warning that nobody reads.
    - Launches are recorded as CUDA graphs (``mode="reduce-overhead"`` of ``torch.compile``) and replayed at once: a
      step of these models waits for Python, not for its kernels. ``TORCHINDUCTOR_CUDAGRAPHS=0`` is obeyed.
    - Compiled code is kept for the next process, which loads and runs it: the folder is as trusted as the code is.
      ``TORCHINDUCTOR_CACHE_DIR`` is obeyed.
    - At the end the memory is free for the processes that share the card, the pools of the graphs with it.
    """
    if device != "cuda":
        yield
        return
    from torch._inductor import config  # takes a second
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    # PyTorch sets the variable itself where it is not set, as soon as its compiler is imported.
    if os.environ.get("TORCHINDUCTOR_CACHE_DIR", default_cache_dir()) == default_cache_dir():
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(compiled)
    graphs = os.environ.get("TORCHINDUCTOR_CUDAGRAPHS", "1") == "1"
    torch.compiler.reset()
    try:
        # For this thread; PyTorch hands it on to the autograd thread in which the backward pass is compiled.
        with config.patch({"triton.cudagraphs": graphs}):
            yield
    finally:
        _forget()


def with_graphs_or_without(work: Callable[[], Result]) -> Result:
    """``work()``, and once more without CUDA graphs where it fails with them; for a step within ``working_on``.

    Recording can fail in ways of its own: memory that ends meanwhile is reported by another error than the one that
    ``minigpt.accumulation`` knows. A training goes on from its last checkpoint.
    """
    from torch._inductor import config

    if not config.triton.cudagraphs:
        return work()
    try:
        return work()
    except RuntimeError as error:
        logger.warning("once more without CUDA graphs, after %s: %s", type(error).__name__, error)
    _forget()  # no sooner: an error that is being handled holds on to all that was computed
    with config.patch({"triton.cudagraphs": False}):
        return work()


def _forget() -> None:
    """What has been compiled and recorded in this process, and the memory that it holds."""
    torch.compiler.reset()
    gc.collect()
    torch.cuda.empty_cache()
