"""A model with rotary positions is GPT-NeoX: with its weights, Transformers' own class gives the same logits."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.pretrained.neox import to_neox

CONFIG = GPTConfig(n_layer=3, n_head=4, d_model=48, context=40, vocab_size=101, position="rope")


def random_model(**changes: object) -> GPT:
    """No weight is zero or one: biases and norms must be carried over, too."""
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
@pytest.mark.parametrize(
    "changes", [{}, {"d_ff": 72}, {"tie_weights": False}, {"bias": False}, {"rope_base": 500.0}], ids=str
)
@torch.inference_mode()
def test_equals_neox_with_its_weights(attention: str, changes: dict[str, object], tokens: Tensor) -> None:
    ours = random_model(**changes)
    before = torch.random.get_rng_state()
    theirs = to_neox(ours)
    assert torch.equal(before, torch.random.get_rng_state())
    theirs.set_attn_implementation(attention)
    expected = theirs(tokens).logits
    assert expected.std() > 0.5  # or any two models would be close
    assert (ours(tokens) - expected).abs().max() <= 2e-5


@pytest.mark.parametrize(
    ("changes", "obstacle"),
    [
        ({"position": "learned"}, "learned positions"),
        ({"rope_scale": 2.0}, "positions on another scale"),
        ({"norm": "post"}, "post-norm blocks"),
        ({"qk_norm": True}, "normalised queries and keys"),
        ({"activation": "relu2"}, "squared ReLU"),
        ({"n_kv_head": 2}, "2 key/value heads"),
        ({"window": 8}, "a window of 8"),
        ({"n_future": 2}, "2 prediction heads"),
    ],
    ids=str,
)
def test_what_neox_has_not_is_refused(changes: dict[str, object], obstacle: str) -> None:
    with pytest.raises(ValueError, match=obstacle):
        to_neox(GPT(replace(CONFIG, **changes)))
