"""Measured numbers as words: the filters of ``answer.md``, which read well for 0, 1, many and equal.

    {{ loss | fixed(3) }}               1.234        {{ share | percent }}            93%
    {{ gain | signed }}                 +0.130       {{ 1 | plural("seed") }}         1 seed
    {{ tokens | count }}                12,345       {{ names | listed }}             a, b and c
    {{ times | span(1) }}               5.2 to 5.4   {{ losses | mean_std }}          1.559 ± 0.005
    {{ piece | token }}                 `␣cat`       {{ before | moves(after, 1) }}   rises from 5.3 to 5.4
    {{ comparison | describe("RoPE", "learned positions") }}      the sentence that the data allow

Negative numbers get a minus sign (U+2212), not a hyphen.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Any, Protocol

from reports.text import on_one_line, token_label

ALONE = "which carries no claim"  # said of comparisons without repetition; the page's opening looks for it


class Difference(Protocol):
    """A comparison of two groups of values: ``minigpt.evaluation.statistics.Comparison``, by its fields."""

    @property
    def difference(self) -> float: ...  # noqa: D102

    @property
    def interval(self) -> tuple[float, float]: ...  # noqa: D102

    @property
    def verdict(self) -> str: ...  # noqa: D102

    @property
    def seeds(self) -> tuple[int, int]: ...  # noqa: D102

    @property
    def confidence(self) -> float: ...  # noqa: D102

    @property
    def baseline(self) -> tuple[float, float]: ...  # noqa: D102

    @property
    def other(self) -> tuple[float, float]: ...  # noqa: D102

    @property
    def p_value(self) -> float: ...  # noqa: D102

    @property
    def paired(self) -> bool: ...  # noqa: D102

    @property
    def among(self) -> int: ...  # noqa: D102


def formatted(value: float, spec: str) -> str:
    """Python's own format specification, with a minus sign: for what has no filter of its own.

    The exponent keeps its hyphen: the page makes powers of ten of "1e-05".
    """
    text = format(value, spec)
    if text.startswith("-"):
        nothing = not any(digit in text.partition("e")[0] for digit in "123456789")
        return text[1:] if nothing and not math.isinf(value) else text.replace("-", "−", 1)
    return text


def fixed(value: float, digits: int = 3) -> str:
    """So many digits after the point: "1.234"."""
    return formatted(value, f".{digits}f")


def signed(value: float, digits: int = 3) -> str:
    """With its sign: "+0.130", "−0.130"."""
    return formatted(value, f"+.{digits}f")


def significant(value: float, digits: int = 3) -> str:
    """So many significant digits, without trailing zeros: "0.0123"."""
    return formatted(value, f".{digits}g")


def scientific(value: float, digits: int = 1) -> str:
    """Such as "1.2e-05", which the page shows as a power of ten."""
    return formatted(value, f".{digits}e")


def count(value: float, digits: int = 0) -> str:
    """With separators between thousands: "50,257"."""
    return formatted(value, f",.{digits}f")


def percent(value: float, digits: int = 0) -> str:
    """A share of 1 in percent: "93%"."""
    return formatted(value, f".{digits}%")


def nats(value: float, digits: int = 3) -> str:
    """With the unit: "1.234 nats"."""
    return f"{fixed(value, digits)} nats"


def plural(number: float, one: str, many: str | None = None) -> str:
    """A number and its noun: "1 seed", "3 seeds", "no seeds". ``many`` is ``one`` + "s" unless given.

    Whole numbers have no decimals, floats among them: "399,360 characters".
    """
    noun = one if number == 1 else many or f"{one}s"
    whole = math.isfinite(number) and number == int(number)
    return f"{'no' if number == 0 else f'{int(number) if whole else number:,}'} {noun}"


def noun(number: float, one: str, many: str | None = None) -> str:
    """The word that goes with a number, without it: "is" or "are"."""
    return one if number == 1 else many or f"{one}s"


_SPELLED = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def spelled(number: int, one: str = "", many: str | None = None) -> str:
    """Small whole numbers as words, up to twelve, with their noun where there is one: "three", "three tokens"."""
    word = _SPELLED[number] if number in range(len(_SPELLED)) else f"{number:,}"
    return f"{word} {noun(number, one, many)}" if one else word


def listed(items: Iterable[object], last: str = "and") -> str:
    """Names in a row: "a", "a and b", "a, b and c"; "none" of nothing."""
    names = [str(item) for item in items]
    if len(names) < 2:
        return names[0] if names else "none"
    return f"{', '.join(names[:-1])} {last} {names[-1]}"


def span(values: Iterable[float], digits: int = 3, *, spec: str = "", joint: str = " to ") -> str:
    """Smallest and largest: "5.2 to 5.4", or "5.3" where both read the same. ``spec`` is Python's own."""
    found = list(values)
    low, high = (formatted(end, spec or f".{digits}f") for end in (min(found), max(found)))
    return low if low == high else f"{low}{joint}{high}"


def moves(
    before: float,
    after: float,
    digits: int = 3,
    *,
    spec: str = "",
    up: str = "rises",
    down: str = "falls",
    unit: str = "",
) -> str:
    """What became of a value: "rises from 5.3 to 5.4", "falls from 5.4 to 5.3", "stays at 5.3" where both read so.

    ``spec`` is Python's own.
    """
    first, last = (formatted(value, spec or f".{digits}f") for value in (before, after))
    unit = f" {unit}" if unit else ""
    if first == last:
        return f"stays at {first}{unit}"
    return f"{up if after > before else down} from {first} to {last}{unit}"


def mean_std(values: Sequence[float], digits: int = 3, unit: str = "") -> str:
    """Mean and deviation: "1.559 ± 0.005 nats" over several seeds, "1.559 nats (one seed)" of one."""
    unit = f" {unit}" if unit else ""
    if len(values) == 1:
        return f"{fixed(values[0], digits)}{unit} (one seed)"
    return f"{fixed(fmean(values), digits)} ± {fixed(stdev(values), digits)}{unit}"


def direction(difference: float, higher: str = "higher", lower: str = "lower", equal: str = "equal") -> str:
    """The word for the sign of a difference."""
    return higher if difference > 0 else lower if difference < 0 else equal


def verdict(comparison: Difference, higher: str = "higher", lower: str = "lower") -> str:
    """In a word: "higher", "lower", "inside the noise", or why nothing can be said."""
    words = {
        "higher": higher,
        "lower": lower,
        "noise": "inside the noise",
        "one of many": f"not as one of {comparison.among}",
        "untrained": "not trained far enough to say",
        "no time": "no finished training of that time",
    }
    return words.get(comparison.verdict, "open: there is one seed")


def interval(comparison: Difference, digits: int = 3) -> str:
    """Such as "95% interval −0.145 to −0.115"."""
    low, high = comparison.interval
    return f"{comparison.confidence:.0%} interval {signed(low, digits)} to {signed(high, digits)}"


def describe(
    comparison: Difference,
    other: str,
    baseline: str,
    *,
    quantity: str = "validation loss",
    unit: str = "nats",
    digits: int = 3,
    of: str = "seeds",
) -> str:
    """The sentence that the data allow: noise only where the interval says so. ``of`` is what was repeated.

    ``{{ rope | describe("RoPE", "learned positions") }}`` may give "The validation loss of RoPE is 0.130 nats lower
    than that of learned positions (95% interval −0.145 to −0.115, 3 seeds each)."
    """
    c, unit = comparison, f" {unit}" if unit else ""
    size = f"{fixed(abs(c.difference), digits)}{unit}"
    subject = f"The {quantity} of {other}"
    if c.verdict == "untrained":
        return (
            f"Whether {other} or {baseline} has the lower {quantity} cannot be said: not both are trained far enough "
            "to beat the bigram."
        )
    if c.verdict == "no time":
        return f"{upper_first(other)} and {baseline} have no finished trainings of equal time to compare."
    if c.verdict == "one seed":
        one = f"with one {of.removesuffix('s')}, {ALONE}"
        if float(fixed(abs(c.difference), digits)) == 0:
            return f"{subject} and that of {baseline} are equal to {_places(digits)}, {one}."
        sides = ((baseline, c.baseline, c.seeds[0]), (other, c.other, c.seeds[1]))
        vary = [f"; those of {name} vary by {fixed(spread, digits)}{unit}" for name, (_, spread), n in sides if n > 1]
        return f"{subject} is {size} {direction(c.difference)} than that of {baseline}, {one}{''.join(vary)}."
    seeds = f"{c.seeds[0]} {of} each" if c.seeds[0] == c.seeds[1] else f"{c.seeds[1]} and {c.seeds[0]} {of}"
    evidence = f"({interval(c, digits)}, {f'{c.seeds[0]} {of}, in pairs' if c.paired else seeds})"
    if c.verdict == "noise":
        if float(fixed(abs(c.difference), digits)) == 0:
            return f"{subject} and that of {baseline} are equal at the mean to {_places(digits)} {evidence}."
        return f"{subject} and that of {baseline} differ by {size} at the mean, which is inside the noise {evidence}."
    sentence = f"{subject} is {size} {direction(c.difference)} than that of {baseline} {evidence}"
    if c.verdict == "one of many":
        return (
            f"{sentence}: enough alone, but not as one of {c.among} comparisons (p = {fixed(c.p_value, 2)} after "
            "Holm's correction)."
        )
    return f"{sentence}."


def unconfirmed(comparison: Difference, of: str, why: str) -> str:
    """What a comparison leaves of the prediction that its difference is positive; ``of`` is what was repeated.

    ``{{ gain | unconfirmed("prompt", "it is inside the noise") }}`` may give "not shown, and not refuted either: it is
    inside the noise".
    """
    if comparison.verdict == "lower":
        return "refuted here"
    if comparison.verdict == "one seed":
        return f"not to be said of one {of}"
    return f"not shown, and not refuted either: {why}"


def _places(digits: int) -> str:
    return f"{spelled(digits)} {noun(digits, 'decimal')}" if digits else "whole numbers"


def code(text: str) -> str:
    """Text as it is, in Markdown's code font: for what a model or a user wrote."""
    ticks = "`"
    while ticks in text:
        ticks += "`"
    pad = " " if text.startswith("`") or text.endswith("`") or not text.strip() else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def shown_token(text: str) -> str:
    """A token in a cell or a label, its blanks visible: "␣cat", "↵"."""
    return token_label(text)


def shown_text(text: str) -> str:
    """A piece of text in a cell: line feeds, and blanks at its ends or in a row, are visible: "…thou shalt␣"."""
    return on_one_line(text)


def token(text: str) -> str:
    """A token within a sentence: in Markdown's code font, its blanks visible."""
    return code(token_label(text))


def upper_first(text: str) -> str:
    """The text with a capital: for a name that begins a sentence."""
    return text[:1].upper() + text[1:]


_COUNTED = (
    r"(?:runs|seeds|tokens|samples|steps|prompts|texts|words|layers|heads|models|characters|lines|sentences|epochs|"
    r"passes|blocks|documents|rows|sequences|positions|pieces|beams|parameters|draws|places|windows|pairs|bits|bytes|"
    r"cases|questions|sizes|variants|exercises|checks|are|have|were)"
)
_ODD = (
    (re.compile(rf"(?<![\d.,/×=^–-])(?<![+−] )\b1 {_COUNTED}\b"), "one of something in the plural"),
    (re.compile(rf"(?<![\d.,/×=^–-])\b0 {_COUNTED}\b"), '"0", which reads as "no"'),
    (re.compile(r"\bfrom ([−+]?\d[\d,.]*%?) to \1(?![\d.,]*\d)"), "a change from a number to itself"),
    (re.compile(r"\b(?:between|lie between) ([−+]?\d[\d,.]*%?) and \1(?![\d.,]*\d)"), "a range without extent"),
    (
        re.compile(r"(?<![\d.])\b0\.0+ (?:nats |bits )?(?:higher|lower|more|less|better|worse)\b"),
        "a difference of nothing",
    ),
    (re.compile(r"\S {2,}\S| [,;:.](?= |$)|\(\s*\)|\( | \)"), "blanks or brackets around nothing"),
    (re.compile(r"\b(?:nan|inf|True|False)\b"), "a value that is no word"),
    (re.compile(r"[A-Za-z]\^[-−]?[\d{]|\\[A-Za-z]"), "raw TeX"),
)


def oddities(text: str) -> list[str]:
    """What reads oddly in a filled text: each with its reason. Code and formulas are left aside.

    A template reads well at the numbers that its author had in mind; this finds where it does not at others.
    """
    plain = re.sub(r"(`+).*?\1|\$\$.*?\$\$|\$[^$\n]+\$", "¤", text, flags=re.DOTALL)
    plain = re.sub(r"^\s*(?:[-*>] )?|\s*\n\s*(?:[-*>] )?", " ", plain).strip()
    return [
        f"{reason}: …{plain[max(0, found.start() - 30) : found.end() + 30]}…"
        for pattern, reason in _ODD
        for found in pattern.finditer(plain)
    ]


FILTERS: Mapping[str, Any] = {
    function.__name__: function
    for function in (
        formatted,
        fixed,
        signed,
        significant,
        scientific,
        count,
        percent,
        nats,
        plural,
        noun,
        spelled,
        listed,
        span,
        moves,
        mean_std,
        direction,
        verdict,
        interval,
        describe,
        unconfirmed,
        code,
        token,
        upper_first,
    )
}
