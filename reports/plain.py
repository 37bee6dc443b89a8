"""Results as plain JSON data, and back."""

import dataclasses
import functools
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from reports.types import BLOCKS, Block, Prose


@functools.cache
def _field_names(kind: type) -> tuple[str, ...] | None:
    """Of a dataclass; None for any other type."""
    return tuple(f.name for f in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else None


def to_json(value: Any) -> Any:
    """Plain JSON types of a value made of the classes of ``reports.types``.

    Non-finite floats become the strings "NaN", "Infinity" and "-Infinity": JSON has no numbers for them.
    """
    # Nearly all are numbers and words in lists: those first, by their exact types.
    kind: Any = type(value)
    if kind is str or kind is int or kind is bool or value is None:
        return value
    if kind is float and math.isfinite(value):
        return value
    if (names := _field_names(kind)) is not None:
        data = {name: to_json(getattr(value, name)) for name in names}
        named = getattr(value, "type", None)
        return {"type": named, **data} if isinstance(named, str) else data
    if isinstance(value, dict):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, int | float | str):
        return value
    raise TypeError(f"{type(value).__name__} is not part of a result: {value!r}")


def from_json(kind: Any, data: Any) -> Any:
    """The inverse of ``to_json`` for a type made of the classes of ``reports.types``.

    Raises:
        ValueError: the data do not fit the type.
    """
    return _reader(kind)(data)


@functools.cache
def _reader(kind: Any) -> Callable[[Any], Any]:
    """What reads values of a type: looked up once, since a run reads a hundred thousand."""
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _reader_of_class(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    union = origin in (typing.Union, types.UnionType)
    if kind is Block or (union and Prose in arguments):
        return _read_block
    if origin is tuple:
        return _reader_of_tuple(arguments)
    if origin is dict:
        return lambda data: {key: from_json(arguments[1], item) for key, item in data.items()}
    tuples = [each for each in arguments if typing.get_origin(each) is tuple] if union else []
    floats = (kind is float or (union and float in arguments)) and str not in arguments

    def read(data: Any) -> Any:
        if tuples and isinstance(data, list):
            return from_json(tuples[0], data)  # tuple[…] | None
        if floats and data in ("NaN", "Infinity", "-Infinity"):
            return float(data)
        return data

    return read


def _reader_of_class(kind: type) -> Callable[[Any], Any]:
    hints = typing.get_type_hints(kind)
    known = set(_field_names(kind) or ())

    def read(data: Any) -> Any:
        if not isinstance(data, dict) or data.keys() - known - {"type"}:
            raise ValueError(f"not a {kind.__name__}: {str(data)[:80]}")
        return kind(**{name: from_json(hints[name], item) for name, item in data.items() if name in known})

    return read


def _read_block(data: Any) -> Any:
    if not isinstance(data, dict) or data.get("type") not in BLOCKS:
        raise ValueError(f"not a block: {str(data)[:80]}")
    return from_json(BLOCKS[data["type"]], data)


def _reader_of_tuple(arguments: tuple[Any, ...]) -> Callable[[Any], Any]:
    if len(arguments) != 2 or arguments[1] is not Ellipsis:
        return lambda data: tuple(from_json(kind, item) for kind, item in zip(arguments, data, strict=True))
    item_kind = arguments[0]

    def read(data: Any) -> Any:
        if item_kind is float and {float, int}.issuperset(map(type, data)):
            return tuple(data)  # nearly all there is
        item = _reader(item_kind)
        return tuple([item(each) for each in data])

    return read
