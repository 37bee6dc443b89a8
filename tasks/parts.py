"""Parts of an exercise, each found once: see ``tasks.exercise.Context.once``."""

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import TypeAdapter

from tasks.exercise import Context

T = TypeVar("T")


def part(context: Context, kind: Any, name: str, compute: Callable[[], T]) -> T:
    """What ``compute`` finds, plain data of the type ``kind``, or has found when it was called under this name before.

    As text, which keeps the order of a mapping: answers show it.

    Raises:
        pydantic.PydanticSchemaGenerationError: a type that is not of plain data, such as a tensor.
        pydantic.ValidationError: what was kept is of another type.
    """
    adapter = _adapter(kind)
    found: T = adapter.validate_python(
        json.loads(context.once(name, lambda: json.dumps(adapter.dump_python(compute()))))
    )
    return found


@functools.cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)
