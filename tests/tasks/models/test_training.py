"""A training as a step stores it."""

import torch

from minigpt.config import GPTConfig
from minigpt.files import model_state
from minigpt.model import GPT
from tasks.models.training import load_model, model_bytes

CONFIG = GPTConfig(n_layer=1, n_head=2, d_model=8, context=8, vocab_size=11)


def test_equal_weights_are_equal_bytes() -> None:
    """The digest of the bytes is in the key of all that uses the model."""
    state = model_state(GPT(CONFIG))
    assert len({model_bytes(CONFIG, state) for _ in range(40)}) == 1


def test_what_is_stored_can_be_loaded() -> None:
    model = GPT(CONFIG).eval()
    tokens = torch.arange(8)[None]
    loaded = load_model(model_bytes(CONFIG, model_state(model)), {**vars(CONFIG)})
    assert loaded.config == CONFIG
    assert torch.equal(loaded(tokens), model(tokens))
