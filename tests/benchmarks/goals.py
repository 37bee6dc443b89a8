"""What each row of the table is to reach: the one place where goals stand.

A ratio is ours over theirs, or over the limit, in the unit of the row. ``at_least`` is for what should be large (tokens
per second), ``at_most`` for what should be small (seconds, bytes). A row that misses its goal is told as missed; the
benchmark fails only when a ratio is off by more than ``WIDE``, which noise alone does not do.
"""

from dataclasses import dataclass
from typing import Literal

WIDE = 2.0  # half of what should be large, twice what should be small

Verdict = Literal["met", "missed", "broken"]


@dataclass(frozen=True)
class Goal:
    """One row: its name, the section that measures it, what is compared, and how far the ratio should go.

    ``short`` rows are measured by ``--short``, too.

    Raises:
        ValueError: neither or both of ``at_least`` and ``at_most``, or one that is not positive.
    """

    name: str
    section: str
    what: str
    unit: str
    theirs: str
    at_least: float | None = None
    at_most: float | None = None
    short: bool = False

    def __post_init__(self) -> None:
        if (self.at_least is None) == (self.at_most is None) or self.limit <= 0:
            raise ValueError(f"{self.name}: give one of at_least and at_most, above 0")

    @property
    def limit(self) -> float:
        """The ratio that is asked for."""
        return self.at_least if self.at_least is not None else self.at_most or 0.0

    def verdict(self, ratio: float) -> Verdict:
        """How a ratio stands to the goal."""
        short_by = self.limit / ratio if self.at_least is not None else ratio / self.limit
        return "met" if short_by <= 1 else "missed" if short_by <= WIDE else "broken"

    def __str__(self) -> str:
        return f"≥ {self.at_least:g}" if self.at_least is not None else f"≤ {self.at_most:g}"


GOALS = (
    Goal(
        "train-0.8M-fp32",
        "training",
        "a training step, 0.8 M parameters (4 × 128), 12 × 64 tokens, fp32",
        "tokens/s",
        "Transformers' GPT2LMHeadModel, fp32",
        at_least=1.0,
        short=True,
    ),
    Goal(
        "train-0.8M-bf16",
        "training",
        "the same in bf16 autocast",
        "tokens/s",
        "the same, the faster of fp32 and bf16",
        at_least=1.0,
        short=True,
    ),
    Goal(
        "train-10M-fp32",
        "training",
        "a training step, 10 M parameters (6 × 384), 8 × 256 tokens, fp32",
        "tokens/s",
        "Transformers' GPT2LMHeadModel, fp32",
        at_least=1.0,
    ),
    Goal(
        "train-10M-bf16",
        "training",
        "the same in bf16 autocast",
        "tokens/s",
        "the same, the faster of fp32 and bf16",
        at_least=1.0,
    ),
    Goal(
        "bf16-gain-0.8M",
        "training",
        "our training step in bf16 autocast, 0.8 M parameters",
        "tokens/s",
        "our step in fp32",
        at_least=1.2,
    ),
    Goal(
        "bf16-gain-10M",
        "training",
        "our training step in bf16 autocast, 10 M parameters",
        "tokens/s",
        "our step in fp32",
        at_least=2.0,
    ),
    Goal(
        "race-loss",
        "race",
        "how much lower our validation loss is than that of nanoGPT's recipe for a CPU, at equal time",
        "nats per character",
        "the gain that is asked for",
        at_least=1.0,
    ),
    Goal(
        "race-time",
        "race",
        "until our validation loss is as low as nanoGPT's after its 2,000 steps",
        "s",
        "nanoGPT's training",
        at_most=0.3,
    ),
    Goal(
        "decode-10M-fp32",
        "decoding",
        "writing one text, 10 M parameters, greedy, packed in fp32",
        "tokens/s",
        "Transformers' generate(), fp32",
        at_least=1.0,
        short=True,
    ),
    Goal(
        "decode-10M-int8",
        "decoding",
        "the same, packed in int8",
        "tokens/s",
        "Transformers' generate(), fp32",
        at_least=3.0,
    ),
    Goal(
        "decode-124M-bf16",
        "decoding",
        "writing one text, 124 M parameters (GPT-2), greedy, packed in bf16",
        "tokens/s",
        "Transformers' generate(), fp32",
        at_least=1.8,
    ),
    Goal(
        "decode-124M-int8",
        "decoding",
        "the same, packed in int8",
        "tokens/s",
        "Transformers' generate(), fp32",
        at_least=3.5,
    ),
    Goal(
        "limit-124M-fp32",
        "decoding",
        "the same, packed in fp32, against the memory's limit",
        "tokens/s",
        "reading the same bytes once, plainly (torch.sum)",
        at_least=0.8,
    ),
    Goal(
        "limit-124M-bf16",
        "decoding",
        "the same, packed in bf16, against the memory's limit",
        "tokens/s",
        "reading the same bytes once, plainly (torch.sum)",
        at_least=0.8,
    ),
    Goal(
        "limit-124M-int8",
        "decoding",
        "the same, packed in int8, against the memory's limit",
        "tokens/s",
        "reading the same bytes once, plainly (torch.sum)",
        at_least=0.8,
    ),
    Goal(
        "decode-cache",
        "decoding",
        "writing 500 tokens with a key/value cache, 10 M parameters",
        "tokens/s",
        "the same without",
        at_least=5.0,
    ),
    Goal(
        "speculative",
        "speculation",
        "speculative decoding of the 10 M model, one text, with a draft that agrees often",
        "tokens/s",
        "our plain decoding of the same model, packed in fp32",
        at_least=1.5,
    ),
    Goal(
        "help-cpu",
        "commands",
        "`chapter --help`, time on a processor",
        "s",
        "Python that imports argparse and ends",
        at_most=8.0,  # the help is laid out by cyclopts and Rich, whose imports are most of it
        short=True,
    ),
    Goal(
        "help",
        "overhead",
        "`chapter --help`",
        "s",
        "the time that is asked for",
        at_most=1.0,
    ),
    Goal(
        "show",
        "overhead",
        "`chapter show 21.3`",
        "s",
        "the time that is asked for",
        at_most=1.0,
    ),
    Goal(
        "doctor",
        "overhead",
        "`chapter doctor`",
        "s",
        "the time that is asked for",
        at_most=1.0,
    ),
    Goal(
        "plan",
        "overhead",
        "`chapter plan --profile smoke` with all results there",
        "s",
        "the time that is asked for",
        at_most=1.0,
    ),
    Goal(
        "warm-run",
        "overhead",
        "`chapter run --profile smoke` with all results there",
        "s",
        "the time that is asked for",
        at_most=1.0,
    ),
    Goal(
        "memory-training",
        "memory",
        "peak memory of a training of the 10 M model, 8 × 256 tokens",
        "MiB",
        "the same training of GPT2LMHeadModel",
        at_most=1.0,
    ),
    Goal(
        "memory-chapter",
        "chapter",
        "peak memory of a smoke chapter, all processes together",
        "MiB",
        "half of a small machine's 8 GiB",
        at_most=1.0,
    ),
    Goal(
        "disk-chapter",
        "chapter",
        "disk that a smoke chapter takes, hard links counted once",
        "MiB",
        "100 MiB",
        at_most=1.0,
    ),
)


def goals(names: tuple[str, ...] = (), *, short: bool = False) -> tuple[Goal, ...]:
    """The goals with these names or in these sections; all of them without names. ``short``: only those of CI.

    Raises:
        ValueError: a name that is neither a row nor a section; names all that are.
    """
    known = [goal.name for goal in GOALS] + list(dict.fromkeys(goal.section for goal in GOALS))
    for name in names:
        if name not in known:
            raise ValueError(f"--rows {name}: there is no such row or section; choose from {', '.join(known)}")
    return tuple(
        goal for goal in GOALS if (not names or {goal.name, goal.section} & set(names)) and (goal.short or not short)
    )
