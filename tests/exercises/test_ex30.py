from dataclasses import replace

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.masks import prefix_mask
from minigpt.model import GPT
from tasks.exercises.ex30_prefix_language_model import experiment as ex30
from tasks.exercises.ex30_prefix_language_model.experiment import EXERCISE
from tasks.exercises.ex30_prefix_language_model.findings import trained_targets
from tests.exercise_context import answered, assert_sound, measured


@pytest.fixture(scope="module")
def findings():
    return measured(EXERCISE)


def test_the_answer_is_sound(findings):
    assert_sound(EXERCISE, answered(EXERCISE, findings))


@pytest.mark.parametrize(
    ("causal", "control", "said"),
    [
        (2.0, 2.5, "what the prefix model pays for is its fewer targets"),
        (2.0, 3.0, "helps, but by less than the missing targets cost"),
        (2.0, 2.0, "fewer targets are not all"),
        (3.0, 3.0, "more than makes up for the missing targets"),
        (2.5, 3.0, "makes up for the missing targets"),
        (2.5, 2.5, "neither the open prefix nor the missing targets show"),
        (3.0, 2.0, None),
    ],
)
def test_the_two_comparisons_have_their_conclusion(findings, causal, control, said):
    losses = {reading: dict(by) for reading, by in findings.losses.items()}
    for reading, loss in (("causal model", causal), ("control", control), ("prefix model", 2.5)):
        losses[reading][findings.half] = (loss - 0.01, loss + 0.01, loss)
    losses["prefix model, read causally"][findings.half] = (2.6, 2.6, 2.6)
    rows = tuple(replace(row, baselines=replace(row.baselines, bigram=4.0)) for row in findings.rows)
    findings = replace(findings, rows=rows)
    text = " ".join(str(answered(EXERCISE, replace(findings, losses=losses)).parts[1]).replace("\\n", " ").split())
    assert ("So " in text) == (said is not None)
    assert said is None or said in text


def test_models_that_do_not_beat_the_bigram_get_no_conclusion(findings):
    rows = tuple(replace(row, baselines=replace(row.baselines, bigram=0.1)) for row in findings.rows)
    text = str(answered(EXERCISE, replace(findings, rows=rows)).parts[1])
    assert "not both are trained far enough to beat the bigram" in text
    assert "So " not in text


def test_every_word_is_counted_and_short_views_know_less(findings):
    words = findings.words
    assert words.count > 100
    for label in ("causal", "prefix"):
        assert all(0 <= share <= 1 for share in (*words.after_all[label], *words.after_little[label]))
    nothing = replace(words, count=0)
    assert "has no words of 4 letters" in str(answered(EXERCISE, replace(findings, words=nothing)).parts[2])


def one_too_many(n, prefix, *, device=None):
    return prefix_mask(n, min(prefix + 1, n), device=device)


def test_the_limits_notice_a_longer_prefix(monkeypatch):
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=2, n_head=4, d_model=32, context=16, vocab_size=5)).eval()
    window = torch.randint(5, (1, 17), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        for name, weight in model.blocks.named_parameters():
            if "norm" not in name:
                weight.mul_(4)
    sound = ex30.limits(model, window)
    assert (sound.causal, sound.full, sound.leaking, sound.cached) == (0.0, 0.0, 0, 0)
    assert sound.inside > 0
    monkeypatch.setattr("minigpt.model.prefix_mask", one_too_many)
    assert ex30.limits(model, window).leaking > 0


def test_share_of_targets_by_counting():
    for context in (4, 10, 64):
        scored = [sum(target >= max(prefix, 1) for target in range(1, context + 1)) for prefix in range(context)]
        assert trained_targets(context) == sum(scored) / context / context


def test_choices_of_a_model_that_knows_and_one_that_guesses(monkeypatch):
    windows = torch.arange(40)[:, None].expand(40, 9)

    def knows(model, candidate, prefix, *, bidirectional):
        return (candidate[:, prefix:] != candidate[:, :1]).float()

    monkeypatch.setattr(ex30, "suffix_losses", knows)
    assert ex30.choices(None, windows, 4, bidirectional=True) == 1.0
    monkeypatch.setattr(ex30, "suffix_losses", lambda m, c, p, bidirectional: -knows(m, c, p, bidirectional=True))
    assert ex30.choices(None, windows, 4, bidirectional=True) == 0.0
