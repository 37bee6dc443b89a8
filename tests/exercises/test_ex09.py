import math

import pytest
import torch

from tasks.exercises import ex09_perplexity as ex09
from tests.exercise_context import assert_sound, make_context, tiny_pretrained
from tests.exercises.formulas import assert_formulas


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
def test_it_is_sound(architecture):
    answer = ex09.EXERCISE.answer(make_context(ex09.EXERCISE, pretrained=architecture))
    assert_sound(ex09.EXERCISE, answer)
    assert_formulas(answer)
    assert answer.metrics["cross_entropy_at_perplexity_25_nats"] == pytest.approx(3.2188758, abs=1e-7)
    assert answer.metrics["perplexity_uniform_50000"] == pytest.approx(50_000, rel=1e-9)


@pytest.mark.parametrize("tokens", [20, 33, 40])
def test_every_token_is_scored_once(tokens):
    pretrained = tiny_pretrained("gpt2")
    text = "The cat sat on the mat, and the dog on the log. " * 6
    ids = torch.tensor(pretrained.tokenizer(text)["input_ids"])
    scored = ex09.score(pretrained, text, tokens, 8, 3)
    with torch.inference_mode():
        for i in range(tokens):
            window = ids[i // 8 * 8 : i + 1]
            expected = -pretrained.model(window[None]).logits[0, -1].log_softmax(-1)[ids[i + 1]]
            assert scored.losses[i].item() == pytest.approx(expected.item(), abs=1e-4)
    assert scored.tokens == tokens
    assert scored.text == "".join(scored.pieces)


def test_units_agree():
    scored = ex09.Scored(torch.tensor([1.0, 2.0, 3.0]), ["ab", "cd", "é"], "abcdé")
    assert scored.n_bytes == 6
    assert scored.bits_per_byte == pytest.approx(6 / math.log(2) / 6)
    assert scored.perplexity == pytest.approx(math.exp(2))


def test_references_know_no_language():
    frequencies, packed = ex09.references("ab" * 5_000)
    assert frequencies == pytest.approx(1)
    assert packed < 0.1
