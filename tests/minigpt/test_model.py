"""The plain model: masks, causality, cache, norms and initial weights, each against something independent."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention.bias import causal_lower_right

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.masks import causal_mask
from minigpt.model import GPT, CausalSelfAttention, attention_weights
from minigpt.positions import sinusoidal

CONFIG = GPTConfig(n_layer=2, n_head=4, d_model=32, context=20, vocab_size=29)


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    return GPT(CONFIG).eval()


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(29, (2, 20), generator=generator)


# --- attention ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n_query", "n_key"), [(6, 6), (1, 6), (4, 9)])
def test_the_causal_mask_is_aligned_to_the_end(n_query: int, n_key: int, generator: torch.Generator) -> None:
    q = torch.randn(2, 3, n_query, 8, generator=generator)
    k, v = torch.randn(2, 2, 3, n_key, 8, generator=generator)
    expected = F.scaled_dot_product_attention(q, k, v, attn_mask=causal_lower_right(n_query, n_key))
    weights = attention_weights(q, k, causal_mask(n_query, n_key))
    assert torch.allclose(weights @ v, expected, atol=1e-6)
    assert torch.allclose(weights.sum(-1), torch.ones(2, 3, n_query), atol=1e-6)
    assert (weights[..., ~causal_mask(n_query, n_key)] == 0).all()


def test_attention_equals_torchs_multi_head_attention(generator: torch.Generator) -> None:
    ours = CausalSelfAttention(CONFIG)
    theirs = torch.nn.MultiheadAttention(32, 4, batch_first=True)
    state = {"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias}
    theirs.load_state_dict(state | {"out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias})
    x = torch.randn(2, 11, 32, generator=generator)
    expected, _ = theirs(x, x, x, attn_mask=~causal_mask(11), need_weights=False)
    assert torch.allclose(ours(x), expected, atol=1e-6)


def test_no_gradient_flows_to_a_later_token(model: GPT, tokens: Tensor) -> None:
    embedded: list[Tensor] = []
    model.token_embedding.register_forward_hook(lambda _m, _i, out: embedded.append(out.retain_grad() or out))
    logits = model(tokens)
    for i in (0, 7, 19):
        gradient = torch.autograd.grad(logits[:, i].square().sum(), embedded[0], retain_graph=True)[0]
        size = gradient.abs().sum(-1)  # (B, T)
        assert (size[:, i + 1 :] == 0).all()
        assert (size[:, : i + 1] > 0).all()


def test_a_later_token_changes_no_earlier_bit(model: GPT, tokens: Tensor) -> None:
    before = model(tokens)
    for j in range(20):
        changed = tokens.clone()
        changed[:, j] = (changed[:, j] + 1) % 29
        after = model(changed)
        assert torch.equal(after[:, :j], before[:, :j])
        assert not torch.equal(after[:, j], before[:, j])


# --- cache --------------------------------------------------------------------------------------------------------


@torch.inference_mode()
def test_a_rewound_cache_forgets(model: GPT, tokens: Tensor) -> None:
    cache = KVCache(CONFIG, 2, 20)
    model(tokens[:, :8], cache=cache)
    model((tokens[:, 8:12] + 1) % 29, cache=cache)  # a draft that is rejected
    cache.rewind(8)
    assert torch.allclose(model(tokens[:, 8:], cache=cache), model(tokens)[:, 8:], atol=1e-5)


@torch.inference_mode()
def test_a_reordered_cache_follows_its_rows(model: GPT, tokens: Tensor) -> None:
    cache = KVCache(CONFIG, 2, 20)
    model(tokens[:, :8], cache=cache)
    cache.reorder(torch.tensor([1, 1]))
    again = torch.cat([tokens[[1, 1], :8], tokens[:, 8:]], dim=1)
    assert torch.allclose(model(tokens[:, 8:], cache=cache), model(again)[:, 8:], atol=1e-5)


def test_a_full_cache_and_positions_without_embedding_are_refused(model: GPT, tokens: Tensor) -> None:
    cache = KVCache(CONFIG, 2, 4)
    with pytest.raises(ValueError, match="holds 4 positions, 20 are needed"):
        model(tokens, cache=cache)
    with pytest.raises(ValueError, match="only 20 have a learned embedding"):
        model(torch.zeros(1, 21, dtype=torch.int64))
    with pytest.raises(ValueError, match="cannot rewind"):
        cache.rewind(1)


# --- embeddings, norms, initial weights ---------------------------------------------------------------------------


def test_sinusoids_by_their_formula() -> None:
    table = sinusoidal(torch.arange(50), 16)
    for position in (0, 1, 49):
        for i in range(8):
            angle = position / 10_000 ** (2 * i / 16)
            assert table[position, 2 * i].item() == pytest.approx(math.sin(angle), abs=1e-5)
            assert table[position, 2 * i + 1].item() == pytest.approx(math.cos(angle), abs=1e-5)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_blocks_by_their_equations(norm: str, generator: torch.Generator) -> None:
    block = GPT(replace(CONFIG, norm=norm)).eval().blocks[0]
    x = torch.randn(2, 5, 32, generator=generator)

    def normed(layer: torch.nn.LayerNorm, h: Tensor) -> Tensor:
        centred = h - h.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + 1e-5).sqrt() * layer.weight + layer.bias

    if norm == "pre":
        y = x + block.attn(normed(block.norm1, x))
        expected = y + block.mlp(normed(block.norm2, y))
    else:
        y = normed(block.norm1, x + block.attn(x))
        expected = normed(block.norm2, y + block.mlp(y))
    assert torch.allclose(block(x), expected, atol=1e-5)


@pytest.mark.parametrize("width", [64, 256])
def test_initial_weights_have_the_spread_they_should(width: int) -> None:
    torch.manual_seed(0)
    model = GPT(GPTConfig(n_layer=8, n_head=4, d_model=width, context=64, vocab_size=500))
    std = 0.02 * math.sqrt(768 / width)
    for name, weight in model.named_parameters():
        if weight.ndim == 2:
            expected = std / 4 if name.endswith(("proj.weight", "down.weight")) else std
            assert weight.std().item() == pytest.approx(expected, rel=0.05), name
        elif "norm" in name and name.endswith("weight"):
            assert (weight == 1).all(), name
        else:
            assert (weight == 0).all(), name


def test_a_fresh_model_knows_nothing(tokens: Tensor) -> None:
    torch.manual_seed(0)
    for width in (32, 128):
        model = GPT(replace(CONFIG, d_model=width))
        loss = F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
        assert loss.item() == pytest.approx(math.log(29), abs=0.35)


@pytest.mark.parametrize(
    "bad",
    [
        {"n_layer": 0},
        {"context": 0},
        {"vocab_size": -1},
        {"d_model": 30},
        {"n_kv_head": 3},
        {"n_kv_head": 0},
        {"position": "rope", "d_model": 12},
        {"window": 0},
        {"dropout": 1.0},
        {"n_future": 0},
        {"n_future": CONFIG.context + 1},
    ],
    ids=str,
)
def test_an_impossible_configuration_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"must|multiple|divide|even|range|in \["):
        replace(CONFIG, **bad)


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(ValueError, match="no activation is called 'swish': gelu, relu2"):
        replace(CONFIG, activation="swish")


def test_normalised_queries_and_keys_by_hand(generator: torch.Generator) -> None:
    """Each head's queries and keys get mean 0 and length √D, so that a score is √D times their correlation."""
    attention = CausalSelfAttention(replace(CONFIG, qk_norm=True)).double()
    x = torch.randn(2, 9, 32, dtype=torch.float64, generator=generator)
    q, k, v = (part.view(2, 9, 4, 8).transpose(1, 2) for part in attention.qkv(x).split(32, dim=-1))
    q, k = (part - part.mean(dim=-1, keepdim=True) for part in (q, k))
    correlations = (q @ k.mT) / (q.norm(dim=-1)[..., :, None] * k.norm(dim=-1)[..., None, :])
    weights = (correlations * math.sqrt(8)).masked_fill(~causal_mask(9), -math.inf).softmax(dim=-1)
    expected = attention.proj((weights @ v).transpose(1, 2).reshape(2, 9, 32))
    assert torch.allclose(attention(x), expected, atol=1e-5)
    before = attention(x)
    with torch.no_grad():
        attention.qkv.weight[:64] *= 3  # queries and keys, whose size then does not count
        assert attention.qkv.bias is not None
        attention.qkv.bias[:64] *= 3
    assert torch.allclose(attention(x), before, atol=1e-5)


def test_squared_relu_by_hand() -> None:
    """Same weights, same draws; of positive inputs the square, of negative ones nothing, in both directions."""
    torch.manual_seed(0)
    mlp = GPT(replace(CONFIG, activation="relu2")).blocks[0].mlp.double()
    x = torch.randn(3, 32, dtype=torch.float64, requires_grad=True)
    u = (x @ mlp.up.weight.T + mlp.up.bias).detach()
    assert (u > 0).any()
    assert (u < 0).any()
    y = mlp(x)
    assert torch.allclose(y, torch.where(u > 0, u**2, 0) @ mlp.down.weight.T + mlp.down.bias, atol=1e-12)
    y.sum().backward()
    assert x.grad is not None
    slope = torch.where(u > 0, 2 * u, 0) * mlp.down.weight.sum(dim=0)
    assert torch.allclose(x.grad, slope @ mlp.up.weight, atol=1e-12)


def test_the_vocabulary_must_be_known() -> None:
    with pytest.raises(ValueError, match="vocab_size is 0"):
        GPT(replace(CONFIG, vocab_size=0))


def test_attention_alone_refuses_to_guess_a_mask():
    config = GPTConfig(n_layer=1, n_head=2, d_model=8, context=8, vocab_size=5)
    attention = CausalSelfAttention(config).eval()
    cache = KVCache(config, 1, 8)
    attention(torch.zeros(1, 3, 8), cache=cache)
    cache.advance(3)
    with pytest.raises(ValueError, match=r"2 tokens after cached ones need a mask: visible_keys\(2, 5\)"):
        attention(torch.zeros(1, 2, 8), cache=cache)
    attention(torch.zeros(1, 1, 8), cache=cache)  # one token alone sees all keys
    with pytest.raises(ValueError, match="maps"):
        attention(torch.zeros(1, 3, 8), maps=[])
