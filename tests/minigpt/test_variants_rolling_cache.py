"""The rolling cache really holds W positions, and nothing can tell."""

from dataclasses import replace

import pytest
import torch

from minigpt.cache import KVCache, RollingKVCache
from minigpt.config import GPTConfig
from minigpt.model import GPT

CONFIG = GPTConfig(n_layer=3, n_head=4, n_kv_head=2, d_model=32, context=64, vocab_size=23, position="rope", window=5)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG).eval()


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(23, (2, 40), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "pieces", [[40], [1] * 40, [3, 1, 1, 7, 1, 5, 12, 2, 8], [4, 1, 35], [5, 5, 6, 24], [17, 1, 1, 21]]
)
@torch.inference_mode()
def test_cached_in_any_pieces_equals_uncached(model: GPT, tokens: torch.Tensor, pieces: list[int]) -> None:
    cache = RollingKVCache(CONFIG, 2)
    found = torch.cat([model(piece, cache=cache) for piece in tokens.split(pieces, dim=1)], dim=1)
    assert torch.allclose(found, model(tokens), atol=1e-5)
    assert cache.length == 40


@pytest.mark.parametrize("window", [1, 2, 5, 64])
@torch.inference_mode()
def test_every_window(tokens: torch.Tensor, window: int) -> None:
    model = GPT(replace(CONFIG, window=window)).eval()
    cache = RollingKVCache(model.config, 2)
    found = torch.cat([model(piece, cache=cache) for piece in tokens.split([7, 1, 1, 9, 1, 21], dim=1)], dim=1)
    assert torch.allclose(found, model(tokens), atol=1e-5)


def test_memory_does_not_grow_with_the_text(model: GPT, tokens: torch.Tensor) -> None:
    rolling, whole = RollingKVCache(CONFIG, 2), KVCache(CONFIG, 2, 40)
    assert rolling.nbytes * 40 == whole.nbytes * 5
    before = rolling.keys.data_ptr()
    with torch.inference_mode():
        for token in tokens.split(1, dim=1):
            model(token, cache=rolling)
    assert rolling.keys.data_ptr() == before
    assert rolling.keys.shape == (3, 2, 2, 5, 8)


@torch.inference_mode()
def test_rewind_by_one_and_refusal_of_more(model: GPT, tokens: torch.Tensor) -> None:
    cache = RollingKVCache(CONFIG, 2)
    model(tokens[:, :20], cache=cache)
    expected = model(tokens[:, :21])[:, -1]
    model((tokens[:, 20:21] + 1) % 23, cache=cache)  # a wrong token, to be taken back
    cache.rewind(20)
    assert torch.allclose(model(tokens[:, 20:21], cache=cache)[:, -1], expected, atol=1e-5)
    for length in (19, 3, 22):
        with pytest.raises(ValueError):
            cache.rewind(length)
    cache.rewind(20)
    with pytest.raises(ValueError, match="already at 21"):
        cache.rewind(19)  # two steps of one are two


@torch.inference_mode()
def test_rewind_is_free_until_the_window_is_full(model: GPT, tokens: torch.Tensor) -> None:
    cache = RollingKVCache(CONFIG, 2)
    model(tokens[:, :5], cache=cache)
    cache.rewind(2)
    found = torch.cat([model(piece, cache=cache) for piece in tokens[:, 2:].split([1, 1, 36], dim=1)], dim=1)
    assert torch.allclose(found, model(tokens)[:, 2:], atol=1e-5)


@torch.inference_mode()
def test_reorder_moves_rows(model: GPT, tokens: torch.Tensor) -> None:
    cache = RollingKVCache(CONFIG, 2)
    model(tokens[:, :11], cache=cache)
    cache.reorder(torch.tensor([1, 1]))
    found = model(tokens[[1, 1], 11:12], cache=cache)
    assert torch.allclose(found, model(tokens[[1, 1], :12])[:, -1:], atol=1e-5)


def test_a_window_is_needed() -> None:
    with pytest.raises(ValueError, match="window"):
        RollingKVCache(replace(CONFIG, window=None), 2)


@pytest.mark.parametrize("kind", ["whole", "rolling"])
def test_the_number_of_keys_is_known_before_they_are_returned(kind: str) -> None:
    cache = KVCache(CONFIG, 2, 40) if kind == "whole" else RollingKVCache(CONFIG, 2)
    for count in (3, 1, 1, 7, 1, 12, 1):
        expected = cache.keys_seen(count)
        k, v = cache.update(0, torch.zeros(2, 2, count, 8), torch.zeros(2, 2, count, 8))
        assert k.shape[2] == v.shape[2] == expected
        cache.advance(count)


@pytest.mark.parametrize("pieces", [[40], [1] * 40, [3, 1, 1, 7, 1, 5, 12, 2, 8]])
@torch.inference_mode()
def test_a_cache_of_less_precision_than_the_model_is_rounded_as_the_plain_one(
    model: GPT, tokens: torch.Tensor, pieces: list[int]
) -> None:
    """Both caches hold bf16 under a model of fp32: the same keys, so the same logits but for the order of a sum."""
    rolling, plain = RollingKVCache(CONFIG, 2, dtype=torch.bfloat16), KVCache(CONFIG, 2, 40, dtype=torch.bfloat16)
    for piece in tokens.split(pieces, dim=1):
        found, expected = model(piece, cache=rolling), model(piece, cache=plain)
        assert found.dtype == torch.float32
        assert torch.allclose(found, expected, atol=1e-5)
