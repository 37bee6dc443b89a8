"""Dataclasses of tensors as plain lists and back: to keep what was measured as JSON."""

import dataclasses
import typing
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def to_plain(value: Any) -> dict[str, Any]:
    """The fields of a dataclass by name, tensors as nested lists."""
    fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    return {name: field.tolist() if isinstance(field, Tensor) else field for name, field in fields.items()}


def from_plain(kind: type[T], data: dict[str, Any]) -> T:
    """The inverse: numbers with a point become float64, others int64."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: _tensor(field) if hints[name] is Tensor else field for name, field in data.items()})


def _tensor(values: Any) -> Tensor:
    found = torch.tensor(values)
    return torch.tensor(values, dtype=torch.float64) if found.is_floating_point() else found
