"""The table that is found is the one that the model adds."""

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, OPTConfig, OPTForCausalLM

from minigpt.pretrained.learned_positions import learned_positions

T = 24


def gpt2(vocab: int = 31) -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return GPT2LMHeadModel(GPT2Config(n_layer=2, n_head=2, n_embd=16, n_positions=T, vocab_size=vocab)).eval()


def opt() -> OPTForCausalLM:
    torch.manual_seed(0)
    sizes = {
        "hidden_size": 16,
        "ffn_dim": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "word_embed_proj_dim": 16,
    }
    return OPTForCausalLM(OPTConfig(**sizes, max_position_embeddings=T, vocab_size=31)).eval()


@pytest.mark.parametrize("make", [gpt2, lambda: gpt2(vocab=T), opt], ids=["gpt2", "as many tokens", "opt"])
@torch.inference_mode()
def test_row_t_is_what_position_t_gets(make) -> None:
    """Changing row t changes the logits from t on, and none before; an offset of one row would show."""
    model = make()
    table = learned_positions(model)
    assert table is not None
    assert table.shape == (T, 16)
    tokens = torch.arange(T)[None] % 7 + 3
    before = model(tokens).logits
    for t in (0, 5, T - 1):
        kept = table[t].clone()
        table[t] += torch.linspace(-1, 1, 16)
        change = (model(tokens).logits - before).abs().amax(dim=(0, 2))
        table[t] = kept
        assert (change[:t] == 0).all()
        assert change[t] > 1e-3


def test_rotary_models_have_none() -> None:
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    assert learned_positions(LlamaForCausalLM(LlamaConfig(**sizes, vocab_size=31))) is None
