import copy

import pytest
import torch
from torch import nn

from minigpt.pretrained import quick as reading
from minigpt.pretrained.quick import RoundedLinear, quick
from tests.exercise_context import tiny_pretrained

KINDS = ["gpt2", "llama"]


@pytest.fixture
def tokens():
    return torch.randint(50_257, (3, 40), generator=torch.Generator().manual_seed(0))


def logits(model, tokens):
    with torch.inference_mode():
        return model(tokens, use_cache=False).logits


@pytest.mark.parametrize("kind", KINDS)
def test_in_fp32_it_answers_what_the_model_answers(kind, tokens):
    model = tiny_pretrained(kind).model
    assert torch.allclose(logits(quick(model), tokens), logits(model, tokens), atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_in_bf16_the_products_and_only_they_are_rounded(kind, tokens):
    """Against the model in fp32 with hooks that round operands and results of its linear layers."""
    model = copy.deepcopy(tiny_pretrained(kind).model)
    expected = copy.deepcopy(model)

    def rounded(x):
        return x.to(torch.bfloat16).float()

    for module in expected.modules():
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            module.weight = nn.Parameter(rounded(module.weight))
            if module.bias is not None:
                module.bias = nn.Parameter(rounded(module.bias))
            module.register_forward_pre_hook(lambda _, inputs: (rounded(inputs[0]),))
            module.register_forward_hook(lambda _, __, output: rounded(output))
    embedded = expected.get_input_embeddings()  # a tied one was rounded above, and is read in fp32
    embedded.weight = nn.Parameter(model.get_input_embeddings().weight.detach().clone())
    found, exact = logits(quick(model, "bf16"), tokens), logits(model, tokens)
    error = (found - exact).abs().max()
    assert found.dtype == torch.float32
    assert 0 < error < 0.05 * exact.std()
    assert (found - logits(expected, tokens)).abs().mean() < 0.2 * (found - exact).abs().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_the_model_stays_as_it_is(kind, tokens):
    model = copy.deepcopy(tiny_pretrained(kind).model)
    before, names = logits(model, tokens), [type(module).__name__ for module in model.modules()]
    other = quick(model, "bf16")
    assert torch.equal(logits(model, tokens), before)
    assert [type(module).__name__ for module in model.modules()] == names
    assert model.config._attn_implementation == "eager"
    assert other.get_input_embeddings().weight is model.get_input_embeddings().weight
    rounded = [module for module in other.modules() if isinstance(module, RoundedLinear)]
    assert len(rounded) == (4 if kind == "gpt2" else 7) * 4 + 1, "4 layers, and the unembedding"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_maps_can_be_had(precision, tokens):
    model = tiny_pretrained("llama").model
    with torch.inference_mode():
        ours = quick(model, precision, maps=True)(tokens, output_attentions=True).attentions
        theirs = model(tokens, output_attentions=True).attentions
    assert len(ours) == len(theirs) == 4
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.sum(dim=-1), torch.ones(3, 4, 40), atol=1e-5)
        assert torch.allclose(a, b, atol=0 if precision == "fp32" else 1e-2)


def test_a_linear_layer_with_a_bias():
    g = torch.Generator().manual_seed(1)
    weight, bias, x = (torch.randn(shape, generator=g) for shape in ((7, 64), (7,), (5, 64)))
    found = RoundedLinear(weight, bias)(x)
    exact = (x.bfloat16().double() @ weight.bfloat16().double().T + bias.bfloat16().double()).float()
    assert found.dtype == torch.float32
    assert torch.allclose(found, exact, rtol=2**-8, atol=1e-2)


@pytest.mark.skipif(not reading._packs(), reason="oneDNN has no bf16 kernels for this processor")
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("rows", [(1,), (7,), (40, 1), (2, 300), (0,)])
def test_a_packed_weight_gives_the_products_of_a_plain_one(monkeypatch, rows, biased):
    g = torch.Generator().manual_seed(2)
    weight, bias, x = (torch.randn(*shape, generator=g) for shape in ((192, 576), (192,), (*rows, 576)))
    packed = RoundedLinear(weight, bias if biased else None)
    monkeypatch.setattr(reading, "_packs", lambda: False)
    plain = RoundedLinear(weight, bias if biased else None)
    assert packed.packed
    assert not plain.packed
    torch.testing.assert_close(packed(x), plain(x), rtol=2**-7, atol=1e-2)  # bf16 has 8 bits


def test_without_bf16_products_weights_stay_plain(monkeypatch, tokens):
    """Asked for by name, bf16 works on any processor, only slowly."""
    monkeypatch.setattr(reading, "_packs", lambda: False)
    model = tiny_pretrained("llama").model
    other = quick(model, "bf16")
    assert torch.equal(other.lm_head.weight, model.lm_head.weight.bfloat16())
    assert logits(other, tokens).isfinite().all()
