"""What 21.16 measures: tokens, logits and seconds with and without a cache, and the parts of two models of the time."""

from dataclasses import dataclass

from minigpt.evaluation.timing import Timing

KIB = 2**10


@dataclass(frozen=True)
class PerToken:
    """Milliseconds of each new token, medians of groups, against the tokens so far."""

    tokens: tuple[float, ...]
    milliseconds: tuple[float, ...]


@dataclass(frozen=True)
class Run:
    """One length."""

    n_new: int
    uncached: Timing
    cached: Timing
    flop_ratio: float
    predicted_seconds: tuple[float, float]  # by the cost model, without cache and with it
    same_tokens: bool
    logits_difference: float
    cache_bytes: int
    uncached_steps: PerToken
    cached_steps: PerToken

    @property
    def speedup(self) -> float:
        """Of the medians."""
        return self.uncached.median / self.cached.median

    @property
    def predicted(self) -> float:
        """The speed-up by the cost model."""
        return self.predicted_seconds[0] / self.predicted_seconds[1]

    @property
    def missed(self) -> tuple[float, float]:
        """By how much the cost model's seconds are off, relatively: without cache, and with it."""
        return self.predicted_seconds[0] / self.uncached.median - 1, self.predicted_seconds[1] / self.cached.median - 1

    @property
    def spread(self) -> float:
        """Half the range of the speed-up between the quartiles."""
        return (self.uncached.high / self.cached.low - self.uncached.low / self.cached.high) / 2


@dataclass(frozen=True)
class Flops:
    """Of the context but its last token, of that token after them, and of a cached step of the longest generation."""

    counted: tuple[int, int]  # the first two by torch
    closed_form: tuple[int, int]  # the first two in closed form
    step: int  # in closed form, halfway


@dataclass(frozen=True)
class Cost:
    """Seconds of a forward pass = overhead + FLOPs / rate."""

    overhead: float  # seconds
    rate: float  # FLOPs per second


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    n_layer: int
    d_model: int
    vocab_size: int
    prompt: str
    text: str  # the longest, with cache
    prompt_tokens: int
    runs: tuple[Run, ...]
    cost: Cost
    flops: Flops
    cache_bytes: int  # of the longest generation, in closed form
    real_text: tuple[int, float]  # tokens, largest difference of any logit
    smallest_gap: float  # between the two largest logits of any step
    library_agrees: bool
    samples_agree: bool
    top_left: tuple[float, float]  # wrong alignment: distance from the right output, and from the first value
    restart_difference: float
    restart_agrees: int  # tokens before the first that differs
    repeats: int
    sources: dict[str, str]  # of the functions, by name

    @property
    def same(self) -> int:
        """Lengths at which the tokens are the same."""
        return sum(run.same_tokens for run in self.runs)

    @property
    def logits_difference(self) -> float:
        """The largest of all lengths."""
        return max(run.logits_difference for run in self.runs)

    @property
    def overhead_share(self) -> float:
        """Of a cached step halfway through the longest generation, by the cost model."""
        overhead = self.cost.overhead * 1e3
        return overhead / (overhead + self.flops.step / self.cost.rate * 1e3)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for run in self.runs:
            metrics |= {
                f"seconds_uncached_{run.n_new}": run.uncached.median,
                f"seconds_cached_{run.n_new}": run.cached.median,
                f"speedup_{run.n_new}": run.speedup,
                f"flop_ratio_{run.n_new}": run.flop_ratio,
                f"predicted_speedup_{run.n_new}": run.predicted,
                f"predicted_seconds_uncached_{run.n_new}": run.predicted_seconds[0],
                f"predicted_seconds_cached_{run.n_new}": run.predicted_seconds[1],
                f"cache_{run.n_new}_kib": run.cache_bytes / KIB,
            }
        return metrics | {
            "real_text_logits_max_difference": self.real_text[1],
            "logits_max_difference": self.logits_difference,
            "smallest_logit_gap": self.smallest_gap,
            "step_overhead_ms": self.cost.overhead * 1e3,
            "gflops_per_second": self.cost.rate / 1e9,
        }
