"""What a number or a token must be, said in one sentence where it is not: the field, what is allowed, what was given.

    n_layer must be a whole number from 1 up, got 0
    dropout must be in [0, 1), got nan

Every function here raises ``ValueError`` and does nothing else. None looks at a tensor's values where a text is written
token by token, but for ``minigpt.decoding.sampling``, which looks at one number of a row.
"""

import math
import operator
from collections.abc import Callable, Collection
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # configurations and tokenizers are there without PyTorch
    from torch import Tensor


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """A whole number from ``least`` to ``most`` that fits 64 bits, no truth value; NumPy's are made Python's."""
    fits = isinstance(value, Integral) and not isinstance(value, bool)
    if fits and not -(2**63) <= value < 2**63:
        raise ValueError(f"{name} must be a whole number that fits 64 bits, got {_shown(value)}")
    if fits and (least is None or value >= least) and (most is None or value <= most):
        return int(value)
    low = "" if least is None else f" from {least}"
    high = f" to {most}" if most is not None else " up" if low else ""
    raise ValueError(f"{name} must be a whole number{low}{high}, got {_shown(value)}")


def number(name: str, value: Any, holds: Callable[[float], bool], allowed: str) -> float:
    """A finite number for which ``holds`` is true: it must be ``allowed``, as "positive" or "in [0, 1]"."""
    real = isinstance(value, Real) and not isinstance(value, bool)
    if not (real and _finite(value) and holds(value)):
        raise ValueError(f"{name} must be {allowed}, got {_shown(value)}")
    return value


def _finite(value: Any) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number beyond all floats
        return False


def share(name: str, value: Any) -> float:
    """A number in [0, 1]."""
    return number(name, value, lambda x: 0 <= x <= 1, "in [0, 1]")


def positive(name: str, value: Any) -> float:
    """A finite number above 0."""
    return number(name, value, lambda x: x > 0, "a positive finite number")


def flag(name: str, value: Any) -> None:
    """True or False, and nothing that merely counts as such."""
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, got {_shown(value)}")


def named(kind: str, value: Any, names: Collection[str]) -> None:
    """One of some names."""
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"no {kind} is called {_shown(value)}: {', '.join(names)}")


def token_ids(name: str, tokens: "Tensor", vocab_size: int | None, dims: int) -> None:
    """Tokens (…) int64 (int32 will do) with ``dims`` dimensions, each in 0 … V - 1 where V is known. Looks at all."""
    import torch

    if not isinstance(tokens, torch.Tensor) or tokens.dtype not in (torch.int64, torch.int32) or tokens.ndim != dims:
        kind = f"{tokens.dtype} {tuple(tokens.shape)}" if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise ValueError(f"{name} must be int64 with {dims} dimension{'s' * (dims > 1)}, got {kind}")
    if tokens.numel():
        low, high = (int(end) for end in tokens.aminmax())
        if low < 0 or (vocab_size is not None and high >= vocab_size):
            end = " up" if vocab_size is None else f" to {vocab_size - 1}"
            raise ValueError(f"{name} must be from 0{end}, got {low if low < 0 else high}")


def prompt_of(tokens: "Tensor", vocab_size: int | None, shape: str = "(B, T)") -> None:
    """A prompt that there is something to continue of, each of its ids in 0 … V - 1 where V is known."""
    import torch

    dims = shape.count(",") + (not shape.endswith(",)"))
    if not isinstance(tokens, torch.Tensor) or tokens.ndim != dims or not tokens.numel():
        got = tuple(tokens.shape) if isinstance(tokens, torch.Tensor) else type(tokens).__name__
        raise ValueError(f"the prompt must be {shape} with {shape.strip('(),')[-1]} >= 1, got {got}")
    token_ids("the prompt's tokens", tokens, vocab_size, dims)


def plain_ids(ids: Any, vocab_size: int) -> list[int]:
    """Token ids as Python's numbers, each in 0 … V - 1: of a list, a tensor (T,), an array, or an iterator."""
    try:
        found = list(map(operator.index, ids.tolist() if hasattr(ids, "tolist") else ids))
    except TypeError as error:
        raise ValueError(f"token ids must be one row of whole numbers, got {_shown(ids)}") from error
    if found and not (min(found) >= 0 and max(found) < vocab_size):
        wrong = next(one for one in found if not 0 <= one < vocab_size)
        raise ValueError(f"token ids must be from 0 to {vocab_size - 1}, got {wrong}")
    return found


def _shown(value: Any) -> str:
    """``value`` as a sentence can hold it."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}…"
