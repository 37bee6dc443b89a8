import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigpt.evaluation.word_losses import (
    CONTENT,
    FUNCTION,
    LATER,
    MARK,
    OTHER,
    SPACE,
    describe,
    kinds_of_pieces,
    names_in,
    sentence_starts,
    words_of,
)

PIECES = ["ng", " the", " cand", "lest", "ick", ".", "\n", "And", " Mo", "ses", " said", ",", " 40", " da"]
TEXT = "".join(PIECES)
ENDS = [sum(map(len, PIECES[: i + 1])) for i in range(len(PIECES))]
LOSSES = [float(2**i) for i in range(len(PIECES))]  # every sum of different ones is different


def test_words_of_pieces_by_hand() -> None:
    words = words_of(TEXT, ENDS, LOSSES, window=6)
    found = [(w.text, w.pieces, w.first, w.loss, w.position, w.sentence, w.place, w.whole) for w in words]
    assert found == [
        ("ng", range(0, 1), 1, 1, 0, 0, None, False),
        ("the", range(1, 2), 2, 2, 1, 0, None, True),
        ("candlestick", range(2, 5), 4, 4 + 8 + 16, 2, 0, None, True),
        ("And", range(7, 8), 2**7, 2**7, 1, 1, 0, True),
        ("Moses", range(8, 10), 2**8, 2**8 + 2**9, 2, 1, 1, True),
        ("said", range(10, 11), 2**10, 2**10, 4, 1, 2, True),
        ("da", range(13, 14), 2**13, 2**13, 1, 1, 3, False),
    ]
    assert [w.function for w in words] == [False, True, False, True, False, False, False]
    assert kinds_of_pieces(PIECES, words) == [
        *(OTHER, FUNCTION, CONTENT, LATER, LATER, MARK, SPACE, FUNCTION, CONTENT, LATER, CONTENT, MARK, OTHER, OTHER)
    ]


def test_characters_give_the_same_words() -> None:
    ends = list(range(1, len(TEXT) + 1))
    by_character = words_of(TEXT, ends, [1.0] * len(ends), window=8)
    by_piece = words_of(TEXT, ENDS, LOSSES, window=6)
    assert [(w.text, w.start, w.place, w.whole) for w in by_character] == [
        (w.text, w.start, w.place, w.whole) for w in by_piece
    ]
    assert all(w.loss == len(w.text) and w.position == w.start % 8 for w in by_character)


@given(st.text(alphabet="ab A.\n'!", max_size=40), st.data())
def test_every_piece_is_in_one_word_at_most_and_holds_its_letters(text: str, data: st.DataObject) -> None:
    inner = data.draw(st.sets(st.integers(1, max(1, len(text) - 1)), max_size=10)) if len(text) > 1 else set()
    ends = sorted({*inner, len(text)}) if text else []
    words = words_of(text, ends, [1.0] * len(ends), window=4)
    used = [piece for word in words for piece in word.pieces]
    assert len(set(used)) == len(used)
    starts = [0, *ends]
    for word in words:
        assert text[word.start :].startswith(word.text)
        assert word.loss == len(word.pieces)
        for piece in word.pieces:
            assert starts[piece] < word.start + len(word.text)
            assert ends[piece] > word.start


def test_parts_of_one_letter_belong_to_its_word() -> None:
    """Byte pairs may cut a letter: both of its parts end where it ends."""
    (before, word, after) = words_of("a caf\u00e9 b", [1, 5, 6, 6, 8], [1.0, 2.0, 4.0, 8.0, 16.0], window=8)
    assert (word.text, word.pieces, word.loss) == ("caf\u00e9", range(1, 4), 14.0)
    assert (before.text, after.text, after.loss) == ("a", "b", 16.0)


def test_pieces_must_cover_the_text() -> None:
    with pytest.raises(ValueError, match="do not cover"):
        words_of("a b", [1, 2], [1.0, 1.0], window=4)
    with pytest.raises(ValueError, match="do not cover"):
        words_of("a b", [1, 3], [1.0], window=4)


def test_sentences() -> None:
    text = 'He came. "And he saw!" Then: he, i.e. the man, won? yes.\n\nso it was;\nAnd it was.'
    assert [text[start:].split()[0] for start in sentence_starts(text)] == ["And", "Then:", "so"]


def test_names() -> None:
    text = (
        "And the LORD spake unto Moses. Altar and altar. Brass was there. And Moses, I say, saw the LORD. Go. Then go."
    )
    assert names_in(text) == {"lord", "moses"}


def test_tokens_by_hand() -> None:
    pieces = [" and", " Mo", "ses", " spake", ". ", "And", " Mo", "ses", " spake", " again", "."]
    text = "".join(pieces)
    ends = [sum(map(len, pieces[: i + 1])) for i in range(len(pieces))]
    ids = [9, 1, 2, 3, 4, 5, 6, 2, 3, 4, 7, 8]  # the first is not scored
    losses = [float(i) for i in range(len(pieces))]
    words = words_of(text, ends, losses, window=100)
    rare = {"spake", "again"}
    tokens = describe(pieces, ids, losses, words, 100, names={"moses"}, rare=rare.__contains__)
    assert [t.index for t in tokens if t.name] == [1, 2, 6, 7]
    assert [t.index for t in tokens if t.rare] == [3, 8, 9]
    assert [t.index for t in tokens if t.begins] == [5]
    assert [t.index for t in tokens if t.seen] == [7, 8]  # "Mo|ses" and "ses| spake"; " Mo" followed another token
    assert [t.loss for t in tokens] == losses
    shorter = describe(pieces, ids, losses, words_of(text, ends, losses, 4), 4, names=(), rare=rare.__contains__)
    assert not any(t.seen for t in shorter)


@pytest.mark.parametrize(
    ("text", "starts"),
    [
        ("道可道。名可名？天", ["名", "天"]),
        ("हाँ है। क्या है? हाँ", ["क्या", "हाँ"]),
        ("نعم. هل للناس حق؟ نعم", ["هل", "نعم"]),
        ("One. two. Three! four", ["Three"]),  # where there are capitals, they are wanted
        ("One; two: three", []),
        ("道\n\n可", ["可"]),
    ],
)
def test_sentences_of_any_script(text: str, starts: list[str]) -> None:
    places = sentence_starts(text)
    assert [next(word for word in starts if text.startswith(word, place)) for place in places] == starts


def test_a_script_without_capitals_has_no_names() -> None:
    assert names_in("道可道。名可名。道") == frozenset()
    assert names_in("सभी को। सभी") == frozenset()
