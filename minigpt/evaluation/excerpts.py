"""Excerpts of a long text, evenly spread, so that a few of them speak for all of it: windows, places, prompts."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from minigpt.checks import whole


def windows(ids: Tensor, count: int, length: int) -> Tensor:
    """Up to ``count`` windows without overlap from the beginning to the end of a sequence, (N,) → (R, T).

    Of a sequence that is too short, as many as there is room for; of one shorter than a window, all of it.

    Raises:
        ValueError: an empty sequence, or no window asked for.
    """
    count, length = _that_fit(ids, count, length)
    starts = [i * (len(ids) - length) // max(1, count - 1) for i in range(count)]
    return torch.stack([ids[start : start + length] for start in starts])


def leading(ids: Tensor, count: int, length: int) -> Tensor:
    """Up to ``count`` windows without gap or overlap from the beginning of a sequence on, (N,) → (R, T).

    Of a sequence that is too short, as many as there is room for; of one shorter than a window, all of it.

    Raises:
        ValueError: an empty sequence, or no window asked for.
    """
    count, length = _that_fit(ids, count, length)
    return ids[: count * length].view(count, length)


def _that_fit(ids: Tensor, count: int, length: int) -> tuple[int, int]:
    """How many windows, and how long, there is room for."""
    if not len(ids) or whole("count", count) < 1 or whole("length", length) < 1:
        raise ValueError(f"cannot take {count} windows of {length} from {len(ids)} tokens")
    length = min(length, len(ids))
    return min(count, len(ids) // length), length


def places(first: int, last: int, count: int) -> list[int]:
    """Up to ``count`` places above ``first``, evenly spread, the last one being ``last``.

    Raises:
        ValueError: no place asked for, or none above ``first``.
    """
    whole("count", count, 1)
    whole("last", last, whole("first", first) + 1)
    return sorted({first + (i + 1) * (last - first) // count for i in range(count)} - {first})


def opening(text: str, words: int = 6, characters: int = 60) -> str:
    """The first words of a text's second line, or of its only one, for a prompt; never empty for a text that is not.

    Words are what spaces divide: of a script without them it is the first characters.
    """
    line = text[text.find("\n") + 1 :][:characters]
    return " ".join(line.split()[:words]) or " ".join(text.split()[:words])[:characters] or text[:1]


def spread_starts(text: str, count: int, last: int, length: int = 0) -> Sequence[int]:
    """Offsets of ``count`` beginnings of words, evenly spread from 0 to ``last``.

    With ``length``, a word also ends after that many characters, and a space follows. The text is divided into
    ``count`` equal stretches; of each the first place is taken that fits, or, where words are too long or scarce, the
    first that fits but for its end, or the beginning of the stretch. All offsets are different.

    Raises:
        ValueError: there is not a character for each.
    """
    if (
        whole("count", count) < 1
        or whole("length", length) < 0
        or last + 1 < count
        or last + max(1, length) > len(text)
    ):
        raise ValueError(f"cannot take {count} prompts of {length} from {len(text)} characters up to {last}")
    bounds = [i * (last + 1) // count for i in range(count + 1)]
    return [_first(text, range(a, b), length) for a, b in itertools.pairwise(bounds)]


def _first(text: str, places: range, length: int) -> int:
    begins = [i for i in places if text[i].isalnum() and (i == 0 or text[i - 1].isspace())]
    whole = (i for i in begins if not length or (text[i + length - 1].isalnum() and text[i + length :][:1] == " "))
    return next(whole, begins[0] if begins else places[0])
