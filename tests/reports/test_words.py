import math
from dataclasses import dataclass, replace

import pytest

from minigpt.evaluation.statistics import compare, compare_paired, holm
from reports import words


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "no seeds"),
        (1, "1 seed"),
        (2, "2 seeds"),
        (1500, "1,500 seeds"),
        (1500.0, "1,500 seeds"),
        (2.5, "2.5 seeds"),
    ],
)
def test_plural_reads_well_for_0_1_and_many(number, text):
    assert words.plural(number, "seed") == text


def test_nouns_that_do_not_end_in_s():
    assert words.plural(1, "verse is", "verses are") == "1 verse is"
    assert words.plural(3, "verse is", "verses are") == "3 verses are"
    assert words.noun(1, "it", "they") == "it"
    assert words.noun(0, "word") == "words"


def test_spelled():
    assert [words.spelled(n) for n in (0, 1, 12, 13)] == ["no", "one", "twelve", "13"]


def test_listed():
    assert [words.listed("abc"[:n]) for n in range(4)] == ["none", "a", "a and b", "a, b and c"]
    assert words.listed(["x", "y"], last="or") == "x or y"


def test_a_span_of_equal_ends_is_one_number():
    assert words.span([5.31, 5.29], 1) == "5.3"
    assert words.span([5.4, 5.2, 5.3], 1) == "5.2 to 5.4"
    assert words.span([0.72, 0.31], spec=".0%", joint=" and ") == "31% and 72%"


def test_numbers_have_a_minus_and_no_hyphen():
    assert words.fixed(-1.5, 2) == "−1.50"
    assert words.signed(0.13) == "+0.130"
    assert words.percent(-0.931, 1) == "−93.1%"
    assert words.count(50257) == "50,257"
    assert words.significant(0.012345, 2) == "0.012"
    assert words.formatted(-12345.678, ",.1f") == "−12,345.7"
    assert words.significant(-1.25e-7, 2) == "−1.2e-07"  # as the page's powers of ten want it
    assert words.scientific(6e-8, 0) == "6e-08"
    assert [words.fixed(-0.0001), words.signed(-0.0001), words.percent(-0.001)] == ["0.000", "0.000", "0%"]
    assert words.formatted(-math.inf, "g") == "−inf"


def test_mean_and_deviation():
    assert words.mean_std([1.0, 2.0, 3.0], 1) == "2.0 ± 1.0"
    assert words.mean_std([1.25], 2) == "1.25 (one seed)"
    assert words.mean_std([4.0], 2) == "4.00 (one seed)"
    assert words.mean_std([4.0], 2, "nats") == "4.00 nats (one seed)"
    assert words.mean_std([1.0, 3.0], 1, unit="nats") == "2.0 ± 1.4 nats"


@pytest.mark.parametrize(
    ("baseline", "other", "sentence"),
    [
        ([1.0, 1.01, 0.99], [0.5, 0.51, 0.49], "The loss of B is 0.500 nats lower than that of A (95% interval −0.5"),
        ([0.5, 0.51, 0.49], [1.0, 1.01, 0.99], "The loss of B is 0.500 nats higher than that of A (95% interval +0.4"),
        (
            [1.0, 2.0, 3.0],
            [1.1, 2.1, 3.1],
            "The loss of B and that of A differ by 0.100 nats at the mean, which is ins",
        ),
        (
            [1.0],
            [1.25],
            "The loss of B is 0.250 nats higher than that of A, with one seed, which carries no claim.",
        ),
    ],
)
def test_a_comparison_in_words(baseline, other, sentence):
    assert words.describe(compare(baseline, other), "B", "A", quantity="loss").startswith(sentence)


def test_a_comparison_of_pairs_says_what_was_repeated():
    found = compare_paired([1.0, 2.0, 3.0], [1.5, 2.51, 3.49])
    assert words.describe(found, "B", "A", of="prompts", unit="").endswith(", 3 prompts, in pairs).")
    assert words.verdict(found) == "higher"
    assert words.verdict(compare([1.0], [2.0])) == "open: there is one seed"
    assert words.interval(found, 1) == "95% interval +0.5 to +0.5"


def test_one_seed_carries_no_claim_and_says_how_far_others_vary():
    said = words.describe(compare([1.0, 1.01, 0.99], [1.7]), "B", "A")
    assert said.endswith("with one seed, which carries no claim; those of A vary by 0.010 nats.")
    assert "noise" not in said, "0.7 nats where seeds vary by 0.01"


def test_verdicts_that_are_none():
    found = replace(compare([1.0, 1.1], [2.0, 2.1]), verdict="untrained")
    assert "not both are trained far enough to beat the bigram" in words.describe(found, "B", "A")
    assert words.verdict(found) == "not trained far enough to say"
    found = replace(found, verdict="no time")
    assert words.describe(found, "window 2", "A") == (
        "Window 2 and A have no finished trainings of equal time to compare."
    )
    one = compare([1.0, 1.1, 0.9], [1.2, 1.3, 1.16])
    assert one.verdict == "higher"
    (many, *_) = holm([one, *[compare([1.0, 1.5, 0.5], [1.1, 1.6, 0.6])] * 3])
    assert words.verdict(many) == "not as one of 4"
    assert "enough alone, but not as one of 4 comparisons (p = 0." in words.describe(many, "B", "A")


def test_unequal_numbers_of_seeds():
    assert "(95% interval" in words.describe(compare([1.0, 1.1], [0.2, 0.21, 0.19]), "B", "A")
    assert "3 and 2 seeds)" in words.describe(compare([1.0, 1.1], [0.2, 0.21, 0.19]), "B", "A")


@pytest.mark.parametrize("text", ["plain", "a`b", "``", "`x", "*bold* <b>", " "])
def test_code_shows_any_text_as_it_is(text):
    from reports.prose import html_inline

    shown = str(html_inline(words.code(text)))
    assert shown.startswith("<code>")
    assert "<b>" not in shown
    assert shown.count("<code>") == 1


def test_tokens_show_their_blanks():
    assert [words.shown_token(text) for text in (" cat", "\n", "", " ")] == ["␣cat", "↵", "∅", "␣"]
    assert words.token(" cat") == "`␣cat`"
    assert words.shown_text("…thou shalt\nnot ") == "…thou shalt↵not␣"


def test_every_filter_is_there_under_its_name():
    assert all(function.__name__ == name and function.__doc__ for name, function in words.FILTERS.items())


@dataclass(frozen=True)
class _Infinite:
    difference: float = 1.0
    interval: tuple[float, float] = (-math.inf, math.inf)
    verdict: str = "noise"
    seeds: tuple[int, int] = (2, 2)
    confidence: float = 0.95
    baseline: tuple[float, float] = (0.0, 1.0)
    other: tuple[float, float] = (1.0, 1.0)
    p_value: float = 1.0
    paired: bool = False
    among: int = 1


def test_an_interval_without_end():
    assert words.interval(_Infinite()) == "95% interval −inf to +inf"


def test_sentences_say_no_more_than_the_data():
    lower = words.describe(compare([2.0, 2.01, 1.99], [1.0, 1.01, 0.99]), "a", "b")
    assert lower == (
        "The validation loss of a is 1.000 nats lower than that of b (95% interval −1.023 to −0.977, 3 seeds each)."
    )
    assert "inside the noise" in words.describe(compare([1.0, 1.5, 0.5], [1.1, 1.6, 0.6]), "a", "b")
    assert "one seed" in words.describe(compare([1.0], [2.0]), "a", "b")
    assert "3 texts each" in words.describe(compare([1.0, 1.5, 0.5], [1.1, 1.6, 0.6]), "a", "b", of="texts")
    assert " bits " in words.describe(compare([1.0], [2.0]), "a", "b", unit="bits")


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ((1.0, 1.2, 0.9), "refuted here"),
        ((2.0, 2.4, 1.7), "not shown, and not refuted either: it is inside the noise"),
        ((1.0,), "not to be said of one prompt"),
    ],
)
def test_what_is_left_of_a_prediction(other, said):
    found = compare_paired((2.0, 2.1, 1.9)[: len(other)], other)
    assert words.unconfirmed(found, "prompt", "it is inside the noise") == said
