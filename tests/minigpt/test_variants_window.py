"""Sliding windows against Mistral, dense masks, counts, and the receptive field proved by gradients."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import MistralConfig, MistralModel

from minigpt.analysis.receptive_field import influence, reach
from minigpt.config import GPTConfig
from minigpt.masks import causal_mask, window_mask
from minigpt.model import GPT
from minigpt.pretrained.parity import with_our_attention
from minigpt.window import windowed_attention

CONFIG = GPTConfig(n_layer=2, n_head=4, d_model=32, context=64, vocab_size=19, position="rope")


@pytest.mark.parametrize("window", [1, 3, 8, 40, 100])
def test_mask_by_its_definition(window: int) -> None:
    mask = window_mask(40, window)
    for query in range(40):
        assert mask[query].nonzero().flatten().tolist() == list(range(max(0, query - window + 1), query + 1))
    assert torch.equal(window_mask(5, window, 40), mask[-5:])  # queries are the last ones


@pytest.mark.parametrize(("length", "window"), [(1, 1), (7, 8), (8, 8), (9, 8), (64, 8), (50, 1), (33, 16)])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_blocks_equal_the_dense_mask(length: int, window: int, kv_heads: int, generator: torch.Generator) -> None:
    q, k, v = (torch.randn(2, heads, length, 8, generator=generator) for heads in (4, kv_heads, kv_heads))
    expected = F.scaled_dot_product_attention(q, k, v, window_mask(length, window), enable_gqa=True)
    assert torch.allclose(windowed_attention(q, k, v, window), expected, atol=1e-5)


def test_gradients_of_the_blocks_equal_those_of_the_dense_mask(generator: torch.Generator) -> None:
    inputs = [torch.randn(2, 4, 37, 8, generator=generator).requires_grad_() for _ in range(3)]
    weight = torch.randn(2, 4, 37, 8, generator=generator)
    ours = torch.autograd.grad((windowed_attention(*inputs, 5) * weight).sum(), inputs)
    dense = torch.autograd.grad((F.scaled_dot_product_attention(*inputs, window_mask(37, 5)) * weight).sum(), inputs)
    for a, b in zip(ours, dense, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.parametrize("window", [4, 16, 40])
@torch.inference_mode()
def test_a_whole_mistral_with_our_attention_in_its_place(window: int) -> None:
    torch.manual_seed(0)
    host = MistralModel(
        MistralConfig(
            vocab_size=50,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            sliding_window=window,
            attn_implementation="eager",
        )
    ).eval()
    config = GPTConfig(
        n_layer=2, n_head=4, n_kv_head=2, d_model=64, context=64, position="rope", window=window, bias=False
    )
    tokens = torch.randint(50, (2, 40))
    expected = host(tokens).last_hidden_state
    assert torch.allclose(with_our_attention(host, config)(tokens).last_hidden_state, expected, atol=1e-5)
    off_by_one = with_our_attention(host, replace(config, window=window - 1))(tokens).last_hidden_state
    assert (off_by_one - expected).abs().max() > 1e-3  # W includes the token itself, and the test can tell


@torch.inference_mode()
def test_the_whole_model_computes_the_blocks_of_the_window_and_no_others() -> None:
    """FLOPs of the products, counted by torch: of T² pairs in each layer, 2 · W · T are left."""

    def counted(model: GPT) -> int:
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(torch.zeros(2, 64, dtype=torch.long))
        return int(counter.get_total_flops())

    full, windowed = (counted(GPT(replace(CONFIG, window=window)).eval()) for window in (None, 8))
    assert full - windowed == 2 * 4 * 2 * 32 * 64 * (64 - 2 * 8)  # layers, 2 products of 2 FLOPs, batch, C, T, pairs


@pytest.mark.parametrize("window", [16, 17, 64])
@torch.inference_mode()
def test_a_window_as_long_as_the_text_is_full_attention(window: int, generator: torch.Generator) -> None:
    model = GPT(replace(CONFIG, window=window)).eval()
    full = GPT(CONFIG).eval()
    full.load_state_dict(model.state_dict())
    tokens = torch.randint(19, (2, 16), generator=generator)
    assert torch.equal(model(tokens), full(tokens))
    assert torch.equal(window_mask(16, window), causal_mask(16))


@pytest.mark.parametrize(("layers", "window"), [(1, 4), (2, 4), (3, 4), (3, 7), (4, 2), (2, 1)])
def test_receptive_field_is_layers_times_window_less_one(layers: int, window: int, generator: torch.Generator) -> None:
    model = GPT(replace(CONFIG, n_layer=layers, window=window))
    found = influence(model, torch.randint(19, (32,), generator=generator))
    positions = torch.arange(32)
    distance = positions[:, None] - positions
    assert torch.equal(found != 0, (distance >= 0) & (distance <= layers * (window - 1)))
    assert reach(found) == layers * (window - 1)


def test_influence_is_the_gradient_by_finite_differences(generator: torch.Generator) -> None:
    model = GPT(replace(CONFIG, d_model=8, window=3)).double()
    tokens = torch.randint(19, (6,), generator=generator)
    rows = influence(model, tokens)
    direction = torch.randn(8, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-6

    @torch.inference_mode()
    def output(position: int, dimension: int, amount: float) -> float:
        def nudge(_m: torch.nn.Module, _i: object, out: torch.Tensor) -> torch.Tensor:
            out = out.clone()
            out[0, position, dimension] += amount
            return out

        handle = model.token_embedding.register_forward_hook(nudge)
        value = float(model.hidden(tokens[None])[0, 4] @ direction)
        handle.remove()
        return value

    for source in range(6):
        slopes = [(output(source, d, step) - output(source, d, -step)) / (2 * step) for d in range(8)]
        assert torch.tensor(slopes).norm() == pytest.approx(rows[4, source].item(), rel=1e-4, abs=1e-7)


def test_reach_refuses_leaks() -> None:
    with pytest.raises(ValueError, match="later"):
        reach(torch.ones(3, 3))
    with pytest.raises(ValueError, match="no output"):
        reach(torch.zeros(3, 3))
