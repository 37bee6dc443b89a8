"""Parts of an exercise come back as they were, whoever found them."""

import math
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import PydanticSchemaGenerationError, ValidationError

from tasks.parts import part


@dataclass(frozen=True)
class Inner:
    """Plain data."""

    label: str
    losses: tuple[float, ...]


@dataclass(frozen=True)
class Found:
    """Plain data with some in it."""

    inner: Inner
    by_prefix: dict[int, tuple[bool, ...]]
    by_label: dict[str, float]
    missing: float | None = None


class Context:
    """``once`` as the store has it: what was found is told again."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.asked = 0

    def once(self, name: str, compute: Any) -> Any:
        if name not in self.kept:
            self.asked += 1
            self.kept[name] = compute()
        return self.kept[name]


FOUND = Found(Inner("π", (0.1, 1 / 3)), {4: (True, False), 0: ()}, {"z": 1.0, "a": math.inf})


def test_a_part_is_found_once_and_comes_back_as_it_was() -> None:
    context: Any = Context()
    first = part(context, Found, "all", lambda: FOUND)
    second = part(context, Found, "all", lambda: pytest.fail("found again"))
    assert first == second == FOUND
    assert list(second.by_label) == ["z", "a"], "answers show them in this order"
    assert list(second.by_prefix) == [4, 0]
    assert context.asked == 1


@given(st.dictionaries(st.text(), st.tuples(st.floats(), st.integers())))
def test_numbers_keep_all_their_digits(numbers: dict[str, tuple[float, int]]) -> None:
    context: Any = Context()
    found = part(context, dict[str, tuple[float, int]], "numbers", lambda: numbers)
    assert repr(found) == repr(numbers), "NaN, too"


def test_a_tensor_is_refused() -> None:
    context: Any = Context()
    with pytest.raises(PydanticSchemaGenerationError):
        part(context, torch.Tensor, "weights", lambda: torch.zeros(1))


def test_a_part_of_another_type_is_told_of() -> None:
    context: Any = Context()
    part(context, int, "count", lambda: 3)
    with pytest.raises(ValidationError):
        part(context, Inner, "count", lambda: pytest.fail("found again"))
