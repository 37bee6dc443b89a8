"""To Transformers: a GPT-2-shaped model is a ``GPT2LMHeadModel`` with its weights renamed.

    to_gpt2(model).save_pretrained(directory)
    AutoModelForCausalLM.from_pretrained(directory)

Transformers is imported when a function is called: a model can be trained and used without it.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from minigpt.config import GPTConfig
from minigpt.model import GPT

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

# Our modules in a block and theirs. Theirs are "Conv1D": the weight is (in, out), ours is (out, in).
NORMS = {"norm1": "ln_1", "norm2": "ln_2"}
MATRICES = {"attn.qkv": "attn.c_attn", "attn.proj": "attn.c_proj", "mlp.up": "mlp.c_fc", "mlp.down": "mlp.c_proj"}


def why_not_gpt2(config: GPTConfig) -> str | None:
    """What keeps a model from being a GPT-2, in a few words; None where nothing does.

    A model without biases is one: GPT-2's biases are then zero.
    """
    return first_obstacle(config, {f"{config.position} positions": config.position != "learned"})


def first_obstacle(config: GPTConfig, own: Mapping[str, bool]) -> str | None:
    """The first of a format's ``own`` obstacles that is present, or of those of every format of plain GPTs."""
    obstacles = {
        **own,
        "post-norm blocks": config.norm != "pre",
        "normalised queries and keys": config.qk_norm,
        "squared ReLU": config.activation != "gelu",
        f"{config.kv_heads} key/value heads": config.kv_heads != config.n_head,
        f"a window of {config.window}": config.window is not None,
        f"{config.n_future} prediction heads": config.n_future != 1,
    }
    return next((name for name, present in obstacles.items() if present), None)


def to_gpt2(model: GPT) -> "GPT2LMHeadModel":
    """The same model as Transformers' ``GPT2LMHeadModel``, in evaluation mode, on the CPU.

    Raises:
        ValueError: the architecture is not GPT-2's.
    """
    from transformers import GPT2Config, GPT2LMHeadModel

    config = model.config
    if obstacle := why_not_gpt2(config):
        raise ValueError(f"GPT-2 has no {obstacle}: this model cannot be exported as one")
    shape = GPT2Config(
        vocab_size=config.vocab_size,
        n_positions=config.context,
        n_embd=config.d_model,
        n_layer=config.n_layer,
        n_head=config.n_head,
        n_inner=config.ff_dim,
        resid_pdrop=config.dropout,
        embd_pdrop=config.dropout,
        attn_pdrop=config.dropout,
        tie_word_embeddings=config.tie_weights,
        bos_token_id=None,
        eos_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):  # it draws weights that are then overwritten
        exported = GPT2LMHeadModel(shape)
    target = exported.state_dict()
    state = {name: torch.zeros_like(weight) for name, weight in target.items()}
    state |= _to_theirs(model)
    exported.load_state_dict(state)
    return exported.eval()


def _to_theirs(model: GPT) -> dict[str, Tensor]:
    ours = {name: weight.detach().cpu() for name, weight in model.state_dict().items()}
    state = {
        "transformer.wte.weight": ours["token_embedding.weight"],
        "transformer.wpe.weight": ours["position_embedding.weight"],
        "lm_head.weight": ours["unembedding.weight"],
    }
    for name, weight in ours.items():
        place, _, kind = name.rpartition(".")
        if place == "final_norm":
            state[f"transformer.ln_f.{kind}"] = weight
        elif place.startswith("blocks."):
            _, layer, module = place.split(".", 2)
            their = (NORMS | MATRICES)[module]
            state[f"transformer.h.{layer}.{their}.{kind}"] = weight.T if weight.ndim == 2 else weight
    return state
