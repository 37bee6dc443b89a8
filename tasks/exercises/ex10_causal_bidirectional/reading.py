"""What models say of windows of text, and a linear probe that classifies by it."""

import torch
from torch import Tensor

from minigpt.analysis.probe import fit
from minigpt.decoding import infill
from minigpt.evaluation.evaluate import TOKENS_AT_ONCE
from minigpt.model import GPT
from minigpt.precision import Precision, computed_in
from tasks.exercise import TrainedModel
from tasks.exercises.ex10_causal_bidirectional.corruption import Task

Features = dict[str, tuple[Tensor, Tensor]]  # of the training and the test windows, (N, F) each


def probed(task: Task, train: Tensor, test: Tensor) -> float:
    """Test accuracy of a linear probe on features (N, F) of the windows."""
    return fit(train, task.train_labels).accuracy(test, task.test_labels)


def read(task: Task, model: GPT, *, both_ways: bool, precision: Precision = "fp32") -> Features:
    """What a model, computing in ``precision``, says of the windows: see ``reading``."""
    with computed_in(precision, task.train.device):
        train, test = (reading(model, tokens, both_ways=both_ways) for tokens in (task.train, task.test))
    return {name: (train[name], test[name]) for name in train}


@torch.inference_mode()
def reading(model: GPT, tokens: Tensor, *, both_ways: bool) -> dict[str, Tensor]:
    """Features of windows (N, T), all from one pass.

    ``mean`` and ``last`` are the final hidden states averaged over the window, and of its last position, as GPT-1
    classifies, (N, C); ``own loss`` is the causal model's mean loss on the window, (N, 1).
    """
    T = tokens.shape[1]
    mask = infill.everything(T, tokens.device) if both_ways else None
    found: dict[str, list[Tensor]] = {}
    for chunk in tokens.split(max(1, TOKENS_AT_ONCE.get(tokens.device.type, 2**15) // T)):
        h = model.hidden(chunk, mask=mask).float()  # (n, T, C)
        features = {"mean": h.mean(dim=1), "last": h[:, -1]}
        if not both_ways:
            logs = model.unembedding(h[:, :-1]).float().log_softmax(dim=-1)
            features["own loss"] = -logs.gather(-1, chunk[:, 1:, None])[..., 0].mean(dim=1, keepdim=True)
        for name, values in features.items():
            found.setdefault(name, []).append(values)
    return {name: torch.cat(values) for name, values in found.items()}


def read_twice(task: Task, model: GPT) -> tuple[Tensor, Tensor]:
    """Features of a causal model that has the window in front of it a second time: the mean over the second reading."""
    T = task.train.shape[1]

    @torch.inference_mode()
    def second(tokens: Tensor) -> Tensor:
        doubled = torch.cat([tokens, tokens], dim=1)
        chunks = doubled.split(max(1, TOKENS_AT_ONCE.get(tokens.device.type, 2**15) // (2 * T)))
        return torch.cat([model.hidden(chunk).float()[:, T:].mean(dim=1) for chunk in chunks])

    return second(task.train), second(task.test)


def untrained(trained: TrainedModel) -> GPT:
    """The same architecture with new random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(trained.recipe.seed + 1_000)
        return GPT(trained.model.config).to(trained.model.unembedding.weight.device).eval()
