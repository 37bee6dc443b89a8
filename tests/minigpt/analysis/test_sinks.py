"""Attention received, by hand and against the head scores; and in a model whose maps are known."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from minigpt.analysis.head_scores import share, uniform_share
from minigpt.analysis.sinks import (
    SinkProfile,
    attention_received,
    planted,
    planted_shares,
    received,
    sink_profile,
    uniform_received,
)

T = 12


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    shape = GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=T, vocab_size=31, initializer_range=0.5)
    model = GPT2LMHeadModel(shape)
    model.set_attn_implementation("eager")
    return model.eval()


def test_received_by_hand() -> None:
    weights = torch.tensor([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(received(weights, 1), torch.tensor([0.35, 0.4, 0.25]))
    torch.testing.assert_close(received(weights, 2), torch.tensor([0.2, 0.3, 0.5]))
    with pytest.raises(ValueError, match="begin"):
        received(weights, 3)


@pytest.mark.parametrize("n", [1, 4])
def test_shares_are_those_of_the_head_scores(n: int, generator: torch.Generator) -> None:
    """``head_scores`` counts the same from a table of wanted keys."""
    begin = 6
    weights = torch.rand(1, 3, T, T, generator=generator).tril()
    weights = weights / weights.sum(dim=-1, keepdim=True)
    wanted = torch.zeros(1, T, T, dtype=torch.bool)
    wanted[:, begin:, :n] = True
    torch.testing.assert_close(received(weights, begin)[0, :, :n].sum(-1), share(weights, wanted))
    assert uniform_received(T, begin)[:n].sum().item() == pytest.approx(uniform_share(wanted))


def test_uniform_attention_by_hand() -> None:
    """Queries 1 and 2 give position 0 a half and a third."""
    torch.testing.assert_close(uniform_received(3, 1), torch.tensor([5 / 12, 5 / 12, 2 / 12], dtype=torch.float64))


def test_of_a_model(generator: torch.Generator) -> None:
    model, ids = gpt2(), torch.randint(31, (T,), generator=generator)
    found = attention_received(model, ids, 5)
    assert found.shape == (2, 2, T)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 2))
    with torch.inference_mode():
        maps = model(ids[None], output_attentions=True).attentions
    torch.testing.assert_close(found[1, 0, 3], maps[1][0, 0, 5:, 3].mean())


def test_queries_and_keys_that_are_zero_attend_uniformly(generator: torch.Generator) -> None:
    model = gpt2()
    with torch.no_grad():
        for block in model.transformer.h:
            block.attn.c_attn.weight[:, :32] = 0
            block.attn.c_attn.bias[:32] = 0
    found = attention_received(model, torch.randint(31, (T,), generator=generator), 4)
    torch.testing.assert_close(found, uniform_received(T, 4).float().expand(2, 2, T))


def test_a_token_is_planted_twice() -> None:
    text = torch.arange(10, 18)
    assert planted(text, 7, 4).tolist() == [7, 10, 11, 12, 7, 13, 14, 15, 16, 17]
    assert planted(text, 7, 8).tolist()[8:] == [7, 17]
    assert planted(text, 7, 1).tolist()[:3] == [7, 7, 10]
    with pytest.raises(ValueError, match="place"):
        planted(text, 7, 9)


def test_a_profile_by_hand() -> None:
    """Two rows of 8 tokens, one layer, two heads."""
    first = torch.tensor([[[[0.5, 0.1], [0.3, 0.1]]], [[[0.4, 0.0], [0.2, 0.2]]]])
    ids = torch.tensor([[3, 1, 3, 2, 3, 3, 1, 2], [5, 5, 1, 5, 0, 0, 0, 0]])
    mean = torch.arange(16).view(2, 8) / 16
    profile = SinkProfile(ids, first, mean)
    assert profile.begin == 4
    torch.testing.assert_close(profile.heads, torch.tensor([[0.45, 0.25]]))
    assert profile.rows(1) == pytest.approx([0.4, 0.3])
    assert profile.rows(2) == pytest.approx([0.5, 0.4])
    assert profile.share(2) == pytest.approx(0.45)
    assert profile.uniform() == pytest.approx((1 / 5 + 1 / 6 + 1 / 7 + 1 / 8) / 4)
    assert profile.ratio(2) == pytest.approx(0.45 / (2 * profile.uniform()))
    assert profile.recurring() == pytest.approx([2 / 16, 9 / 16, 11 / 16]), (
        "in the first half, the first itself left out"
    )


def test_a_profile_of_a_model(generator: torch.Generator) -> None:
    model, rows, told = gpt2(), torch.randint(31, (3, T), generator=generator), []
    profile = sink_profile(model, rows, 5, told.append)
    assert told == [0, 1 / 3, 2 / 3]
    every = torch.stack([attention_received(model, row, T // 2) for row in rows])
    torch.testing.assert_close(profile.first, every[..., :5])
    torch.testing.assert_close(profile.mean, every.mean(dim=(1, 2)))


def test_place_and_token_are_told_apart(generator: torch.Generator) -> None:
    """A model that looks at token 7 wherever it stands, and one that looks at position 0 whatever stands there."""
    texts = torch.randint(6, (2, T - 2), generator=generator)
    model = gpt2()
    with torch.no_grad():
        for weight in (*model.transformer.wte.parameters(), *model.transformer.wpe.parameters()):
            weight.zero_()
        for block in model.transformer.h:
            block.attn.c_attn.weight.zero_()
            block.attn.c_attn.bias.zero_()
            block.attn.c_attn.bias[:16] = 30  # all queries alike
            block.attn.c_attn.weight[0, 16:32] = 1  # keys: what the first dimension says
            block.attn.c_proj.weight.zero_()
            block.mlp.c_proj.weight.zero_()
        model.transformer.wte.weight[7, 0] = 1
    first, middle = planted_shares(model, texts, 7)
    assert first == pytest.approx(0.5, abs=1e-3)
    assert middle == pytest.approx(0.5, abs=1e-3)
    with torch.no_grad():
        model.transformer.wte.weight.zero_()
        model.transformer.wpe.weight[0, 0] = 1
    first, middle = planted_shares(model, texts, 7)
    assert first == pytest.approx(1, abs=1e-3)
    assert middle == pytest.approx(0, abs=1e-3)
