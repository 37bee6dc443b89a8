"""Closed forms against instantiated models and torch's own FLOP counter."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.cost.counting import (
    attended_pairs,
    attention_flops,
    count_parameters,
    forward_flops,
    kv_cache_bytes,
    training_flops,
)
from minigpt.masks import window_mask
from minigpt.model import GPT
from minigpt.objectives import token_cross_entropy

BASE = GPTConfig(n_layer=3, n_head=4, d_model=32, context=24, vocab_size=53)
CONFIGS = [
    BASE,
    *(
        replace(BASE, **changes)
        for changes in (
            {"tie_weights": False},
            {"bias": False},
            {"norm": "post"},
            {"position": "rope", "n_kv_head": 1},
            {"position": "none", "n_kv_head": 2, "bias": False},
            {"n_future": 4, "d_ff": 40},
            {"activation": "relu2", "qk_norm": True},
        )
    ),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.position}-{c.norm}-{c.kv_heads}-{c.n_future}-{c.bias}")
def test_parameters_in_closed_form_are_those_of_the_model(config: GPTConfig) -> None:
    model = GPT(config)
    for embeddings in (True, False):
        assert count_parameters(config, embeddings=embeddings) == count_parameters(model, embeddings=embeddings)
    stored = {w.untyped_storage().data_ptr(): w.numel() for w in model.state_dict().values()}
    assert count_parameters(model) == sum(stored.values())


def test_gpt2_small_has_its_published_size() -> None:
    gpt2 = GPTConfig(n_layer=12, n_head=12, d_model=768, context=1024, vocab_size=50_257)
    assert count_parameters(gpt2) == 124_439_808
    assert count_parameters(replace(gpt2, tie_weights=False)) - count_parameters(gpt2) == 50_257 * 768


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c.position}-{c.norm}-{c.kv_heads}-{c.n_future}-{c.bias}")
def test_flops_equal_torchs_counter(config: GPTConfig) -> None:
    model = GPT(config)
    tokens = torch.randint(config.vocab_size, (2, 25))
    with FlopCounterMode(display=False) as counter:
        logits = model(tokens[:, :-1], maps=[])  # the maps path computes every pair by plain products
        assert counter.get_total_flops() == forward_flops(config, 2, 24)
        token_cross_entropy(logits, tokens[:, 1:]).backward()
    assert counter.get_total_flops() == training_flops(config, 2, 24)


@torch.inference_mode()
def test_flops_of_a_cached_step_equal_torchs_counter() -> None:
    model, cache = GPT(BASE), KVCache(BASE, 2, 24)
    model(torch.zeros(2, 10, dtype=torch.int64), cache=cache)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, dtype=torch.int64), cache=cache, maps=[], last_only=True)
    assert counter.get_total_flops() == forward_flops(BASE, 2, 3, cached=10, last_only=True)


@pytest.mark.parametrize("n_query", [1, 5, 12])
@pytest.mark.parametrize("window", [1, 3, 50])
def test_pairs_are_those_of_the_mask(n_query: int, window: int) -> None:
    assert attended_pairs(n_query, 12, window) == int(window_mask(n_query, window, 12).sum())
    config = replace(BASE, window=window)
    dense = attention_flops(config, 1, n_query, 12)
    assert attention_flops(config, 1, n_query, 12, causal=True) * n_query * 12 == dense * attended_pairs(
        n_query, 12, window
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_cache_bytes_are_those_of_the_buffers(dtype: torch.dtype) -> None:
    config = replace(BASE, n_kv_head=2)
    cache = KVCache(config, 5, 17, dtype=dtype)
    assert kv_cache_bytes(config, 5, 17, dtype.itemsize) == cache.nbytes
