"""The textbook's wording: complete, verbatim, split into its parts."""

import hashlib
import re
from importlib import resources

import pytest

from reports.chapter import CHAPTER, GROUPS, QUESTIONS, Chapter, exercise_id

# SHA-256 of the textbook's text with every run of white space as one space.
VERBATIM = "89388e8a7e2700b043a8ad9a0b87a6ebc473e3be2aa4393693662988a29c00dd"
TEXT = resources.files("reports").joinpath("data/chapter-21.md").read_text(encoding="utf-8")
BOOK = TEXT.split("### Exercise 21.36")[0]  # what somebody adds comes after the book's own


def test_the_wording_is_the_textbooks_own():
    words = " ".join(re.sub(r"^#+ ", "", BOOK, flags=re.MULTILINE).split())
    assert hashlib.sha256(words.encode()).hexdigest() == VERBATIM


def test_nothing_is_lost_between_the_file_and_the_questions():
    book = Chapter.parse(BOOK)
    rebuilt = [book.title]
    for group in GROUPS:
        rebuilt.append(f"{group} Exercises")
        for question in book.group(group):
            parts = [f"({letter}) {text}" for letter, text in question.parts.items()]
            rebuilt += [f"Exercise {question.number}: {question.title}", question.stem, *parts, question.closing]
    assert hashlib.sha256(" ".join(" ".join(rebuilt).split()).encode()).hexdigest() == VERBATIM


def test_thirty_five_exercises_in_three_groups():
    book = Chapter.parse(BOOK)
    assert list(book.questions) == [f"21.{number:02d}" for number in range(1, 36)]
    assert [len(book.group(group)) for group in GROUPS] == [10, 14, 11]
    assert list(QUESTIONS)[:35] == list(book.questions)
    assert list(CHAPTER.questions) == list(QUESTIONS)


def test_letters_follow_one_another():
    for question in QUESTIONS.values():
        assert "".join(question.parts) == "abcde"[: len(question.parts)]
    assert {question.id for question in Chapter.parse(BOOK).questions.values() if question.letters == ("",)} == {
        "21.01",
        "21.03",
        "21.11",
        "21.13",
        "21.15",
        "21.16",
    }


def test_parts_of_one_exercise():
    question = QUESTIONS["21.22"]
    assert question.parts == {
        "a": "Training loss curves.",
        "b": "Validation perplexity.",
        "c": "Quality of generated text (subjective evaluation).",
        "d": "Training time per epoch.",
    }
    assert question.stem.endswith("Train all three on the same dataset and compare:")
    assert QUESTIONS["21.18"].closing.startswith("Run each strategy 10 times")


def test_ids_are_found_with_and_without_the_zero():
    assert QUESTIONS["21.8"] is QUESTIONS["21.08"]
    assert QUESTIONS["21.08"].number == "21.8"
    assert "21.99" not in QUESTIONS
    assert "nonsense" not in QUESTIONS
    with pytest.raises(ValueError, match="21"):
        exercise_id("21")


def test_a_bad_heading_is_refused():
    with pytest.raises(ValueError, match="Exercise 21"):
        Chapter.parse("# T\n## Conceptual\n### Exercise 21\n")
    with pytest.raises(ValueError, match="Other"):
        Chapter.parse("# T\n## Other\n")
