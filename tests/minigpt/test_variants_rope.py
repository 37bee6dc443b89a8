"""Rotary positions against the explicit rotation matrix, Llama's code, and what they promise."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaModel
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.positions import rope_tables, rotate
from minigpt.pretrained.parity import with_our_attention

D = 16


def explicit_rotation(position: float, base: float = 10_000.0) -> Tensor:
    """The block-diagonal matrix of Su et al. (2021), equation 15, with the pairs (i, i + D/2)."""
    matrix = torch.zeros(D, D, dtype=torch.float64)
    for i in range(D // 2):
        angle = torch.tensor(position * base ** (-2 * i / D), dtype=torch.float64)
        matrix[i, i] = matrix[i + D // 2, i + D // 2] = angle.cos()
        matrix[i, i + D // 2], matrix[i + D // 2, i] = -angle.sin(), angle.sin()
    return matrix


def test_equals_the_rotation_matrix(generator: torch.Generator) -> None:
    x = torch.randn(1, 1, 50, D, generator=generator)
    found = rotate(x, *rope_tables(torch.arange(50), D))
    expected = torch.stack([explicit_rotation(m) @ x[0, 0, m].double() for m in range(50)])
    assert torch.allclose(found[0, 0].double(), expected, atol=1e-5)


@pytest.mark.parametrize("base", [10_000.0, 500_000.0])
def test_equals_llama(generator: torch.Generator, base: float) -> None:
    q, k = (torch.randn(2, heads, 100, D, generator=generator) for heads in (4, 2))
    config = LlamaConfig(
        hidden_size=4 * D,
        num_attention_heads=4,
        max_position_embeddings=128,
        rope_parameters={"rope_type": "default", "rope_theta": base},
    )
    expected = apply_rotary_pos_emb(q, k, *LlamaRotaryEmbedding(config)(q, torch.arange(100)[None]))
    tables = rope_tables(torch.arange(100), D, base)
    for ours, theirs in zip((rotate(q, *tables), rotate(k, *tables)), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_position_interpolation_equals_llama(generator: torch.Generator) -> None:
    q = torch.randn(1, 4, 100, D, generator=generator)
    config = LlamaConfig(
        hidden_size=4 * D,
        num_attention_heads=4,
        rope_parameters={"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
    )
    expected, _ = apply_rotary_pos_emb(q, q, *LlamaRotaryEmbedding(config)(q, torch.arange(100)[None]))
    assert torch.allclose(rotate(q, *rope_tables(torch.arange(100) / 4.0, D)), expected, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_a_whole_llama_with_our_attention_in_its_place(kv_heads: int, bias: bool) -> None:
    torch.manual_seed(0)
    host = LlamaModel(
        LlamaConfig(
            vocab_size=50,
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            attention_bias=bias,
        )
    ).eval()
    config = GPTConfig(n_layer=2, n_head=4, n_kv_head=kv_heads, d_model=64, context=64, position="rope", bias=bias)
    tokens = torch.randint(50, (2, 40))
    with torch.inference_mode():
        ours = with_our_attention(host, config)(tokens).last_hidden_state
        assert torch.allclose(ours, host(tokens).last_hidden_state, atol=1e-5)


def test_scores_depend_on_relative_position_only(generator: torch.Generator) -> None:
    q, k = torch.randn(2, 1, 1, 1, D, generator=generator, dtype=torch.float64)
    positions = torch.arange(300)
    tables = rope_tables(positions, D)
    turned_q, turned_k = (rotate(x.expand(1, 1, 300, D), *tables)[0, 0] for x in (q, k))
    scores = turned_q @ turned_k.T  # (query position, key position)
    for distance in (0, 1, 7, 100, 299):
        diagonal = scores.diagonal(-distance)
        assert torch.allclose(diagonal, diagonal[0].expand_as(diagonal), atol=1e-4)
    assert scores[:, 0].std() > 0.1  # and they do depend on it
    assert torch.allclose(turned_q.norm(dim=-1), q.norm().expand(300), atol=1e-5)


CONFIG = GPTConfig(n_layer=2, n_head=4, d_model=32, context=16, vocab_size=19, position="rope")


@torch.inference_mode()
def test_shifting_all_positions_changes_nothing(generator: torch.Generator) -> None:
    model, tokens = GPT(CONFIG).eval(), torch.randint(19, (1, 12), generator=generator)
    shifted = KVCache(CONFIG, 1, 64)
    shifted.length = 37
    mask = torch.zeros(12, 49, dtype=torch.bool)  # the 37 empty places before are not attended to
    mask[:, 37:] = torch.ones(12, 12).tril().bool()
    assert torch.allclose(model(tokens, cache=shifted, mask=mask), model(tokens), atol=1e-5)


@torch.inference_mode()
def test_cached_positions_go_on_and_do_not_restart(generator: torch.Generator) -> None:
    model, tokens = GPT(CONFIG).eval(), torch.randint(19, (2, 40), generator=generator)
    expected = model(tokens)
    cache, restarting = KVCache(CONFIG, 2, 40), RestartingCache(CONFIG, 2, 40)
    right = torch.cat([model(piece, cache=cache) for piece in tokens.split(1, dim=1)], dim=1)
    wrong = torch.cat([model(piece, cache=restarting) for piece in tokens.split(1, dim=1)], dim=1)
    assert torch.allclose(right, expected, atol=1e-5)
    assert (wrong - expected).abs().max() > 1e-3  # the test can see the mistake


class RestartingCache(KVCache):
    """The classic mistake: it stores everything but tells the model that the text begins anew."""

    filled = 0

    def update(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        self.length = self.filled
        found = super().update(layer, k, v)
        self.length = 0
        return found

    def advance(self, count: int) -> None:
        self.filled += count


@pytest.mark.parametrize("field", ["rope_base", "rope_scale"])
def test_what_makes_no_sense_is_refused(field: str) -> None:
    with pytest.raises(ValueError, match="rope"):
        replace(CONFIG, **{field: 0.0})
    with pytest.raises(ValueError, match="even"):
        replace(CONFIG, d_model=12)
