"""Tables, figures and checks of 21.28; the text is in answer.md."""

from minigpt.config import GPTConfig
from minigpt.evaluation.statistics import Comparison, compare_paired, mean_std
from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Series, Table
from reports.words import plural
from tasks.comparison import curves, sentences, table, untrained
from tasks.exercises.ex28_grouped_query_attention.findings import (
    LLAMA_CONTEXT,
    Findings,
    attention_parameters,
    cache_bytes_per_token,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    return Draft(
        blocks={
            "attention": listing(f.source, "minigpt/model.py"),
            "grouping": grouping(f.configs["GQA"].n_head, f.configs["GQA"].kv_heads),
            "sizes": sizes(f),
            "llama 2": llama_2(f),
            "bytes": loss_by_bytes(f),
            "trained": table(f.rows, name="trained", caption=trained(f.configs["MHA"])),
            "curves": curves(f.rows, caption="Validation loss in training, by number of key/value heads."),
        },
        checks=checks(f),
        values={
            "compared": sentences(f.rows),
            "untrained": untrained(f.rows),
            "context": LLAMA_CONTEXT,
            "trap": trap(f),
        },
    )


def trained(config: GPTConfig) -> str:
    """What the models are that were trained."""
    size = f"{plural(config.n_layer, 'layer')} of width {config.d_model}"
    return f"Models with {size} and rotary positions, their key/value heads shared."


def grouping(heads: int, kv_heads: int) -> Table:
    """Which key/value head each query head uses, rightly and wrongly."""
    rows = []
    for name, G in (("MHA", heads), ("GQA", kv_heads), ("MQA", 1)):
        right = [head // (heads // G) for head in range(heads)]
        wrong = [head % G for head in range(heads)]
        rows.append((name, G, " ".join(map(str, right)), " ".join(map(str, wrong)), right == wrong))
    columns = ("attention", "G", "repeat_interleave (right)", "repeat (wrong)", "the same")
    return Table(columns, tuple(rows), f"Key/value head of query heads 0 … {heads - 1}.", "grouping")


def sizes(f: Findings) -> Table:
    """Parameters and bytes of the trained models."""
    cells: list[tuple[Cell, ...]] = []
    baseline = cache_bytes_per_token(f.configs["MHA"], 2)
    for row in f.rows:
        config, size = f.configs[row.label], f.sizes[row.label]
        single, half = size.cache_fp32 // f.cache_tokens, size.cache_fp16 // f.cache_tokens
        cells.append(
            (row.label, config.kv_heads, row.parameters, size.attention, config.ff_dim, single, half, half / baseline)
        )
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
    caption = f"Counted on the models; bytes measured on caches of {f.cache_tokens} tokens."
    return Table(columns, tuple(cells), caption, "sizes")


def llama_2(f: Findings) -> Table:
    """The cache of the released models at their full context, and what it would be with other G."""
    rows = tuple(
        (
            f"Llama 2 {model.name}",
            model.heads,
            model.kv_heads,
            model.bytes_per_token / 1024,
            model.with_mha,
            model.released,
            model.with_mqa,
        )
        for model in f.llamas.values()
    )
    columns = ("model", "H", "G", "KiB per token", "GiB with MHA", "GiB as released", "GiB with MQA")
    caption = f"Cache in fp16 for one sequence of {LLAMA_CONTEXT:,} tokens, computed from the architecture."
    return Table(columns, rows, caption, "llama_2")


def loss_by_bytes(f: Findings) -> Figure:
    """Quality against the size of the cache."""
    series = []
    for row in f.rows:
        mean, spread = mean_std(row.losses)
        x = float(cache_bytes_per_token(f.configs[row.label], 2))
        series.append(Series(row.label, (x,), (mean,), (spread,) if len(row.losses) > 1 else ()))
    return Figure(
        "scatter",
        tuple(series),
        "cache bytes per token, fp16",
        "validation loss (nats/token)",
        "What a byte of cache buys: mean ± standard deviation over seeds.",
    )


def trap(f: Findings) -> Comparison:
    """Loss with heads repeated in the wrong order against that in the right one, of the same models."""
    return compare_paired(f.right, f.repeated)


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    mha, _, mqa, _ = f.rows
    counted = [(f.configs[label], size) for label, size in f.sizes.items()]
    closed_bytes = [
        [cache_bytes_per_token(config, width) * f.cache_tokens for width in (4, 2)] for config, _ in counted
    ]
    return (
        Check.at_most("attention over shared heads = torch's enable_gqa (max difference)", f.oracles.torch_gqa, 1e-5),
        Check.at_most(
            "a Llama (H = 8, G = 2) with our attention in place of its own (max difference)", f.oracles.llama, 1e-5
        ),
        Check.at_most(
            "= multi-head attention with the shared heads copied (max difference)", f.oracles.copied_heads, 1e-5
        ),
        Check.beyond_noise(
            "heads repeated in the wrong order make the trained GQA model worse (nats)",
            trap(f),
            "higher",
        ),
        Check.equal(
            "models whose attention parameters differ from the closed form",
            sum(size.attention != attention_parameters(config) for config, size in counted),
            0,
        ),
        Check.equal(
            "models whose cache differs from 2·L·G·D·bytes per token",
            sum(
                [size.cache_fp32, size.cache_fp16] != closed
                for (_, size), closed in zip(counted, closed_bytes, strict=True)
            ),
            0,
        ),
        Check.at_most("wider MQA against MHA: relative difference in parameters", f.parameters_apart, 0.005),
        Check(
            "multi-query attention, though smaller, costs at most 0.05 nats (minor at equal size: Shazeer, 2019)",
            "empirical",
            mqa.loss - mha.loss,
            "≤ 0.05 at the upper end of its interval, of models better than the bigram",
            f.against_mha[mqa.label].interval[1] <= 0.05 and mha.beats_bigram and mqa.beats_bigram,
        ),
    )
