"""Grouped-query attention against repeated heads, torch's own, Llama's code, and counts."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from transformers.models.llama.modeling_llama import repeat_kv

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.masks import causal_mask
from minigpt.model import GPT, attention_weights

CONFIG = GPTConfig(n_layer=2, n_head=8, d_model=64, context=32, vocab_size=19)


@pytest.mark.parametrize("kv_heads", [1, 2, 4, 8])
def test_weights_equal_torch_and_llama(kv_heads: int, generator: torch.Generator) -> None:
    q, k, v = (torch.randn(2, heads, 20, 8, generator=generator) for heads in (8, kv_heads, kv_heads))
    mask = causal_mask(20)
    ours = attention_weights(q, k, mask) @ v.repeat_interleave(8 // kv_heads, dim=1)
    torchs = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    llamas = attention_weights(q, repeat_kv(k, 8 // kv_heads), mask) @ repeat_kv(v, 8 // kv_heads)
    assert torch.allclose(ours, torchs, atol=1e-5)
    assert torch.allclose(ours, llamas, atol=1e-6)


@pytest.mark.parametrize(("kv_heads", "differs"), [(1, False), (2, True), (4, True), (8, False)])
def test_repeat_is_not_repeat_interleave(kv_heads: int, differs: bool, generator: torch.Generator) -> None:
    q, k, v = (torch.randn(1, heads, 10, 8, generator=generator) for heads in (8, kv_heads, kv_heads))
    expected = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    wrong = (x.repeat(1, 8 // kv_heads, 1, 1) for x in (k, v))
    found = F.scaled_dot_product_attention(q, *wrong, is_causal=True)
    assert ((found - expected).abs().max() > 0.01) == differs


@torch.inference_mode()
@pytest.mark.parametrize("position", ["learned", "rope"])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_equals_multi_head_attention_with_copied_heads(
    kv_heads: int, position: str, generator: torch.Generator
) -> None:
    grouped = GPT(replace(CONFIG, n_kv_head=kv_heads, position=position)).eval()
    whole = GPT(replace(CONFIG, position=position)).eval()
    state = grouped.state_dict()
    for name, weight in state.items():
        if "qkv" in name:
            q, k, v = weight.split([64, 8 * kv_heads, 8 * kv_heads])
            copies = [x.unflatten(0, (kv_heads, 8)).repeat_interleave(8 // kv_heads, 0).flatten(0, 1) for x in (k, v)]
            state[name] = torch.cat([q, *copies])
    whole.load_state_dict(state)
    tokens = torch.randint(19, (2, 32), generator=generator)
    assert torch.allclose(grouped(tokens), whole(tokens), atol=1e-5)


def test_all_heads_as_key_value_heads_is_multi_head_attention(generator: torch.Generator) -> None:
    torch.manual_seed(0)
    default = GPT(CONFIG)
    torch.manual_seed(0)
    explicit = GPT(replace(CONFIG, n_kv_head=8))
    tokens = torch.randint(19, (2, 32), generator=generator)
    assert torch.equal(default(tokens), explicit(tokens))


@pytest.mark.parametrize("kv_heads", [1, 2, 4, 8])
def test_parameters_and_cache_by_hand(kv_heads: int) -> None:
    config = replace(CONFIG, n_kv_head=kv_heads)
    saved = sum(p.numel() for p in GPT(CONFIG).parameters()) - sum(p.numel() for p in GPT(config).parameters())
    assert saved == 2 * 2 * (8 - kv_heads) * 8 * (64 + 1)  # layers, K and V, heads, head width, inputs and bias
    assert KVCache(config, 3, 10).nbytes == 2 * 2 * kv_heads * 8 * 4 * 3 * 10
    assert KVCache(config, 3, 10, dtype=torch.float16).nbytes == 2 * 2 * kv_heads * 8 * 2 * 3 * 10
