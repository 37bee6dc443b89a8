"""Numbers as readers see them: sensible digits, and never another value."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reports import formats

SUPERSCRIPTS = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")


def read(text: str) -> float:
    """The number that a formatted text says."""
    text = text.replace("−", "-").replace(",", "").translate(SUPERSCRIPTS)
    mantissa, times, exponent = text.partition("×10")
    return float(mantissa) * 10.0 ** int(exponent) if times else float(text)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=-1e300, max_value=1e300))
def test_a_number_alone_keeps_five_digits(value):
    assert math.isclose(read(formats.number(value)), value, rel_tol=6e-5, abs_tol=1e-300)


@given(st.integers())
def test_whole_numbers_are_exact(value):
    assert int(formats.number(value).replace("−", "-").replace(",", "")) == value


@given(st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6), st.integers(-(10**9), 10**9)), min_size=1, max_size=8))
def test_a_column_keeps_three_digits_of_every_number(values):
    for text, value in zip(formats.column(values), values, strict=True):
        if value is None:
            assert text == "–"
        else:
            assert math.isclose(read(text), value, rel_tol=6e-3, abs_tol=1e-300)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ([0.25, 0.0], ["0.25", "0"]),
        ([1.8731234, 0.0123, None], ["1.8731", "0.0123", "–"]),
        ([0.5, 0.25, 1 / 3], ["0.5000", "0.2500", "0.3333"]),
        ([124_439_808, 50_257], ["124,439,808", "50,257"]),
        ([2e6, 1e7, 3e7], ["2,000,000", "10,000,000", "30,000,000"]),
        ([2017, 2019], ["2017", "2019"]),
        ([3.2e-9, 1.0], ["3.2×10⁻⁹", "1.0×10⁰"]),
        ([0.5, 1.0, 2.0], ["0.5", "1.0", "2.0"]),
        ([1e-8, 2e-5], ["1×10⁻⁸", "2×10⁻⁵"]),
        ([True, False, "text"], ["yes", "no", "text"]),
        ([math.nan, math.inf, -math.inf, 1.5], ["NaN", "∞", "−∞", "1.5"]),
        (["NaN", "Infinity"], ["NaN", "∞"]),
        ([-1.0, 2.0], ["−1", "2"]),
    ],
)
def test_columns(values, shown):
    assert formats.column(values) == shown


@given(st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=8))
def test_a_column_has_one_style(values):
    shown = [text for text in formats.column(values) if text != "0"]
    assert len({("×10" in text, len(text.partition("×")[0].partition(".")[2])) for text in shown}) <= 1


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("1.87 ± 0.02", 1.87),
        ("−3.5 %", -3.5),
        ("12,345", 12345.0),
        ("2.1×", 2.1),
        ("1e-05", 1e-5),
        ("≤ 3", 3.0),
        (7, 7.0),
        (True, None),
        ("layer 3", None),
        ("3 layers", None),
        ("", None),
        ("1.2.3", None),
    ],
)
def test_the_number_a_cell_sorts_by(cell, value):
    assert formats.leading_number(cell) == value


def test_bounds_of_checks():
    assert formats.bound("<= 1e-05") == "≤ 1×10⁻⁵"
    assert formats.bound(">= 0.95") == "≥ 0.95"
    assert formats.bound("== 36") == "36"
    assert formats.bound("== 124439808") == "124,439,808"
    assert formats.bound("== True") == "yes"
    assert formats.bound("0.25 ± 1e-06") == "0.25 ± 1×10⁻⁶"


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (12.3, "12 s"),
        (60, "1 min"),
        (185.2, "3 min 5 s"),
        (7800, "2 h 10 min"),
        (3600, "1 h"),
    ],
)
def test_durations(seconds, shown):
    assert formats.duration(seconds) == shown


def test_moments():
    assert formats.moment("2026-11-24T04:30:00+01:00") == "2026-11-24 03:30 UTC"
    assert formats.moment("yesterday") == "yesterday"
