import lzma
import math
from dataclasses import replace

import pytest
import torch

from minigpt.evaluation import ngrams
from reports.types import flattened
from tasks.exercises.ex15_mini_gpt_training.experiment import EXERCISE, count_baselines
from tasks.exercises.ex15_mini_gpt_training.findings import Baselines, Epoch
from tests.exercise_context import answered, assert_sound, make_context, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


@pytest.fixture(scope="module")
def answer(findings):
    return answered(EXERCISE, findings)


def test_the_answer_is_sound(answer):
    assert_sound(EXERCISE, answer)


def test_training_improves_on_knowing_nothing(answer):
    assert answer.metrics["final_validation_loss_nats"] < answer.metrics["ln_vocab_nats"] - 1


def test_bits_are_nats_over_ln_2(answer):
    nats = answer.metrics["final_validation_loss_nats"]
    assert answer.metrics["final_validation_bits_per_character"] == pytest.approx(nats / math.log(2))


def test_a_sample_for_the_untrained_model_and_every_snapshot(answer):
    samples = [block for block in answer.parts[0].blocks if block.type == "sample"]
    trained = make_context(EXERCISE).model(EXERCISE.recipes[0])
    assert len(samples) == 1 + len(trained.snapshot_steps)
    assert len({sample.prompt for sample in samples}) == 1
    assert samples[0].text != samples[1].text != samples[2].text


def test_baselines_on_a_text_made_of_two_letters():
    # "ab" for ever: a bigram model knows it, a unigram model pays one bit, uniform over two letters too.
    tokens = torch.tensor([0, 1] * 500)
    base = count_baselines(ngrams.baselines(tokens.numpy(), tokens.numpy(), 2), ("ab" * 500, "ab" * 500), 2)
    assert base.uniform == pytest.approx(math.log(2))
    assert base.unigram == pytest.approx(math.log(2), abs=1e-3)
    assert base.bigram == pytest.approx(0, abs=5e-3)
    grown = len(lzma.compress(b"ab" * 1000, preset=9)) - len(lzma.compress(b"ab" * 500, preset=9))
    assert base.xz == pytest.approx(grown * 8 * math.log(2) / 1000)


@pytest.mark.parametrize(
    ("losses", "wobble", "said"),
    [
        ((4.0, 2.0, 1.5, 1.4), 0.0, "at its lowest at the end"),
        ((4.0, 2.0, 1.242, 1.246), 0.0, "lowest after epoch 2, at 1.242 nats, and ends 0.004 higher: it stands still"),
        ((4.0, 2.0, 1.5, 1.6), 0.0, "overfitting has begun"),
        ((4.0, 2.0, 2.2, 1.5, 1.6), 0.2, "no more than it has moved"),
    ],
)
def test_a_rise_is_held_against_the_moves_before_it(findings, losses, wobble, said):
    epochs = tuple(Epoch(float(i), i, 1.2, loss, loss, 10, "", 0.5) for i, loss in enumerate(losses))
    found = replace(
        findings, epochs=epochs, baselines=Baselines(4.0, 3.0, 2.2, 1.1, 1.9, 5), bits=(2.0,), steps_per_epoch=1.0
    )
    assert found.wobble == pytest.approx(wobble)
    text = prose(answered(EXERCISE, found))
    assert said in text
    assert "less than bigrams (2.200) and smoothed 5-grams (1.900) but more than the compressor xz" in text
    assert ("at its lowest" in text) == (losses[-1] == min(losses))
    assert "(one seed)" in text


@pytest.mark.parametrize(
    ("baselines", "said"),
    [
        (
            Baselines(9.0, 9.0, 9.0, 9.0, 9.0, 4),
            ", less than bigrams (9.000), smoothed 4-grams (9.000) and the compressor xz after the same training text",
        ),
        (
            Baselines(0.1, 0.1, 0.1, 0.1, 0.1, 4),
            ", more than bigrams (0.100), smoothed 4-grams (0.100) and the compressor xz after the same training text",
        ),
    ],
)
def test_where_all_baselines_are_on_one_side(findings, baselines, said):
    text = prose(answered(EXERCISE, replace(findings, baselines=baselines)))
    assert said in text
    assert "but" not in text.split(said)[1].split(".")[0]
    assert ".." not in text


def test_one_epoch_and_several_seeds_read_well(findings):
    epochs = tuple(replace(epoch, number=float(i)) for i, epoch in enumerate(findings.epochs[:2]))
    answer = answered(EXERCISE, replace(findings, epochs=epochs, bits=(2.0, 2.2)))
    assert "in 1 epoch;" in answer.summary
    assert "(2.100 ± 0.141 over 2 seeds)" in prose(answer)


def test_a_baseline_is_beaten_where_all_seeds_beat_it(findings):
    """The first seed's 1.3 nats are below 5-grams, the second's 1.4 are not."""
    last = replace(findings.epochs[-1], nats=1.3)
    found = replace(
        findings,
        epochs=(*findings.epochs[:-1], last),
        bits=(1.3 / math.log(2), 1.4 / math.log(2)),
        baselines=Baselines(4.0, 3.0, 2.2, 1.2, 1.35, 5),
    )
    said = "less than bigrams (2.200) but more than the compressor xz after the same training text (1.200); against "
    assert said + "smoothed 5-grams (1.350) the seeds disagree." in prose(answered(EXERCISE, found))
    for third, word in ((1.5, "more"), (1.1, "less")):
        only = replace(found, epochs=(*findings.epochs[:-1], replace(last, nats=third)), bits=(third / math.log(2),))
        assert f"{word} than" in prose(answered(EXERCISE, only))
        assert "the seeds disagree" not in prose(answered(EXERCISE, only))


def prose(answer):
    return " ".join(" ".join(block.text for block in answer.parts[0].blocks if block.type == "prose").split())


def test_a_text_without_words_has_no_share_of_real_ones(findings):
    letters = replace(findings, epochs=tuple(replace(epoch, text="ab" * 50) for epoch in findings.epochs))
    answer = answered(EXERCISE, letters)
    assert_sound(EXERCISE, answer)
    text = " ".join(block.text for block in flattened(answer.parts[0].blocks) if block.type == "prose")
    assert "does not apply to this text: no sample that is shown holds a whole word" in " ".join(text.split())
    assert "words" not in answer.summary


def test_the_untrained_model_knows_nothing_of_a_real_text(answer):
    check = next(check for check in answer.checks if check.claim.startswith("untrained loss"))
    assert check.passed
