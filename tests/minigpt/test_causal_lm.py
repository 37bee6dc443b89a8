"""Scoring and continuing with Transformers models, against their own loss and their own generation."""

import math

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from minigpt.causal_lm import (
    ScoredText,
    continuation_losses,
    continue_text,
    score_text,
    token_losses,
)
from minigpt.limits import UNBOUNDED, context_of
from tests.exercise_context import tiny_pretrained


@pytest.fixture(params=["gpt2", "llama"])
def model(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    if request.param == "gpt2":
        return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=48, vocab_size=31)).eval()
    shape = LlamaConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=31,
        max_position_embeddings=48,
    )
    return LlamaForCausalLM(shape).eval()


def test_losses_sum_to_the_models_own(model: torch.nn.Module, generator: torch.Generator) -> None:
    ids = torch.randint(31, (3, 20), generator=generator)
    assert context_of(model) == 48
    torch.testing.assert_close(token_losses(model, ids, batch_size=2).mean(), model(ids, labels=ids).loss)


def test_each_loss_is_that_of_its_own_token(model: torch.nn.Module, generator: torch.Generator) -> None:
    ids = torch.randint(31, (1, 12), generator=generator)
    losses = token_losses(model, ids)[0]
    for t in range(1, 12):  # token t from nothing but the tokens before it
        expected = -model(ids[:, :t]).logits[0, -1].log_softmax(-1)[ids[0, t]]
        torch.testing.assert_close(losses[t - 1], expected, rtol=1e-4, atol=1e-5)


def test_a_prompt_is_read_and_not_scored(model: torch.nn.Module, generator: torch.Generator) -> None:
    ids = torch.randint(31, (15,), generator=generator).tolist()
    scored = continuation_losses(model, ids[:10], ids[10:])
    torch.testing.assert_close(scored, token_losses(model, torch.tensor([ids]))[0, 9:])


def test_greedy_continuation_is_transformers(model: torch.nn.Module, generator: torch.Generator) -> None:
    prompt = torch.randint(31, (4, 6), generator=generator)
    theirs = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(continue_text(model, prompt, 12, temperature=0), theirs)


def test_too_long(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="beyond the context"):
        continue_text(model, torch.zeros(1, 40, dtype=torch.long), 9)
    with pytest.raises(ValueError, match="2 to 49"):
        token_losses(model, torch.zeros(1, 50, dtype=torch.long))


@pytest.mark.parametrize("tokens", [20, 33, 40])
def test_every_token_of_a_text_is_scored_once(tokens: int) -> None:
    pretrained = tiny_pretrained("gpt2")
    text = "The cat sat on the mat, and the dog on the log. " * 6
    ids = torch.tensor(pretrained.tokenizer(text)["input_ids"])
    scored = score_text(pretrained.model, pretrained.tokenizer, text, tokens=tokens, window=8, batch_size=3)
    with torch.inference_mode():
        for i in range(tokens):
            window = ids[i // 8 * 8 : i + 1]
            expected = -pretrained.model(window[None]).logits[0, -1].log_softmax(-1)[ids[i + 1]]
            assert scored.losses[i].item() == pytest.approx(expected.item(), abs=1e-4)
    assert scored.tokens == tokens
    assert scored.text == "".join(scored.pieces)


def test_a_text_shorter_than_asked_for(model: torch.nn.Module) -> None:
    pretrained = tiny_pretrained("gpt2")
    scored = score_text(pretrained.model, pretrained.tokenizer, "One two three.", tokens=100, window=50)
    assert (scored.text, scored.tokens) == (" two three.", len(pretrained.tokenizer("One two three.")["input_ids"]) - 1)


def test_units_agree() -> None:
    scored = ScoredText(torch.tensor([1.0, 2.0, 3.0]), ("ab", "cd", "é"), "abcdé")
    assert scored.n_bytes == 6
    assert scored.bits_per_byte == pytest.approx(6 / math.log(2) / 6)
    assert scored.perplexity == pytest.approx(math.exp(2))


def test_a_model_without_a_limit_has_none() -> None:
    assert context_of(BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=31))) == UNBOUNDED
