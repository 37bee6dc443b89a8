"""Exercise 21.34: weights in 8 to 2 bits, simulated and scored; and a model that really computes in int8, timed."""

import copy
import functools
import inspect
import io
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from minigpt import quantize as quantization
from minigpt.decoding.sampling import GREEDY, Sampling, generate
from minigpt.evaluation.evaluate import evaluate
from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.timing import Timing, measure
from minigpt.files import model_state
from minigpt.model import GPT
from minigpt.quantize import (
    NAIVE_RANGE,
    fake_quantize,
    int8_bytes,
    load_int8,
    quantize,
    summed_in_fp32,
    to_int8,
)
from reports.types import Answer, Block, Cell, Check, Code, Figure, Part, Prose, Sample, Series, Table
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.recipes.catalogue import LARGE, SMALL_LONG, STUDENT

BITS = (8, 7, 6, 5, 4, 3, 2)
NAIVE, TENSOR, CHANNEL = f"naive, range ±{NAIVE_RANGE:g}", "absmax per tensor", "absmax per channel"
METHODS: dict[str, dict[str, Any]] = {
    NAIVE: {"scheme": "naive", "per_channel": False},
    TENSOR: {"scheme": "absmax", "per_channel": False},
    CHANNEL: {"scheme": "absmax", "per_channel": True},
}
KEYS = {NAIVE: "naive", TENSOR: "absmax_tensor", CHANNEL: "absmax_channel"}
NOTICEABLE = 1.02  # a perplexity 2 % above that of fp32

Metrics = dict[str, float | int]


# --- Scores -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Curve:
    """Perplexity of one model at every bit width, mean over its seeds."""

    name: str
    key: str
    fp32: float
    methods: dict[str, tuple[float, ...]]  # per method, in the order of BITS
    spread: dict[str, tuple[float, ...]] = field(default_factory=dict)  # std of perplexity over fp32's, over seeds

    def first_noticed(self, method: str) -> int | None:
        """The largest bit width from which on perplexity is noticeably higher than in fp32; None for none."""
        noticed = None
        for bits, perplexity in zip(reversed(BITS), reversed(self.methods[method]), strict=True):
            if perplexity <= self.fp32 * NOTICEABLE:
                break
            noticed = bits
        return noticed


def curve(seeds: Sequence[TrainedModel], name: str, methods: Sequence[str], tokens: Tensor) -> Curve:
    """Evaluate a model over the validation text at every bit width, with each of its seeds."""

    def perplexity(model: GPT) -> float:
        return evaluate(model, tokens).perplexity

    fp32 = [perplexity(found.model) for found in seeds]
    by_method = {
        method: [[perplexity(fake_quantize(found.model, bits, **METHODS[method])) for found in seeds] for bits in BITS]
        for method in methods
    }

    def spread(values: Sequence[float]) -> float:
        return mean_std([value / whole for value, whole in zip(values, fp32, strict=True)])[1]

    return Curve(
        name=name,
        key=seeds[0].recipe.name.replace("-", "_"),
        fp32=mean_std(fp32)[0],
        methods={m: tuple(mean_std(values)[0] for values in rows) for m, rows in by_method.items()},
        spread={m: tuple(map(spread, rows)) for m, rows in by_method.items()} if len(seeds) > 1 else {},
    )


def block_weights(model: GPT) -> list[tuple[str, Tensor]]:
    """The matrices that are quantised."""
    return [
        (name, module.weight.detach()) for name, module in model.blocks.named_modules() if isinstance(module, nn.Linear)
    ]


# --- (a) PyTorch's utilities, and int8 for real -----------------------------------------------------------------


def torch_dynamic(model: GPT) -> tuple[GPT, str]:
    """The model through ``torch.ao.quantization.quantize_dynamic``, blocks only, and the warning that it gives.

    Each Linear becomes one with int8 weights, a scale per channel, that quantises its input on the fly. CPU only.
    """
    quantised = copy.deepcopy(model).cpu().eval()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        config = {nn.Linear: torch.ao.quantization.per_channel_dynamic_qconfig}
        quantised.blocks = torch.ao.quantization.quantize_dynamic(quantised.blocks, config, dtype=torch.qint8)
    messages = [str(w.message).strip() for w in caught if issubclass(w.category, DeprecationWarning)]
    return quantised, messages[0].split("\n")[0].strip() if messages else ""


def oracle_differences(model: GPT) -> tuple[float, float, bool]:
    """Largest differences from torch.fake_quantize per channel and per tensor, relative to a step, and its qint8."""
    channel = tensor = 0.0
    same = True
    for _, weight in block_weights(model):
        weight = weight.cpu()
        zeros = torch.zeros(len(weight), dtype=torch.int32)
        for bits in BITS:
            largest = 2 ** (bits - 1) - 1
            ours = quantize(weight, bits)
            theirs = torch.fake_quantize_per_channel_affine(weight, ours.scale[:, 0], zeros, 0, -largest, largest)
            channel = max(channel, ((ours.dequantize() - theirs) / ours.scale).abs().max().item())
            whole = quantize(weight, bits, per_channel=False)
            theirs = torch.fake_quantize_per_tensor_affine(weight, whole.scale.item(), 0, -largest, largest)
            tensor = max(tensor, ((whole.dequantize() - theirs) / whole.scale).abs().max().item())
        eight = quantize(weight, 8)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's quantised tensors are deprecated; they still round
            stored = torch.quantize_per_channel(weight, eight.scale[:, 0].double(), zeros.double(), 0, torch.qint8)
        same &= torch.equal(stored.int_repr(), eight.values)
    return channel, tensor, same


@dataclass(frozen=True)
class Deployed:
    """One way to store and run the same model."""

    label: str
    key: str
    file_bytes: int
    perplexity: float
    read: Timing  # of a batch of contexts at once
    decode: Timing  # of one text, token by token


def saved_size(model: nn.Module) -> int:
    """Bytes that torch.save writes for a state dict."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return len(buffer.getvalue())


@dataclass(frozen=True)
class Deployment:
    """The large model in three versions."""

    versions: tuple[Deployed, ...]
    warning: str  # what torch.ao says of itself
    loads_equal: bool  # the int8 file gives the same logits
    sums_equal: bool  # and so do its integers summed in fp32, as they are for scoring
    n_new: int
    batch: tuple[int, ...]
    threads: int


def deploy(ctx: Context) -> Deployment:
    """The large model in fp32, through torch.ao, and with this project's int8 layer; all on the CPU."""
    trained = ctx.model(LARGE)
    original = copy.deepcopy(trained.model).cpu()
    dynamic, warning = torch_dynamic(original)
    own = to_int8(original)
    stored, tokens, context = int8_bytes(own), ctx.tokens(LARGE).cpu(), original.config.context
    n_new = min(ctx.numbers["new_tokens"], context - 16)
    batch = tokens[: 4 * context].view(4, context)
    with torch.inference_mode():
        logits = own(batch[:1])
        equal = torch.equal(load_int8(stored)(batch[:1]), logits)
        with summed_in_fp32(own):
            sums_equal = torch.equal(own(batch[:1]), logits)
    models = {"fp32": original, "torch_dynamic": dynamic, "int8": own}
    functions: dict[str, Callable[[], object]] = {}
    for key, model in models.items():
        functions[f"{key} read"] = functools.partial(model, batch)
        functions[f"{key} decode"] = functools.partial(generate, model, batch[:1, :16], n_new, sampling=GREEDY)
    timings = measure(functions, repeats=ctx.numbers["repeats"])
    ctx.progress(0.3, "timed")
    with summed_in_fp32(own):
        own_perplexity = evaluate(own, tokens).perplexity
    facts = {
        "fp32": ("fp32", len(save(model_state(original))), math.exp(trained.evaluations["validation_loss"][-1])),
        "torch_dynamic": ("torch.ao, dynamic int8", saved_size(dynamic), evaluate(dynamic, tokens).perplexity),
        "int8": ("this project's int8", len(stored), own_perplexity),
    }
    ctx.progress(0.5, "scored in int8")
    versions = tuple(
        Deployed(label, key, size, perplexity, timings[f"{key} read"], timings[f"{key} decode"])
        for key, (label, size, perplexity) in facts.items()
    )
    return Deployment(versions, warning, equal, sums_equal, n_new, tuple(batch.shape), torch.get_num_threads())


def part_a(ctx: Context, d: Deployment) -> tuple[Part, list[Check]]:
    """Utilities, layer and file."""
    model = ctx.model(LARGE).model
    channel, tensor, same = oracle_differences(model)
    matrices = sum(weight.numel() for _, weight in block_weights(model))
    total = sum(weight.numel() for weight in model.parameters())
    fp32, _, own = d.versions
    expected = fp32.file_bytes - 3 * matrices + 4 * sum(len(weight) for _, weight in block_weights(model))
    checks = [
        Check.at_most("8 to 2 bits against torch.fake_quantize_per_channel_affine, in steps", channel, 1e-3),
        Check.at_most("8 to 2 bits against torch.fake_quantize_per_tensor_affine, in steps", tensor, 1e-3),
        Check.equal("int8 values = those of torch.quantize_per_channel", same, True),
        Check.equal("the int8 file loads back to the same logits", d.loads_equal, True),
        Check.equal("the same integers summed in fp32, for scoring, give the same logits", d.sums_equal, True),
        Check.at_most(
            "size of the int8 file against 1 byte a weight and 4 a channel, relative error",
            abs(own.file_bytes / expected - 1),
            0.02,
        ),
    ]
    rows = tuple((v.label, v.file_bytes / 2**20, v.file_bytes / fp32.file_bytes) for v in d.versions)
    said = f" PyTorch says of it: “{d.warning}”" if d.warning else ""
    text = (
        "`torch.ao.quantization.quantize_dynamic` replaces each linear layer by one with int8 weights, a scale per "
        f"output channel, whose input is quantised as it comes.{said} This project's own `Int8Linear` does the same "
        "with `torch._int_mm`: int8 by int8, summed in int32, scaled back. Embeddings, norms and biases stay in fp32; "
        f"the matrices of the blocks hold {matrices / total:.1%} of the {total:,} weights. Its file holds int8 numbers "
        f"and scales, {own.file_bytes / fp32.file_bytes:.1%} of the fp32 file."
    )
    caption = "Sizes as serialised: safetensors, and torch.save for torch.ao."
    blocks = (
        Prose(text),
        Table(("version", "file (MiB)", "of fp32"), rows, caption, "files"),
        Code(inspect.getsource(quantization.Int8Linear), "minigpt/quantize.py"),
    )
    return Part("a", blocks, "From float32 to int8"), checks


# --- (b) Quality and speed --------------------------------------------------------------------------------------


def part_b(ctx: Context, d: Deployment) -> tuple[Part, list[Check], Metrics]:
    """Perplexity and time of the three versions."""
    fp32 = d.versions[0]
    rows, metrics = [], Metrics()
    for v in d.versions:
        read, decode = fp32.read.median / v.read.median, fp32.decode.median / v.decode.median
        rows.append(
            (
                *(v.label, v.perplexity, v.perplexity / fp32.perplexity - 1, v.read.median * 1e3, read),
                *(v.decode.median * 1e3 / d.n_new, v.decode.low * 1e3 / d.n_new, v.decode.high * 1e3 / d.n_new, decode),
            )
        )
        metrics[f"perplexity_large_{v.key}"] = v.perplexity
        metrics[f"file_mib_{v.key}"] = v.file_bytes / 2**20
        metrics[f"read_ms_{v.key}"] = v.read.median * 1e3
        metrics[f"decode_ms_per_token_{v.key}"] = v.decode.median * 1e3 / d.n_new
        metrics[f"speedup_read_{v.key}"], metrics[f"speedup_decode_{v.key}"] = read, decode
    columns = (
        *("version", "perplexity", "change", "reading (ms)", "speed-up"),
        *("decoding (ms/token)", "from", "to", "speed-up of decoding"),
    )
    library, own = rows[1:]
    caption = (
        f"The large model on the CPU, {d.threads} thread(s): a batch of {d.batch[0]} × {d.batch[1]} characters read at "
        f"once, and {d.n_new} characters decoded one by one; medians of {fp32.read.repeats}, with quartiles."
    )
    text = (
        f"In int8 the perplexity changes by {change(own[2])}, {noticed_or_not(own[2])}; through torch.ao, by "
        f"{change(library[2])}. Reading many characters at once is {faster(library[4])} with torch.ao and "
        f"{faster(own[4])} with this project's layer; decoding one at a time, {faster(library[8])} and "
        f"{faster(own[8])}: there each step quantises one row, and multiplies a matrix by a vector. "
        f"{kernel_sentence(own[4])}"
    )
    checks = [
        Check.at_most("perplexity in int8 over fp32", own[1] / fp32.perplexity, NOTICEABLE, "empirical"),
        *(
            Check.at_least(f"speed-up of {what} in int8, {name}", float(row[index]), 1.0, "empirical")
            for name, row in (("torch.ao", library), ("this project's layer", own))
            for what, index in (("reading", 4), ("decoding", 8))
        ),
    ]
    blocks = (Table(columns, tuple(rows), caption, "int8"), Prose(text))
    return Part("b", blocks, "Perplexity and speed"), checks, metrics


def change(share: float) -> str:
    """A relative change with its sign; the smallest ones would all be ±0.00%."""
    return f"{share:+.2%}" if abs(share) >= 5e-5 else "less than 0.01%"


def kernel_sentence(speedup: float) -> str:
    """What the processor has to do with it; nothing where int8 is fast."""
    capable = torch.cpu.get_capabilities()
    if speedup >= 0.95 or capable.get("architecture") != "x86_64" or any(capable[k] for k in capable if "vnni" in k):
        return ""
    return "This processor lacks the instructions for int8 products (VNNI), without which `torch._int_mm` is slow."


def noticed_or_not(share: float) -> str:
    """A relative change of perplexity in words."""
    if share > NOTICEABLE - 1:
        return "which is noticeable"
    return f"below the {NOTICEABLE - 1:.0%} that is called noticeable here"


def faster(ratio: float) -> str:
    """A speed-up in words."""
    if 0.95 <= ratio <= 1.05:
        return f"as fast as in fp32 ({ratio:.2f})"
    return f"{ratio:.2f} times as fast" if ratio > 1 else f"slower ({ratio:.2f} times the speed)"


# --- (c) Naive against absmax -----------------------------------------------------------------------------------


def noise_rows(model: GPT, bits: int) -> list[tuple[Cell, ...]]:
    """Per kind of matrix: spread, largest weight, share that the naive range rounds to 0, signal-to-noise in dB."""
    groups: dict[str, list[Tensor]] = {}
    for name, weight in block_weights(model):
        groups.setdefault(name.split(".", 1)[1], []).append(weight)
    rows: list[tuple[Cell, ...]] = []
    for name, weights in groups.items():
        whole = torch.cat([w.flatten() for w in weights])
        zero = torch.cat([quantize(w, bits, "naive").values.flatten() for w in weights])
        ratios = []
        for method in METHODS.values():
            error = sum(((w - quantize(w, bits, **method).dequantize()) ** 2).sum() for w in weights)
            ratios.append(10 * math.log10(float((whole**2).sum() / error)))
        rows.append((name, whole.std().item(), whole.abs().max().item(), (zero == 0).double().mean().item(), *ratios))
    return rows


def part_c(ctx: Context, curves: Sequence[Curve]) -> tuple[Part, list[Check], Metrics]:
    """Perplexity of the methods, and why."""
    main = curves[0]
    rows = tuple((bits, *(main.methods[m][i] for m in METHODS)) for i, bits in enumerate(BITS))
    caption = (
        f"Perplexity over the whole validation text, {main.name}; fp32: {main.fp32:.4f}. Simulated: weights rounded, "
        "products in fp32."
    )
    bits = 4
    noise = noise_rows(ctx.model(SMALL_LONG).model, bits)
    rounded = f"naive: rounded to 0 at {bits} bits"
    columns = ("matrix", "std", "largest |w|", rounded, *(f"SNR (dB), {m}" for m in METHODS))
    noise_caption = f"Weights of the same model, and the signal-to-noise ratio at {bits} bits."
    four = BITS.index(bits)
    naive, tensor, channel = (main.methods[m][four] for m in METHODS)
    lost = [float(row[3] or 0) for row in noise]
    text = (
        f"The naive step is ${NAIVE_RANGE:g}/(2^{{b-1}}-1)$ for every matrix, whatever is in it: at {bits} bits it "
        f"rounds {min(lost):.0%} to {max(lost):.0%} of the weights of a kind of matrix to 0, and the perplexity is "
        f"{naive:.3g} against {main.fp32:.3g} in fp32. Absmax fits the step to the largest weight, of the tensor "
        f"({tensor:.3g}) or of each output channel ({channel:.3g}). {order_sentence(main)}"
    )
    metrics: Metrics = {
        f"perplexity_{curve.key}_{KEYS[m]}_{b}_bits": value
        for curve in curves
        for m, values in curve.methods.items()
        for b, value in zip(BITS, values, strict=True)
    }
    metrics |= {f"perplexity_{curve.key}_fp32": curve.fp32 for curve in curves}
    worst = max(c - n for n, c in zip(main.methods[NAIVE], main.methods[CHANNEL], strict=True))
    claim = "absmax per channel is never worse than naive (largest excess of perplexity)"
    check = Check.at_most(claim, worst, 0.0, "empirical")
    blocks: tuple[Block, ...] = (
        Prose(text),
        Table(("bits", *METHODS), rows, caption, "methods"),
        Table(columns, tuple(noise), noise_caption, "noise"),
        Code(inspect.getsource(quantization.quantize), "minigpt/quantize.py"),
    )
    return Part("c", blocks, "Naive round-to-nearest against absmax"), [check], metrics


def order_sentence(curve: Curve) -> str:
    """At how many widths the methods come in the expected order."""
    naive, tensor, channel = (curve.methods[m] for m in METHODS)
    count = sum(c <= t <= n for n, t, c in zip(naive, tensor, channel, strict=True))
    if count == len(BITS):
        return "The order per channel, per tensor, naive holds at every width."
    return f"The order per channel, per tensor, naive holds at {count} of {len(BITS)} widths."


# --- (d) Where it degrades --------------------------------------------------------------------------------------


def part_d(ctx: Context, curves: Sequence[Curve]) -> tuple[Part, list[Check], Metrics]:
    """The bit width from which on it shows."""
    rows, metrics, series = [], Metrics(), []
    for curve in curves:
        for method, values in curve.methods.items():
            noticed = curve.first_noticed(method)
            spread = curve.spread.get(method, ())
            rows.append((curve.name, method, *(value / curve.fp32 for value in values), noticed))
            if spread:
                rows.append((curve.name, f"{method}, ± std over seeds", *spread, None))
                metrics |= {
                    f"perplexity_ratio_{curve.key}_{KEYS[method]}_{b}_bits_std": value
                    for b, value in zip(BITS, spread, strict=True)
                }
            metrics[f"first_noticeable_bits_{curve.key}_{KEYS[method]}"] = noticed or 0
            ratios = tuple(v / curve.fp32 for v in values)
            series.append(Series(f"{curve.name}, {method}", tuple(map(float, BITS)), ratios, spread))
    columns = ("model", "method", *(f"{bits} bits" for bits in BITS), "noticeable from (bits)")
    caption = f"Perplexity over that of fp32. Noticeable: over {NOTICEABLE:g}, there and at every smaller width."
    figure = Figure(
        "line",
        tuple(series),
        "bits per weight",
        "perplexity over fp32",
        "Where the curves leave 1, the numbers no longer carry the model.",
        y_log=True,
        hlines=((NOTICEABLE, "noticeable"),),
    )
    main = curves[0]
    said = "; ".join(f"{method}: {threshold(main.first_noticed(method))}" for method in METHODS)
    text = (
        f"With “noticeable” meaning a perplexity more than {NOTICEABLE - 1:.0%} above fp32, the model “{main.name}” "
        f"degrades so: {said}. {others_sentence(curves[1:])} "
        "These are round-to-nearest figures: methods that use calibration data (GPTQ, Frantar et al., 2023; AWQ, Lin "
        "et al., 2024) are made to go lower."
    )
    claim = "8 bits, absmax per channel: perplexity over fp32"
    check = Check.at_most(claim, main.methods[CHANNEL][0] / main.fp32, NOTICEABLE, "empirical")
    blocks: tuple[Block, ...] = (figure, Table(columns, tuple(rows), caption, "bits"), Prose(text), *samples(ctx, main))
    return Part("d", blocks, "The bit width where it shows"), [check], metrics


def others_sentence(curves: Sequence[Curve]) -> str:
    """The same of other models, best method, with the spread over seeds at 4 bits."""
    four, said = BITS.index(4), []
    for curve in curves:
        ratio, spread = curve.methods[CHANNEL][four] / curve.fp32, curve.spread.get(CHANNEL)
        size = f"{ratio:.3f} ± {spread[four]:.3f}" if spread else f"{ratio:.3f} (one seed)"
        said.append(
            f"In “{curve.name}”, {CHANNEL}, it shows {threshold(curve.first_noticed(CHANNEL))}; at 4 bits the "
            f"perplexity is {size} times that of fp32."
        )
    return " ".join(said)


def threshold(bits: int | None) -> str:
    """A bit width in words."""
    if bits is None:
        return "not down to 2 bits"
    return f"from {bits} bits on" if bits < max(BITS) else f"at {bits} bits already"


def samples(ctx: Context, main: Curve) -> list[Sample]:
    """The same prompt and random numbers at several widths."""
    found = ctx.model(SMALL_LONG)
    prompt = ctx.tokens(SMALL_LONG)[None, :16]
    noticed = main.first_noticed(CHANNEL)
    widths = sorted({8, noticed or 3, 2}, reverse=True)
    versions = [("fp32", found.model), *((f"{b} bits, {CHANNEL}", fake_quantize(found.model, b)) for b in widths)]
    written = []
    for label, model in versions:
        tokens = generate(model, prompt, 80, sampling=Sampling(0.7), generator=ctx.generator("sample"))[0].tolist()
        start, text = (found.tokenizer.decode(part) for part in (tokens[:16], tokens[16:]))
        written.append(Sample(label, start, text, "the same prompt, random numbers and τ = 0.7"))
    return written


def answer(ctx: Context) -> Answer:
    """Quantisation, part by part."""
    deployment = deploy(ctx)
    tokens = ctx.tokens(SMALL_LONG)
    longer, students = ([ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for recipe in (SMALL_LONG, STUDENT))
    curves = [curve(longer, "2 layers, trained longer", list(METHODS), tokens)]
    ctx.progress(0.8, "scored quantised models")
    shape = students[0].model.config
    name = f"student, {shape.n_layer} layers × {shape.d_model}, {len(students)} seed(s)"
    curves.append(curve(students, name, [TENSOR, CHANNEL], tokens))
    int8, checks = part_a(ctx, deployment)
    speed, speed_checks, metrics = part_b(ctx, deployment)
    methods, method_checks, more = part_c(ctx, curves)
    widths, width_checks, last = part_d(ctx, curves)
    fp32, library, own = deployment.versions
    return Answer(
        summary=f"In int8 the file is {own.file_bytes / fp32.file_bytes:.0%} of fp32's, perplexity changes by "
        f"{change(own.perplexity / fp32.perplexity - 1)}, reading is {faster(fp32.read.median / library.read.median)} "
        f"with torch.ao and {faster(fp32.read.median / own.read.median)} with torch._int_mm; with absmax per channel, "
        f"degradation is noticeable {threshold(curves[0].first_noticed(CHANNEL))}.",
        parts=(int8, speed, methods, widths),
        checks=(*checks, *speed_checks, *method_checks, *width_checks),
        metrics=metrics | more | last,
    )


EXERCISE = Exercise(
    id="21.34",
    title="Efficient Inference with Quantization",
    recipes=(SMALL_LONG, STUDENT, LARGE),
    numbers={
        "smoke": {"new_tokens": 16, "repeats": 3},
        "laptop": {"new_tokens": 32, "repeats": 3},
        "gpu": {"new_tokens": 64, "repeats": 7},
    },
    seconds={"smoke": 6, "laptop": 38, "gpu": 120},
    timed=True,
    answer=answer,
)
