"""The model is GPT-2: with the same weights it gives the same logits as Transformers' own class."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from minigpt.config import GPTConfig
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.model import GPT
from minigpt.pretrained.export import to_gpt2

CONFIG = GPTConfig(n_layer=3, n_head=4, d_model=48, context=40, vocab_size=101)


def random_model(**changes: object) -> GPT:
    """A model in which no weight is zero or one: biases and norms must be carried over, too."""
    torch.manual_seed(0)
    model = GPT(replace(CONFIG, **changes)).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(0.2 * torch.randn_like(weight) + (weight.mean() > 0.5))
    return model


@pytest.fixture
def tokens(generator: torch.Generator) -> Tensor:
    return torch.randint(101, (3, 40), generator=generator)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("changes", [{}, {"d_ff": 72}, {"tie_weights": False}], ids=str)
@torch.inference_mode()
def test_equals_gpt2_with_its_weights(attention: str, changes: dict[str, object], tokens: Tensor) -> None:
    ours = random_model(**changes)
    theirs = to_gpt2(ours)
    theirs.set_attn_implementation(attention)
    expected = theirs(tokens).logits
    assert expected.std() > 0.5  # or any two models would be close
    assert (ours(tokens) - expected).abs().max() <= 1e-5
    maps: list[Tensor] = []
    assert (ours(tokens, maps=maps) - expected).abs().max() <= 1e-5


@torch.inference_mode()
def test_attention_maps_equal_gpt2s(tokens: Tensor) -> None:
    model = random_model()
    theirs = to_gpt2(model)
    theirs.set_attn_implementation("eager")
    maps: list[Tensor] = []
    model.double()(tokens, maps=maps)
    assert len(maps) == 3
    for ours, expected in zip(maps, theirs.double()(tokens, output_attentions=True).attentions, strict=True):
        assert (ours - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("changes", [{}, {"bias": False}, {"tie_weights": False}, {"d_ff": 80}], ids=str)
@torch.inference_mode()
def test_a_saved_model_loads_in_transformers(changes: dict[str, object], tokens: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(1)
    model = GPT(replace(CONFIG, **changes)).eval()
    for weight in model.parameters():
        weight.add_(0.1 * torch.randn_like(weight))
    before = torch.random.get_rng_state()
    to_gpt2(model).save_pretrained(tmp_path)
    assert torch.equal(before, torch.random.get_rng_state())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (loaded(tokens).logits - model(tokens)).abs().max() <= 1e-5
    prompt = tokens[:, :8]
    theirs = loaded.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=20, do_sample=False)
    assert torch.equal(theirs, generate(model, prompt, 20, sampling=GREEDY))


@pytest.mark.parametrize(
    "changes",
    [
        {"position": "rope"},
        {"norm": "post"},
        {"n_kv_head": 2},
        {"window": 8},
        {"n_future": 2},
        {"activation": "relu2"},
        {"qk_norm": True},
    ],
    ids=str,
)
def test_what_is_no_gpt2_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="GPT-2 has no"):
        to_gpt2(GPT(replace(CONFIG, **changes)))
