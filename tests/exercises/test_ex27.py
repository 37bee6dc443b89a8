import itertools

import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.decoding.speculative import Speculation
from minigpt.model import GPT
from minigpt.speculation_speed import Speed
from tasks.exercises import ex27_speculative_decoding as ex27
from tests.exercise_context import assert_sound, make_context


def test_the_answer_is_sound():
    answer = ex27.EXERCISE.answer(make_context(ex27.EXERCISE))
    assert_sound(ex27.EXERCISE, answer)
    assert answer.metrics["alpha_itself"] > 0.999
    assert answer.metrics["tokens_per_pass_itself_gamma_4"] > answer.metrics["tokens_per_pass_untrained_gamma_4"]


def test_chi_square_of_the_expected_counts_of_others_and_of_the_impossible():
    exact = {(0, 0, 0): 0.5, (0, 0, 1): 0.3, (1, 0, 0): 0.2}
    texts = {text: torch.tensor([text]).expand(round(share * 1000), -1) for text, share in exact.items()}
    assert ex27.p_value(torch.cat(list(texts.values())), exact) == pytest.approx(1.0)
    assert ex27.p_value(torch.cat([texts[0, 0, 0], texts[1, 0, 0]]), exact) < 1e-6
    assert ex27.p_value(torch.tensor([[1, 1, 1]]), exact) == 0.0


def test_the_enumerated_texts_have_all_the_probability():
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=16, vocab_size=11)).eval()
    exact = ex27.exact_distribution(model, torch.tensor([[1, 2]]))
    assert sum(exact.values()) == pytest.approx(1.0, abs=1e-6)
    assert len(exact) == 8**3


def test_greedy_identity_counts_texts_that_differ(monkeypatch):
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=32, vocab_size=11)).eval()
    prompts = torch.randint(11, (5, 4), generator=torch.Generator().manual_seed(0))
    assert ex27.greedy_identity(model, model, prompts, 9) == 5

    def spoiled(target, draft, prompt, n_new, *, gamma, sampling):
        found = ex27.generate(target, prompt, n_new, sampling=sampling)
        if prompt[0, 0] == prompts[2, 0]:
            found[0, -1] = (found[0, -1] + 1) % 11
        return Speculation(found)

    monkeypatch.setattr(ex27, "speculate", spoiled)
    expected = sum(int(first != prompts[2, 0]) for first in prompts[:, 0])
    assert ex27.greedy_identity(model, model, prompts, 9) == expected < 5


def run(label: str, loss: float, alpha: float, measured: float, gamma: int = 4) -> ex27.Run:
    model = GPT(GPTConfig(n_layer=1, n_head=1, d_model=4, context=4, vocab_size=3))
    draft = ex27.Draft(label, label, model, loss, "some")
    return ex27.Run(draft, Speed(gamma, alpha, 2.0, alpha, 0.1, 1.5, measured, measured * 0.9, measured * 1.1))


@pytest.mark.parametrize("order", list(itertools.permutations((0.2, 0.5, 0.8))))
def test_what_is_said_of_the_drafts_follows_their_numbers(order):
    runs = [
        run(f"draft {i}", loss, alpha, alpha + 0.5)
        for i, (loss, alpha) in enumerate(zip((3, 2, 1), order, strict=True))
    ]
    said = ex27.quality_sentence([*runs, run(ex27.ITSELF, 1.5, 1.0, 0.7)])
    assert "the order by α is the order by speed-up" in said
    best = order[2] == 0.8
    assert ("has the highest α, too" in said) == best
    assert ("the target has 1.500" in said) == (not best)
    assert "its best speed-up is 0.70" in said
