"""Wall-clock of a function: warm-up first, several repeats, the median and its spread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from minigpt.checks import whole

if TYPE_CHECKING:  # what was timed is told without PyTorch
    import torch


@dataclass(frozen=True)
class Timing:
    """Seconds of one call."""

    median: float
    low: float  # the quartiles
    high: float
    repeats: int


def measure(
    functions: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warmup: int = 1,
    device: torch.device | str = "cpu",
    inference: bool = True,
) -> dict[str, Timing]:
    """Time functions in turn, round by round, so that a slow moment of the machine hits all of them alike.

    They run under ``torch.inference_mode`` unless ``inference`` is False, as a training step needs.

    Raises:
        ValueError: fewer than one repeat, or fewer than no warm-up.
    """
    whole("repeats", repeats, 1)
    whole("warmup", warmup, 0)
    import torch

    seconds: dict[str, list[float]] = {name: [] for name in functions}
    with torch.inference_mode(inference):
        for function in functions.values():
            for _ in range(warmup):
                function()
        for _ in range(repeats):
            for name, function in functions.items():
                _wait(device)
                started = time.perf_counter()
                function()
                _wait(device)
                seconds[name].append(time.perf_counter() - started)
    return {name: _summary(values) for name, values in seconds.items()}


def _summary(seconds: list[float]) -> Timing:
    if len(seconds) == 1:
        return Timing(seconds[0], seconds[0], seconds[0], 1)
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Timing(median, low, high, len(seconds))


def _wait(device: torch.device | str) -> None:
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
