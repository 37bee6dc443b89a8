import json
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.plain import from_plain, to_plain


@dataclass(frozen=True)
class Measured:
    places: list[int]
    losses: Tensor
    tokens: Tensor
    name: str


def test_there_and_back_through_json() -> None:
    made = Measured([1, 2], torch.rand(2, 3, dtype=torch.float64), torch.tensor([[4, 5]]), "x")
    again = from_plain(Measured, json.loads(json.dumps(to_plain(made))))
    assert (again.places, again.name) == ([1, 2], "x")
    assert torch.equal(again.losses, made.losses)
    assert torch.equal(again.tokens, made.tokens)


def test_single_precision_survives() -> None:
    made = Measured([], torch.rand(5), torch.tensor([1]), "")
    assert torch.equal(from_plain(Measured, to_plain(made)).losses.float(), made.losses)
