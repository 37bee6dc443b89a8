"""Reading once and branching, against reading every text by itself."""

import pytest
import torch
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from minigpt.decoding.sampling import GREEDY
from minigpt.decoding.streaming import stream_losses, stream_on
from minigpt.pretrained.causal_lm import continue_text, row_losses
from minigpt.pretrained.full_context import FullReader

V, T = 31, 40


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=64, vocab_size=V, initializer_range=0.4)
    return GPT2LMHeadModel(shape).eval()


def llama() -> LlamaForCausalLM:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape = LlamaConfig(**sizes, num_key_value_heads=2, vocab_size=V, initializer_range=0.3)
    return LlamaForCausalLM(shape).eval()


@pytest.fixture(params=[gpt2, llama])
def model(request):
    return request.param()


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(V, (3, T), generator=generator)


@pytest.mark.parametrize("chunk", [1, 7, 39, 128])
def test_scores_are_the_losses_of_one_pass(model, tokens: Tensor, chunk: int) -> None:
    reader = FullReader(model)
    reader.read(tokens[:, :1])
    losses = reader.score(tokens[:, 1:], chunk)
    torch.testing.assert_close(losses, row_losses(model, tokens), rtol=1e-4, atol=1e-4)
    with torch.inference_mode():
        torch.testing.assert_close(reader.logits, model(tokens).logits[:, -1], rtol=1e-4, atol=1e-4)


def test_branches_are_texts_of_their_own(model, tokens: Tensor, generator: torch.Generator) -> None:
    reader = FullReader(model)
    reader.read(tokens)
    rows = [2, 0, 0, 1]
    more = torch.randint(V, (4, 6), generator=generator)
    losses = reader.branch(rows).score(more)
    expected = row_losses(model, torch.cat([tokens[rows], more], dim=1))[:, T - 1 :]
    torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-4)
    again = reader.branch(rows).score(more)
    torch.testing.assert_close(again, losses, rtol=0, atol=0)  # the first branch left it as it was


def test_it_reads_and_writes_like_any_reader(model, tokens: Tensor) -> None:
    losses = stream_losses(FullReader(model), tokens, 5)
    torch.testing.assert_close(losses, row_losses(model, tokens)[:, 4:], rtol=1e-4, atol=1e-4)
    written = stream_on(FullReader(model), tokens, 10, sampling=GREEDY)
    assert torch.equal(written, continue_text(model, tokens, 10, sampling=GREEDY))


def test_nothing_read(model, tokens: Tensor) -> None:
    with pytest.raises(ValueError, match="nothing before it"):
        FullReader(model).score(tokens)
    with pytest.raises(ValueError, match="nothing was read"):
        FullReader(model).branch([0])
