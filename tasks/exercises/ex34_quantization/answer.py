"""Tables, figures and checks of 21.34; the text is in answer.md."""

from reports.answers import Draft
from reports.live.listings import listing
from reports.types import Cell, Check, Figure, Sample, Series, Table
from reports.words import plural
from tasks.exercises.ex34_quantization.findings import (
    BITS,
    CHANNEL,
    COMPARED,
    METHODS,
    NAIVE,
    NAIVE_RANGE,
    NOTICEABLE,
    TENSOR,
    Deployed,
    Deployment,
    Findings,
)


def answer(f: Findings) -> Draft:
    """Everything but sentences."""
    fp32, library, own, *_ = f.deployment.versions
    return Draft(
        blocks={
            "files": Table(
                ("version", "file (MiB)", "of fp32"),
                tuple((v.label, v.file_bytes / 2**20, f.deployment.share(v)) for v in f.deployment.versions),
                "Sizes as serialised: safetensors, and torch.save for torch.ao and torchao.",
                "files",
            ),
            "layer": listing(f.layer_source, "minigpt/quantize.py"),
            "int8": int8(f),
            "methods": methods(f),
            "noise": noise(f),
            "quantize": listing(f.quantize_source, "minigpt/quantize.py"),
            "widths": widths_figure(f),
            "bits": widths_table(f),
            "texts": tuple(
                Sample(one.label, one.prompt, one.text, "the same prompt, random numbers and τ = 0.7")
                for one in f.texts
            ),
        },
        checks=checks(f),
        values={
            "fp32": fp32,
            "library": library,
            "own": own,
            "overlapping": overlapping(f),
            "main": f.curves[0],
            "others": f.curves[1:],
            "naive": NAIVE,
            "tensor": TENSOR,
            "channel": CHANNEL,
            "methods": METHODS,
            "naive_range": NAIVE_RANGE,
            "noticeable": NOTICEABLE - 1,
            "compared": COMPARED,
            "widths": BITS,
        },
    )


def named(d: Deployment) -> list[tuple[str, Deployed]]:
    """The versions in int8, as the text calls them."""
    _, library, own, *_ = d.versions
    return [("torch.ao", library), ("this project's layer", own), *([("torchao", d.newer)] if d.newer else [])]


def overlapping(f: Findings) -> list[str]:
    """Times whose quartiles overlap with those of fp32."""
    fp32, found = f.deployment.versions[0], []
    for name, version in named(f.deployment):
        times = (("reading", version.read, fp32.read), ("decoding", version.decode, fp32.decode))
        for what, one, other in times:
            if one.low <= other.high and other.low <= one.high:
                found.append(f"{what} with {name}")
    return found


def int8(f: Findings) -> Table:
    """Perplexity and time of the three versions."""
    d = f.deployment
    rows = tuple(
        (
            v.label,
            v.perplexity,
            d.change(v),
            v.read.median * 1e3,
            d.reading(v),
            v.decode.median * 1e3 / d.n_new,
            v.decode.low * 1e3 / d.n_new,
            v.decode.high * 1e3 / d.n_new,
            d.decoding(v),
        )
        for v in d.versions
    )
    columns = (
        "version",
        "perplexity",
        "change",
        "reading (ms)",
        "speed-up",
        "decoding (ms/token)",
        "from",
        "to",
        "speed-up of decoding",
    )
    caption = (
        f"The large model on the CPU, {plural(d.threads, 'thread')}: a batch of {d.batch[0]} × {d.batch[1]} characters "
        f"read at once, and {d.n_new} characters decoded one by one; medians of {d.versions[0].read.repeats}, with "
        "quartiles."
    )
    return Table(columns, rows, caption, "int8")


def methods(f: Findings) -> Table:
    """Perplexity of the methods at every width."""
    main = f.curves[0]
    caption = (
        f"Perplexity over the whole validation text, {main.name}; fp32: {main.fp32:.4f}. Simulated: weights rounded, "
        "products in fp32."
    )
    rows: list[tuple[Cell, ...]] = [(bits, *(main.at(method, bits) for method in METHODS)) for bits in BITS]
    return Table(("bits", *METHODS), tuple(rows), caption, "methods")


def noise(f: Findings) -> Table:
    """Why: the weights, and what rounding leaves of them."""
    rounded = f"naive: rounded to 0 at {COMPARED} bits"
    columns = ("matrix", "std", "largest |w|", rounded, *(f"SNR (dB), {method}" for method in METHODS))
    rows: list[tuple[Cell, ...]] = [(one.matrix, one.std, one.largest, one.lost, *one.ratios) for one in f.noise]
    caption = f"Weights of the same model, and the signal-to-noise ratio at {COMPARED} bits."
    return Table(columns, tuple(rows), caption, "noise")


def widths_table(f: Findings) -> Table:
    """Perplexity over fp32's, and the width from which on it shows."""
    rows: list[tuple[Cell, ...]] = []
    for curve in f.curves:
        for method, values in curve.methods.items():
            ratios = (value / curve.fp32 for value in values)
            rows.append((curve.name, method, *ratios, curve.first_noticed(method)))
            if method in curve.spread:
                rows.append((curve.name, f"{method}, ± std over seeds", *curve.spread[method], None))
    columns = ("model", "method", *(f"{bits} bits" for bits in BITS), "noticeable from (bits)")
    caption = f"Perplexity over that of fp32. Noticeable: over {NOTICEABLE:g}, there and at every smaller width."
    return Table(columns, tuple(rows), caption, "bits")


def widths_figure(f: Findings) -> Figure:
    """The same as curves."""
    series = tuple(
        Series(
            f"{curve.name}, {method}",
            tuple(map(float, BITS)),
            tuple(value / curve.fp32 for value in values),
            curve.spread.get(method, ()),
        )
        for curve in f.curves
        for method, values in curve.methods.items()
    )
    return Figure(
        "line",
        series,
        "bits per weight",
        "perplexity over fp32",
        "Where the curves leave 1, the numbers no longer carry the model.",
        y_log=True,
        hlines=((NOTICEABLE, "noticeable"),),
    )


def checks(f: Findings) -> tuple[Check, ...]:
    """The claims."""
    d, main = f.deployment, f.curves[0]
    fp32, _, own, *_ = d.versions
    expected = fp32.file_bytes - 3 * f.matrix_weights + 4 * f.matrix_channels
    worst = max(c - n for n, c in zip(main.methods[NAIVE], main.methods[CHANNEL], strict=True))
    return (
        Check.at_most("8 to 2 bits against torch.fake_quantize_per_channel_affine, in steps", f.oracle.channel, 1e-3),
        Check.at_most("8 to 2 bits against torch.fake_quantize_per_tensor_affine, in steps", f.oracle.tensor, 1e-3),
        Check.equal("int8 values = those of torch.quantize_per_channel", f.oracle.same_values, True),
        Check.equal("the int8 file loads back to the same logits", d.loads_equal, True),
        Check.equal("the same integers summed in fp32, for scoring, give the same logits", d.sums_equal, True),
        Check.at_most(
            "size of the int8 file against 1 byte a weight and 4 a channel, relative error",
            abs(own.file_bytes / expected - 1),
            0.02,
        ),
        Check.at_most("perplexity in int8 over fp32", own.perplexity / fp32.perplexity, NOTICEABLE, "empirical"),
        *(
            Check.at_least(f"speed-up of {what} in int8, {name}", speed(version), 1.0, "empirical")
            for name, version in named(d)
            for what, speed in (("reading", d.reading), ("decoding", d.decoding))
        ),
        Check.at_most(
            "absmax per channel is never worse than naive (largest excess of perplexity)", worst, 0.0, "empirical"
        ),
        Check.at_most(
            "8 bits, absmax per channel: perplexity over fp32",
            main.ratio(CHANNEL, max(BITS)),
            NOTICEABLE,
            "empirical",
        ),
    )
