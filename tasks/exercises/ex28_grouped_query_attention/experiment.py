"""Measures 21.28: attention over shared heads against other implementations, its size, and trained models."""

import copy
import inspect

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.evaluation.evaluate import evaluate
from minigpt.masks import causal_mask
from minigpt.model import GPT, CausalSelfAttention, attention_weights
from minigpt.pretrained.parity import with_our_attention
from tasks.exercise import Context, Exercise
from tasks.exercises.ex28_grouped_query_attention.findings import Findings, Oracles, Size
from tasks.recipes.catalogue import STUDY_GQA, STUDY_MQA, STUDY_MQA_WIDE, STUDY_ROPE
from tasks.study import variants

TRAINED = {
    "MHA": STUDY_ROPE,
    "GQA": STUDY_GQA,
    "MQA": STUDY_MQA,
    "MQA, wider feed-forward": STUDY_MQA_WIDE,
}


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    rows = variants(ctx, TRAINED)
    against = oracles(ctx.generator("oracles"))
    right, repeated = trap([ctx.model(STUDY_GQA, seed).model for seed in ctx.seeds(STUDY_GQA)], ctx.tokens(STUDY_GQA))
    ctx.progress(0.6, "oracles and trap")
    models = {label: ctx.model(recipe).model for label, recipe in TRAINED.items()}
    tokens = ctx.numbers["cache_tokens"]
    return Findings(
        rows=tuple(rows),
        configs={label: model.config for label, model in models.items()},
        sizes={label: size(model, tokens) for label, model in models.items()},
        cache_tokens=tokens,
        oracles=against,
        right=right,
        repeated=repeated,
        source=inspect.getsource(CausalSelfAttention),
    )


def repeated_wrongly(model: GPT) -> GPT:
    """The model as code would read it that repeats heads with ``repeat`` instead of ``repeat_interleave``.

    Query head h then uses key/value head h mod G instead of h div (H/G). Here the query heads change places (and
    the columns of the output projection with them), so that the right code computes the wrong model.
    """
    model = copy.deepcopy(model)
    config = model.config
    order = sorted(range(config.n_head), key=lambda head: (head % config.kv_heads, head // config.kv_heads))
    D, C = config.head_dim, config.d_model
    moved = torch.cat([torch.arange(head * D, (head + 1) * D) for head in order])
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, CausalSelfAttention):
                module.qkv.weight[:C] = module.qkv.weight[:C][moved]
                if config.bias:
                    module.qkv.bias[:C] = module.qkv.bias[:C][moved]
                module.proj.weight.copy_(module.proj.weight[:, moved])
    return model


def oracles(generator: torch.Generator) -> Oracles:
    """Our attention against torch's ``enable_gqa``, inside a Llama, and against MHA with copied heads."""
    from transformers import LlamaConfig, LlamaModel

    H, G, D, T = 8, 2, 16, 40
    q, k, v = (torch.randn(2, heads, T, D, generator=generator) for heads in (H, G, G))
    ours = attention_weights(q, k, causal_mask(T)) @ v.repeat_interleave(H // G, dim=1)
    theirs = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    copied_k, copied_v = (x.repeat_interleave(H // G, dim=1) for x in (k, v))
    whole = F.scaled_dot_product_attention(q, copied_k, copied_v, is_causal=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(generator.initial_seed())
        host = LlamaModel(
            LlamaConfig(
                vocab_size=50,
                hidden_size=64,
                intermediate_size=96,
                num_hidden_layers=2,
                num_attention_heads=8,
                num_key_value_heads=2,
            )
        )
    config = GPTConfig(n_layer=2, n_head=8, n_kv_head=2, d_model=64, context=64, position="rope", bias=False)
    tokens = torch.randint(50, (2, 40), generator=generator)
    with torch.inference_mode():
        mine, llamas = (model(tokens).last_hidden_state for model in (with_our_attention(host, config), host))
    return Oracles(*(float(x.abs().max()) for x in (ours - theirs, mine - llamas, ours - whole)))


def trap(models: list[GPT], tokens: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Losses of each seed's model, as trained and with its heads repeated in the wrong order."""
    right = tuple(evaluate(model, tokens).nats_per_token for model in models)
    wrong = tuple(evaluate(repeated_wrongly(model), tokens).nats_per_token for model in models)
    return right, wrong


def size(model: GPT, tokens: int) -> Size:
    """Counted on the model and on caches of so many tokens."""
    fp32, fp16 = (KVCache(model.config, 1, tokens, dtype=dtype).nbytes for dtype in (torch.float32, torch.float16))
    attention = sum(weight.numel() for name, weight in model.named_parameters() if ".attn." in name)
    return Size(attention, fp32, fp16)


EXERCISE = Exercise(
    measure=measure,
    recipes=tuple(TRAINED.values()),
    numbers={"smoke": {"cache_tokens": 64}, "laptop": {"cache_tokens": 1024}, "gpu": {"cache_tokens": 1024}},
    timed=True,
    seconds={"smoke": 1.5, "laptop": 3, "gpu": 4},
)
