import pytest
import torch

from minigpt.pretrained.causal_lm import ScoredText
from tasks.exercises import ex21_fine_tuning as ex21
from tests.exercise_context import assert_sound, make_context
from tests.exercises.formulas import assert_formulas

SMALL = {"tokens": 96, "samples": 2, "new_tokens": 6, "budget": 0.1}


@pytest.fixture(scope="module", params=["gpt2", "llama", "stand-in"])
def answer(request):
    return ex21.EXERCISE.answer(make_context(ex21.EXERCISE, pretrained=request.param, **SMALL))


def test_it_is_sound(answer):
    assert_sound(ex21.EXERCISE, answer)
    assert_formulas(answer)


def test_samples_stand_in_pairs_with_the_same_prompt(answer):
    samples = [block for block in answer.parts[2].blocks if block.type == "sample"]
    assert len(samples) == 4, "two prompts, before and after"
    for before, after in zip(samples[::2], samples[1::2], strict=True):
        assert (before.title, after.title) == ("Before", "After")
        assert before.prompt == after.prompt


def test_it_changes_the_model_and_leaves_the_pretrained_one_alone():
    context = make_context(ex21.EXERCISE, budget=0.1)
    before = [weight.clone() for weight in context.pretrained().model.parameters()]
    tuned = context.finetuned(ex21.VERSE).pretrained.model
    assert all(torch.equal(a, b) for a, b in zip(before, context.pretrained().model.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(before, tuned.parameters(), strict=True))


def test_windows_are_whole():
    scored = ScoredText(torch.arange(10, dtype=torch.float), tuple("abcdefghij"), "abcdefghij")
    assert ex21.windows(scored, 4) == [1.5, 5.5]
    assert ex21.windows(scored, 6) == [4.5], "fewer than two windows: the whole text"


def test_vocabulary_share():
    assert ex21.vocabulary_share(["The Lord, is my cut", "", "he said his"], frozenset({"the", "lord", "my"})) == [
        0.75,
        0.0,
    ]


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([3.0, 2.9, 2.8, 2.7], "lowest after the last one (2.700 nats per token), so more epochs might still help"),
        ([3.0, 2.7, 2.8, 2.95], "lowest after epoch 1, and 0.250 nats per token higher after the last one (one seed)"),
        ([3.0, 3.1, 3.2, 3.3], "lowest before the training, and 0.300 nats per token higher after the last one"),
    ],
)
def test_the_course_of_the_held_out_loss(losses, expected):
    assert expected in ex21.course([0.0, 1.02, 2.05, 2.97], losses)
