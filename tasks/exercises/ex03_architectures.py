"""Exercise 21.3: GPT-1, GPT-2 and GPT-3 side by side, the published numbers beside computed ones."""

import math
from dataclasses import replace
from typing import Any

import torch

from minigpt.config import GPTConfig
from minigpt.cost import published
from minigpt.cost.published import GPT1, GPT2, GPT3, MODELS, PublishedModel
from minigpt.cost.scaling_laws import Law, SizeAndData, besiroglu_loss, contributions, hoffmann_loss, kaplan_loss
from minigpt.model import GPT
from reports.types import Answer, Block, Check, Figure, Part, Prose, Series, Table
from tasks.exercise import Context, Exercise

# The papers give words and bytes; the laws want tokens. Rules of thumb for English and 50,000 tokens, varied below.
TOKENS_PER_WORD, BYTES_PER_TOKEN = 4 / 3, 4.0
GPT1_EPOCHS = 100  # Radford et al. (2018), section 4.1
NORM_PLACES = {"post": "post-norm: after each sub-block", "pre": "pre-norm: before each sub-block, and a last one"}

LAWS: dict[str, Law] = {
    "Kaplan et al. (2020)": kaplan_loss,
    "Hoffmann et al. (2022)": hoffmann_loss,
    "Besiroglu et al. (2024)": besiroglu_loss,
}
STEPS = ((GPT1, GPT2[-1]), (GPT2[-1], GPT3[-1]))
PAIRS = (  # models that differ in one thing
    ("size, same data", GPT2[0], GPT2[-1]),
    ("size, same data", GPT3[0], GPT3[-1]),
    ("data and context, same size", GPT2[0], GPT3[0]),
    ("data and context, same size", GPT2[1], GPT3[1]),
    ("data and context, about the same size", GPT2[2], GPT3[2]),
)


def parameters(
    *, n_layer: int, d_model: int, attention_width: int, vocab_size: int, context: int, final_norm: bool
) -> int:
    """Parameters of a GPT with tied embeddings and biases, where H · D need not be C.

    Per layer: qkv 3(CA + A), output AC + C, feed-forward 8C² + 5C, two norms 4C; then embeddings and the last norm.
    """
    c, a = d_model, attention_width
    layer = 3 * (c * a + a) + (a * c + c) + (8 * c * c + 5 * c) + 4 * c
    return n_layer * layer + (vocab_size + context) * c + (2 * c if final_norm else 0)


def count(config: GPTConfig) -> int:
    """The formula for a configuration, in which H · D = C."""
    return parameters(
        n_layer=config.n_layer,
        d_model=config.d_model,
        attention_width=config.d_model,
        vocab_size=config.vocab_size,
        context=config.context,
        final_norm=config.norm == "pre",
    )


def count_as_printed(model: PublishedModel) -> int:
    """The formula with the heads, head width and width of the published table, taken literally."""
    return parameters(
        n_layer=model.n_layer,
        d_model=model.d_model,
        attention_width=model.n_head * model.d_head,
        vocab_size=model.vocab_size,
        context=model.context,
        final_norm=model.norm == "pre",
    )


def count_in_old_vocabulary(model: PublishedModel) -> int:
    """The parameters that a GPT-2 would have with GPT-1's vocabulary."""
    return count(replace(model.consistent_config(), vocab_size=published.GPT1_VOCABULARY))


def instantiated(config: GPTConfig) -> int:
    """Parameters of a real model of this architecture, built without memory; shared ones count once."""
    with torch.device("meta"):
        return sum(p.numel() for p in GPT(config).parameters())


def tokens_of(family: str) -> float:
    """Training tokens of a family: of its corpus, estimated from words or bytes; of GPT-3 those that it read."""
    corpus = next(corpus for corpus in published.CORPORA if corpus.family == family)
    if corpus.words is not None:
        return corpus.words * TOKENS_PER_WORD
    return corpus.n_bytes / BYTES_PER_TOKEN if corpus.n_bytes is not None else corpus.tokens_seen or math.nan


def mix_tokens() -> tuple[float, float]:
    """Tokens in GPT-3's corpora, and how many different ones its training read: at most one epoch of each."""
    parts = published.GPT3_MIX
    billions = sum(p.tokens_billions for p in parts), sum(min(1.0, p.epochs) * p.tokens_billions for p in parts)
    return billions[0] * 1e9, billions[1] * 1e9


def training_flops(model: PublishedModel) -> float:
    """6 · parameters · tokens read (Kaplan et al., 2020, section 2.1), of GPT-1 and GPT-3."""
    epochs = GPT1_EPOCHS if model.family == "GPT-1" else 1
    return 6 * count(model.consistent_config()) * tokens_of(model.family) * epochs


def scale_for(law: Law, model: PublishedModel, factor: float = 1.0) -> SizeAndData:
    """Parameters and tokens as the law counts them: Kaplan et al. leave out the embeddings.

    ``factor`` multiplies tokens that are estimated, those of GPT-1 and GPT-2.
    """
    config = model.consistent_config()
    embeddings = (config.vocab_size + config.context) * config.d_model
    size = count(config) - (embeddings if law is kaplan_loss else 0)
    return size, tokens_of(model.family) * (1.0 if model.family == "GPT-3" else factor)


def shares(law: Law, factor: float = 1.0) -> list[tuple[float, float]]:
    """Loss saved by size and by data in each step from one family's largest model to the next's, in nats per token."""
    return [
        contributions(law, scale_for(law, before, factor), scale_for(law, after, factor)) for before, after in STEPS
    ]


def slug(model: PublishedModel) -> str:
    """The model's name in metrics."""
    return model.name.lower().replace(" ", "_").replace(".", "_").replace("-", "_")


def answer(context: Context) -> Answer:
    """The comparison; the exercise has no lettered parts."""
    computed = {model.name: count(model.consistent_config()) for model in MODELS}
    first, last = GPT1, GPT3[-1]
    metrics: dict[str, float | int] = {
        **{f"parameters_{slug(model)}": computed[model.name] for model in MODELS},
        **{f"published_parameters_millions_{slug(model)}": model.parameters_millions for model in MODELS},
        **{f"as_printed_parameters_{slug(m)}": count_as_printed(m) for m in MODELS if not m.heads_fit},
        **{f"old_vocabulary_parameters_{slug(model)}": count_in_old_vocabulary(model) for model in GPT2},
        "size_factor_gpt_1_to_gpt_3_175b": computed[last.name] / computed[first.name],
        "training_tokens_factor_gpt_1_to_gpt_3_175b": tokens_of(last.family) / tokens_of(first.family),
        "training_flops_factor_gpt_1_to_gpt_3_175b": training_flops(last) / training_flops(first),
    }
    for what, before, after, factor, drop in pairs():
        key = f"{what.split()[0].rstrip(',')}_{slug(before)}_to_{slug(after)}"
        metrics[f"lambada_drop_per_factor_of_ten_nats_{key}"] = drop / math.log10(factor)
    for law, function in LAWS.items():
        for (before, after), (by_size, by_data) in zip(STEPS, shares(function), strict=True):
            key = f"{law.split()[0].lower()}_{slug(before)}_to_{slug(after)}"
            metrics |= {f"loss_drop_by_size_nats_{key}": by_size, f"loss_drop_by_data_nats_{key}": by_data}
    blocks = (*comparison(computed), *inconsistencies(computed), *scaling(), *experiments(), *the_rest())
    odd = [model.name for model in MODELS if not model.heads_fit]
    return Answer(
        summary=f"From {computed['GPT-1'] / 1e6:.1f} M to {computed['GPT-3 175B'] / 1e9:.1f} B parameters in an almost "
        f"unchanged block; {len(odd)} rows of the GPT-3 table contradict themselves ({', '.join(odd)}).",
        parts=(Part("", blocks, "comparison, and which changes mattered most"),),
        checks=checks(context, computed),
        metrics=metrics,
    )


def comparison(computed: dict[str, int]) -> tuple[Block, ...]:
    """The table that the exercise asks for, and where its numbers come from."""
    columns = (
        *("model", "parameters, published (M)", "parameters, computed (M)", "layers", "hidden dimension", "heads"),
        *("head dimension", "context", "vocabulary", "training data", "layer norm"),
    )
    rows = tuple(
        (
            *(m.name, m.parameters_millions, computed[m.name] / 1e6, m.n_layer, m.d_model, m.n_head),
            *(m.d_head, m.context, m.vocab_size, m.data, NORM_PLACES[m.norm]),
        )
        for m in MODELS
    )
    sources = tuple((column, *families) for column, families in published.SOURCES.items())
    return (
        Prose(
            "All attributes stand as published. The computed count is that of the architecture, with tied "
            "embeddings and biases everywhere:"
            r"$$N = L\,(12C^2 + 13C) + (V + T)\,C + 2C,$$"
            "with $12C^2$ for attention ($4C^2$) and feed-forward ($8C^2$), $13C$ for biases and norms, and the last "
            "$2C$ for the final norm, which GPT-1 does not have."
        ),
        Table(columns, rows, "GPT-1, the four GPT-2 sizes and the eight GPT-3 sizes, as published", "comparison"),
        Table(
            ("column", "GPT-1", "GPT-2", "GPT-3"),
            sources,
            "The source of each column: Radford et al. (2018), Radford et al. (2019), Brown et al. (2020)",
            "sources",
        ),
        Prose(
            "What the table does not show: GPT-2 and GPT-3 scale the initial weights of their $n$ residual layers by "
            r"$1/\sqrt{n}$ (Radford et al., 2019, section 2.3), and GPT-3 alternates dense layers with locally banded "
            "sparse ones (Brown et al., 2020, section 2.1), which changes no parameter count."
        ),
    )


def counts_table(computed: dict[str, int]) -> Table:
    """Published counts beside those of the architecture."""
    columns = (
        *(
            "model",
            "published (M)",
            "published in table D.1 (M)",
            "computed as printed (M)",
            "computed, consistent (M)",
        ),
        *("heads × head dimension", "hidden dimension", "made consistent by", "with GPT-1's vocabulary (M)"),
    )
    rows = []
    for m in MODELS:
        config = m.consistent_config()
        repair = "" if m.heads_fit else f"{config.n_head} heads, width {config.d_model}"
        rows.append(
            (
                *(m.name, m.parameters_millions, m.detailed_parameters_millions, count_as_printed(m) / 1e6),
                *(computed[m.name] / 1e6, m.n_head * m.d_head, m.d_model, repair),
                count_in_old_vocabulary(m) / 1e6 if m.family == "GPT-2" else None,
            )
        )
    return Table(columns, tuple(rows), "Published parameter counts against computed ones", "counts")


def inconsistencies(computed: dict[str, int]) -> tuple[Block, ...]:
    """Where the published numbers disagree with one another."""
    reproduced = sum(round(count_in_old_vocabulary(m) / 1e6) == m.parameters_millions for m in GPT2)
    printed = ", ".join(f"{m.parameters_millions:,.0f}" for m in GPT2)
    mix = [
        (part.name, part.tokens_billions, part.weight, part.epochs, part.weight * 300 / part.tokens_billions)
        for part in published.GPT3_MIX
    ]
    worst = max(mix, key=lambda row: abs(row[4] / row[3] - 1))
    xl, big = (next(m for m in GPT3 if m.name.endswith(name)) for name in ("XL", "13B"))
    return (
        Prose(
            f"**GPT-2.** The paper's counts ({printed} M) are too small; OpenAI's repository later called them wrong "
            "“due to an error” and renamed the models 124M, 355M, 774M and 1558M. The last column of the next table "
            f"shows what would explain them: with GPT-1's vocabulary of {published.GPT1_VOCABULARY:,} in place of "
            f"{published.GPT2_VOCABULARY:,}, the formula gives {reproduced} of the {len(GPT2)} published numbers to "
            "the million."
        ),
        Prose(
            f"**GPT-3 XL.** {xl.n_head} heads of {xl.d_head} make {xl.n_head * xl.d_head}, not the width {xl.d_model}. "
            f"Taken literally that is {count_as_printed(xl) / 1e6:,.0f} M parameters; "
            f"{xl.consistent_config().n_head} heads give {computed[xl.name] / 1e6:,.0f} M, and the paper's own table "
            f"D.1 says {xl.detailed_parameters_millions:,.0f} M. **GPT-3 13B.** The width {big.d_model} is not "
            f"{big.n_head} × {big.d_head} = {big.n_head * big.d_head}. It gives {count_as_printed(big) / 1e6:,.0f} "
            f"M, the product gives {computed[big.name] / 1e6:,.0f} M, and table D.1 says "
            f"{big.detailed_parameters_millions:,.0f} M. Table D.1 thus speaks for the consistent architectures: "
            f"{xl.n_head} heads and width {big.d_model} look "
            "like misprints."
        ),
        counts_table(computed),
        Prose(
            "**GPT-3's training mix** (table 2.2) does not add up either: the weights sum to "
            f"{sum(part.weight for part in published.GPT3_MIX):.0%}, which rounding explains, but the epochs printed "
            f"are not everywhere weight × 300 B tokens / size. {worst[0]} is furthest off, {worst[3]:g} printed "
            f"against {worst[4]:.2f} computed."
        ),
        Table(
            ("data set", "tokens (billions)", "weight", "epochs, published", "epochs, computed"),
            tuple(mix),
            "Brown et al. (2020), table 2.2, and what its own columns imply",
            "mix",
        ),
    )


def scaling() -> tuple[Block, ...]:
    """What fitted laws say about size against data."""
    rows = tuple(
        (law, f"{before.name} to {after.name}", by_size, by_data, by_size / (by_size + by_data))
        for law, function in LAWS.items()
        for (before, after), (by_size, by_data) in zip(STEPS, shares(function), strict=True)
    )
    varied = [pair for law in LAWS.values() for factor in (0.5, 1.0, 2.0) for pair in shares(law, factor)]
    wins, parts = sum(size > data for size, data in varied), [size / (size + data) for size, data in varied]
    if wins in (0, len(varied)):
        verdict = f"all {len(varied)} combinations put {'size' if wins else 'data'} first"
    else:
        verdict = f"size comes first in {wins} of {len(varied)} combinations and data in the others"
    first, last = (count(m.consistent_config()) for m in (GPT1, GPT3[-1]))
    compute = training_flops(GPT3[-1]) / training_flops(GPT1)
    whole, different = mix_tokens()
    return (
        Prose(
            "**Which changes mattered most.** Between GPT-1 and GPT-3 the block hardly changed but for the place of "
            f"its norms, while the parameters grew {last / first:,.0f}-fold, the text about "
            f"{tokens_of('GPT-3') / tokens_of('GPT-1'):,.0f}-fold and the training compute, $6ND$ for $N$ parameters "
            f"and $D$ tokens read, about {compute:,.0f}-fold. Scaling laws put numbers to it. They want tokens, of "
            f"which GPT-1's and GPT-2's papers give words and bytes: assumed are {TOKENS_PER_WORD:.2f} tokens a word "
            f"and {BYTES_PER_TOKEN:g} bytes a token. For GPT-3 the {tokens_of('GPT-3') / 1e9:.0f} B tokens count that "
            f"it read, about {different / 1e9:.0f} B different ones out of {whole / 1e9:.0f} B."
        ),
        Table(
            ("law", "step", "saved by size (nats/token)", "saved by data (nats/token)", "share of size"),
            rows,
            "Loss that each step saves according to three fitted laws, split between size and data",
            "scaling_laws",
        ),
        Prose(
            f"With half, the same and double the assumed tokens, {verdict}; the share of size lies between "
            f"{min(parts):.0%} and {max(parts):.0%}. Each law was fitted to models of one family, so it says what "
            "scale alone would do, with the architecture as it was; and GPT-3 175B lies far beyond the sizes that any "
            "of them was fitted to."
        ),
    )


def pairs() -> list[tuple[str, PublishedModel, PublishedModel, float, float]]:
    """(what differs, model, model, its factor, drop of ln perplexity in nats) of each natural experiment."""
    found = []
    for what, before, after in PAIRS:
        sizes = [count(m.consistent_config()) for m in (before, after)]
        factor = sizes[1] / sizes[0] if what.startswith("size") else tokens_of(after.family) / tokens_of(before.family)
        drop = math.log((before.lambada_perplexity or math.nan) / (after.lambada_perplexity or math.nan))
        found.append((what, before, after, factor, drop))
    return found


def experiments() -> tuple[Block, ...]:
    """What published results say where two models differ in one thing."""
    rows = [
        (what, f"{before.name} to {after.name}", factor, drop, drop / math.log10(factor))
        for what, before, after, factor, drop in pairs()
    ]
    best = max(rows, key=lambda row: row[3])
    by_size, by_data = ([row[4] for row in rows if row[0].startswith(word)] for word in ("size", "data"))
    clear = "more in every pair than" if min(by_size) > max(by_data) else "not in every pair more than"
    return (
        Prose(
            "The papers' results hold natural experiments beside the laws, models that differ in size or in data: "
            "zero-shot perplexity on LAMBADA. The two papers may not have prepared that text alike, so comparisons "
            "across families are rough."
        ),
        Table(
            ("what differs", "models", "factor", "drop of ln perplexity (nats)", "per factor of ten (nats)"),
            tuple(rows),
            "Pairs of published models; the tokens of GPT-2 are estimated as above",
            "natural_experiments",
        ),
        lambada_figure(),
        Prose(
            f"The largest single effect is that of {best[0].split(',')[0]}, from {best[1]}: {best[3]:.2f} nats for a "
            f"factor of {best[2]:,.0f}. Per factor of ten, size brought {min(by_size):.2f} to {max(by_size):.2f} nats, "
            f"{clear} data with context, {min(by_data):.2f} to {max(by_data):.2f}."
        ),
    )


def lambada_figure() -> Figure:
    """Published LAMBADA perplexity against computed size."""
    return Figure(
        kind="line",
        series=tuple(
            Series(
                family,
                tuple(float(count(m.consistent_config())) for m in models),
                tuple(m.lambada_perplexity or math.nan for m in models),
            )
            for family, models in (("GPT-2", GPT2), ("GPT-3", GPT3))
        ),
        x_label="parameters (computed)",
        y_label="LAMBADA perplexity, zero-shot",
        x_log=True,
        y_log=True,
        caption="Size at fixed data (along a line), data at fixed size (between the lines). Published perplexities",
    )


def the_rest() -> tuple[Block, ...]:
    """The conclusion, and the changes on which published numbers are silent."""
    return (
        Prose(
            "**Conclusion.** The largest impact came from scale, parameters and text together: laws and results agree "
            "that each of the two explains a large part, and no other change has such numbers behind it. The rest made "
            "scale possible or useful, and these papers have no ablation of it. Pre-norm and scaled initialisation "
            f"came with the {GPT2[-1].n_layer} layers of GPT-2 XL (exercise 21.4 measures what the placement does to "
            "gradients). Byte-level BPE removed the unknown token. The longer context makes room for examples in the "
            "prompt, on which few-shot learning rests (Brown et al., 2020, figure 1.2). Depth against width matters "
            "little at equal parameters (Kaplan et al., 2020, section 3.1). And the laws are about loss: what made "
            "GPT-3 known, learning a task from its context, they do not predict."
        ),
    )


def checks(context: Context, computed: dict[str, int]) -> tuple[Check, ...]:
    """The formula against built models, ours and those of Transformers, and against published counts."""
    result = []
    for i, model in enumerate(MODELS):
        context.progress(i / len(MODELS), f"building {model.name} without memory")
        actual = instantiated(model.consistent_config())
        claim = f"{model.name}: the formula equals the parameters of the built model"
        result.append(Check.equal(claim, computed[model.name], actual))
    for model in (GPT1, *GPT2):
        claim = f"{model.name}: the formula equals the parameters of Transformers' model"
        result.append(Check.equal(claim, computed[model.name], transformers_count(model)))
    differences = [computed[m.name] / 1e6 / (m.detailed_parameters_millions or math.nan) - 1 for m in GPT3]
    compute = training_flops(GPT3[-1])
    return (
        *result,
        Check.at_most(
            "GPT-3: computed counts against table D.1 (largest relative difference)", max(map(abs, differences)), 0.005
        ),
        Check.equal(
            "GPT-2: the published counts are those with GPT-1's vocabulary (millions)",
            ", ".join(f"{count_in_old_vocabulary(m) / 1e6:.0f}" for m in GPT2),
            ", ".join(f"{m.parameters_millions:.0f}" for m in GPT2),
        ),
        Check.close(
            "GPT-3 175B: 6 · parameters · tokens over the published training FLOPs",
            compute / published.GPT3_TRAINING_FLOPS,
            1.0,
            0.005,
        ),
    )


def transformers_count(model: PublishedModel) -> int:
    """Parameters of the Transformers implementation of a model, built without memory."""
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    shape: dict[str, Any] = {"vocab_size": model.vocab_size, "n_positions": model.context}
    shape |= {"n_embd": model.d_model, "n_layer": model.n_layer, "n_head": model.n_head}
    with torch.device("meta"):
        if model.family == "GPT-1":
            return sum(p.numel() for p in OpenAIGPTLMHeadModel(OpenAIGPTConfig(**shape)).parameters())
        return sum(p.numel() for p in GPT2LMHeadModel(GPT2Config(**shape)).parameters())


EXERCISE = Exercise(
    id="21.3",
    title="GPT Architecture Comparison",
    answer=answer,
    numbers={"smoke": {}, "laptop": {}, "gpu": {}},
    seconds={"smoke": 4, "laptop": 3, "gpu": 4},
)
