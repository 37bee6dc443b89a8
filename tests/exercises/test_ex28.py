import pytest
import torch

from minigpt.config import GPTConfig
from minigpt.model import GPT
from tasks.exercises.ex28_grouped_query_attention.experiment import EXERCISE, repeated_wrongly
from tests.exercise_context import answered, assert_sound


def test_the_answer_is_sound():
    answer = answered(EXERCISE)
    assert_sound(EXERCISE, answer)
    assert answer.metrics["llama_2_70b_cache_fp16_gib"] == 1.25


@pytest.mark.parametrize("kv_heads", [1, 2, 4])
@torch.inference_mode()
def test_moved_heads_are_the_wrong_repetition(kv_heads, generator):
    """Against an attention that really uses ``repeat``."""
    config = GPTConfig(n_layer=1, n_head=4, n_kv_head=kv_heads, d_model=16, context=16, vocab_size=5)
    model, x = GPT(config).eval(), torch.randn(2, 10, 16, generator=generator)
    attention = model.blocks[0].attn
    attention.qkv.bias.normal_(generator=generator)
    q, k, v = attention.qkv(x).split([16, 4 * kv_heads, 4 * kv_heads], dim=-1)
    q = q.view(2, 10, 4, 4).transpose(1, 2)
    k, v = (t.view(2, 10, kv_heads, 4).transpose(1, 2).repeat(1, 4 // kv_heads, 1, 1) for t in (k, v))
    y = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    expected = attention.proj(y.transpose(1, 2).reshape(2, 10, 16))
    found = repeated_wrongly(model).blocks[0].attn(x)
    assert torch.allclose(found, expected, atol=1e-5)
    assert torch.allclose(found, attention(x), atol=1e-5) == (kv_heads != 2)
