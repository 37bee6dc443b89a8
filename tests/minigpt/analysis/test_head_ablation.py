"""Heads of Transformers models: outputs from their maps, and ablation against weights set to zero by hand."""

import copy

import pytest
import torch
from torch import Tensor
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
)

from minigpt.analysis import head_ablation
from minigpt.analysis.head_ablation import head_outputs, output_projections, random_heads, without_heads
from minigpt.pretrained.quick import quick

V = 31


def build(kind: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind == "gpt2":
        model: torch.nn.Module = GPT2LMHeadModel(
            GPT2Config(n_layer=3, n_head=4, n_embd=32, n_positions=32, vocab_size=V)
        )
    elif kind == "neox":
        shape = GPTNeoXConfig(
            hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=32, vocab_size=V
        )
        model = GPTNeoXForCausalLM(shape)
    elif kind == "bloom":
        model = BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=3, n_head=4, vocab_size=V))
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=32,
                intermediate_size=48,
                num_hidden_layers=3,
                num_attention_heads=4,
                num_key_value_heads=2,
                vocab_size=V,
                max_position_embeddings=32,
            )
        )
    model.set_attn_implementation("eager")
    with torch.no_grad():  # the usual initialisation makes all maps nearly uniform
        for name, weight in model.named_parameters():
            if weight.ndim == 2 and "emb" not in name and "lm_head" not in name:
                weight.mul_(15)
    return model.eval()


@pytest.fixture
def ids(generator: torch.Generator) -> Tensor:
    return torch.randint(V, (2, 12), generator=generator)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_maps_times_values_are_the_outputs(kind: str, ids: Tensor) -> None:
    model = build(kind)
    with torch.inference_mode():
        maps = model(ids, output_attentions=True, use_cache=False).attentions
    values, outputs = head_outputs(model, ids)
    assert len(values) == len(outputs) == 3
    for layer, value, output in zip(maps, values, outputs, strict=True):
        assert layer.std() > 0.05  # no uniform attention, with which a wrong order of heads could pass
        torch.testing.assert_close(layer @ value, output, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(layer.roll(1, dims=1) @ value, output, atol=1e-2)


@pytest.mark.parametrize("kind", ["gpt2", "llama", "neox", "bloom"])
def test_silent_heads_are_zero_weights(kind: str, ids: Tensor) -> None:
    model = build(kind)
    zeroed = copy.deepcopy(model)
    gone = [(0, 1), (2, 0), (2, 3)]
    with torch.no_grad():
        for layer, head in gone:
            weight = output_projections(zeroed)[layer].weight
            columns = weight.T if kind != "gpt2" else weight  # (H·D, C)
            columns[head * 8 : (head + 1) * 8] = 0
    with torch.inference_mode():
        before = model(ids).logits
        with without_heads(model, gone):
            silent = model(ids).logits
        torch.testing.assert_close(silent, zeroed(ids).logits)
        assert (silent - before).abs().max() > 1e-2
        assert torch.equal(model(ids).logits, before)  # and the heads are back


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_heads_are_silent_in_a_model_rounded_for_reading_too(kind: str, ids: Tensor) -> None:
    model = build(kind)
    rounded, gone = quick(model, "bf16"), [(0, 1), (2, 0), (2, 3)]
    assert len(output_projections(rounded)) == 3
    with torch.inference_mode():
        before, near = model(ids).logits, rounded(ids).logits
        with without_heads(model, gone), without_heads(rounded, gone):
            silent, found = model(ids).logits, rounded(ids).logits
    assert (found - silent).abs().mean() < 0.2 * (silent - before).abs().mean()
    assert (near - before).abs().mean() < 0.2 * (silent - before).abs().mean()


def test_projections_may_be_of_another_width_than_the_model() -> None:
    """H·D is what they read: 4 heads of 8, in a model 36 wide."""
    shape = LlamaConfig(
        hidden_size=36,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        vocab_size=V,
    )
    model = LlamaForCausalLM(shape)
    for one in (model, quick(model, "bf16")):
        assert [head_ablation._width(projection) for projection in output_projections(one)] == [32, 32]


def test_heads_are_back_after_an_error(ids: Tensor) -> None:
    model = build("gpt2")
    before = model(ids).logits
    with pytest.raises(RuntimeError, match="stop"), without_heads(model, [(1, 2)]):
        raise RuntimeError("stop")
    assert torch.equal(model(ids).logits, before)


def test_what_is_not_there() -> None:
    with pytest.raises(ValueError, match="no head 4 in layer 0"), without_heads(build("gpt2"), [(0, 4)]):
        pass
    headless = MambaForCausalLM(MambaConfig(hidden_size=32, num_hidden_layers=2, vocab_size=V))
    with pytest.raises(LookupError, match="Mamba"):
        output_projections(headless)
    with pytest.raises(LookupError, match="values"):
        head_outputs(build("neox"), torch.zeros(1, 4, dtype=torch.long))


def test_random_heads_come_from_the_same_layers() -> None:
    every = [(layer, head) for layer in range(3) for head in range(4)]
    chosen = [(0, 1), (2, 0), (2, 3)]
    for seed in range(20):
        taken = random_heads(chosen, every, torch.Generator().manual_seed(seed))
        assert sorted(layer for layer, _ in taken) == [0, 2, 2]
        assert len(set(taken) - set(chosen)) == 3
    full = [(1, head) for head in range(4)]
    assert not set(random_heads(full, every, torch.Generator().manual_seed(0))) & set(full)
    with pytest.raises(ValueError, match="left"):
        random_heads(every[:7], every, torch.Generator())
