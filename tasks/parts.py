"""Parts of an exercise, each found once: see ``tasks.exercise.Context.once``."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

from reports.plain import to_json
from tasks.exercise import Context

T = TypeVar("T")


def part(context: Context, kind: Any, name: str, compute: Callable[[], T]) -> T:
    """What ``compute`` finds, plain data of the type ``kind``, or has found when it was called under this name before.

    Raises:
        TypeError: a tensor, or anything else that is not plain data.
        pydantic.ValidationError: the data are of another type.
    """
    found: T = _adapter(kind).validate_python(context.once(name, lambda: to_json(compute())))
    return found


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
