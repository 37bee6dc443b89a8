"""Tables, figure and checks of 21.3; the text is in answer.md."""

import math

from minigpt.cost import published
from minigpt.cost.published import GPT1, GPT2, GPT3, MODELS
from reports.answers import Draft
from reports.types import Check, Figure, Series, Table
from tasks.exercises.ex03_architectures.arithmetic import (
    BYTES_PER_TOKEN,
    GPT1_EPOCHS,
    LAWS,
    TOKENS_PER_WORD,
    data_if_read_again,
)
from tasks.exercises.ex03_architectures.findings import Findings

NORM_PLACES = {"post": "post-norm", "pre": "pre-norm"}


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    mix = [
        (part.name, part.tokens_billions, part.weight, part.epochs, part.weight * 300 / part.tokens_billions)
        for part in published.GPT3_MIX
    ]
    first, last = f.counts[GPT1.name].formula, f.counts[GPT3[-1].name].formula
    return Draft(
        blocks={
            "comparison": comparison(f),
            "sources": Table(
                ("column", "GPT-1", "GPT-2", "GPT-3"),
                tuple((column, *families) for column, families in published.SOURCES.items()),
                "The source of each column: Radford et al. (2018), Radford et al. (2019), Brown et al. (2020)",
                "sources",
            ),
            "counts": counts(f),
            "mix": Table(
                ("data set", "tokens (billions)", "weight", "epochs, published", "epochs, computed"),
                tuple(mix),
                "Brown et al. (2020), table 2.2, and what its own columns imply",
                "mix",
            ),
            "scaling laws": Table(
                ("law", "step", "saved by size (nats/token)", "saved by data (nats/token)", "share of size"),
                tuple((s.law, f"{s.before} to {s.after}", s.by_size, s.by_data, s.of_size) for s in f.assumed),
                "Loss that each step saves according to three fitted laws, split between size and data: each is "
                "the mean of what it saves if it changes first and if it changes second",
                "scaling_laws",
            ),
            "natural experiments": Table(
                ("what differs", "models", "factor", "drop of ln perplexity (nats)", "per factor of ten (nats)"),
                tuple((p.what, f"{p.before} to {p.after}", p.factor, p.drop, p.per_ten) for p in f.pairs),
                "Pairs of published models; the tokens of GPT-2 are estimated as above",
                "natural_experiments",
            ),
            "lambada": lambada(f),
        },
        checks=checks(f),
        values={
            "first": first,
            "gpt1_epochs": GPT1_EPOCHS,
            "last": last,
            "odd": [model.name for model in MODELS if not model.heads_fit],
            "gpt2": GPT2,
            "gpt2_printed": [f"{model.parameters_millions:,.0f}" for model in GPT2],
            "reproduced": sum(old_millions(f, m.name) == m.parameters_millions for m in GPT2),
            "old_vocabulary": published.GPT1_VOCABULARY,
            "new_vocabulary": published.GPT2_VOCABULARY,
            "xl": next(model for model in GPT3 if model.name.endswith("XL")),
            "big": next(model for model in GPT3 if model.name.endswith("13B")),
            "weights": sum(part.weight for part in published.GPT3_MIX),
            "worst": max(mix, key=deviation),  # data set, tokens, weight, epochs printed, epochs computed
            "tokens_per_word": TOKENS_PER_WORD,
            "bytes_per_token": BYTES_PER_TOKEN,
            "read_again": [data_if_read_again(law) for law in LAWS.values()],
            "size_first": sum(share.by_size > share.by_data for share in f.shares),
            "by_size": [pair.per_ten for pair in f.pairs if pair.what.startswith("size")],
            "by_data": [pair.per_ten for pair in f.pairs if pair.what.startswith("data")],
        },
    )


def deviation(row: tuple[str, float, float, float, float]) -> float:
    """How far computed epochs are from printed ones, relatively."""
    return abs(row[4] / row[3] - 1)


def old_millions(f: Findings, name: str) -> int:
    """Millions of parameters with GPT-1's vocabulary."""
    return round((f.counts[name].in_old_vocabulary or math.nan) / 1e6)


def comparison(f: Findings) -> Table:
    """The table that the exercise asks for."""
    columns = (
        "model",
        "parameters, published (M)",
        "parameters, computed (M)",
        "layers",
        "hidden dimension",
        "heads",
        "head dimension",
        "context",
        "vocabulary",
        "training data",
        "layer norm",
    )
    rows = tuple(
        (
            m.name,
            m.parameters_millions,
            f.counts[m.name].formula / 1e6,
            m.n_layer,
            m.d_model,
            m.n_head,
            m.d_head,
            m.context,
            m.vocab_size,
            m.data,
            NORM_PLACES[m.norm],
        )
        for m in MODELS
    )
    caption = (
        "GPT-1, the four GPT-2 sizes and the eight GPT-3 sizes, as published. Post-norm stands after each sub-block, "
        "pre-norm before each, and once more at the end."
    )
    return Table(columns, rows, caption, "comparison")


def counts(f: Findings) -> Table:
    """Published counts beside those of the architecture."""
    columns = (
        "model",
        "published (M)",
        "published in table D.1 (M)",
        "computed as printed (M)",
        "computed, consistent (M)",
        "heads × head dimension",
        "hidden dimension",
        "made consistent by",
        "with GPT-1's vocabulary (M)",
    )
    rows = []
    for m in MODELS:
        config, found = m.consistent_config(), f.counts[m.name]
        rows.append(
            (
                m.name,
                m.parameters_millions,
                m.detailed_parameters_millions,
                found.as_printed / 1e6,
                found.formula / 1e6,
                m.n_head * m.d_head,
                m.d_model,
                "" if m.heads_fit else f"{config.n_head} heads, width {config.d_model}",
                None if found.in_old_vocabulary is None else found.in_old_vocabulary / 1e6,
            )
        )
    return Table(columns, tuple(rows), "Published parameter counts against computed ones", "counts")


def lambada(f: Findings) -> Figure:
    """Published LAMBADA perplexity against computed size."""
    return Figure(
        kind="line",
        series=tuple(
            Series(
                family,
                tuple(float(f.counts[m.name].formula) for m in models),
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


def checks(f: Findings) -> tuple[Check, ...]:
    """The formula against built models, ours and those of Transformers, and against published counts."""
    found = f.counts.values()
    differences = [f.counts[m.name].formula / 1e6 / (m.detailed_parameters_millions or math.nan) - 1 for m in GPT3]
    return (
        *(
            Check.equal(f"{one.name}: the formula equals the parameters of the built model", one.formula, one.built)
            for one in found
        ),
        *(
            Check.equal(
                f"{one.name}: the formula equals the parameters of Transformers' model", one.formula, one.transformers
            )
            for one in found
            if one.transformers is not None
        ),
        Check.at_most(
            "GPT-3: computed counts against table D.1 (largest relative difference)", max(map(abs, differences)), 0.005
        ),
        Check.equal(
            "GPT-2: the published counts are those with GPT-1's vocabulary (millions)",
            ", ".join(str(old_millions(f, m.name)) for m in GPT2),
            ", ".join(f"{m.parameters_millions:.0f}" for m in GPT2),
        ),
        Check.close(
            "GPT-3 175B: 6 · parameters · tokens over the published training FLOPs",
            f.training_flops[GPT3[-1].name] / published.GPT3_TRAINING_FLOPS,
            1.0,
            0.005,
        ),
    )
