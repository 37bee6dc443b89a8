"""The packed model against the one it was made of, which reads everything anew, and bounds that rounding must keep."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from minigpt.cache import KVCache, RollingKVCache
from minigpt.config import GPTConfig
from minigpt.decoding.beam import beam_search
from minigpt.decoding.packed import pack, product
from minigpt.decoding.readers import cache_for
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.model import GPT
from minigpt.quantize import quantize, to_int8

CONFIG = GPTConfig(n_layer=3, n_head=4, d_model=64, context=48, vocab_size=50)
VARIANTS = {
    "learned": CONFIG,
    "rope": replace(CONFIG, position="rope", rope_scale=2.0),
    "sinusoidal": replace(CONFIG, position="sinusoidal"),
    "no positions": replace(CONFIG, position="none"),
    "grouped-query": replace(CONFIG, n_kv_head=2, position="rope"),
    "multi-query": replace(CONFIG, n_kv_head=1),
    "window": replace(CONFIG, window=5, n_kv_head=2),
    "post-norm": replace(CONFIG, norm="post"),
    "normalised queries and keys": replace(CONFIG, qk_norm=True, position="rope"),
    "squared ReLU": replace(CONFIG, activation="relu2"),
    "no biases": replace(CONFIG, bias=False),
    "normed queries and keys": replace(CONFIG, position="rope", n_kv_head=2, qk_norm=True),
    "squared ReLU, post-norm": replace(CONFIG, activation="relu2", qk_norm=True, norm="post"),
    "untied": replace(CONFIG, tie_weights=False, n_future=2, dropout=0.2, d_ff=96),
}
ROUNDED = {"bfloat16": 0.02, "int8": 0.05}  # rms of the change of logits over their standard deviation


def build(config: GPTConfig) -> GPT:
    torch.manual_seed(0)
    gpt = GPT(config).eval()
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)  # biases and norms too
    return gpt


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(50, (1, 40), generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def read(model: GPT, tokens: torch.Tensor, pieces: list[int], cache: KVCache | None = None) -> torch.Tensor:
    cache = cache or cache_for(model, 1, tokens.shape[1])
    return torch.cat([model(piece, cache=cache) for piece in tokens.split(pieces, dim=1)], dim=1)


class Operations(TorchDispatchMode):
    """Notes the name of every operation that runs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("pieces", [[7] + [1] * 33, [1] * 40, [3, 1, 1, 20, 1, 14]], ids=len)
@pytest.mark.parametrize("name", VARIANTS)
def test_fp32_logits_are_the_models(name, pieces, tokens):
    model = build(VARIANTS[name])
    with torch.inference_mode():
        expected = model(tokens)  # at once, without a cache
    torch.testing.assert_close(read(pack(model), tokens, pieces), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("weights", ROUNDED)
def test_rounded_logits_are_near_the_models(name, weights, tokens):
    model = build(VARIANTS[name])
    with torch.inference_mode():
        expected = model(tokens)[:, 4:]
    change = read(pack(model, weights), tokens, [4] + [1] * 36)[:, 4:] - expected
    assert 1e-4 < change.square().mean().sqrt() / expected.std() < ROUNDED[weights]


@pytest.mark.parametrize("name", VARIANTS)
def test_fp32_writes_the_same_text_also_beyond_the_context(name, tokens):
    model = build(VARIANTS[name])
    expected = generate(model, tokens[:, :5], 50, sampling=GREEDY, use_cache=False)
    assert expected.shape[1] > CONFIG.context
    assert torch.equal(generate(pack(model), tokens[:, :5], 50, sampling=GREEDY), expected)


@pytest.mark.parametrize("beams", [1, 3])
def test_beams_are_the_same(beams, tokens):
    model = build(CONFIG)
    found, expected = (beam_search(gpt, tokens[0, :5], 12, beams=beams) for gpt in (pack(model), model))
    assert [one.tokens.tolist() for one in found] == [one.tokens.tolist() for one in expected]


def test_a_rolling_cache_serves_as_well(tokens):
    model = build(replace(VARIANTS["window"], position="rope"))
    with torch.inference_mode():
        expected = model(tokens)
    for pieces in ([7] + [1] * 33, [3, 1, 9, 1, 1, 25]):
        found = read(pack(model), tokens, pieces, RollingKVCache(model.config, 1))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("weights", "kernel", "count"), [("float32", "addmv", 13), ("bfloat16", "mv", 13), ("int8", "linear_dynamic", 13)]
)
def test_one_token_runs_the_products_that_were_meant(weights, kernel, count, tokens):
    """One per matrix, in the type that was asked for, and none of those that read fp32 weights for many tokens."""
    fast = pack(build(CONFIG), weights)
    cache = cache_for(fast, 1, 10)
    with torch.inference_mode():
        fast(tokens[:, :5], cache=cache)
        with Operations() as operations:
            fast(tokens[:, 5:6], cache=cache)
    products = [name for name in operations.seen if name in ("mm", "addmm", "addmv", "mv", "linear", "linear_dynamic")]
    assert len(products) == count
    assert set(products) <= ({kernel, "mv"} if weights == "float32" else {kernel})


def test_everything_else_is_read_by_the_model_itself(tokens):
    model = build(CONFIG)
    fast = pack(model, "int8")
    pairs = tokens.view(2, 20)
    with torch.inference_mode():
        assert torch.equal(fast(tokens), model(tokens))
        found, expected = (read_two(gpt, pairs) for gpt in (fast, model))
        assert torch.equal(found, expected)
        maps: list[torch.Tensor] = []
        cache = KVCache(CONFIG, 1, 20)
        fast(tokens[:, :9], cache=cache)
        fast(tokens[:, 9:10], cache=cache, maps=maps)
        assert [m.shape for m in maps] == [(1, 4, 1, 10)] * 3


def read_two(model: GPT, pairs: torch.Tensor) -> torch.Tensor:
    cache = KVCache(CONFIG, 2, 20)
    return torch.cat([model(piece, cache=cache) for piece in pairs.split([5, 1, 1, 13], dim=1)], dim=1)


def test_fp32_copies_nothing_and_the_others_halve_the_cache(tokens):
    model = build(CONFIG)
    fast = pack(model)
    assert {w.data_ptr() for w in fast.parameters()} == {w.data_ptr() for w in model.parameters()}
    whole = cache_for(model, 1, 32).nbytes
    assert cache_for(fast, 1, 32).nbytes == whole
    for weights in ROUNDED:
        assert cache_for(pack(model, weights), 1, 32).nbytes * 2 == whole


@pytest.mark.parametrize("bias", [True, False])
def test_int8_products_are_off_by_no_more_than_rounding_the_vector(bias):
    """The weights are exactly those of ``quantize``: the rest is half a step per term, of a range that holds 0."""
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 40, bias=bias), torch.randn(96) * 3
    small = quantize(linear.weight.detach(), 8).dequantize().double()
    exact = small @ x.double() + (linear.bias.double() if bias else 0)
    with torch.inference_mode():
        found = product(linear.weight, linear.bias, "int8")(x)
    assert found.dtype == torch.float32
    step = (x.clamp(min=0).max() - x.clamp(max=0).min()).item() / 127  # 8 bits where the processor can, else 7
    assert ((found - exact).abs() <= small.abs().sum(1) * step / 2 + 1e-5).all()
    assert (found - exact).abs().max() > 0


def test_bfloat16_products_are_those_of_the_rounded_operands():
    torch.manual_seed(0)
    linear, x = nn.Linear(96, 40), torch.randn(96)
    exact = linear.weight.bfloat16().double() @ x.bfloat16().double()
    with torch.inference_mode():
        found = product(linear.weight, linear.bias, "bfloat16")(x)
    assert found.dtype == torch.float32
    assert ((found - linear.bias - exact).abs() <= exact.abs() * 2**-8 + 1e-4).all()  # rounded once more, at the end


def test_positions_and_room_that_are_not_there_are_refused(tokens):
    model = build(replace(CONFIG, context=8))
    for fast in (model, pack(model), pack(model, "int8")):
        cache = cache_for(fast, 1, 12)
        with torch.inference_mode():
            fast(tokens[:, :7], cache=cache)
            fast(tokens[:, :1], cache=cache)
            with pytest.raises(ValueError, match="9 positions, but only 8 have a learned embedding"):
                fast(tokens[:, :1], cache=cache)
            fast(tokens[:, :8], cache=(full := cache_for(fast, 1, 12)))
            with pytest.raises(ValueError, match="9 positions, but only 8"):
                fast(tokens[:, :1], cache=full)
    fast = pack(build(CONFIG), "int8")
    cache = cache_for(fast, 1, 5)
    with torch.inference_mode():
        fast(tokens[:, :5], cache=cache)
        with pytest.raises(ValueError, match="holds 5 positions, 6 are needed"):
            fast(tokens[:, :1], cache=cache)


def test_models_that_cannot_be_packed_are_refused():
    model = build(CONFIG)
    with pytest.raises(ValueError, match="weights must be one of float32, bfloat16, int8, got 'int4'"):
        pack(model, "int4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"blocks\.0\.attn\.qkv is Int8Linear, not Linear"):
        pack(to_int8(model), "int8")
    with pytest.raises(ValueError, match=r"token_embedding\.weight is torch\.bfloat16 on cpu"):
        pack(build(CONFIG).bfloat16())


def test_where_gradients_may_be_wanted_and_in_training_it_takes_the_long_way(tokens):
    model = build(CONFIG)
    fast = pack(model, "int8")

    def last(gpt: GPT) -> torch.Tensor:
        cache = KVCache(CONFIG, 1, 10)
        gpt(tokens[:, :5], cache=cache)
        return gpt(tokens[:, 5:6], cache=cache)

    assert torch.equal(last(fast), last(model))
    assert last(fast).requires_grad
    with torch.inference_mode():
        assert not torch.equal(last(fast), last(model))
        fast.train()
        assert torch.equal(last(fast), last(model))


def test_a_cache_of_lower_precision_gives_back_what_the_model_computes_in(tokens):
    model = build(CONFIG)
    cache = KVCache(CONFIG, 1, 40, dtype=torch.bfloat16)
    k, v = torch.randn(2, 1, 4, 3, 16)
    keys, values = cache.update(0, k, v)
    assert torch.equal(keys, k.bfloat16().float())
    assert torch.equal(values, v.bfloat16().float())
    with torch.inference_mode():
        expected = model(tokens)
    found = read(model, tokens, [9, 1, 1, 9, 1, 19], cache)
    assert 0 < (found - expected).square().mean().sqrt() / expected.std() < 0.02
