"""Our attention in the place of another library's, inside its own model: the strictest comparison there is.

Works on any decoder whose attention modules are called ``self_attn`` and hold ``q_proj``, ``k_proj``, ``v_proj`` and
``o_proj``, as Llama's and Mistral's do in Transformers; imports none of them.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from minigpt.config import GPTConfig
from minigpt.masks import visible_keys
from minigpt.model import CausalSelfAttention
from minigpt.positions import rope_tables


class _InPlace(nn.Module):
    """``CausalSelfAttention`` behind the interface of a Transformers attention module; it makes its own mask."""

    def __init__(self, attention: CausalSelfAttention, config: GPTConfig) -> None:
        super().__init__()
        self.attention, self.config = attention, config

    def forward(self, hidden_states: Tensor, **_: Any) -> tuple[Tensor, None]:
        """(B, T, C) → (B, T, C); mask, positions and cache that the host passes are ignored."""
        T, device = hidden_states.shape[1], hidden_states.device
        positions = torch.arange(T, device=device)
        rope = rope_tables(positions / self.config.rope_scale, self.config.head_dim, self.config.rope_base)
        visible = visible_keys(T, T, self.config.window, device=device)
        return self.attention(hidden_states, rope=rope, visible=visible), None


def attention_of(theirs: Any, config: GPTConfig) -> CausalSelfAttention:
    """Our attention module with the weights of theirs.

    Raises:
        ValueError: their shapes do not belong to ``config``.
    """
    ours = CausalSelfAttention(config)
    parts = [getattr(theirs, name) for name in ("q_proj", "k_proj", "v_proj")]
    state = {"qkv.weight": torch.cat([part.weight for part in parts]), "proj.weight": theirs.o_proj.weight}
    if config.bias:
        state |= {"qkv.bias": torch.cat([part.bias for part in parts]), "proj.bias": theirs.o_proj.bias}
    expected = {name: weight.shape for name, weight in ours.state_dict().items()}
    if {name: weight.shape for name, weight in state.items()} != expected:
        raise ValueError(f"the weights do not have the shapes of {config}")
    ours.load_state_dict(state)
    return ours


def with_our_attention(model: nn.Module, config: GPTConfig) -> nn.Module:
    """A copy of a decoder in which every ``self_attn`` is ours, with the same weights.

    Raises:
        ValueError: the model has no such modules, or of other shapes.
    """
    model = copy.deepcopy(model).eval()
    blocks: list[Any] = [module for module in model.modules() if hasattr(module, "self_attn")]
    if not blocks:
        raise ValueError(f"{type(model).__name__} has no modules called self_attn")
    for block in blocks:
        block.self_attn = _InPlace(attention_of(block.self_attn, config), config)
    return model
