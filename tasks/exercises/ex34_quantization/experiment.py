"""Measures 21.34: int8 by PyTorch and by this project, and simulated widths from 8 to 2 bits."""

import copy
import functools
import importlib.metadata
import importlib.util
import inspect
import io
import logging
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from minigpt import quantize as quantization
from minigpt.decoding.sampling import GREEDY, Sampling, generate
from minigpt.evaluation.evaluate import evaluate
from minigpt.evaluation.excerpts import leading
from minigpt.evaluation.statistics import mean_std
from minigpt.evaluation.timing import measure as timed
from minigpt.files import model_state
from minigpt.model import GPT
from minigpt.quantize import fake_quantize, int8_bytes, load_int8, quantize, summed_in_fp32, to_int8
from tasks.exercise import Context, Exercise, TrainedModel
from tasks.exercises.ex34_quantization.findings import (
    BITS,
    CHANNEL,
    COMPARED,
    NAIVE,
    NAIVE_RANGE,
    TENSOR,
    Curve,
    Deployed,
    Deployment,
    Findings,
    Noise,
    Oracle,
    Written,
)
from tasks.parts import part
from tasks.recipes.catalogue import LARGE, SMALL_LONG, STUDENT

METHODS: dict[str, dict[str, Any]] = {
    NAIVE: {"scheme": "naive", "per_channel": False},
    TENSOR: {"scheme": "absmax", "per_channel": False},
    CHANNEL: {"scheme": "absmax", "per_channel": True},
}
assert NAIVE_RANGE == quantization.NAIVE_RANGE, "findings.py names the range of the naive scheme"


def measure(ctx: Context) -> Findings:
    """Everything the answer rests on."""
    untimed = ahead(ctx)
    deployment = deploy(ctx, untimed.perplexities)
    model = ctx.model(LARGE).model
    matrices = [weight for _, weight in block_weights(model)]
    return Findings(
        deployment=deployment,
        oracle=Oracle(*oracle_differences(model)),
        matrix_weights=sum(weight.numel() for weight in matrices),
        matrix_channels=sum(len(weight) for weight in matrices),
        weights=sum(weight.numel() for weight in model.parameters()),
        layer_source=inspect.getsource(quantization.Int8Linear),
        quantize_source=inspect.getsource(quantization.quantize),
        curves=untimed.curves,
        noise=noise(ctx.model(SMALL_LONG).model, COMPARED),
        texts=untimed.texts,
    )


@dataclass(frozen=True)
class Untimed:
    """What needs no quiet machine."""

    perplexities: dict[str, float]  # of the large model in each version but fp32
    curves: tuple[Curve, ...]
    texts: tuple[Written, ...]


def ahead(ctx: Context) -> Untimed:
    """See ``Exercise.ahead``."""

    def find() -> Untimed:
        found = perplexities(ctx)
        ctx.progress(0.3, "scored in int8")
        drawn = curves(ctx)
        return Untimed(found, drawn, texts(ctx, drawn[0]))

    return part(ctx, Untimed, "perplexities and texts", find)


def curves(ctx: Context) -> tuple[Curve, ...]:
    """The small model that trained longer by every method, and the student by those that are fair to it."""
    tokens = ctx.tokens(SMALL_LONG)
    longer, students = ([ctx.model(recipe, seed) for seed in ctx.seeds(recipe)] for recipe in (SMALL_LONG, STUDENT))
    shape = students[0].model.config
    name = f"student, {shape.n_layer} layers × {shape.d_model}, {len(students)} seed{'s' * (len(students) != 1)}"
    return (
        curve(longer, "2 layers, trained longer", list(METHODS), tokens),
        curve(students, name, [TENSOR, CHANNEL], tokens),
    )


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


def torchao_version() -> str | None:
    """Of torchao, which is optional: None where it is not installed. As one of the numbers it is in the step's key."""
    return importlib.metadata.version("torchao") if importlib.util.find_spec("torchao") else None


def torchao_dynamic(model: GPT) -> GPT:
    """The model through ``torchao.quantization.quantize_``, blocks only: what has taken the place of ``torch.ao``.

    Each Linear keeps its class and gets torchao's int8 weight, a scale per channel; inputs are quantised per token.
    """
    logging.disable(logging.WARNING)  # importing it tells of every kernel that is for another machine
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    finally:
        logging.disable(logging.NOTSET)
    quantised = copy.deepcopy(model).cpu().eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantize_(quantised.blocks, Int8DynamicActivationInt8WeightConfig(set_inductor_config=False))
    return quantised


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


def saved_size(model: nn.Module) -> int:
    """Bytes that torch.save writes for a state dict."""
    buffer = io.BytesIO()
    torch.save(model.state_dict(), buffer)
    return len(buffer.getvalue())


def versions_of(original: GPT) -> tuple[dict[str, GPT], str]:
    """A model as it is, through torch.ao, with this project's int8 layer and, where it is there, through torchao.

    Beside them the warning that torch.ao gives.
    """
    dynamic, warning = torch_dynamic(original)
    found = {"fp32": original, "torch_dynamic": dynamic, "int8": to_int8(original)}
    return found | ({"torchao": torchao_dynamic(original)} if torchao_version() else {}), warning


def perplexities(ctx: Context) -> dict[str, float]:
    """Of the large model in each version but fp32, which its training has scored; our own sums in fp32."""
    models, _ = versions_of(copy.deepcopy(ctx.model(LARGE).model).cpu())
    tokens = ctx.tokens(LARGE).cpu()
    with summed_in_fp32(models["int8"]):
        return {key: evaluate(model, tokens).perplexity for key, model in models.items() if key != "fp32"}


def deploy(ctx: Context, scored: Mapping[str, float]) -> Deployment:
    """The large model's versions with their perplexities, their sizes and their times; all on the CPU."""
    trained = ctx.model(LARGE)
    original = copy.deepcopy(trained.model).cpu()
    models, warning = versions_of(original)
    own = models["int8"]
    stored, tokens, context = int8_bytes(own), ctx.tokens(LARGE).cpu(), original.config.context
    n_new = min(ctx.numbers["new_tokens"], context - 16)
    batch = leading(tokens, 4, context)
    with torch.inference_mode():
        logits = own(batch[:1])
        equal = torch.equal(load_int8(stored)(batch[:1]), logits)
        with summed_in_fp32(own):
            sums_equal = torch.equal(own(batch[:1]), logits)
    functions: dict[str, Callable[[], object]] = {}
    for key, model in models.items():
        functions[f"{key} read"] = functools.partial(model, batch)
        functions[f"{key} decode"] = functools.partial(generate, model, batch[:1, :16], n_new, sampling=GREEDY)
    timings = timed(functions, repeats=ctx.numbers["repeats"])
    newer = torchao_version()
    facts = {
        "fp32": ("fp32", len(save(model_state(original))), math.exp(trained.evaluations["validation_loss"][-1])),
        "torch_dynamic": ("torch.ao, dynamic int8", saved_size(models["torch_dynamic"]), scored["torch_dynamic"]),
        "int8": ("this project's int8", len(stored), scored["int8"]),
    }
    if newer:
        facts["torchao"] = ("torchao, dynamic int8", saved_size(models["torchao"]), scored["torchao"])
    versions = tuple(
        Deployed(label, key, size, perplexity, timings[f"{key} read"], timings[f"{key} decode"])
        for key, (label, size, perplexity) in facts.items()
    )
    threads = torch.get_num_threads()
    return Deployment(versions, warning, newer, equal, sums_equal, n_new, tuple(batch.shape), threads, slow_products())


def slow_products() -> bool:
    """Whether this is an x86 processor without the instructions for int8 products (VNNI)."""
    capable = torch.cpu.get_capabilities()
    return capable.get("architecture") == "x86_64" and not any(capable[k] for k in capable if "vnni" in k)


def noise(model: GPT, bits: int) -> tuple[Noise, ...]:
    """Per kind of matrix: spread, largest weight, what the naive range rounds to 0, signal to noise."""
    groups: dict[str, list[Tensor]] = {}
    for name, weight in block_weights(model):
        groups.setdefault(name.split(".", 1)[1], []).append(weight)
    found = []
    for name, weights in groups.items():
        whole = torch.cat([w.flatten() for w in weights])
        zero = torch.cat([quantize(w, bits, "naive").values.flatten() for w in weights])
        ratios = []
        for method in METHODS.values():
            error = sum(((w - quantize(w, bits, **method).dequantize()) ** 2).sum() for w in weights)
            ratios.append(10 * math.log10(float((whole**2).sum() / error)))
        lost = (zero == 0).double().mean().item()
        found.append(Noise(name, whole.std().item(), whole.abs().max().item(), lost, tuple(ratios)))
    return tuple(found)


def texts(ctx: Context, main: Curve) -> tuple[Written, ...]:
    """The same prompt and random numbers at several widths."""
    found = ctx.model(SMALL_LONG)
    prompt = ctx.tokens(SMALL_LONG)[None, :16]
    widths = sorted({8, main.first_noticed(CHANNEL) or 3, 2}, reverse=True)
    versions = [("fp32", found.model), *((f"{b} bits, {CHANNEL}", fake_quantize(found.model, b)) for b in widths)]
    written = []
    for label, model in versions:
        tokens = generate(model, prompt, 80, sampling=Sampling(0.7), generator=ctx.generator("sample"))[0].tolist()
        start, text = (found.tokenizer.decode(part) for part in (tokens[:16], tokens[16:]))
        written.append(Written(label, start, text))
    return tuple(written)


SHARED = {"torchao": torchao_version()}
EXERCISE = Exercise(
    measure=measure,
    recipes=(SMALL_LONG, STUDENT, LARGE),
    numbers={
        "smoke": SHARED | {"new_tokens": 16, "repeats": 3},
        "laptop": SHARED | {"new_tokens": 32, "repeats": 3},
        "gpu": SHARED | {"new_tokens": 64, "repeats": 3},
    },
    seconds={"smoke": 3, "laptop": 8, "gpu": 15},
    timed=True,
    ahead=ahead,
    seconds_ahead={"smoke": 3, "laptop": 30, "gpu": 40},
)
