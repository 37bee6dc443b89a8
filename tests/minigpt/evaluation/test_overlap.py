"""What two splits have in common, on texts where it can be counted by hand."""

from minigpt.evaluation.overlap import shared_lines, shared_runs, without_shared_lines

HELD_OUT = "O give thanks unto the Lord; for he is good.\nAmen.\nThe heavens declare the glory of God.\n"
TRAIN = (
    "In the beginning was a line of its own.\n"
    "o give thanks unto the LORD, for he is good!\n"
    "\n"
    "Amen.\n"
    "The heavens declare the glory of him that made them.\n"
)


def test_lines_that_say_the_same_go_from_the_training_text():
    assert shared_lines(TRAIN, HELD_OUT) == ["o give thanks unto the LORD, for he is good!"]
    kept = without_shared_lines(TRAIN, HELD_OUT)
    assert kept == TRAIN.replace("o give thanks unto the LORD, for he is good!\n", "")
    assert shared_lines(kept, HELD_OUT) == []


def test_a_text_without_common_lines_stays_as_it_is():
    assert without_shared_lines("one line that is not there\r\nand another one\x0cof its own", HELD_OUT) == (
        "one line that is not there\r\nand another one\x0cof its own"
    )
    assert without_shared_lines("", HELD_OUT) == ""


def test_a_text_made_of_common_lines_is_left_alone():
    line = "the same line again and again\n"
    assert without_shared_lines(line * 9 + "and one that is not\n", line) == line * 9 + "and one that is not\n"


def test_runs_are_counted_in_words():
    train = "a b c d e f g h i"
    assert shared_runs(train, "X, a B c d; e f g h. Y", 8) == 1 / 3  # of ten words: three runs, one of them shared
    assert shared_runs(train, "a b", 8) == 0.0
