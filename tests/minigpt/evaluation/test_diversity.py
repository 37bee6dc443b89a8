"""Repetition and distinct-n on texts small enough to count by hand."""

import pytest

from minigpt.evaluation.diversity import distinct, ngrams, repetition


def test_ngrams_by_hand():
    assert ngrams("abcd", 2) == [("a", "b"), ("b", "c"), ("c", "d")]
    assert ngrams("ab", 3) == []
    with pytest.raises(ValueError, match="at least 1"):
        ngrams("ab", 0)


def test_repetition_by_hand():
    assert repetition("abcabc", 3) == 1 / 4  # abc bca cab abc
    assert repetition([1, 1, 1, 1], 1) == 3 / 4
    assert repetition([1, 2, 1, 2, 1], 2) == 1 / 2  # 12 21 12 21
    assert repetition([7] * 11, 4) == 1 - 1 / 8
    assert repetition(range(10), 2) == 0.0
    assert repetition("a", 4) == 0.0


def test_distinct_by_hand():
    assert distinct(["ab", "ab"], 2) == 1 / 2  # pooled: alone, each text has nothing but distinct bigrams
    assert distinct([["the", "cat"], ["the", "dog"]], 1) == 3 / 4
    assert distinct([], 1) == 0.0


def test_one_text_links_the_two():
    text = "to be or not to be that is the question to be"
    for n in (1, 2, 3):
        assert distinct([text.split()], n) == pytest.approx(1 - repetition(text.split(), n))
