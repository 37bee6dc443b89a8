"""A training that writes a checkpoint after every step, in a process of its own, to be killed.

python -m tests.minigpt.killed_training DIRECTORY VARIANT
"""

import sys
from dataclasses import replace
from pathlib import Path

import torch

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.train import TrainConfig, TrainResult, train

CONFIG = GPTConfig(n_layer=2, n_head=2, d_model=32, context=16, vocab_size=29, dropout=0.1)
TRAIN = TrainConfig(steps=60, batch_size=8, eval_every=25, snapshots="epoch")
VARIANTS = {
    "plain": (CONFIG, TRAIN),
    "long": (CONFIG, replace(TRAIN, steps=400)),
    "prefix": (CONFIG, replace(TRAIN, objective="prefix")),
    "distill": (CONFIG, replace(TRAIN, objective="distill")),
    "heads": (replace(CONFIG, n_future=3), replace(TRAIN, objective="multi_token")),
    "bf16": (CONFIG, replace(TRAIN, precision="bf16")),
    "muon": (CONFIG, replace(TRAIN, optimizer="muon", precision="bf16")),
    "branched": (CONFIG, replace(TRAIN, schedule="trapezoid", budgets=(0.3, 0.5), optimizer="muon")),
    "compiled": (CONFIG, replace(TRAIN, compile=True)),
}


def run(directory: Path | None, variant: str) -> TrainResult:
    """Train from scratch, or from what a killed process left in the directory."""
    config, tc = VARIANTS[variant]
    tokens = torch.randint(29, (2000,), generator=torch.Generator().manual_seed(0))
    teacher = None
    if variant == "distill":
        torch.manual_seed(5)
        teacher = GPT(replace(CONFIG, n_layer=3))
    return train(
        config,
        tc,
        tokens[:1500],
        tokens[1500:],
        seed=3,
        teacher=teacher,
        checkpoint_dir=directory,
        checkpoint_seconds=0.0,
        progress=lambda fraction, note: print(f"{fraction:.3f} {note}", flush=True),
    )


if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[2])
