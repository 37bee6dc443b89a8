"""Writing one text token by token on the CPU: against Transformers' ``generate()``, and against the memory's limit.

    python -m tests.benchmarks.bench_decoding [--threads N] [--json FILE] [--short]

Two shapes with random weights, 10 M and GPT-2's 124 M, write 200 tokens after 16, greedily, at batch 1: Transformers'
``GPT2LMHeadModel`` with the same weights in fp32, this project's model, and it packed (``minigpt.decoding.packed``).
All run in one process and take turns, round by round, so that whatever else the machine does hits all alike.

The limit is what the memory allows: the bytes that one token has to read (every matrix and vector once, and the cache
at its mean length), read in the same rounds from a buffer of that size. A plain read is PyTorch's sum of it; the
fastest of three reads is given, too. Small buffers lie in the processor's caches, as small models do. With one thread
the clock counts this process's time on the processor, without what others take from it; with more, it is the one on
the wall.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import torch

from minigpt.config import GPTConfig
from minigpt.decoding.packed import Weights, pack
from minigpt.decoding.sampling import GREEDY, generate
from minigpt.model import GPT
from minigpt.pretrained.export import to_gpt2

SHAPES = {
    "10 M (6 × 384, V = 65)": GPTConfig(n_layer=6, n_head=6, d_model=384, context=1024, vocab_size=65),
    "124 M (12 × 768, V = 50,257)": GPTConfig(n_layer=12, n_head=12, d_model=768, context=1024, vocab_size=50_257),
}
CACHED = SHAPES["10 M (6 × 384, V = 65)"]
TINY = GPTConfig(n_layer=2, n_head=2, d_model=64, context=1024, vocab_size=65)  # for a test of this file
PROMPT, NEW, LONG = 16, 200, 500
REFERENCE = "Transformers generate(), fp32"
ITEM = {"float32": 4, "bfloat16": 2, "int8": 1}

Run = Callable[[], torch.Tensor]


def take_turns(functions: dict[str, Run], rounds: int, threads: int) -> dict[str, list[float]]:
    """Seconds of every function in every round, after one call each to warm up."""
    clock = time.process_time if threads == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for function in functions.values():
        function()
    for _ in range(rounds):
        for name, function in functions.items():
            started = clock()
            function()
            seconds[name].append(clock() - started)
    return seconds


def bytes_per_token(model: GPT, weights: Weights, length: float) -> float:
    """What one token must read: matrices in their type, vectors and an int8 matrix's scales in fp32, keys and values.

    Embeddings are looked up, one row each; the unembedding is read whole.
    """
    c = model.config
    matrices = [p for name, p in model.blocks.named_parameters() if p.ndim == 2] + [model.unembedding.weight]
    vectors = sum(p.numel() for p in model.parameters() if p.ndim == 1) + 2 * c.d_model
    scales = sum(len(p) for p in matrices) if weights == "int8" else 0
    cache = 2 * c.n_layer * c.kv_heads * c.head_dim * length * (4 if weights == "float32" else 2)
    return sum(p.numel() for p in matrices) * ITEM[weights] + 4 * (vectors + scales) + cache


def plain_reads(size: float) -> dict[str, Run]:
    """Three ways to read a buffer of so many bytes once and do as little as possible with it."""
    rows = torch.randn(max(1, int(size) // 4096), 1024)
    flat, vector = rows.view(-1), torch.randn(1024)
    return {"sum": flat.sum, "dot": lambda: torch.dot(flat, flat), "mv": lambda: rows.mv(vector)}


def spread(values: list[float]) -> list[float]:
    """Median, lower and upper quartile."""
    if len(values) < 2:
        return [values[0]] * 3
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return [median, low, high]


def compare_shape(name: str, config: GPTConfig, new: int, rounds: int, threads: int) -> dict[str, Any]:
    """All versions of one shape, and the memory's limit for each."""
    torch.manual_seed(0)
    model = GPT(config).eval()
    theirs, prompt = to_gpt2(model), torch.randint(config.vocab_size, (1, PROMPT))
    asked = {"max_new_tokens": new, "min_new_tokens": new, "do_sample": False, "use_cache": True, "pad_token_id": 0}
    writes: dict[str, Run] = {
        REFERENCE: lambda: theirs.generate(prompt, attention_mask=torch.ones_like(prompt), **asked),
        "this project, unpacked fp32": lambda: generate(model, prompt, new, sampling=GREEDY),
    }
    stored: dict[str, Weights] = {"this project, unpacked fp32": "float32"}
    packing: dict[str, float] = {}
    for weights in get_args(Weights):
        started = time.perf_counter()
        packed = pack(model, weights)
        label = f"this project, packed {weights}"
        stored[label], packing[label] = weights, time.perf_counter() - started
        writes[label] = lambda packed=packed: generate(packed, prompt, new, sampling=GREEDY)
    length = PROMPT + new / 2
    needed = {weights: bytes_per_token(model, weights, length) for weights in get_args(Weights)}
    reads = {(w, how): f for w, size in needed.items() for how, f in plain_reads(size).items()}
    texts = {label: write()[0, PROMPT:] for label, write in writes.items()}
    seconds = take_turns(writes | reads, rounds, threads)  # type: ignore[operator]
    fastest = {
        w: min((seconds[w, how] for how in ("sum", "dot", "mv")), key=statistics.median)  # type: ignore[index]
        for w in needed
    }
    rows = []
    for label in writes:
        row: dict[str, Any] = {"version": label, "ms per token": spread([s / new * 1e3 for s in seconds[label]])}
        row["times generate()"] = spread([a / b for a, b in zip(seconds[REFERENCE], seconds[label], strict=True)])
        if weights := stored.get(label):
            plain, best = seconds[weights, "sum"], fastest[weights]  # type: ignore[index]
            row["MB per token"] = needed[weights] / 1e6
            row["read plainly (ms)"], row["read fastest (ms)"] = statistics.median(plain) * 1e3, spread(best)[0] * 1e3
            row["of plain"] = spread([b / (s / new) for b, s in zip(plain, seconds[label], strict=True)])
            row["of fastest"] = spread([b / (s / new) for b, s in zip(best, seconds[label], strict=True)])
        row["same tokens"] = (texts[label] == texts[REFERENCE]).float().mean().item()
        row["seconds to pack"] = packing.get(label, 0.0)
        rows.append(row)
    return {"shape": name, "new tokens": new, "rounds": rounds, "rows": rows}


def compare_cache(config: GPTConfig, new: int, rounds: int, threads: int) -> dict[str, Any]:
    """Writing with the cache and without, by the model as it is."""
    torch.manual_seed(0)
    model, prompt = GPT(config).eval(), torch.randint(config.vocab_size, (1, PROMPT))
    seconds = take_turns(
        {
            "with": lambda: generate(model, prompt, new, sampling=GREEDY),
            "without": lambda: generate(model, prompt, new, sampling=GREEDY, use_cache=False),
        },
        rounds,
        threads,
    )
    ratios = [b / a for a, b in zip(seconds["with"], seconds["without"], strict=True)]
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {"new tokens": new, "rounds": rounds, "seconds": medians, "times": spread(ratios)}


def compare(
    threads: int = 2,
    short: bool = False,
    shapes: dict[str, GPTConfig] = SHAPES,
    *,
    cached: GPTConfig | None = CACHED,
    rounds: int | None = None,
) -> dict[str, Any]:
    """Everything, as plain data. ``short`` writes fewer tokens; ``rounds`` are 5, or 3 then, unless given.

    ``cached`` is the shape whose cache is compared with none, in 3 rounds at most; None leaves that out.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        new, usual, long = (40, 3, 100) if short else (NEW, 5, LONG)
        rounds = usual if rounds is None else rounds
        found = [compare_shape(name, config, new, rounds, threads) for name, config in shapes.items()]
        few = min(1 if short else 3, rounds)
        cache = None if cached is None else compare_cache(cached, long, few, threads)
    finally:
        torch.set_num_threads(before)
    return {"threads": threads, "torch": torch.__version__, "shapes": found, "cache": cache}


def table(result: dict[str, Any]) -> str:
    """The result as text."""

    def three(values: list[float], digits: int = 2) -> str:
        median, low, high = (f"{value:.{digits}f}" for value in values)
        return f"{median} ({low}–{high})"

    lines = []
    for shape in result["shapes"]:
        threads = f"{result['threads']} thread{'s' * (result['threads'] > 1)}"
        lines.append(f"{shape['shape']}, {threads}, {shape['new tokens']} tokens, {shape['rounds']} rounds")
        head = ("version", "ms/token", "× generate()", "MB/token", "of a plain read", "of the fastest", "same tokens")
        lines.append("{:32}{:>22}{:>20}{:>10}{:>20}{:>20}{:>13}".format(*head))
        for row in shape["rows"]:
            limit = ("", "", "")
            if "of plain" in row:
                limit = (f"{row['MB per token']:.0f}", three(row["of plain"]), three(row["of fastest"]))
            cells = (row["version"], three(row["ms per token"]), three(row["times generate()"]), *limit)
            lines.append("{:32}{:>22}{:>20}{:>10}{:>20}{:>20}{:>13.0%}".format(*cells, row["same tokens"]))
        lines.append("")
    if cache := result["cache"]:
        took = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in cache["seconds"].items())
        faster = f"{three(cache['times'], 1)} times as fast with it"
        lines.append(f"{cache['new tokens']} tokens, the smaller shape, a cache: {took}, {faster}")
    return "\n".join(lines)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--short", action="store_true", help="fewer tokens and rounds")
    arguments = parser.parse_args()
    result = compare(arguments.threads, arguments.short)
    print(table(result))
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
