import random
from dataclasses import replace

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.objectives import masked
from tasks.exercises.ex10_causal_bidirectional.corruption import CORRUPTIONS, letters, make_task, misspell, reorder
from tasks.exercises.ex10_causal_bidirectional.experiment import EXERCISE, STUDY_ROPE, infill
from tasks.exercises.ex10_causal_bidirectional.findings import TASKS
from tasks.exercises.ex10_causal_bidirectional.reading import probed, reading
from tests.any_text import KINDS
from tests.exercise_context import answered, assert_sound, make_context, measured
from tests.exercises.formulas import assert_formulas


@pytest.fixture(scope="module")
def context():
    return make_context(EXERCISE)


@pytest.fixture(scope="module")
def findings(context):
    return measured(EXERCISE, context)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


def test_it_is_sound(answer):
    assert_sound(EXERCISE, answer)
    assert_formulas(answer)


def test_one_seed_decides_nothing(answer):
    said = " ".join(block.text for block in answer.parts[1].blocks if hasattr(block, "text"))
    assert "One seed cannot decide" in said
    assert "On neither task" not in said
    assert "On both tasks" not in said


def test_letter_counts_have_no_seed(answer):
    table = next(b for p in answer.parts for b in p.blocks if getattr(b, "name", "") == "classification")
    assert {row[0]: row[1] for row in table.rows}["letter counts"] == "0.500"


def with_accuracies(findings, task, **accuracies):
    """The findings with other accuracies of states averaged over the window, on one task."""
    found = findings.accuracy[task] | {f"{who}, mean": values for who, values in accuracies.items()}
    found |= {f"{who}, last": (0.5,) * len(values) for who, values in accuracies.items() if f"{who}, last" in found}
    return replace(findings, accuracy=findings.accuracy | {task: found})


def said_in(answer, part):
    return " ".join(" ".join(b.text for b in answer.parts[part].blocks if b.type == "prose").split())


def test_size_catches_up_only_where_there_is_something_to_catch_up(findings):
    def said(masked, larger):
        found = {"masked": (masked,), "causal": (0.65,), "causal large": (0.60,), "causal medium": (larger,)}
        text = said_in(answered(EXERCISE, with_accuracies(better, "spelling", **found)), 3)
        return text.split("On spelling")[1].split("On word order")[0]

    losses = {"small-long": 1.6, "medium": 1.4, "large": 1.5}
    larger = {name: replace(findings.larger[name], losses=(loss,)) for name, loss in losses.items()}
    better = replace(findings, larger=larger, causal=replace(findings.causal, losses=(1.7,)))

    level = said(0.64, 0.70)
    assert "nothing to catch up" in level
    assert "0.650 against 0.640" in level
    assert "medium reaches 0.700" in level
    assert "medium reaches the small masked model (0.700 against 0.660" in said(0.66, 0.70)
    assert "does not reach" in said(0.71, 0.70)


def test_larger_models_that_predict_no_better_show_nothing(findings):
    worse = {name: replace(model, losses=(9.0,)) for name, model in findings.larger.items()}
    text = said_in(answered(EXERCISE, replace(findings, larger=worse)), 3)
    assert "None of them predicts the next character better" in text
    assert "On spelling" not in text


@pytest.mark.parametrize(
    ("masked", "said"),
    [
        ({"spelling": 0.9, "word order": 0.9}, "On both tasks the bidirectional model is the better reader"),
        ({"spelling": 0.5, "word order": 0.7}, "On neither task is the bidirectional model the better reader"),
        ({"spelling": 0.9, "word order": 0.7}, "it is the masked model for spelling."),
    ],
)
def test_several_seeds_decide_who_reads_better(findings, masked, said):
    findings = replace(findings, baselines=replace(findings.baselines, bigram=9.0))
    for task in TASKS:
        values = (masked[task], masked[task] + 0.01)
        findings = with_accuracies(findings, task, causal=(0.70, 0.71), masked=values)
    assert said_in(answered(EXERCISE, findings), 1).startswith(("On", "Which"))
    assert said in said_in(answered(EXERCISE, findings), 1)


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((2.0, 2.01), "The causal model is better suited to generation, for which it is made."),
        ((1.0, 1.01), "the masked model is better here."),
        ((1.4, 1.61), "do not differ beyond the noise."),
        ((2.0,), "with one seed, the loss of the next character gives only a hint."),
    ],
)
def test_the_verdict_on_writing_is_that_of_the_losses(findings, losses, said):
    causal = (1.5, 1.51)[: len(losses)]
    found = replace(findings, next={"causal": causal, "masked": losses}, causal=replace(findings.causal, losses=(0.1,)))
    assert said in said_in(answered(EXERCISE, found), 0)


def test_models_that_have_not_beaten_the_bigram_have_no_opinion_on_writing(findings):
    found = replace(findings, causal=replace(findings.causal, losses=(9.0,)))
    assert "here it has not beaten the bigram" in said_in(answered(EXERCISE, found), 0)


def test_the_masking_rate_is_that_of_the_objective(generator):
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=32, vocab_size=5))
    batch = torch.randint(1, 5, (8, 33), generator=generator)
    rate = infill.RATE
    default, same, other = (
        masked(model, batch, generator=torch.Generator().manual_seed(0), args=args).item()
        for args in ({}, {"rate": rate}, {"rate": 2 * rate})
    )
    assert default == same != other


@pytest.mark.parametrize("text", ["the cat sat on the mat and the dog", "aa aa", "x", "a b", "in the beginning"])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corruption_moves_letters_and_adds_none(name, text):
    for seed in range(20):
        assert sorted(CORRUPTIONS[name](text, random.Random(seed))) == sorted(text)


def test_misspelling_changes_the_text_and_reordering_keeps_the_words():
    text = "and the spirit of god moved upon the face"
    assert misspell(text, random.Random(0)) != text
    shuffled = reorder(text, random.Random(0))
    assert shuffled != text
    assert sorted(shuffled.split()) == sorted(text.split())
    assert (shuffled.split()[0], shuffled.split()[-1]) == ("and", "face")


def test_letter_counts_are_at_chance_and_labels_are_balanced(context):
    task = make_task(context, "spelling", 32)
    assert task.test_labels.double().mean() == task.train_labels.double().mean() == 0.5
    vocabulary = context.model(STUDY_ROPE).model.config.vocab_size
    assert probed(task, *letters(task, vocabulary)) == pytest.approx(0.5, abs=1e-9)


def test_the_second_reading_sees_all_of_the_first(context):
    model = context.model(STUDY_ROPE).model
    tokens = torch.arange(1, 17)[None]
    other = tokens.clone()
    other[0, -1] = 20
    assert torch.equal(model.hidden(tokens)[:, :-1], model.hidden(other)[:, :-1])
    assert not torch.equal(*(model.hidden(torch.cat([x, x], dim=1))[:, 16] for x in (tokens, other)))


def test_features_are_what_they_say(context):
    model = context.model(STUDY_ROPE).model
    tokens = torch.randint(1, 20, (150, 32), generator=torch.Generator().manual_seed(0))  # more than one chunk
    found = reading(model, tokens, both_ways=False)
    with torch.inference_mode():
        h = model.hidden(tokens)
        torch.testing.assert_close(found["mean"], h.mean(dim=1))
        torch.testing.assert_close(found["last"], h[:, -1])
        for i in (0, 149):
            own = torch.nn.functional.cross_entropy(model(tokens[i : i + 1, :-1])[0], tokens[i, 1:])
            assert found["own loss"][i].item() == pytest.approx(own.item(), abs=1e-5)
        both = reading(model, tokens, both_ways=True)
        everything = torch.ones(32, 32, dtype=torch.bool)
        torch.testing.assert_close(both["mean"], model.hidden(tokens, mask=everything).mean(dim=1))
    assert "own loss" not in both


def test_a_task_that_the_text_does_not_have_is_said_not_to_apply(findings):
    assert set(findings.tasks) == set(TASKS)
    one = answered(EXERCISE, replace(findings, corrupted={"spelling": 0.9, "word order": 0.0}))
    assert "*Word order* does not apply to this text: no window has anything to shuffle." in said_in(one, 1)
    assert "*Spelling:*" in said_in(one, 1)
    assert "*Word order:*" not in said_in(one, 1)
    none = answered(EXERCISE, replace(findings, corrupted=dict.fromkeys(TASKS, 0.0)))
    assert said_in(none, 1).startswith("This part does not apply to this text")
    for answer in (one, none):
        assert_sound(EXERCISE, answer)


@pytest.mark.parametrize(
    ("kind", "has"),
    [("chinese", {"spelling"}), ("two letters", {"spelling"}), ("emoji", set()), ("hindi", set(TASKS))],
)
def test_which_tasks_a_text_has(kind, has):
    text = KINDS[kind](2_000)
    rng = random.Random(0)
    windows = [text[i : i + 32] for i in range(0, len(text) - 31, 32)]
    assert {name for name in TASKS if any(CORRUPTIONS[name](w, rng) != w for w in windows)} == has
