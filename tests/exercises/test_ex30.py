import torch

from minigpt.config import GPTConfig
from minigpt.masks import prefix_mask
from minigpt.model import GPT
from tasks.exercises import ex30_prefix_language_model as ex30
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex30.EXERCISE.answer(make_context(ex30.EXERCISE))
    assert_sound(ex30.EXERCISE, answer)


def one_too_many(n, prefix, *, device=None):
    return prefix_mask(n, prefix + 1, device=device)


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
        assert ex30.trained_targets(context) == sum(scored) / context / context


def test_choices_of_a_model_that_knows_and_one_that_guesses(monkeypatch):
    windows = torch.arange(40)[:, None].expand(40, 9)

    def knows(model, candidate, prefix, *, bidirectional):
        return (candidate[:, prefix:] != candidate[:, :1]).float()

    monkeypatch.setattr(ex30, "suffix_losses", knows)
    assert ex30.choices(None, windows, 4, bidirectional=True) == 1.0
    monkeypatch.setattr(ex30, "suffix_losses", lambda m, c, p, bidirectional: -knows(m, c, p, bidirectional=True))
    assert ex30.choices(None, windows, 4, bidirectional=True) == 0.0
