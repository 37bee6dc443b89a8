import pytest
import torch

from minigpt.evaluation.excerpts import leading, opening, places, spread_starts, windows


def test_windows_reach_from_end_to_end_without_overlap() -> None:
    found = windows(torch.arange(100), 4, 20)
    assert found.shape == (4, 20)
    assert found[0, 0] == 0
    assert found[-1, -1] == 99
    assert (found[1:, 0] > found[:-1, -1]).all()
    assert (found.diff(dim=1) == 1).all()


def test_windows_of_a_short_sequence() -> None:
    assert windows(torch.arange(50), 4, 20).shape == (2, 20)
    assert windows(torch.arange(7), 4, 20).tolist() == [list(range(7))]
    assert windows(torch.arange(40), 2, 20).tolist() == [list(range(20)), list(range(20, 40))]
    with pytest.raises(ValueError, match="0 tokens"):
        windows(torch.arange(0), 4, 20)


def test_places() -> None:
    assert places(32, 127, 5) == [51, 70, 89, 108, 127]
    assert places(10, 12, 8) == [11, 12]


# Prompts begin and end where words do, each in a stretch of its own.

TEXT = "In the beginning God created the heaven and the earth. And the earth was without form, and void; " * 20


@pytest.mark.parametrize("length", [0, 12, 30])
def test_words_stay_whole(length: int) -> None:
    last = len(TEXT) - 60
    starts = spread_starts(TEXT, 8, last, length)
    for i, start in enumerate(starts):
        assert i * (last + 1) // 8 <= start < (i + 1) * (last + 1) // 8
        assert start == 0 or TEXT[start - 1] == " "
        assert TEXT[start].isalnum()
        if length:
            assert TEXT[start + length - 1].isalnum()
            assert TEXT[start + length] == " "


def test_without_words_there_are_prompts_all_the_same() -> None:
    assert spread_starts("-" * 100, 4, 79, 20) == [0, 20, 40, 60]
    assert spread_starts("a" * 100, 2, 79, 20) == [0, 40]
    assert spread_starts("abcde fghij" * 2, 1, 0, 4) == [0]  # begins with a word, ends inside of it


@pytest.mark.parametrize(("count", "last", "length"), [(0, 5, 0), (8, 5, 0), (2, 95, 10)])
def test_no_room(count: int, last: int, length: int) -> None:
    with pytest.raises(ValueError, match="cannot take"):
        spread_starts("a b " * 25, count, last, length)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("first\nThe second line has more than six words.\n", "The second line has more than"),
        ("only one line of text that is long enough", "only one line of text that"),
        ("道可道\n" + "非常道" * 40, "非常道" * 20),
        ("what stands before\n", "what stands before"),
        ("first\n   \n", "first"),
        (" \n ", " "),
        ("", ""),
    ],
)
def test_the_opening_of_a_text(text: str, expected: str) -> None:
    assert opening(text) == expected


def test_leading_windows_follow_each_other() -> None:
    ids = torch.arange(10)
    assert leading(ids, 2, 3).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert leading(ids, 9, 3).tolist() == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]
    assert leading(ids, 2, 40).tolist() == [list(range(10))]
    for count, length in ((0, 3), (2, 0), (-1, 3)):
        with pytest.raises(ValueError, match="cannot take"):
            leading(ids, count, length)
    with pytest.raises(ValueError, match="0 tokens"):
        leading(ids[:0], 2, 3)
