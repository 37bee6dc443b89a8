"""Exercise 21.28: grouped-query attention: what sharing key/value heads saves, and what it costs."""

import copy
import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.config import GPTConfig
from minigpt.evaluation.evaluate import evaluate
from minigpt.evaluation.statistics import compare, describe, format_mean_std, mean_std
from minigpt.masks import causal_mask
from minigpt.model import GPT, CausalSelfAttention, attention_weights
from minigpt.pretrained.parity import with_our_attention
from reports.types import Answer, Block, Cell, Check, Code, Figure, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise
from tasks.recipes.catalogue import STUDY_GQA, STUDY_MQA, STUDY_MQA_WIDE, STUDY_ROPE
from tasks.study_legacy import Variant, curves, metrics, sentences, table, variants

TRAINED = {
    "MHA": STUDY_ROPE,
    "GQA": STUDY_GQA,
    "MQA": STUDY_MQA,
    "MQA, wider feed-forward": STUDY_MQA_WIDE,
}


def attention_parameters(config: GPTConfig) -> int:
    """Of all layers: q, k, v and the output projection, biases included."""
    inputs = config.d_model + config.bias
    width = (config.n_head + 2 * config.kv_heads) * config.head_dim
    return config.n_layer * inputs * (width + config.d_model)


def cache_bytes_per_token(config: GPTConfig, bytes_per_number: int) -> int:
    """One key and one value for each layer and key/value head."""
    return 2 * config.n_layer * config.kv_heads * config.head_dim * bytes_per_number


# --- (a) Sharing ------------------------------------------------------------------------------------------------


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


@dataclass(frozen=True)
class Oracles:
    """Largest differences from other implementations."""

    torch_gqa: float
    llama: float
    copied_heads: float


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


def grouping(config: GPTConfig) -> Table:
    """Which key/value head each query head uses, rightly and wrongly."""
    H = config.n_head
    rows = []
    for name, G in (("MHA", H), ("GQA", config.kv_heads), ("MQA", 1)):
        heads = torch.arange(G)
        right = heads.repeat_interleave(H // G).tolist()
        wrong = heads.repeat(H // G).tolist()
        rows.append((name, G, " ".join(map(str, right)), " ".join(map(str, wrong)), right == wrong))
    columns = ("attention", "G", "repeat_interleave (right)", "repeat (wrong)", "the same")
    return Table(columns, tuple(rows), f"Key/value head of query heads 0 … {H - 1}.", "grouping")


def trap(row: Variant, tokens: Tensor) -> tuple[list[float], list[float]]:
    """Losses of each seed's model, as trained and with its heads repeated in the wrong order."""
    right = [evaluate(trained.model, tokens).nats_per_token for trained in row.models]
    wrong = [evaluate(repeated_wrongly(trained.model), tokens).nats_per_token for trained in row.models]
    return right, wrong


def part_a(ctx: Context, gqa: Variant) -> tuple[tuple[Block, ...], list[Check], dict[str, float]]:
    """The modification, its oracles and its trap."""
    found = oracles(ctx.generator("oracles"))
    right, wrong = trap(gqa, ctx.tokens(STUDY_GQA))
    config = gqa.models[0].model.config
    checks = [
        Check.at_most("attention over shared heads = torch's enable_gqa (max difference)", found.torch_gqa, 1e-5),
        Check.at_most(
            "a Llama (H = 8, G = 2) with our attention in place of its own (max difference)", found.llama, 1e-5
        ),
        Check.at_most("= multi-head attention with the shared heads copied (max difference)", found.copied_heads, 1e-5),
        Check.at_least(
            "heads repeated in the wrong order make the trained GQA model worse (nats)",
            mean_std(wrong)[0] - mean_std(right)[0],
            0.0,
            "empirical",
        ),
    ]
    blocks = (
        Prose(
            "$H$ query heads share $G$ key/value heads, each of them $H/G$ in turn: $G = H$ is multi-head attention, "
            "$G = 1$ multi-query (Shazeer, 2019), anything between is grouped-query (Ainslie et al., 2023). Only the "
            "width of the projection changes; `scaled_dot_product_attention(enable_gqa=True)` shares without copying."
        ),
        Code(inspect.getsource(CausalSelfAttention), "minigpt/model.py"),
        grouping(replace(config, n_kv_head=config.kv_heads)),
        Prose(
            "**A trap.** Code that copies heads must repeat each one in place. `repeat` gives every query head some "
            "key/value head of the right shape, and for $G = 1$ and $G = H$ even the right one, so that a test of MHA "
            f"and MQA passes. The trained model with $G = {config.kv_heads}$ goes from {format_mean_std(right)} to "
            f"{format_mean_std(wrong)} nats."
        ),
    )
    return blocks, checks, {"loss_nats_gqa_right": mean_std(right)[0], "loss_nats_gqa_repeat": mean_std(wrong)[0]}


# --- (b) Parameters and cache -----------------------------------------------------------------------------------


def sizes(rows: Sequence[Variant], tokens: int) -> tuple[Table, list[Check], dict[str, float | int]]:
    """Counted in closed form and on the models and caches themselves."""
    cells: list[tuple[Cell, ...]] = []
    measured: dict[str, float | int] = {}
    wrong_parameters = wrong_bytes = 0
    baseline = cache_bytes_per_token(rows[0].models[0].model.config, 2)
    for row in rows:
        model = row.models[0].model
        config = model.config
        attention = sum(w.numel() for name, w in model.named_parameters() if ".attn." in name)
        wrong_parameters += attention != attention_parameters(config)
        caches = [KVCache(config, 1, tokens, dtype=dtype).nbytes for dtype in (torch.float32, torch.float16)]
        wrong_bytes += caches != [cache_bytes_per_token(config, size) * tokens for size in (4, 2)]
        single, half = (nbytes // tokens for nbytes in caches)
        cells.append(
            (row.label, config.kv_heads, row.parameters, attention, config.ff_dim, single, half, half / baseline)
        )
        measured[f"cache_fp16_bytes_per_token_{row.key}"] = half
        measured[f"attention_parameters_{row.key}"] = attention
    columns = (
        "variant",
        "G",
        "parameters",
        "of these attention",
        "feed-forward width",
        "cache bytes per token, fp32",
        "cache bytes per token, fp16",
        "share of MHA",
    )
    caption = f"Counted on the models; bytes measured on caches of {tokens} tokens."
    whole, wide = rows[0].parameters, rows[-1].parameters
    checks = [
        Check.equal("models whose attention parameters differ from the closed form", wrong_parameters, 0),
        Check.equal("models whose cache differs from 2·L·G·D·bytes per token", wrong_bytes, 0),
        Check.at_most("wider MQA against MHA: relative difference in parameters", abs(wide - whole) / whole, 0.005),
    ]
    return Table(columns, tuple(cells), caption, "sizes"), checks, measured


# Touvron et al. (2023), "Llama 2", table 1 and the released configurations: layers, width, query and key/value heads.
LLAMA_2 = {"7B": (32, 4096, 32, 32), "13B": (40, 5120, 40, 40), "70B": (80, 8192, 64, 8)}


LLAMA_CONTEXT = 4096


def llama_table(tokens: int = LLAMA_CONTEXT) -> tuple[Table, dict[str, float | int]]:
    """The cache of the released models at their full context, and what it would be with other G."""
    rows: list[tuple[Cell, ...]] = []
    measured: dict[str, float | int] = {}
    for name, (layers, width, heads, kv_heads) in LLAMA_2.items():
        config = GPTConfig(n_layer=layers, n_head=heads, n_kv_head=kv_heads, d_model=width, context=tokens)
        per_token = cache_bytes_per_token(config, 2)
        gib = [cache_bytes_per_token(replace(config, n_kv_head=g), 2) * tokens / 2**30 for g in (heads, kv_heads, 1)]
        rows.append((f"Llama 2 {name}", heads, kv_heads, per_token / 1024, *gib))
        measured |= {f"llama_2_{name.lower()}_cache_{k}fp16_gib": gib[i] for i, k in enumerate(("mha_", ""))}
    columns = ("model", "H", "G", "KiB per token", "GiB with MHA", "GiB as released", "GiB with MQA")
    caption = f"Cache in fp16 for one sequence of {tokens:,} tokens, computed from the architecture."
    return Table(columns, tuple(rows), caption, "llama_2"), measured


def part_b(ctx: Context, rows: Sequence[Variant]) -> tuple[tuple[Block, ...], list[Check], dict[str, float | int]]:
    """Parameters and cache."""
    counted, checks, measured = sizes(rows, ctx.numbers["cache_tokens"])
    llama, more = llama_table()
    saved = 1 - attention_parameters(rows[2].models[0].model.config) / attention_parameters(
        rows[0].models[0].model.config
    )
    shared, copied = (more[f"llama_2_70b_cache_{kind}fp16_gib"] for kind in ("", "mha_"))
    blocks = (
        Prose(
            "Per layer the projections hold $(C+1)(H + 2G)D + (C+1)C$ parameters, and each token leaves "
            "$2GD$ numbers in the cache. Both shrink with $G$; queries and output do not, so that parameters shrink "
            f"less than the cache: at $G = 1$ attention loses {saved:.0%} of its parameters, the cache all but $1/H$."
        ),
        counted,
        llama,
        Prose(
            "Of Llama 2 only the large models share heads: the 7B and 13B models are plain MHA. At 70B a sequence of "
            f"{LLAMA_CONTEXT:,} tokens takes {shared:.2f} GiB instead of {copied:.2f} GiB, and all of it is read again "
            "for every generated token: loading keys and values is what limits decoding (Shazeer, 2019)."
        ),
    )
    return blocks, checks, measured | more


# --- (c) Trained ------------------------------------------------------------------------------------------------


def part_c(rows: Sequence[Variant]) -> tuple[tuple[Block, ...], list[Check]]:
    """Quality over seeds, at equal steps and at equal parameters."""
    mha, _, mqa, wide = rows
    points = [(float(cache_bytes_per_token(row.models[0].model.config, 2)), *mean_std(row.losses)) for row in rows]
    figure = Figure(
        "scatter",
        tuple(
            Series(row.label, (x,), (y,), (spread,) if len(row.models) > 1 else ())
            for row, (x, y, spread) in zip(rows, points, strict=True)
        ),
        "cache bytes per token, fp16",
        "validation loss (nats/token)",
        "What a byte of cache buys: mean ± standard deviation over seeds.",
    )
    given_back = describe(compare(mqa.losses, wide.losses), wide.label, mqa.label)
    blocks = (
        figure,
        table(rows, name="trained", caption="The rotary study model with its key/value heads shared."),
        curves(rows, caption="Validation loss in training, by number of key/value heads."),
        Prose(
            f"{sentences(rows)} The two multi-query models: {given_back} The wider one has as many parameters as "
            f"MHA, to {abs(wide.parameters - mha.parameters) / mha.parameters:.1%}, so that it tells sharing from "
            "shrinking."
        ),
    )
    cost = mean_std(mqa.losses)[0] - mean_std(mha.losses)[0]
    check = Check.at_most(
        "multi-query attention costs at most 0.05 nats (Shazeer, 2019: minor degradation)", cost, 0.05, "empirical"
    )
    return blocks, [check]


def answer(ctx: Context) -> Answer:
    """All three parts."""
    rows = variants(ctx, TRAINED)
    a, checks_a, measured_a = part_a(ctx, rows[1])
    ctx.progress(0.6, "oracles and trap")
    b, checks_b, measured_b = part_b(ctx, rows)
    c, checks_c = part_c(rows)
    losses = ", ".join(f"{row.label} {format_mean_std(row.losses)}" for row in rows[:3])
    share = rows[2].models[0].model.config.kv_heads / rows[0].models[0].model.config.kv_heads
    return Answer(
        summary=f"Validation loss in nats: {losses}; multi-query needs {share:.0%} of the cache.",
        parts=(
            Part("a", a, "Sharing key/value heads"),
            Part("b", b, "Parameters and cache"),
            Part("c", c, "MHA, GQA and MQA, trained"),
        ),
        checks=(*checks_a, *checks_b, *checks_c),
        metrics=metrics(rows) | measured_a | measured_b,
    )


EXERCISE = Exercise(
    id="21.28",
    title="Grouped Query Attention",
    recipes=tuple(TRAINED.values()),
    numbers={"smoke": {"cache_tokens": 64}, "laptop": {"cache_tokens": 1024}, "gpu": {"cache_tokens": 1024}},
    timed=True,
    seconds={"smoke": 1.5, "laptop": 3, "gpu": 4},
    answer=answer,
)
