from dataclasses import replace

import pytest
import torch

from minigpt.pretrained.causal_lm import ScoredText
from reports.types import flattened
from tasks.exercises.ex21_fine_tuning.experiment import EXERCISE, VERSE, vocabulary_share, windows
from tests.exercise_context import answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas

SMALL = {"tokens": 96, "samples": 2, "new_tokens": 6, "budget": 0.1}


@pytest.fixture(scope="module", params=["gpt2", "llama", "stand-in"])
def findings(request):
    return measured(EXERCISE, make_context(EXERCISE, pretrained=request.param, **SMALL))


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


def prose(answer, part):
    """The sentences of a part on one line."""
    texts = (block.text for block in flattened(answer.parts[part].blocks) if block.type == "prose")
    return " ".join(" ".join(texts).split())


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


def test_samples_stand_in_pairs_with_the_same_prompt(answer):
    samples = [block for block in flattened(answer.parts[2].blocks) if block.type == "sample"]
    assert len(samples) == 4, "two prompts, before and after"
    for before, after in zip(samples[::2], samples[1::2], strict=True):
        assert (before.title, after.title) == ("Before", "After")
        assert before.prompt == after.prompt


def test_it_changes_the_model_and_leaves_the_pretrained_one_alone():
    context = make_context(EXERCISE, budget=0.1)
    before = [weight.clone() for weight in context.pretrained().model.parameters()]
    tuned = context.finetuned(VERSE).pretrained.model
    assert all(torch.equal(a, b) for a, b in zip(before, context.pretrained().model.parameters(), strict=True))
    assert any(not torch.equal(a, b) for a, b in zip(before, tuned.parameters(), strict=True))


def test_windows_are_whole():
    scored = ScoredText(torch.arange(10, dtype=torch.float), tuple("abcdefghij"), "abcdefghij")
    assert windows(scored, 4) == (1.5, 5.5)
    assert windows(scored, 6) == (4.5,), "fewer than two windows: the whole text"


def test_vocabulary_share():
    assert vocabulary_share(["The Lord, is my cut", "", "he said his"], frozenset({"the", "lord", "my"})) == (0.75, 0.0)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        (
            (3.0, 2.9, 2.8, 2.7),
            "lowest after the last epoch (2.700 nats per token), so more epochs might still help",
        ),
        (
            (3.0, 2.9, 2.71, 2.7),
            "and hardly lower than after the one before (2.710): of more epochs, after a schedule that has ended",
        ),
        (
            (3.0, 2.7, 2.8, 2.95),
            "lowest after epoch 1, and 0.250 nats per token higher after the last epoch (one seed)",
        ),
        (
            (3.0, 3.1, 3.2, 3.3),
            "lowest before training, and 0.300 nats per token higher after the last epoch (one seed): on text",
        ),
    ],
)
def test_the_course_of_the_held_out_loss(findings, losses, expected):
    t = findings.training
    steps = tuple(epoch * findings.train.used / t.batch_size / t.block for epoch in (0.0, 1.02, 2.05, 2.97))
    course = replace(findings, training=replace(t, evaluated_steps=steps, evaluated_losses=losses))
    assert expected in prose(answered(EXERCISE, course), 1)


def test_what_is_lost_and_gained_elsewhere(findings):
    def with_changes(main, code):
        scores = dict(findings.scores)
        for name, change in (("main corpus", main), ("Python source", code)):
            before, after = ((2.0, 2.1, 2.2), tuple(loss + change for loss in (2.0, 2.1, 2.2)))
            scores[name] = replace(
                scores[name],
                before=replace(scores[name].before, windows=before),
                after=replace(scores[name].after, windows=after),
            )
        return prose(answered(EXERCISE, replace(findings, scores=scores)), 3)

    assert "no forgetting is measured on either" in with_changes(0.0, 0.0)
    said = with_changes(-0.5, 0.5)
    assert "on the main corpus it falls" in said
    assert "on Python source it rises" in said
    assert (
        "Forgetting is measured on Python source. There is also a gain outside the domain, on the main corpus." in said
    )


def test_texts_without_spaces_have_no_words_of_the_domain(findings):
    def spaceless(w):
        return replace(w, before=("道可道",) * len(w.before), after=("道可道",) * len(w.after))

    answer = answered(EXERCISE, replace(findings, written=tuple(map(spaceless, findings.written))))
    assert_sound(EXERCISE, answer, any_text=True)
    assert "does not apply to this text" in prose(answer, 2)
    assert not any("domain_words" in name for name in answer.metrics)
    samples = [block for block in flattened(answer.parts[2].blocks) if block.type == "sample"]
    assert {sample.note for sample in samples} == {"no whole word"}
