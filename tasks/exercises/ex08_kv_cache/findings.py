"""What 21.8 computes: closed forms, and what was counted on real buffers and in real passes to hold against them."""

from dataclasses import dataclass

from minigpt.config import GPTConfig

CONFIG = GPTConfig(n_layer=12, n_head=12, d_model=768, context=1024, vocab_size=50_257)  # GPT-2 small
BATCH, PROMPT, NEW = 8, 256, 512
PRECISIONS = {"float32": 4, "float16": 2}  # bytes per number
MIB = 2**20


def cache_bytes(batch: int, tokens: int, bytes_per_number: int) -> int:
    """2 · L · B · T · H · D · bytes: a key and a value of width H · D per layer and token."""
    return 2 * CONFIG.n_layer * batch * tokens * CONFIG.kv_heads * CONFIG.head_dim * bytes_per_number


def pair_flops(pairs: int) -> int:
    """4 · L · H · D per query-key pair: D multiply-adds for the score, D for the value, in each head and layer."""
    return 4 * CONFIG.n_layer * CONFIG.n_head * CONFIG.head_dim * pairs


def projection_flops(tokens: int) -> int:
    """8 · L · C² per token: the matrices for query, key, value and output."""
    return 8 * CONFIG.n_layer * CONFIG.d_model**2 * tokens


def sum_to(n: int) -> int:
    """1 + 2 + … + n."""
    return n * (n + 1) // 2


def squares_to(n: int) -> int:
    """1² + 2² + … + n²."""
    return n * (n + 1) * (2 * n + 1) // 6


def pairs_in_closed_form() -> dict[str, int]:
    """Query-key pairs of a whole generation. The first new token comes out of reading the prompt."""
    last = PROMPT + NEW - 1  # the last new token is never read
    lengths = sum_to(last) - sum_to(PROMPT - 1)
    squares = squares_to(last) - squares_to(PROMPT - 1)
    return {
        "without cache": squares,
        "with cache": PROMPT**2 + lengths - PROMPT,
        "without cache, causal half only": (squares + lengths) // 2,
        "with cache, causal half only": sum_to(PROMPT) + lengths - PROMPT,
    }


@dataclass(frozen=True)
class Costs:
    """FLOPs of one kind in a whole generation."""

    without: int  # cache
    cached: int

    @property
    def ratio(self) -> float:
        """How many times as much without a cache."""
        return self.without / self.cached


@dataclass(frozen=True)
class Buffer:
    """A cache that was really allocated, for a whole context."""

    precision: str
    batch: int
    nbytes: int


@dataclass(frozen=True)
class Counts:
    """FLOPs that torch counts in one attention layer."""

    every: int  # passes counted: one of so many
    products_without_cache: int
    projections_without_cache: int
    products_with_cache: int
    products_of_last_pass: int  # with and without a cache together, computed on the CPU

    @property
    def lengths(self) -> range:
        """Tokens known in the passes that were counted."""
        return range(PROMPT, PROMPT + NEW, self.every)


@dataclass(frozen=True)
class Findings:
    """All that was counted."""

    weights: int  # numbers in a model of this shape
    buffers: tuple[Buffer, ...]
    looped_pairs: dict[str, int]  # as ``pairs_in_closed_form``, step by step
    counts: Counts

    @property
    def attention(self) -> Costs:
        """Scores and weighted values, as full matrices."""
        pairs = pairs_in_closed_form()
        return Costs(pair_flops(pairs["without cache"]), pair_flops(pairs["with cache"]))

    @property
    def causal_half(self) -> Costs:
        """Scores and weighted values where a kernel skips what is masked."""
        pairs = pairs_in_closed_form()
        return Costs(
            pair_flops(pairs["without cache, causal half only"]), pair_flops(pairs["with cache, causal half only"])
        )

    @property
    def projections(self) -> Costs:
        """To query, key, value and output."""
        reads = sum_to(PROMPT + NEW - 1) - sum_to(PROMPT - 1)  # tokens read without a cache
        return Costs(projection_flops(reads), projection_flops(PROMPT + NEW - 1))

    @property
    def both(self) -> Costs:
        """Full matrices and projections."""
        return Costs(self.attention.without + self.projections.without, self.attention.cached + self.projections.cached)

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        metrics: dict[str, float | int] = {}
        for name, size in PRECISIONS.items():
            short = name.replace("float", "fp")
            metrics |= {
                f"kv_cache_{short}_bytes": cache_bytes(1, CONFIG.context, size),
                f"kv_cache_{short}_mib": cache_bytes(1, CONFIG.context, size) / MIB,
                f"kv_cache_batch_{BATCH}_{short}_bytes": cache_bytes(BATCH, CONFIG.context, size),
                f"kv_cache_batch_{BATCH}_{short}_mib": cache_bytes(BATCH, CONFIG.context, size) / MIB,
                f"kv_cache_per_token_{short}_bytes": cache_bytes(1, 1, size),
            }
        return metrics | {
            "attention_flops_without_cache": self.attention.without,
            "attention_flops_with_cache": self.attention.cached,
            "attention_flops_ratio": self.attention.ratio,
            "attention_flops_without_cache_causal_half": self.causal_half.without,
            "attention_flops_with_cache_causal_half": self.causal_half.cached,
            "projection_flops_without_cache": self.projections.without,
            "projection_flops_with_cache": self.projections.cached,
            "attention_and_projection_flops_ratio": self.both.ratio,
        }
