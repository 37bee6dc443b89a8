"""Streaming with sinks against the paper's own way to do it, written out without a cache."""

import pytest
import torch
from torch import Tensor
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from minigpt.decoding.sampling import GREEDY
from minigpt.decoding.streaming import (
    ReencodingReader,
    SinkReader,
    inverse_frequencies,
    reencoded_losses,
    rotation_error,
    stream_losses,
    stream_on,
)
from minigpt.positions import rope_tables, rotate
from minigpt.pretrained.causal_lm import row_losses

V = 31


def llama(layers: int, **changes: object) -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": V,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        "attn_implementation": "eager",
    }
    return LlamaForCausalLM(LlamaConfig(**(shape | changes))).eval()


def gpt2() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=64, vocab_size=V)).eval()


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(V, (1, 150), generator=generator)


@torch.inference_mode()
def as_in_the_paper(model: LlamaForCausalLM, tokens: Tensor, sinks: int, size: int) -> Tensor:
    """Logits after each token of one row (T,): keys are cached unrotated and rotated by their place in the cache."""
    inner, config = model.model, model.config
    H, G = config.num_attention_heads, config.num_key_value_heads
    D = config.hidden_size // H
    kept: list[list[tuple[Tensor, Tensor]]] = [[] for _ in inner.layers]
    found = []
    for token in tokens:
        x = inner.embed_tokens(token)
        for layer, cache in zip(inner.layers, kept, strict=True):
            h = layer.input_layernorm(x)
            attention = layer.self_attn
            q = attention.q_proj(h).view(H, D)
            cache.append((attention.k_proj(h).view(G, D), attention.v_proj(h).view(G, D)))
            if len(cache) > size:
                del cache[sinks]
            n = len(cache)
            keys = torch.stack([k for k, _ in cache], dim=1).repeat_interleave(H // G, dim=0)  # (H, n, D)
            values = torch.stack([v for _, v in cache], dim=1).repeat_interleave(H // G, dim=0)
            keys = rotate(keys, *rope_tables(torch.arange(n), D))
            query = rotate(q[:, None], *rope_tables(torch.tensor([n - 1]), D))
            weights = (query @ keys.transpose(1, 2) / D**0.5).softmax(dim=-1)
            x = x + attention.o_proj((weights @ values).flatten())
            x = x + layer.mlp(layer.post_attention_layernorm(x))
        found.append(model.lm_head(inner.norm(x)))
    return torch.stack(found)


def streamed(model: LlamaForCausalLM, tokens: Tensor, sinks: list[int], size: int, first: int) -> Tensor:
    """Logits after tokens ``first`` - 1 … T - 1 of each row, (B, T - first + 1, V)."""
    reader = SinkReader(model, sinks, size)
    rows = tokens.expand(len(sinks), -1)
    found = [reader.read(rows[:, :first])]
    found += [reader.read(rows[:, t : t + 1]) for t in range(first, tokens.shape[1])]
    return torch.stack(found, dim=1)


@pytest.mark.parametrize("first", [1, 5, 16])
def test_equals_the_papers_cache(tokens: Tensor, first: int) -> None:
    model, sinks = llama(3), [0, 1, 2, 4, 8, 15]
    ours = streamed(model, tokens, sinks, 16, first)
    for row, n in zip(ours, sinks, strict=True):
        expected = as_in_the_paper(model, tokens[0], n, 16)
        assert (row - expected[first - 1 :]).abs().max() <= 1e-4
    assert (ours[0] - ours[3]).abs().max() > 0.1, "sinks matter, or this test shows nothing"


def test_one_layer_equals_reading_the_kept_tokens_from_scratch(tokens: Tensor) -> None:
    """With one layer, keys and values depend on their own token alone."""
    model, sinks = llama(1), [0, 1, 4, 9]
    rows = tokens.expand(4, -1)
    cached = stream_losses(SinkReader(model, sinks, 12), rows, 12)
    anew = stream_losses(ReencodingReader(model, sinks, 12), rows, 12)
    torch.testing.assert_close(cached, anew, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [SinkReader, ReencodingReader])
def test_a_cache_that_holds_everything_is_ordinary_reading(make: type, tokens: Tensor) -> None:
    model = llama(2, max_position_embeddings=256)
    losses = stream_losses(make(model, [0, 4], 200), tokens.expand(2, -1), 3)
    torch.testing.assert_close(losses, row_losses(model, tokens)[:, 2:].expand(2, -1), rtol=1e-4, atol=1e-4)


def test_a_window_alone_sees_the_window_alone(tokens: Tensor) -> None:
    """Without sinks, what the first layer cannot reach in L windows changes nothing."""
    model = llama(2)
    other = tokens.clone()
    other[0, 0] = (other[0, 0] + 1) % V
    a, b = (streamed(model, row, [0, 1], 10, 1) for row in (tokens, other))
    assert torch.equal(a[0, 20:], b[0, 20:])
    assert not torch.equal(a[1, 20:], b[1, 20:])


@pytest.mark.parametrize("make", [SinkReader, ReencodingReader])
def test_continuing_is_reading_what_was_written(make: type, tokens: Tensor) -> None:
    model, sinks = llama(2), [0, 3]
    prompt = tokens[:, :9].expand(2, -1)
    text = stream_on(make(model, sinks, 12), prompt, 30, sampling=GREEDY)
    assert torch.equal(text[:, :9], prompt)
    reader = make(model, sinks, 12)
    logits = reader.read(prompt)
    for t in range(9, 39):
        assert torch.equal(logits.argmax(-1), text[:, t])
        logits = reader.read(text[:, t : t + 1])


def test_memory_stays_as_it_is(tokens: Tensor) -> None:
    model, size = llama(3), 12
    reader = SinkReader(model, [0, 4], size)
    found = []
    for t in range(100):
        reader.read(tokens[:, t : t + 1].expand(2, -1))
        found.append(reader.cache.n_bytes)
    numbers_per_position = 3 * 2 * 8 * 2  # layers, groups, dimensions of a head, rows
    assert set(found) == {4 * numbers_per_position * (2 * size + 4)}, "keys, values, and the original keys of 4 sinks"


def test_reencoding_here_and_there_is_reencoding_everywhere(tokens: Tensor) -> None:
    model, rows = gpt2(), tokens.expand(2, -1)
    all_losses = stream_losses(ReencodingReader(model, [0, 3], 16), rows, 16)
    places = [16, 17, 60, 149]
    torch.testing.assert_close(
        reencoded_losses(model, rows, [0, 3], 16, places), all_losses[:, [p - 16 for p in places]]
    )
    early = reencoded_losses(model, rows, [0, 3], 16, [1, 9])
    torch.testing.assert_close(early, row_losses(model, rows[:, :10])[:, [0, 8]])
    with pytest.raises(ValueError, match="places"):
        reencoded_losses(model, rows, [0, 3], 16, [150])


def test_rotation_is_the_models_own() -> None:
    assert rotation_error(llama(3)) <= 1e-4
    scaled = {"rope_type": "llama3", "rope_theta": 10_000.0, "factor": 4.0, "low_freq_factor": 1.0}
    scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
    assert rotation_error(llama(2, rope_parameters=scaled)) <= 1e-4
    partial = GPTNeoXConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, vocab_size=V
    )
    assert rotation_error(GPTNeoXForCausalLM(partial).eval()) <= 1e-4


def test_learned_positions_are_read_anew(tokens: Tensor) -> None:
    assert inverse_frequencies(gpt2()) is None
    with pytest.raises(ValueError, match="no rotary positions"):
        SinkReader(gpt2(), [0], 16)
    losses = stream_losses(ReencodingReader(gpt2(), [0, 2], 16), tokens.expand(2, -1), 16)
    assert losses.shape == (2, 134)
    assert losses.isfinite().all()


def test_bad_input(tokens: Tensor) -> None:
    model = llama(1)
    with pytest.raises(ValueError, match="sinks must be from 0 to 11"):
        SinkReader(model, [12], 12)
    with pytest.raises(ValueError, match="size <= 64"):
        ReencodingReader(model, [1], 65)
    with pytest.raises(ValueError, match="do not fit"):
        SinkReader(model, [1], 12).read(tokens)
    with pytest.raises(ValueError, match="first must be"):
        stream_losses(SinkReader(model, [1], 12), tokens, 150)
