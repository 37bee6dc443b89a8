"""How a step works on a GPU: what it finds of those before it, and what it leaves to those after it.

None of it changes a result, so nothing of it is in a key: a model is the same whichever process trains it, after
whichever others. What follows is about ``torch.compile`` (PyTorch 2.13), which recipes ask for with
``TrainConfig.compile``; steps on a processor are left alone.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def working_on(device: str) -> Iterator[None]:
    """What holds while a step works on ``device``, "cpu" or "cuda".

    - It compiles as a fresh process does. Otherwise what the process has trained before counts: a text of another
      length makes PyTorch compile for all lengths at once, with other sums and more graphs, and after eight models of
      other shapes it compiles no more, with a warning that nobody reads.
    - At the end the memory is free for the processes that share the card.
    """
    if device != "cuda":
        yield
        return
    torch.compiler.reset()
    try:
        yield
    finally:
        torch.compiler.reset()
        gc.collect()
        torch.cuda.empty_cache()
