import random

import pytest
import torch

from tasks.exercises import ex10_causal_bidirectional as ex10
from tests.exercise_context import assert_sound, make_context
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def context():
    return make_context(ex10.EXERCISE)


def test_it_is_sound(context):
    answer = ex10.EXERCISE.answer(context)
    assert_sound(ex10.EXERCISE, answer)
    assert_formulas(answer)


@pytest.mark.parametrize("text", ["the cat sat on the mat and the dog", "aa aa", "x", "a b", "in the beginning"])
@pytest.mark.parametrize("name", ex10.TASKS)
def test_corruption_moves_letters_and_adds_none(name, text):
    for seed in range(20):
        assert sorted(ex10.TASKS[name](text, random.Random(seed))) == sorted(text)


def test_misspelling_changes_the_text_and_reordering_keeps_the_words():
    text = "and the spirit of god moved upon the face"
    assert ex10.misspell(text, random.Random(0)) != text
    shuffled = ex10.reorder(text, random.Random(0))
    assert shuffled != text
    assert sorted(shuffled.split()) == sorted(text.split())
    assert (shuffled.split()[0], shuffled.split()[-1]) == ("and", "face")


def test_letter_counts_are_at_chance_and_labels_are_balanced(context):
    task = ex10.make_task(context, "spelling", 32)
    assert task.test_labels.double().mean() == task.train_labels.double().mean() == 0.5
    vocabulary = context.model(ex10.STUDY_ROPE).model.config.vocab_size
    assert ex10.probed(task, *ex10.letters(task, vocabulary)) == pytest.approx(0.5, abs=1e-9)


def test_the_second_reading_sees_all_of_the_first(context):
    model = context.model(ex10.STUDY_ROPE).model
    tokens = torch.arange(1, 17)[None]
    other = tokens.clone()
    other[0, -1] = 20
    assert torch.equal(model.hidden(tokens)[:, :-1], model.hidden(other)[:, :-1])
    assert not torch.equal(*(model.hidden(torch.cat([x, x], dim=1))[:, 16] for x in (tokens, other)))


def test_features_are_what_they_say(context):
    model = context.model(ex10.STUDY_ROPE).model
    tokens = torch.randint(1, 20, (150, 32), generator=torch.Generator().manual_seed(0))  # more than one chunk
    found = ex10.reading(model, tokens, both_ways=False)
    with torch.inference_mode():
        h = model.hidden(tokens)
        torch.testing.assert_close(found["mean"], h.mean(dim=1))
        torch.testing.assert_close(found["last"], h[:, -1])
        for i in (0, 149):
            own = torch.nn.functional.cross_entropy(model(tokens[i : i + 1, :-1])[0], tokens[i, 1:])
            assert found["own loss"][i].item() == pytest.approx(own.item(), abs=1e-5)
        both = ex10.reading(model, tokens, both_ways=True)
        everything = torch.ones(32, 32, dtype=torch.bool)
        torch.testing.assert_close(both["mean"], model.hidden(tokens, mask=everything).mean(dim=1))
    assert "own loss" not in both
