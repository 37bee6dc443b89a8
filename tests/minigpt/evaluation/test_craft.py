import pytest

from minigpt.evaluation.craft import Source

SOURCE = Source("In the beginning God created the heaven and the earth. And the earth was without form.")


def test_words_and_pairs_by_hand():
    # The first and the last word may be cut: "xx" and "hea" count nowhere.
    found = SOURCE.judge(["xx the earth was cremated and the hea"])
    assert found.spelled == (5 / 6,)  # the earth was [cremated] and the
    assert found.paired == (3 / 5,)  # the-earth, earth-was, and-the; not was-cremated, cremated-and
    assert found.invented == ("cremated",)
    assert found.fluent == "the earth was"


def test_a_common_word_is_not_invented_though_the_source_lacks_it():
    found = Source(SOURCE.text, common=["has", "was"]).judge(["xx the earth has cremated and the hea"])
    assert found.invented == ("cremated",)
    assert found.spelled == (4 / 6,)


def test_the_source_itself_is_flawless_and_copied():
    found = SOURCE.judge([SOURCE.text])
    assert found.spelled == found.paired == (1.0,)
    assert found.copied == (len(SOURCE.text),)
    assert found.invented == ()
    assert found.fluent == "the beginning God created the heaven and the earth. And the earth was without"


def test_repetition_is_each_texts_own():
    found = SOURCE.judge(["abcdefgh" * 4, "abcdefghijklmnop"])
    assert found.repeated == (1 - 8 / 25, 0.0)


def test_a_fluent_run_does_not_cross_an_unknown_word_or_pair():
    found = SOURCE.judge(["x God created qqq the heaven without form and the earth x"])
    assert found.fluent == "and the earth"


@pytest.mark.parametrize("text", ["", "word", "two words", "1234 !!", "光 は"])
def test_a_text_without_inner_words_scores_nothing(text):
    found = SOURCE.judge([text])
    assert found.spelled == found.paired == (0.0,)
    assert found.fluent == ""


def test_no_text_is_refused():
    with pytest.raises(ValueError, match="no text"):
        SOURCE.judge([])
