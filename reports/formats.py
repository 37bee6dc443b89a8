"""Numbers for readers: sensible digits, thousands separators, powers of ten, durations."""

import math
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from reports.types import Cell

_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_SPECIAL = {"NaN": "NaN", "Infinity": "∞", "-Infinity": "−∞"}
# "1.87 ± 0.02", "−3.5 %", "2.1×", "12 MiB": a number that an author has formatted already.
_LEADING_NUMBER = re.compile(
    r"[≤≥<>~≈]?\s*([-−+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?)(?:\s*±\s*[\d.,e+-]+)?\s*[%×x]?", re.I
)


def power(exponent: int) -> str:
    """10 to an exponent: "10⁻³"."""
    return "10" + str(exponent).translate(_SUPERSCRIPTS)


def number(value: float, digits: int = 5) -> str:
    """A number alone, with at most so many significant digits: "1.2346", "50,257", "3.2×10⁻⁷", "∞"."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if isinstance(value, int) or (value == int(value) and abs(value) < 1e12):
        return _signed(f"{int(value):,}" if abs(value) >= 10_000 else str(int(value)))
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent >= 7:
        mantissa, _, shown = f"{value:.{digits - 1}e}".partition("e")
        return _signed(f"{_trim(mantissa)}×{power(int(shown))}")
    decimals = max(0, digits - 1 - exponent)
    return _signed(_trim(f"{value:,.{decimals}f}" if abs(value) >= 10_000 else f"{value:.{decimals}f}"))


def cell(value: Cell) -> str:
    """A cell alone: numbers formatted, ``None`` as "–", text as it is."""
    if value is None:
        return "–"
    if isinstance(value, str):
        return _SPECIAL.get(value, value)
    return number(value)


def brief(value: Cell) -> str:
    """A cell within a sentence: three digits are enough."""
    return number(value, 3) if isinstance(value, float) else cell(value)


def column(values: Sequence[Cell]) -> list[str]:
    """Cells of one column in one style, chosen from its numbers: all with the same decimals, or all as powers of ten.

    Decimals that are 0 throughout, as of 0.5, 1 and 2, are left away. Whole numbers are counts and stay as they are,
    and "0" is exactly zero.
    """
    floats = [v for v in values if isinstance(v, float) and math.isfinite(v) and v != 0]
    whole = [v for v in values if isinstance(v, int) and not isinstance(v, bool)]
    separator = "," if any(abs(v) >= 10_000 for v in [*floats, *whole]) else ""
    style = _style(floats, separator)
    shown = []
    for value in values:
        if isinstance(value, int) and not isinstance(value, bool):
            shown.append(_signed(f"{value:{separator}}"))
        elif isinstance(value, float) and math.isfinite(value) and value:
            shown.append(style(value))
        else:
            shown.append(cell(value))
    return shown


def _style(values: Sequence[float], separator: str) -> Callable[[float], str]:
    """How the numbers of a column are written.

    With decimals that give the largest four significant digits and the smallest three; as powers of ten, of three
    digits, where that would take too many.
    """
    if not values:
        return number
    largest, smallest = max(map(abs, values)), min(map(abs, values))
    decimals = max(3 - math.floor(math.log10(largest)), 2 - math.floor(math.log10(smallest)), 0)
    if all(v == int(v) for v in values) and largest < 1e12:
        decimals = 0
    elif largest >= 1e7 or largest / smallest > 1e5 or decimals > 6:
        digits = next(d for d in (0, 1, 2) if d == 2 or all(float(f"{v:.{d}e}") == v for v in values))
        return lambda value: _scientific(value, digits)
    while decimals and all(float(f"{v:.{decimals - 1}f}") == v for v in values):
        decimals -= 1
    return lambda value: _signed(f"{value:{separator}.{decimals}f}")


def _scientific(value: float, digits: int) -> str:
    mantissa, _, exponent = f"{value:.{digits}e}".partition("e")
    return _signed(f"{mantissa}×{power(int(exponent))}")


def bound(text: str) -> str:
    """The bound of a check as it is read: "<= 1e-05" gives "≤ 1×10⁻⁵"."""
    for sign, shown in (("<=", "≤"), (">=", "≥"), ("== ", "")):
        text = text.replace(sign, shown)
    text = {"True": "yes", "False": "no"}.get(text, text)
    text = re.sub(r"(?<![\w.,-])\d{5,}(?![\w.,-])", lambda match: f"{int(match[0]):,}", text)
    return powers(text)


def powers(text: str) -> str:
    """Numbers as Python prints them, "5.3e+12", as readers do: "5.3×10¹²". "5e-5", as people type it, stays."""
    return re.sub(
        r"(?<![\w.])(-?\d+(?:\.\d+)?)e([-+]\d{2,})(?!\w)", lambda match: f"{match[1]}×{power(int(match[2]))}", text
    )


def leading_number(value: Cell) -> float | None:
    """The number by which a cell sorts: itself, or the one that a formatted text such as "1.87 ± 0.02" begins with."""
    if isinstance(value, bool) or value is None:
        return None
    if isinstance(value, int | float):
        return float(value)
    if value in _SPECIAL:
        return float(value)
    match = _LEADING_NUMBER.fullmatch(value.strip())
    return float(match[1].replace("−", "-").replace(",", "")) if match else None


def reads_as(text: str, value: float | None) -> bool:
    """Whether a text is this number with separators and a minus sign: what the page can sort by alone."""
    try:
        return float(text.replace(",", "").replace("−", "-")) == value
    except ValueError:
        return False


def duration(seconds: float) -> str:
    """A duration: "0.4 s", "12 s", "3 min 5 s", "2 h 10 min"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def count(value: int) -> str:
    """A count, with separators between thousands: "128,000"."""
    return f"{value:,}"


def moment(iso: str) -> str:
    """An ISO 8601 time as "2026-11-24 03:30 UTC"; what is none is shown as it is."""
    try:
        when = datetime.fromisoformat(iso)
    except ValueError:
        return iso
    if when.tzinfo is None:
        return f"{when:%Y-%m-%d %H:%M}"
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _signed(text: str) -> str:
    return text.replace("-", "−")


def _trim(text: str) -> str:
    return text.rstrip("0").rstrip(".") if "." in text else text
