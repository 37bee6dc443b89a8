"""Every combination of variants that makes sense, by reduction: one model file, no special cases."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from minigpt.cache import KVCache, RollingKVCache
from minigpt.config import GPTConfig
from minigpt.decoding.contrastive import Contrastive
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.decoding.self_speculation import self_speculate
from minigpt.decoding.speculative import speculate
from minigpt.model import GPT
from minigpt.quantize import int8_bytes, load_int8, to_int8

BASE = GPTConfig(n_layer=2, n_head=4, d_model=32, context=32, vocab_size=19)
COMBINATIONS = [
    replace(BASE, position=position, n_kv_head=kv_heads, window=window, norm=norm, tie_weights=tied, n_future=heads)
    for position, kv_heads, window, (norm, tied, heads) in itertools.product(
        ("learned", "rope", "sinusoidal", "none"),
        (4, 2, 1),
        (None, 5),
        (("pre", True, 1), ("post", False, 1), ("pre", False, 3)),
    )
]
COMBINATIONS += [
    replace(BASE, position="rope", n_kv_head=kv_heads, window=window, qk_norm=True, activation="relu2")
    for kv_heads, window in ((2, None), (4, 5))
]


def name_of(config: GPTConfig) -> str:
    return f"{config.position}-{config.kv_heads}kv-w{config.window}-{config.norm}-{config.n_future}"


def build(config: GPTConfig) -> GPT:
    """In double precision, so that nothing but rounding is forgiven."""
    torch.manual_seed(0)
    model = GPT(config).eval().double()
    with torch.no_grad():  # weights large enough that what attention sees matters
        for weight in model.blocks.parameters():
            weight.mul_(2)
    return model


def caches(config: GPTConfig) -> list[KVCache]:
    """Every cache that this model can use."""
    whole = KVCache(config, 2, 24, dtype=torch.float64)
    return [whole, RollingKVCache(config, 2, dtype=torch.float64)] if config.window else [whole]


def read(model: GPT, cache: KVCache, tokens: Tensor, pieces: list[int]) -> Tensor:
    return torch.cat([model(piece, cache=cache) for piece in torch.split(tokens, pieces, dim=1)], dim=1)


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(19, (2, 24), generator=generator)


@pytest.mark.parametrize("config", COMBINATIONS, ids=name_of)
@torch.inference_mode()
def test_cached_equals_uncached_and_the_maps_path_equals_the_fast_one(config: GPTConfig, tokens: Tensor) -> None:
    model = build(config)
    expected = model(tokens)
    for pieces in ([24], [1] * 24, [7, 1, 1, 3, 12]):
        for cache in caches(config):
            assert torch.allclose(read(model, cache, tokens, pieces), expected, atol=1e-9)
    maps: list[Tensor] = []
    assert torch.allclose(model(tokens, maps=maps), expected, atol=1e-9)
    assert [m.shape for m in maps] == [(2, 4, 24, 24)] * 2


@pytest.mark.parametrize("config", COMBINATIONS, ids=name_of)
@torch.inference_mode()
def test_no_output_depends_on_a_later_token(config: GPTConfig, tokens: Tensor) -> None:
    model = build(config)
    h = model.hidden(tokens)
    for j in (1, 12, 23):
        changed = tokens.clone()
        changed[:, j] = (changed[:, j] + 1) % 19
        assert torch.equal(model.hidden(changed)[:, :j], h[:, :j])
        assert not torch.equal(model.hidden(changed)[:, j], h[:, j])


@pytest.mark.parametrize("config", [c for c in COMBINATIONS if c.window], ids=name_of)
@torch.inference_mode()
def test_a_window_over_everything_is_no_window(config: GPTConfig, tokens: Tensor) -> None:
    full, wide, narrow = (build(replace(config, window=window)) for window in (None, 24, 5))
    assert torch.equal(full(tokens), wide(tokens))
    assert torch.equal(full(tokens)[:, :5], wide(tokens)[:, :5])
    assert torch.allclose(full(tokens)[:, :5], narrow(tokens)[:, :5], atol=1e-9)  # nothing is masked yet
    assert (full(tokens)[:, 5:] - narrow(tokens)[:, 5:]).abs().max() > 1e-3


@pytest.mark.parametrize("config", [c for c in COMBINATIONS if not c.window], ids=name_of)
@torch.inference_mode()
def test_prefixes_compose_with_everything_but_windows(config: GPTConfig, tokens: Tensor) -> None:
    model = build(config)
    expected = model(tokens, prefix=9)
    assert torch.equal(model(tokens, prefix=0), model(tokens))
    assert not torch.allclose(expected[:, :8], model(tokens)[:, :8], atol=1e-3)
    (cache,) = caches(config)
    found = [model(tokens[:, :9], prefix=9, cache=cache), read(model, cache, tokens[:, 9:], [1, 4, 10])]
    assert torch.allclose(torch.cat(found, dim=1), expected, atol=1e-9)


@pytest.mark.parametrize("config", [c for c in COMBINATIONS if c.n_kv_head == 4], ids=name_of)
@torch.inference_mode()
def test_as_many_key_value_heads_as_heads_is_multi_head_attention(config: GPTConfig, tokens: Tensor) -> None:
    assert torch.equal(build(config)(tokens), build(replace(config, n_kv_head=None))(tokens))


@pytest.mark.parametrize("config", [c for c in COMBINATIONS if c.n_future > 1], ids=name_of)
@torch.inference_mode()
def test_more_heads_leave_the_first_one_alone(config: GPTConfig, tokens: Tensor) -> None:
    assert torch.equal(build(config)(tokens), build(replace(config, n_future=1))(tokens))


@pytest.mark.parametrize("config", COMBINATIONS, ids=name_of)
def test_drafted_text_is_the_targets_own(config: GPTConfig, tokens: Tensor) -> None:
    """Drafts of another architecture, of the target itself, and of its own heads; up to the last position there is."""
    target, other = build(config), build(replace(BASE, n_layer=1))
    prompt, n_new = tokens[:, :5], 32 + 1 - 5  # the last token is never read and needs no position
    plain = generate(target, prompt, n_new, sampling=GREEDY)[:, : 32 + 1]
    drafted = [speculate(target, draft, prompt, n_new, gamma=3, sampling=GREEDY) for draft in (other, target)]
    drafted.append(self_speculate(target, prompt, n_new, sampling=GREEDY))
    for found in drafted:
        assert torch.equal(found.tokens, plain)
    assert drafted[1].acceptance_rate == 1.0


@pytest.mark.parametrize("config", COMBINATIONS, ids=name_of)
def test_an_amateur_of_any_kind_reads_on_with_its_cache(config: GPTConfig, tokens: Tensor) -> None:
    amateur, expert = build(config), torch.zeros(2, 19, dtype=torch.float64)
    process = Contrastive(amateur, 1.0)
    for end in (3, 4, 11, 12, 24):
        with torch.inference_mode():
            assert torch.allclose(process(tokens[:, :end], expert), -amateur(tokens[:, :end])[:, -1], atol=1e-5)


@pytest.mark.parametrize("config", COMBINATIONS, ids=name_of)
@torch.inference_mode()
def test_eight_bits_compose_with_everything(config: GPTConfig, tokens: Tensor) -> None:
    model = build(config).float()
    small = to_int8(model)
    expected = small(tokens)
    drift = (expected - model(tokens)).square().mean().sqrt() / model(tokens).std()
    assert 0 < drift < 0.1
    assert torch.equal(load_int8(int8_bytes(small))(tokens), expected)
    cache = KVCache(config, 2, 24)
    # Each token is rounded by itself; a sum that falls near a tie may round to the next step, hence the tolerance.
    close = ((read(small, cache, tokens, [7, 1, 1, 3, 12]) - expected).abs() < 0.05 * expected.std()).float().mean()
    assert close > 0.98
