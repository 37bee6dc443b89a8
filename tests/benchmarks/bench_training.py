"""Our trainer against nanoGPT's published CPU recipe: validation loss at equal time, and time to an equal loss.

    python -m tests.benchmarks.bench_training [--text FILE] [--threads N] [--json FILE]

Both train at once, in slices of a fifth of a second that take turns, so that whatever else the machine does hits
both alike; each clock runs during its own steps only (ours during compilation, too; evaluation is excluded from
both). A calibration finds how many of our steps fit into the time of nanoGPT's, with a margin, and the table
shows the seconds that both then took. The loss is over the whole held-out tenth, in contiguous windows of the
context that is stated. When ours is as low as nanoGPT's at its end is read off the curve of that same training, whose
learning rate was then still high, on a straight line between two evaluations: where the curve bends upwards, that
errs to our disadvantage. Exit status 0: at least 0.25 nats lower in no more time, and as low in 0.3 of the time.
"""

import argparse
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from flows.machine import GAIN_THAT_PAYS, measured_bf16_gain
from minigpt.config import GPTConfig
from minigpt.cost.counting import count_parameters
from minigpt.evaluation.evaluate import evaluate
from minigpt.tokenizers import CharTokenizer
from minigpt.train import TrainConfig, train
from tests.benchmarks.nanogpt import NanoGPTTraining
from tests.exercise_context import bible

TARGET = 0.25  # nats per character
TIME_TARGET = 0.3  # of nanoGPT's time, to the loss that it ends with
EVALUATIONS = 12
MARGIN = 0.95  # of nanoGPT's time that we plan to use
CALIBRATION_STEPS = 150
TINY_SHAKESPEARE = 1_115_394  # characters

MODEL = GPTConfig(
    n_layer=4, n_head=4, d_model=128, context=64, position="rope", bias=False, qk_norm=True, activation="relu2"
)
RECIPE = TrainConfig(steps=2_000, batch_size=32, learning_rate=1e-2, optimizer="muon", precision="bf16")


def alternate(
    config: GPTConfig,
    tc: TrainConfig,
    tokens: torch.Tensor,
    held_out: torch.Tensor,
    nano: NanoGPTTraining,
    verbose: bool,
) -> Any:
    """Train ours to its end and nanoGPT to the same fraction of its steps, taking turns."""

    def turn(fraction: float, note: str) -> None:
        while nano.step < round(fraction * nano.steps):
            nano.advance()
        if verbose:
            print(f"\r{fraction:4.0%}  ours: {note}   nanoGPT: loss {nano.loss:.2f}   ", end="", file=sys.stderr)

    return train(config, tc, tokens, held_out, seed=1337, progress=turn)


def steps_that_fit(config: GPTConfig, tc: TrainConfig, tokens: torch.Tensor, steps: int, vocab_size: int) -> int:
    """Our steps in the time of ``steps`` of nanoGPT's, by a short run of both."""
    nano = NanoGPTTraining(tokens, vocab_size, CALIBRATION_STEPS)
    ours = alternate(config, replace(tc, steps=CALIBRATION_STEPS), tokens, tokens[:1000], nano, verbose=False)
    start = ours.history["seconds"][0]  # the first step compiles, where anything does
    each = (ours.seconds - start) / (CALIBRATION_STEPS - 1)
    budget = MARGIN * nano.seconds / CALIBRATION_STEPS * steps
    return max(1, int((budget - max(0.0, start - each)) / each))


def compare(text: str, threads: int, steps: int, config: GPTConfig, tc: TrainConfig) -> dict[str, Any]:
    """Calibrate, train both, evaluate both. bf16 is fp32 where this machine's products do not gain by it."""
    torch.set_num_threads(threads)
    tokenizer = CharTokenizer.train(text)
    ids = torch.tensor(tokenizer.encode(text))
    tokens, held_out = ids[: len(ids) * 9 // 10], ids[len(ids) * 9 // 10 :]
    config = replace(config, vocab_size=tokenizer.vocab_size)
    tc = replace(tc, threads=threads, eval_every=10**9)
    if tc.precision == "bf16" and measured_bf16_gain() < GAIN_THAT_PAYS:
        tc = replace(tc, precision="fp32")
    tc = replace(tc, steps=steps_that_fit(config, tc, tokens, steps, tokenizer.vocab_size))
    tc = replace(tc, eval_every=max(1, tc.steps // EVALUATIONS))
    nano = NanoGPTTraining(tokens, tokenizer.vocab_size, steps)
    ours = alternate(config, tc, tokens, held_out, nano, verbose=sys.stderr.isatty())
    contexts = sorted({64, config.context})
    rows: list[dict[str, Any]] = [
        {
            "trainer": "nanoGPT, published",
            "parameters": count_parameters(nano.model),
            "steps": nano.step,
            "tokens": nano.step * 12 * 64,
            "seconds": nano.seconds,
            "nats at 64": evaluate(nano.model, held_out, context=64).nats_per_token,  # type: ignore[arg-type]
        },
        {
            "trainer": "ours",
            "parameters": count_parameters(config),
            "steps": tc.steps,
            "tokens": tc.steps * tc.batch_size * config.context,
            "seconds": ours.seconds,
        }
        | {
            f"nats at {context}": evaluate(ours.model, held_out, context=context).nats_per_token for context in contexts
        },
    ]
    gain = rows[0]["nats at 64"] - rows[1][f"nats at {config.context}"]
    in_time = rows[1]["seconds"] <= rows[0]["seconds"]
    curve = list(zip(ours.evaluations["seconds"], ours.evaluations["validation_loss"], strict=True))
    reached = seconds_to(rows[0]["nats at 64"], curve)
    share = None if reached is None else reached / rows[0]["seconds"]
    return {
        "rows": rows,
        "gain_nats": gain,
        "target_nats": TARGET,
        "in_time": in_time,
        "seconds_to_nanogpt": reached,  # until our held-out loss is what nanoGPT ends with; None: it never is
        "time_ratio": share,  # of nanoGPT's seconds
        "target_time_ratio": TIME_TARGET,
        "curve": curve,
        "passed": in_time and gain >= TARGET and share is not None and share <= TIME_TARGET,
        "threads": threads,
        "torch": torch.__version__,
        "characters": len(text),
        "recipe": {"model": vars(config), "train": vars(tc)},
    }


def seconds_to(loss: float, curve: list[tuple[float, float]]) -> float | None:
    """When a curve of (seconds, loss) first is at ``loss``, on straight lines between its points; None: never."""
    for (t0, l0), (t1, l1) in itertools.pairwise(curve):
        if l1 <= loss:
            return t0 + (t1 - t0) * max(0.0, l0 - loss) / (l0 - l1)
    return None


def table(result: dict[str, Any]) -> str:
    """The rows as text."""
    columns = list(dict.fromkeys(name for row in result["rows"] for name in row))
    lines = [columns] + [
        [
            f"{v:,.3f}" if isinstance(v := row.get(c, ""), float) else f"{v:,}" if isinstance(v, int) else v
            for c in columns
        ]
        for row in result["rows"]
    ]
    widths = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument(
        "--text", type=Path, help="UTF-8 text; default: as much of the King James Bible as tiny Shakespeare"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--steps", type=int, default=2_000, help="nanoGPT's steps (its recipe has 2,000)")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    text = arguments.text.read_text(encoding="utf-8") if arguments.text else bible()[:TINY_SHAKESPEARE]
    result = compare(text, arguments.threads, arguments.steps, MODEL, RECIPE)
    print(table(result))
    print(f"ours is {result['gain_nats']:.3f} nats per character lower; the target is {TARGET}")
    share = "never" if (ratio := result["time_ratio"]) is None else f"after {ratio:.3f} of its time"
    print(f"ours is as low as nanoGPT at its end {share}; the target is {TIME_TARGET}")
    if not result["in_time"]:
        print("ours took longer than nanoGPT: the comparison does not count")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0 if result["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
