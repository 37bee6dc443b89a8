"""Sentences that read well at 0, 1, many and equal: rules for every ``answer.md``, and what finds lapses."""

import re
from pathlib import Path

import pytest

from minigpt.evaluation.statistics import compare
from reports import words
from reports.words import moves, oddities

ROOT = Path(__file__).parent.parent.parent
TEMPLATES = sorted((ROOT / "tasks" / "exercises").glob("*/answer.md"))
COUNTED = (
    "runs|seeds|tokens|samples|steps|prompts|texts|words|layers|heads|models|characters|lines|sentences|epochs|passes|"
    "blocks|documents|rows|sequences|positions|pieces|beams|parameters|draws|places|windows|pairs|cases|questions|sizes"
)
# A number that is a count (nothing formats it, or only thousands separators do), then a noun in the plural.
BARE = re.compile(r"\{\{-? ((?:(?!\}\}).)*?) -?\}\}\s+(" + COUNTED + r")\b", re.DOTALL)
FROM_TO = re.compile(r"\b[Ff]rom\s+\{\{((?:(?!\}\}).)*?)\}\}\s+to\s+\{\{", re.DOTALL)


def bare(text: str) -> list[str]:
    """Counts before a plural that would stay a plural at 1."""
    found = []
    for match in BARE.finditer(text):
        *_, last = match[1].rpartition(" | ")
        if "|" not in match[1] or last.split("(")[0] in ("count", "length", "spelled"):
            found.append(match[0])
    return found


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.parent.name)
def test_counts_agree_with_their_nouns(path):
    assert not bare(path.read_text(encoding="utf-8")), 'write {{ n | plural("token") }}'


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.parent.name)
def test_what_goes_from_one_number_to_another_may_stay(path):
    text = path.read_text(encoding="utf-8")
    numbers = [
        match[0] for match in FROM_TO.finditer(text) if re.search(r"\| (?:fixed|percent|count|significant)", match[1])
    ]
    assert not [n for n in numbers if "likeliest" not in n and "entropy" not in n], "write {{ before | moves(after) }}"


def test_the_rules_find_what_they_are_for():
    assert bare("{{ n }} tokens") == ["{{ n }} tokens"]
    assert bare("{{ n | count }}\ntokens")
    assert not bare('{{ n | plural("token") }} tokens {{ x | fixed(2) }} tokens')
    assert FROM_TO.search("goes from {{ a | fixed(2) }} to\n{{ b }}")


@pytest.mark.parametrize(
    ("before", "after", "text"),
    [(5.31, 5.29, "stays at 5.3"), (5.2, 5.4, "rises from 5.2 to 5.4"), (0, -1, "falls from 0.0 to −1.0")],
)
def test_what_became_of_a_value(before, after, text):
    assert moves(before, after, 1) == text


def test_moves_have_units_words_and_forms():
    assert moves(0.31, 0.72, spec=".0%", up="climbs") == "climbs from 31% to 72%"
    assert moves(1.0, 1.0, 1, unit="nats") == "stays at 1.0 nats"
    assert moves(2.0, 1.0, 0, down="fell", unit="nats") == "fell from 2 to 1 nats"


def test_equal_values_are_called_equal():
    same, single = compare([1.0, 1.1, 0.9], [1.0, 1.1, 0.9]), compare([1.0], [1.0001])
    assert "are equal at the mean to three decimals" in words.describe(same, "B", "A")
    assert words.describe(single, "B", "A") == (
        "The validation loss of B and that of A are equal to three decimals, with one seed, which carries no claim."
    )
    assert "0.709 nats higher than that of A, with one seed, which carries no claim." in words.describe(
        compare([1.0], [1.709]), "B", "A"
    )


@pytest.mark.parametrize(
    "odd",
    [
        "Medians of 1 runs.",
        "In 0 tokens.",
        "It goes from 5.3 to 5.3.",
        "It lies between 3% and 3% of them.",
        "A is 0.000 nats lower.",
        "It scales as L^-0.55.",
        "A gap , here.",
        "Nothing ( ) here.",
        "It is nan.",
        "One  two.",
    ],
)
def test_what_reads_oddly_is_found(odd):
    assert len(oddities(odd)) == 1


@pytest.mark.parametrize(
    "fine",
    [
        "Medians of 1 run, of 21 runs and of 0.1 tokens.",
        "From 5.3 to 5.31, and from 1 to 10 tokens; γ + 1 tokens of them.",
        "A is 0.010 nats lower. See $L^{-2}$, `L^-2` and $$1 tokens$$.",
        "- a list\n- of two\n\n",
        "Words (one, or none) stand here: so.",
    ],
)
def test_what_reads_well_is_let_pass(fine):
    assert oddities(fine) == []
