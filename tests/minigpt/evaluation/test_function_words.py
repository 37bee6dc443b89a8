import itertools

from minigpt.evaluation.function_words import FUNCTION_WORDS, is_function_word

FUNCTION = "the And thou THY ye unto hath shalt wherefore of I don't won’t he'll upon not"
CONTENT = "God LORD's altar brass make said went red quickly house Moses can't-do"


def test_classes_by_example() -> None:
    assert [word for word in FUNCTION.split() if not is_function_word(word)] == []
    assert [word for word in CONTENT.split() if is_function_word(word)] == []


def test_lists_hold_words_in_lower_case() -> None:
    forms = list(itertools.chain.from_iterable(FUNCTION_WORDS.values()))
    assert all(form.isalpha() and form == form.lower() for form in forms)
    assert 250 < len(set(forms)) < 500


def test_half_of_a_page_is_function_words() -> None:
    """A rule of thumb of English corpora: 40 to 60 % of running words."""
    text = (
        "In the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness "
        "was upon the face of the deep. And the Spirit of God moved upon the face of the waters."
    )
    words = text.replace(",", "").replace(".", "").replace(";", "").split()
    assert 0.4 < sum(map(is_function_word, words)) / len(words) < 0.65
