"""What 21.26 measures: a mask against its definition, cost with and without skipping, trained windows, and reach."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from minigpt.config import GPTConfig
from minigpt.evaluation.statistics import Comparison, mean_std
from minigpt.evaluation.timing import Timing
from tasks.variants import Variant, comparisons, metrics

HEADS, WIDTH = 4, 32  # of the attention that is counted and timed
CAUSAL, DENSE, BLOCKS = "causal, no window", "dense product, window as a mask", "blocks, masked ones skipped"
NARROW = "window 8"  # the trained variant that is looked into


def position_buckets(context: int) -> list[tuple[int, int]]:
    """First and last position, counted from 1, of buckets that double: 1, 2, 3–4, 5–8, … up to the context."""
    ends = [min(2**i, context) for i in range((context - 1).bit_length() + 1)]
    return [(1, 1), *((before + 1, end) for before, end in pairwise(ends))]


def pairs(length: int, window: int) -> int:
    """Query-key pairs in the mask: W for each query, less what the first W - 1 queries lack."""
    window = min(window, length)
    return length * window - window * (window - 1) // 2


def cache_bytes_per_token(config: GPTConfig) -> int:
    """Keys and values of all layers in fp32."""
    return 2 * config.n_layer * config.kv_heads * config.head_dim * 4


def short(way: str) -> str:
    """A computation's name as part of a metric's name."""
    return way.split(",")[0].replace(" ", "_")


@dataclass(frozen=True)
class Masks:
    """The mask by its definition, by count and by Mistral."""

    agreeing: int  # masks whose entries are as many as the closed form says
    counted: int  # masks
    whole_is_causal: bool  # a window as long as the text
    mistral: float  # largest difference with our attention in the place of its own, W = 8
    mistral_shorter: float  # … with one key less
    causal: tuple[tuple[bool, ...], ...]  # to be drawn
    window: tuple[tuple[bool, ...], ...]
    source: str


@dataclass(frozen=True)
class Cost:
    """What one length costs, by computation."""

    length: int
    flops: dict[str, int]
    timings: dict[str, Timing]
    difference: float  # largest, between the blocks and the dense mask
    cache: int  # bytes of a cache for all its keys

    def over_blocks(self, way: str) -> float:
        """Time of a computation over that of the blocks."""
        return self.timings[way].median / self.timings[BLOCKS].median


@dataclass(frozen=True)
class Reach:
    """How far back an output depends on an input in a random model, by gradient."""

    layers: int
    window: int
    expected: int
    found: int


@dataclass(frozen=True)
class Influence:
    """Gradients of outputs with respect to inputs in trained models."""

    tokens: int  # of the text
    reach: int  # of the narrow model
    relayed: float  # share of the narrow model's influence that comes from beyond its window
    sizes: tuple[tuple[float, ...], ...]  # of the narrow model, first positions: output × input
    by_distance: dict[str, tuple[float, ...]]  # means over outputs, by variant


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    rows: tuple[Variant, ...]  # full attention first
    configs: dict[str, GPTConfig]  # by label
    masks: Masks
    timed_window: int
    costs: tuple[Cost, ...]  # by length, of which the last is the longest
    rolling_cache: int  # bytes of the narrow model's
    rolling_tokens: int
    rolling_difference: float  # of logits: read one by one into a rolling cache, and at once
    source: str  # of the attention in blocks
    reach_tokens: int
    reaches: tuple[Reach, ...]
    influence: Influence
    by_position: dict[str, tuple[tuple[float, ...], ...]]  # loss by position in a window, in the
    # buckets of ``position_buckets``: label → seed → bucket

    @property
    def last(self) -> Cost:
        """Of the longest text."""
        return self.costs[-1]

    @property
    def speedup(self) -> float:
        """Dense masked product over blocks."""
        return self.last.over_blocks(DENSE)

    @property
    def over_causal(self) -> float:
        """Causal attention without a window over blocks."""
        return self.last.over_blocks(CAUSAL)

    @property
    def kept(self) -> float:
        """Share of the pairs that the window keeps in the longest text."""
        return pairs(self.last.length, self.timed_window) / pairs(self.last.length, self.last.length)

    @property
    def flops_by_hand(self) -> bool:
        """Whether the counted FLOPs are the closed form's."""
        window = self.timed_window
        return all(
            cost.flops[DENSE] == 4 * HEADS * WIDTH * cost.length**2
            and cost.flops[BLOCKS] == 4 * HEADS * WIDTH * 2 * window * math.ceil(cost.length / window) * window
            for cost in self.costs
        )

    @property
    def wrong_caches(self) -> int:
        """Cache sizes that differ from the closed form."""
        per_token = cache_bytes_per_token(self.narrow)
        rolling = self.rolling_cache != per_token * (self.narrow.window or 1)
        return sum((cost.cache != per_token * cost.length) + rolling for cost in self.costs)

    @property
    def narrow(self) -> GPTConfig:
        """The model that is looked into."""
        return self.configs[NARROW]

    @property
    def context(self) -> int:
        """Of the trained models, in tokens."""
        return self.configs[self.rows[0].label].context

    @property
    def layers_needed(self) -> int:
        """With the narrow window, for a path across a text."""
        return math.ceil((self.context - 1) / ((self.narrow.window or 1) - 1))

    @property
    def expected_reach(self) -> int:
        """L(W - 1) of the narrow model, as far as the text allows."""
        return min(self.narrow.n_layer * ((self.narrow.window or 1) - 1), self.influence.tokens - 1)

    @property
    def against_full(self) -> dict[str, Comparison]:
        """Each window, by label, against full attention."""
        return {row.label: found for row, found in zip(self.rows[1:], comparisons(self.rows), strict=True)}

    def beyond(self, window: int) -> float:
        """How much lower full attention's loss is at the last positions than at those with ``window`` keys, in nats.

        Mean over seeds; of the buckets that end at the context and at the window.
        """
        buckets = position_buckets(self.context)
        at = next(i for i, (_, end) in enumerate(buckets) if end >= window)
        return mean_std([seed[at] - seed[-1] for seed in self.by_position[self.rows[0].label]])[0]

    def with_verdict(self, *verdicts: str) -> Sequence[str]:
        """Windows whose comparison with full attention ends in one of these."""
        return [label for label, found in self.against_full.items() if found.verdict in verdicts]

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        last = self.last
        found = metrics(self.rows)
        for cost in self.costs:
            found |= {f"attention_ms_{short(way)}_{cost.length}": t.median * 1000 for way, t in cost.timings.items()}
        found |= {f"flops_{short(way)}_{last.length}": n for way, n in last.flops.items()}
        return found | {
            "speedup_over_dense_mask": self.speedup,
            "speedup_over_causal": self.over_causal,
            f"pairs_share_kept_{last.length}": self.kept,
            "rolling_cache_bytes": self.rolling_cache,
            "reach_trained_window_8": self.influence.reach,
            "influence_share_relayed": self.influence.relayed,
        }
