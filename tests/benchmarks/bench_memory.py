"""Peak memory of a training of the 10 M model, ours and Transformers', each in a process of its own.

python -m tests.benchmarks.bench_memory ours|theirs    # one training, as ``trainings`` starts it
"""

import sys

import torch

from minigpt.model import GPT
from minigpt.train import TrainConfig
from tests.benchmarks.bench_gpt2 import SHAPES, Ours, Theirs, text
from tests.benchmarks.processes import own_peak, python


def trainings(rounds: int) -> dict[str, list[int]]:
    """Peak bytes of the training by both sides, in turns: {"ours": […], "theirs": […]}."""
    peaks: dict[str, list[int]] = {"ours": [], "theirs": []}
    for _ in range(rounds):
        for side, found in peaks.items():
            found.append(int(python("-m", "tests.benchmarks.bench_memory", side)[0]))
    return peaks


def main(side: str) -> None:
    """Train a few steps and print the bytes that this process held at most."""
    config, batch_size, _ = SHAPES["10M"]
    torch.set_num_threads(1)
    torch.manual_seed(0)
    tc = TrainConfig(steps=3, batch_size=batch_size, threads=1, eval_every=10**9)
    {"ours": Ours, "theirs": Theirs}[side](GPT(config), text(), tc, "fp32")()
    print(own_peak())


if __name__ == "__main__":
    main(sys.argv[1])
