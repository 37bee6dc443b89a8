from types import SimpleNamespace

import pytest
import regex
from hypothesis import given
from hypothesis import strategies as st

from minigpt.evaluation.words import (
    common_words,
    is_punctuation,
    letters_of_words,
    longest_copy,
    share_of_real_words,
    spaced,
    words,
)
from tests.any_text import KINDS


def test_words_keep_their_apostrophes_and_lose_marks_and_digits():
    assert words("God's voice, said: 40 d_ys!") == ["god's", "voice", "said", "d", "ys"]


def test_punctuation_is_marks_alone():
    assert all(map(is_punctuation, (",", ' "', '":', "…", " +=", "—", "”")))
    assert not any(map(is_punctuation, ("", " ", "\n", "a.", "'s", " 3", "\ufffd", "é")))


def test_the_last_word_may_be_cut_and_does_not_count():
    assert share_of_real_words(["The cat sta"], {"the", "cat"}) == 1.0
    assert share_of_real_words(["The cxt sta", "the the the"], {"the"}) == 0.75
    assert share_of_real_words([""], {"the"}) == 0.0


def test_the_first_word_may_be_cut_too():
    assert share_of_real_words(["th the cat", "x dog an y"], {"the", "dog"}, cut_start=True) == 2 / 3
    assert share_of_real_words(["th the cat", "x dog an y"], {"the", "dog"}) == 2 / 5
    assert share_of_real_words(["ab", "ab cd"], {"ab"}, cut_start=True) == 0.0


@pytest.mark.parametrize(
    ("text", "source", "length"),
    [("xxabcdyy", "..abcd..", 4), ("abc", "xyz", 0), ("abc", "zabcz", 3), ("", "abc", 0), ("ab", "", 0)],
)
def test_longest_copy(text, source, length):
    assert longest_copy(text, source) == length


@given(st.text("ab", max_size=12), st.text("ab", max_size=12))
def test_longest_copy_is_the_longest_common_substring(text, source):
    pieces = {text[i:j] for i in range(len(text)) for j in range(i, len(text) + 1)}
    assert longest_copy(text, source) == max((len(piece) for piece in pieces if piece in source), default=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("सभी मनुष्यों को गौरव।", ["सभी", "मनुष्यों", "को", "गौरव"]),  # vowel signs are no letters to Python's re
        ("בְּרֵאשִׁית בָּרָא, אֱלֹהִים", ["בְּרֵאשִׁית", "בָּרָא", "אֱלֹהִים"]),
        ("هل للناس حق؟ می\u200cخواهم", ["هل", "للناس", "حق", "می\u200cخواهم"]),
        ("道可道，非常道。", ["道", "可", "道", "非", "常", "道"]),
        ("ひとカタ", ["ひ", "と", "カ", "タ"]),
        ("ที่นี่ไทย", ["ที่", "นี่", "ไ", "ท", "ย"]),
        ("한국어 말이다", ["한국어", "말이다"]),
        ("Zoe\u0308 naïve l’été İ", ["zoe\u0308", "naïve", "l’été", "i̇"]),
        ("👩‍👩‍👧 1️⃣ ❤️ 42 _", []),
        ("\u0301\u200d", []),
        ("道a可b", ["道", "a", "可", "b"]),
    ],
)
def test_words_of_any_script(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_signs_of_any_script() -> None:
    assert all(map(is_punctuation, ("。", "，", "।", "؟", "❤️", "👍🏽", "👩‍👩‍👧", "🇩🇪", "«»", " ־ ")))
    assert not any(map(is_punctuation, ("道", "ि", "1️⃣", "\u200d", "\u3000", "٣")))


def test_letters_of_words_are_letters_and_their_marks() -> None:
    assert all(map(letters_of_words, ("a", "Zoë", "é", "न", "ि", "ש", "\u05b0", "ح", "한", "\u200c")))
    assert not any(map(letters_of_words, ("", " ", "1", "a b", "道", "ひ", "😀", "-", "\ufffd", "।")))


@pytest.mark.parametrize("kind", KINDS)
def test_white_space_divides_the_words_of_most_scripts(kind: str) -> None:
    assert spaced(KINDS[kind](3_000)) == (kind not in ("chinese", "emoji", "two letters"))


def test_a_text_without_words_is_not_spaced() -> None:
    assert not spaced("")
    assert not spaced(" \n" * 40)
    assert not spaced("ที่นี่ไม่มีช่องว่างระหว่างคำ" * 3)


@pytest.mark.parametrize("kind", KINDS)
def test_words_are_made_of_letters_of_words(kind: str) -> None:
    text = KINDS[kind](1_500)
    for word in words(text):
        assert letters_of_words(word) or len(regex.findall(r"\p{L}", word)) == 1 or "'" in word
    assert bool(words(text)) == (kind not in ("emoji", "a mark and a space"))


def test_common_words_are_the_whole_ones_of_a_vocabulary():
    pieces = [" The", "he", " cat", " 12", "cat", " b"]
    tokenizer = SimpleNamespace(vocab_size=len(pieces), decode=lambda ids: "".join(pieces[i] for i in ids))
    assert common_words(tokenizer) == {"the", "cat", "b"}
