import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.cost.generation import step_flops
from minigpt.model import GPT
from tasks.exercises import ex16_kv_cache as ex16
from tests.exercise_context import assert_sound, make_context

CONFIG = GPTConfig(n_layer=2, n_head=2, d_model=16, context=32, vocab_size=11)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG).eval()


def test_the_answer_is_sound():
    context = make_context(ex16.EXERCISE, lengths=(10, 40))
    answer = ex16.EXERCISE.answer(context)
    assert_sound(ex16.EXERCISE, answer)
    assert answer.metrics["speedup_40"] > 0


def test_the_loops_write_the_same(model):
    prompt = torch.tensor([[1, 2, 3]])
    (tokens, logits), (cached_tokens, cached_logits) = (
        loop(model, prompt, 20) for loop in (ex16.generate_uncached, ex16.generate_cached)
    )
    assert torch.equal(tokens, cached_tokens)
    torch.testing.assert_close(logits, cached_logits, atol=1e-5, rtol=0)


def test_a_cache_that_loses_a_key_is_noticed(model, monkeypatch):
    from minigpt.cache import KVCache

    update = KVCache.update
    monkeypatch.setattr(KVCache, "update", lambda *a: tuple(x[:, :, 1:] if x.shape[2] > 9 else x for x in update(*a)))
    text = torch.randint(11, (1, 32), generator=torch.Generator().manual_seed(0))
    assert ex16.read_real_text(model, text) > 1e-3


def test_flops_in_closed_form_are_those_torch_counts(model):
    counted = ex16.counted_flops(model, torch.zeros(1, 20, dtype=torch.long))
    assert counted == (step_flops(CONFIG, 19, 19), step_flops(CONFIG, 1, 20))


def test_restarted_positions_are_a_mistake_that_shows(model):
    prompt = torch.tensor([[1, 2, 3]])
    _, logits = ex16.generate_cached(model, prompt, 5)
    _, broken = ex16.restarted_positions(model, prompt, 5)
    assert torch.equal(logits[0], broken[0])  # the prompt itself starts at 0
    assert (logits[1] - broken[1]).abs().max() > 1e-3
