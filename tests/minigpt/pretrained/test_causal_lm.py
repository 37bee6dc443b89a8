"""Scoring and continuing with Transformers models, against their own loss and their own generation."""

import math

import pytest
import torch
import torch.nn.functional as F
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

from minigpt.decoding.penalties import repetition_penalty
from minigpt.decoding.recording import Recorder
from minigpt.decoding.sampling import GREEDY
from minigpt.pretrained.causal_lm import (
    ScoredText,
    continuation_losses,
    continue_text,
    first_choices,
    losses_under,
    ordinary_tokens,
    ragged_losses,
    row_losses,
    score_continuation,
    score_continuations,
    score_text,
    target_windows,
)
from minigpt.pretrained.limits import UNBOUNDED, context_of, keeping
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
    torch.testing.assert_close(row_losses(model, ids, batch_size=2).mean(), model(ids, labels=ids).loss)


def test_each_loss_is_that_of_its_own_token(model: torch.nn.Module, generator: torch.Generator) -> None:
    ids = torch.randint(31, (1, 12), generator=generator)
    losses = row_losses(model, ids)[0]
    for t in range(1, 12):  # token t from nothing but the tokens before it
        expected = -model(ids[:, :t]).logits[0, -1].log_softmax(-1)[ids[0, t]]
        torch.testing.assert_close(losses[t - 1], expected, rtol=1e-4, atol=1e-5)


def test_a_prompt_is_read_and_not_scored(model: torch.nn.Module, generator: torch.Generator) -> None:
    ids = torch.randint(31, (15,), generator=generator).tolist()
    scored = continuation_losses(model, ids[:10], ids[10:])
    torch.testing.assert_close(scored, row_losses(model, torch.tensor([ids]))[0, 9:])


@pytest.mark.parametrize(("prompt", "new"), [(10, 80), (60, 70), (48, 1), (1, 48)])
def test_beyond_the_context(model: torch.nn.Module, generator: torch.Generator, prompt: int, new: int) -> None:
    """Every token is scored once, given a run of the tokens right before it: half a context at least, or all."""
    ids = torch.randint(31, (prompt + new,), generator=generator).tolist()
    scored = continuation_losses(model, ids[:prompt], ids[prompt:])
    assert len(scored) == new
    for i in {*range(prompt, prompt + new, 11), prompt + new - 1}:
        given = [ids[max(0, i - n) : i] for n in range(min(i, 24), 49)]
        losses = {-model(torch.tensor([g])).logits[0, -1].log_softmax(-1)[ids[i]].item() for g in given}
        assert any(scored[i - prompt].item() == pytest.approx(loss, abs=1e-4) for loss in losses)
    if prompt + new <= 49:
        torch.testing.assert_close(scored, row_losses(model, torch.tensor([ids]))[0, prompt - 1 :])


def test_losses_under_the_distribution_that_is_sampled(model: torch.nn.Module, generator: torch.Generator) -> None:
    """A text of the processed model has the losses that were recorded behind the processor when it was written."""
    recorder, hold = Recorder(), repetition_penalty(1.4)
    prompt = torch.randint(31, (1, 6), generator=generator)
    text = continue_text(model, prompt, 20, generator=generator, processors=(hold, recorder))
    found = losses_under(model, text[0], 6, (lambda _, logits: logits, hold))
    torch.testing.assert_close(found[0], row_losses(model, text)[0, 5:])
    torch.testing.assert_close(found[1], recorder.losses(text)[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(found[0], found[1])
    with pytest.raises(ValueError, match="cannot score tokens 26"):
        losses_under(model, text[0], 26, (hold,))


def test_nothing_to_score(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="0 tokens after 1"):
        continuation_losses(model, [1], [])
    with pytest.raises(ValueError, match="1 tokens after 0"):
        continuation_losses(model, [], [1])


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "stand-in"])
@pytest.mark.parametrize(
    ("prompt", "continuation", "straddles"),
    [
        ("And God said", " unto Noah, Behold", False),
        ("And God", "liness is great gain", False),
        ("In the begin", "ning was light", True),
        ("He saw", "\n\nAnd", False),
    ],
)
def test_a_written_continuation(architecture: str, prompt: str, continuation: str, straddles: bool) -> None:
    pretrained = tiny_pretrained(architecture)  # type: ignore[arg-type]
    scored = score_continuation(pretrained.model, pretrained.tokenizer, prompt, continuation)
    ids = pretrained.tokenizer(prompt + continuation, add_special_tokens=False)["input_ids"]
    if architecture == "stand-in":
        assert scored.tokens == len(continuation)
    assert continuation.endswith(scored.text)
    assert "".join(scored.pieces) == scored.text
    assert (scored.text != continuation) == (straddles and architecture != "stand-in")
    expected = row_losses(pretrained.model, torch.tensor([ids]))[0, -scored.tokens :]
    torch.testing.assert_close(scored.losses, expected)


@pytest.mark.parametrize("tokens_at_once", [1, 30, 512])
def test_rows_of_different_lengths_are_scored_as_alone(
    model: torch.nn.Module, generator: torch.Generator, tokens_at_once: int
) -> None:
    rows = [torch.randint(31, (length,), generator=generator).tolist() for length in (12, 2, 49, 12, 30, 3)]
    found = ragged_losses(model, rows, tokens_at_once=tokens_at_once)
    assert [len(losses) for losses in found] == [11, 1, 48, 11, 29, 2]
    for row, losses in zip(rows, found, strict=True):
        alone = F.cross_entropy(model(torch.tensor([row[:-1]])).logits[0], torch.tensor(row[1:]), reduction="none")
        torch.testing.assert_close(losses, alone, atol=1e-5, rtol=0)
    assert ragged_losses(model, []) == []


def test_continuations_together_are_those_apart() -> None:
    """Of different lengths, one of them beyond the context."""
    pretrained = tiny_pretrained("stand-in")
    model, tokenizer = pretrained.model, pretrained.tokenizer
    long = "and the LORD said unto Moses, " * 6
    assert len(long) > context_of(model)
    texts = [("In the beginning", " God created"), ("And", long), ("the evening and the", " morning were"), ("x", "y")]
    for (prompt, continuation), found in zip(texts, score_continuations(model, tokenizer, texts), strict=True):
        ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, continuation)]
        assert found.text == continuation
        torch.testing.assert_close(found.losses, continuation_losses(model, *ids), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="0 tokens after 4"):
        score_continuations(model, tokenizer, [("fine", " text"), ("text", "")])


def test_logits_that_nobody_asks_for(model: torch.nn.Module) -> None:
    ids = torch.zeros(1, 9, dtype=torch.long)
    assert model(ids, **keeping(model, 2)).logits.shape == (1, 2, 31)
    assert keeping(torch.nn.Identity(), 2) == {}, "a model without such an option"


def test_greedy_continuation_is_transformers(model: torch.nn.Module, generator: torch.Generator) -> None:
    prompt = torch.randint(31, (4, 6), generator=generator)
    theirs = model.generate(prompt, max_new_tokens=12, do_sample=False, eos_token_id=None, pad_token_id=0)
    assert torch.equal(continue_text(model, prompt, 12, sampling=GREEDY), theirs)


def test_too_long(model: torch.nn.Module) -> None:
    with pytest.raises(ValueError, match="beyond the context"):
        continue_text(model, torch.zeros(1, 40, dtype=torch.long), 9)
    with pytest.raises(ValueError, match="2 to 49"):
        row_losses(model, torch.zeros(1, 50, dtype=torch.long))


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
    assert [scored.text[a:b] for a, b in zip((0, *scored.ends), scored.ends, strict=False)] == list(scored.pieces)


def test_a_text_shorter_than_asked_for(model: torch.nn.Module) -> None:
    pretrained = tiny_pretrained("gpt2")
    scored = score_text(pretrained.model, pretrained.tokenizer, "One two three.", tokens=100, window=50)
    assert (scored.text, scored.tokens) == (" two three.", len(pretrained.tokenizer("One two three.")["input_ids"]) - 1)


@pytest.mark.parametrize(("count", "shapes"), [(2, [(1, 2)]), (9, [(2, 5)]), (11, [(2, 5), (1, 3)]), (4, [(1, 4)])])
def test_windows_have_every_target_once(count: int, shapes: list[tuple[int, int]]) -> None:
    ids = torch.arange(100, 100 + count)
    rows = target_windows(ids, 4)
    assert [tuple(row.shape) for row in rows] == shapes
    assert torch.equal(torch.cat([row[:, 1:].flatten() for row in rows]), ids[1:])
    assert all(torch.equal(row[:, 1:], row[:, :-1] + 1) for row in rows)


def test_first_choices_are_those_for_the_next_token(model: torch.nn.Module, generator: torch.Generator) -> None:
    ids = torch.randint(31, (2, 9), generator=generator)
    choices, probabilities = first_choices(model, ids)
    for t in range(1, 9):  # in the place of token t, given what comes before it
        p = model(ids[:, :t]).logits[:, -1].softmax(dim=-1)
        assert torch.equal(choices[:, t - 1], p.argmax(dim=-1))
        torch.testing.assert_close(probabilities[:, t - 1], p.amax(dim=-1), rtol=1e-4, atol=1e-6)


def test_units_agree() -> None:
    scored = ScoredText(torch.tensor([1.0, 2.0, 3.0]), ("ab", "cd", "é"), "abcdé")
    assert scored.n_bytes == 6
    assert scored.bits_per_byte == pytest.approx(6 / math.log(2) / 6)
    assert scored.perplexity == pytest.approx(math.exp(2))


def test_a_model_without_a_limit_has_none() -> None:
    assert context_of(BloomForCausalLM(BloomConfig(hidden_size=16, n_layer=1, n_head=2, vocab_size=31))) == UNBOUNDED


def test_ordinary_tokens_are_not_special() -> None:
    tokenizer = tiny_pretrained("gpt2").tokenizer
    found = ordinary_tokens(tokenizer)
    assert len(found) == 50_256
    assert tokenizer.eos_token_id not in found.tolist()
    assert "<" in tokenizer.convert_ids_to_tokens(found.tolist())
    stand_in = tiny_pretrained("stand-in").tokenizer
    assert sorted(ordinary_tokens(stand_in).tolist()) == list(range(1, len(stand_in)))  # all but the unknown one
