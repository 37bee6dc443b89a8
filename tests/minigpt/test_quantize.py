"""Quantisation against PyTorch's own kernels, bounds that rounding must keep, and an int8 model that is one."""

import warnings

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from minigpt.config import GPTConfig
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.files import model_state
from minigpt.model import GPT
from minigpt.quantize import (
    Int8Linear,
    fake_quantize,
    int8_bytes,
    int8_matmul,
    int8_matmul_in_fp32,
    load_int8,
    quantize,
    summed_in_fp32,
    to_int8,
)

BITS = range(2, 9)


@pytest.fixture
def weight() -> torch.Tensor:
    g = torch.Generator().manual_seed(0)
    return torch.randn(48, 64, generator=g) * torch.rand(48, 1, generator=g) * 0.2  # channels of different size


@pytest.fixture
def model() -> GPT:
    torch.manual_seed(0)
    gpt = GPT(GPTConfig(n_layer=3, n_head=4, d_model=64, context=32, vocab_size=50)).eval()
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.03)  # biases and norms too
    return gpt


@pytest.mark.parametrize("bits", BITS)
def test_per_channel_equals_torch(weight, bits):
    found = quantize(weight, bits)
    largest = 2 ** (bits - 1) - 1
    zero = torch.zeros(48, dtype=torch.int32)
    expected = torch.fake_quantize_per_channel_affine(weight, found.scale[:, 0], zero, 0, -largest, largest)
    assert torch.equal(found.dequantize(), expected)
    assert torch.equal(found.scale[:, 0], weight.abs().amax(1) / largest)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("scheme", ["naive", "absmax"])
def test_per_tensor_equals_torch(weight, bits, scheme):
    wide = weight * 10  # beyond the naive range as well
    found = quantize(wide, bits, scheme, per_channel=False)
    largest = 2 ** (bits - 1) - 1
    reach = 1.0 if scheme == "naive" else wide.abs().max().item()
    expected = torch.fake_quantize_per_tensor_affine(wide, reach / largest, 0, -largest, largest)
    assert torch.equal(found.dequantize(), expected)


@pytest.mark.filterwarnings("ignore:.*quantized tensor creation functions")
def test_whole_numbers_equal_torchs_quantised_tensor(weight):
    found = quantize(weight, 8)
    theirs = torch.quantize_per_channel(weight, found.scale[:, 0].double(), torch.zeros(48), 0, torch.qint8)
    assert torch.equal(found.values, theirs.int_repr())


@pytest.mark.parametrize("bits", BITS)
def test_rounding_error_is_at_most_half_a_step(weight, bits):
    for per_channel in (False, True):
        found = quantize(weight, bits, per_channel=per_channel)
        assert ((weight - found.dequantize()).abs() <= found.scale / 2 * (1 + 1e-5)).all()
        assert found.values.abs().max() == 2 ** (bits - 1) - 1  # the whole range is used
        assert len(found.values.unique()) <= 2**bits - 1


def test_quantising_twice_changes_nothing_and_zeros_stay_zero(weight):
    weight[3] = 0
    for bits in BITS:
        once = quantize(weight, bits).dequantize()
        torch.testing.assert_close(quantize(once, bits).dequantize(), once, rtol=1e-6, atol=0)
        assert (once[3] == 0).all()


def test_error_grows_as_bits_fall_and_per_channel_is_never_worse_overall(weight):
    def error(bits, **how):
        return (weight - quantize(weight, bits, **how).dequantize()).square().mean().item()

    for bits in range(2, 8):
        assert error(bits) > error(bits + 1)
        assert error(bits) < error(bits, per_channel=False) < error(bits, scheme="naive")


def test_fake_quantisation_touches_the_block_matrices_only(model):
    before = model_state(model)
    after = model_state(fake_quantize(model, 3))
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {n for n in before if n.startswith("blocks.") and n.endswith(".weight") and before[n].ndim == 2}
    assert len(changed) == 3 * 4
    assert all(torch.equal(weight, model_state(model)[name]) for name, weight in before.items())  # a copy


def test_int8_linear_computes_what_its_numbers_say():
    """The same product in float64 from the same rounded operands: int32 sums are exact."""
    torch.manual_seed(0)
    linear, x = nn.Linear(64, 40), torch.randn(5, 7, 64)
    layer = Int8Linear.of(linear)
    reach = x.abs().amax(-1, keepdim=True).double()
    rounded = (x.double() * (127 / reach)).round() * reach / 127
    expected = rounded @ quantize(linear.weight, 8).dequantize().double().t() + linear.bias.double()
    assert layer(x).shape == (5, 7, 40)
    torch.testing.assert_close(layer(x).double(), expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(layer(x), linear(x), rtol=0.05, atol=0.02)  # and that is close to fp32


@pytest.mark.parametrize("terms", [16, 1_040, 1_041, 3_000])
def test_int8_sums_in_fp32_are_the_same_integers(terms):
    generator = torch.Generator().manual_seed(terms)
    x, weight = (torch.randint(-127, 128, (20, terms), generator=generator).to(torch.int8) for _ in range(2))
    x[0], weight[0], weight[1] = 127, 127, -127  # the largest sums there are
    expected = x.long() @ weight.long().t()
    assert torch.equal(int8_matmul(x, weight).long(), expected)
    assert torch.equal(int8_matmul_in_fp32(x, weight).long(), expected)


def test_scoring_in_fp32_sums_ends(model):
    small, tokens = to_int8(model), torch.arange(8)[None]
    expected = small(tokens)
    with summed_in_fp32(small):
        assert torch.equal(small(tokens), expected)
    assert all(m.multiply is int8_matmul for m in small.modules() if isinstance(m, Int8Linear))


def test_int8_linear_is_as_close_as_pytorchs_dynamic_quantisation():
    torch.manual_seed(0)
    linear, x = nn.Sequential(nn.Linear(256, 128)), torch.randn(64, 256)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        theirs = torch.ao.quantization.quantize_dynamic(linear, {nn.Linear}, dtype=torch.qint8)
    exact = linear(x)
    ours = Int8Linear.of(linear[0])(x)
    assert (ours - exact).square().mean() <= (theirs(x) - exact).square().mean()


def test_zeros_in_give_the_bias_out():
    layer = Int8Linear.of(nn.Linear(16, 8))
    assert torch.equal(layer(torch.zeros(3, 16)), layer.bias.expand(3, -1))


def test_int8_model_holds_int8_and_decodes_with_its_cache(model):
    small = to_int8(model)
    layers = [module for module in small.modules() if isinstance(module, Int8Linear)]
    assert len(layers) == 12
    assert all(layer.weight.dtype == torch.int8 for layer in layers)
    assert not [m for m in small.blocks.modules() if isinstance(m, nn.Linear)]
    tokens = torch.randint(50, (4, 20), generator=torch.Generator().manual_seed(0))
    drift = (small(tokens) - model(tokens)).std() / model(tokens).std()
    assert 0 < drift < 0.05
    cached = generate(small, tokens[:, :5], 20, sampling=GREEDY)
    assert torch.equal(cached, generate(small, tokens[:, :5], 20, sampling=GREEDY, use_cache=False))


class Products(TorchDispatchMode):
    """Notes the kind and the operands' type of every product of matrices that runs."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("mm", "addmm", "_int_mm", "linear"):
            self.seen.append((name, {a.dtype for a in args if isinstance(a, torch.Tensor)}))
        return func(*args, **(kwargs or {}))


def test_the_products_of_the_blocks_are_int8_by_int8(model):
    """Not weights that are widened and multiplied in fp32: only the unembedding, which is not quantised, is fp32."""
    small = to_int8(model)
    with Products() as products, torch.no_grad():
        small(torch.arange(8)[None])
    assert [name for name, _ in products.seen] == ["_int_mm"] * 12 + ["mm"]
    assert all(types == {torch.int8} for name, types in products.seen if name == "_int_mm")
    with Products() as products, torch.no_grad():
        model(torch.arange(8)[None])
    assert "_int_mm" not in [name for name, _ in products.seen]
    assert len(products.seen) == 13


@pytest.mark.parametrize("tie", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_file_is_smaller_and_loads_back_equal(tie, bias):
    config = GPTConfig(
        n_layer=2, n_head=4, d_model=128, context=32, vocab_size=50, tie_weights=tie, bias=bias, n_future=2
    )
    model = GPT(config).eval()
    data = int8_bytes(small := to_int8(model))
    whole = save(model_state(model))
    matrices = sum(layer.weight.numel() for layer in small.modules() if isinstance(layer, Int8Linear))
    assert matrices == 2 * 12 * 128 * 128
    assert len(data) < len(whole) - 2.9 * matrices
    assert sum(t.numel() for t in load(data).values() if t.dtype == torch.int8) == matrices
    again = load_int8(data)
    tokens = torch.randint(50, (2, 20))
    assert torch.equal(again(tokens), small(tokens))
    assert int8_bytes(again) == data


def test_wrong_arguments_are_refused(weight):
    for bits in (1, 9):
        with pytest.raises(ValueError, match="bits"):
            quantize(weight, bits)
    with pytest.raises(ValueError, match="scheme"):
        quantize(weight, 8, "absmean")  # type: ignore[arg-type]
    data = int8_bytes(to_int8(GPT(GPTConfig(n_layer=1, n_head=1, d_model=8, context=8, vocab_size=5))))
    bad = data.replace(b'\\"n_layer\\": 1', b'\\"n_layer\\": 2')
    assert bad != data
    with pytest.raises(ValueError, match="do not fit"):
        load_int8(bad)
