"""To Transformers: a model with rotary positions is a ``GPTNeoXForCausalLM`` with its weights renamed.

GPT-NeoX: Black et al. (2022), https://arxiv.org/abs/2204.06745. So what is written for pretrained models with such
positions, as is streaming with attention sinks, works with it too.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from minigpt.config import GPTConfig
from minigpt.model import GPT
from minigpt.pretrained.export import first_obstacle

if TYPE_CHECKING:
    from transformers import GPTNeoXForCausalLM

MODULES = {
    "norm1": "input_layernorm",
    "norm2": "post_attention_layernorm",
    "attn.qkv": "attention.query_key_value",
    "attn.proj": "attention.dense",
    "mlp.up": "mlp.dense_h_to_4h",
    "mlp.down": "mlp.dense_4h_to_h",
}


def why_not_neox(config: GPTConfig) -> str | None:
    """What keeps a model from being a GPT-NeoX, in a few words; None where nothing does."""
    own = {
        f"{config.position} positions": config.position != "rope",
        "positions on another scale": config.rope_scale != 1,
    }
    return first_obstacle(config, own)


def to_neox(model: GPT) -> "GPTNeoXForCausalLM":
    """The same model as Transformers' ``GPTNeoXForCausalLM``, in evaluation mode, on the CPU.

    Raises:
        ValueError: the architecture is not GPT-NeoX's.
    """
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    config = model.config
    if obstacle := why_not_neox(config):
        raise ValueError(f"GPT-NeoX has no {obstacle}: this model cannot be exported as one")
    assert isinstance(model.final_norm, nn.LayerNorm)
    shape = GPTNeoXConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.d_model,
        num_hidden_layers=config.n_layer,
        num_attention_heads=config.n_head,
        intermediate_size=config.ff_dim,
        hidden_act="gelu_new",
        max_position_embeddings=config.context,
        layer_norm_eps=model.final_norm.eps,
        use_parallel_residual=False,
        attention_bias=True,
        rope_parameters={
            "rope_type": "default",
            "rope_theta": float(config.rope_base),
            "partial_rotary_factor": 1.0,
        },
        tie_word_embeddings=config.tie_weights,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):  # it draws weights that are then overwritten
        exported = GPTNeoXForCausalLM(shape)
    state = {name: torch.zeros_like(weight) for name, weight in exported.state_dict().items()}
    state |= _to_theirs(model)
    exported.load_state_dict(state)
    return exported.eval()


def _to_theirs(model: GPT) -> dict[str, Tensor]:
    ours = {name: weight.detach().cpu() for name, weight in model.state_dict().items()}
    state = {
        "gpt_neox.embed_in.weight": ours["token_embedding.weight"],
        "lm_head.weight": ours["unembedding.weight"],
    }
    heads, width = model.config.n_head, model.config.head_dim
    for name, weight in ours.items():
        place, _, kind = name.rpartition(".")
        if place == "final_norm":
            state[f"gpt_neox.final_layer_norm.{kind}"] = weight
        elif place.startswith("blocks."):
            _, layer, module = place.split(".", 2)
            if module == "attn.qkv":  # ours: all queries, all keys, all values; theirs: the three of each head together
                weight = weight.unflatten(0, (3, heads, width)).transpose(0, 1).flatten(0, 2)
            state[f"gpt_neox.layers.{layer}.{MODULES[module]}.{kind}"] = weight
    return state
