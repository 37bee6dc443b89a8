"""What 21.29 measures: attention that first tokens receive, and losses and texts by the number of sinks kept."""

from dataclasses import dataclass

from minigpt.evaluation.statistics import Comparison, compare, compare_paired, mean_std

KEPT = 4  # sinks in Xiao et al. (2023)
FIRST = (1, 2, 4, 8)  # so many first positions together
SEVERAL = 5  # times the uniform share
REAL, RANDOM, REPEATED = KINDS = ("real text", "random tokens", "repeated text")
TEMPERATURE = 0.8


@dataclass(frozen=True)
class Model:
    """The pretrained model."""

    name: str
    note: str
    layers: int
    heads: int
    groups: int  # key/value heads
    width: int  # of a head
    context: int  # tokens
    learned_positions: bool  # added to its tokens before the first layer

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers in fp32."""
        return 2 * self.layers * self.groups * self.width * 4


@dataclass(frozen=True)
class Share:
    """Attention on the first ``n`` positions together; means over layers and heads unless it says otherwise."""

    n: int
    mean: float  # over rows
    rows: tuple[float, ...]
    layers: tuple[float, ...]  # mean over rows
    layers_std: tuple[float, ...]  # over rows; empty of a single row
    uniform: float  # the same of uniform attention

    @property
    def ratio(self) -> float:
        """How many times the uniform share."""
        return self.mean / self.uniform

    @property
    def std(self) -> float:
        """Over rows."""
        return mean_std(self.rows)[1]


@dataclass(frozen=True)
class Attention:
    """What the positions of one kind of text receive from the queries of the second half."""

    first_tokens: tuple[str, ...]  # of each row
    begins: str  # the first row
    tokens: int  # in a row
    begin: int  # the first query that counts
    shares: tuple[Share, ...]
    heads: tuple[tuple[float, ...], ...]  # share of position 0 by layer and head, mean over rows
    positions: tuple[float, ...]  # of the first 16, mean over layers, heads and rows
    recurring: tuple[float, ...]  # what later occurrences of a row's first token receive
    sum_error: float  # largest distance from 1 of a sum over positions

    def first(self, n: int = 1) -> Share:
        """Of the first ``n`` positions."""
        return next(share for share in self.shares if share.n == n)

    @property
    def others_above(self) -> dict[int, float]:
        """Of the first positions those but 0 that get several times their uniform share, and how many times.

        Uniform attention of the late queries, which all see them, gives each of them the same.
        """
        ratios = {place: share / self.first().uniform for place, share in enumerate(self.positions) if place}
        return {place: ratio for place, ratio in ratios.items() if ratio > SEVERAL}

    @property
    def by_head(self) -> dict[tuple[int, int], float]:
        """Share of position 0 by (layer, head)."""
        return {(i, j): value for i, layer in enumerate(self.heads) for j, value in enumerate(layer)}

    @property
    def heads_above_half(self) -> int:
        """Heads that spend more than half of their attention on the first token."""
        return sum(value > 0.5 for value in self.by_head.values())

    @property
    def layers_above(self) -> int:
        """Layers in which the first token gets several times its uniform share."""
        return sum(value > SEVERAL * self.first().uniform for value in self.first().layers)


@dataclass(frozen=True)
class Planted:
    """One token, first and in the middle of the same texts."""

    piece: str
    first: float  # share of position 0, mean over layers, heads and texts
    middle: float  # share of the same token in the middle


@dataclass(frozen=True)
class Planting:
    """The same for a few tokens."""

    tokens: tuple[Planted, ...]
    length: int  # of a text, in tokens
    begin: int  # the first query that counts
    uniform_first: float
    uniform_middle: float


@dataclass(frozen=True)
class Maps:
    """Attention of a few heads in a short piece of real text."""

    pieces: tuple[str, ...]
    layers: tuple[int, ...]
    heads: tuple[tuple[int, ...], ...]  # per layer, those with most on the first token
    weights: tuple[tuple[tuple[tuple[float, ...], ...], ...], ...]  # [layer][head][query][key]


@dataclass(frozen=True)
class Stretch:
    """Mean losses per text over a stretch of positions, nats per token."""

    first: int
    last: int
    by_sinks: dict[int, tuple[float, ...]]
    full: tuple[float, ...] | None  # everything in view; None where the context does not reach all of it

    def difference(self, sinks: int) -> Comparison:
        """What keeping sinks changes."""
        return compare_paired(self.by_sinks[0], self.by_sinks[sinks])


@dataclass(frozen=True)
class Curve:
    """Loss over position for one setting."""

    sinks: int | None  # None: everything in view
    positions: tuple[float, ...]
    losses: tuple[tuple[float, ...], ...]  # of each text at each position


@dataclass(frozen=True)
class Window:
    """The window read again for every token, and the other readers at the same places; means per text."""

    places: int
    anew: tuple[float, ...]  # without sinks
    anew_mean: float
    by_sinks: dict[int, tuple[float, ...]]  # from the cache
    full: tuple[float, ...] | None


@dataclass(frozen=True)
class Written:
    """What one setting wrote."""

    sinks: int | None  # None: everything in view
    nll: tuple[float, ...]  # per text, mean of its continuations, nats per token, by the model with everything in view
    repeated: tuple[float, ...]  # share of repeated 3-grams, likewise
    distinct: float  # share of different 2-grams, all continuations together
    text: str  # the first


@dataclass(frozen=True)
class Stream:
    """Long texts, read with every number of sinks and with everything in view."""

    size: int  # positions kept
    texts: int
    length: int  # tokens of a text
    scored: int  # places of a text
    scored_after: int  # of these, places that were read after the first token had gone
    in_view: int  # tokens that were read with everything in view
    cached: bool  # the cache was used; else the kept tokens were read again
    buckets: tuple[Stretch, ...]  # after eviction, one cache size each
    after: Stretch  # everything after eviction
    curve_width: int  # positions in a point of a curve
    curves: tuple[Curve, ...]
    window: Window | None  # None where all settings were read again
    prompt: str  # the end of the first text
    new: int  # tokens of a continuation
    samples: int  # continuations of a text
    written: tuple[Written, ...]

    @property
    def sinks(self) -> tuple[int, ...]:
        """The settings."""
        return tuple(self.after.by_sinks)

    @property
    def kept(self) -> int:
        """The paper's number of sinks, or the largest that fits."""
        return KEPT if KEPT in self.sinks else self.sinks[-1]


@dataclass(frozen=True)
class LongStream:
    """A stream many times as long as the training's texts, read by a model of this project; means per bucket, nats."""

    model: str
    context: int  # of its training, tokens, and the positions kept
    length: int  # tokens read
    width: int  # tokens in a bucket
    starts: tuple[int, ...]  # of the buckets, all after eviction
    by_sinks: dict[int, tuple[float, ...]]
    anew: tuple[float, ...]  # the window read again at some places of each bucket
    places: int  # such places in all
    dense: tuple[tuple[float, float], ...]  # everything in view: position, mean loss around it
    share: float  # attention that the first of ``context`` tokens receives, mean over layers and heads
    uniform: float
    export: float  # largest difference of logits from the model's own

    @property
    def times_uniform(self) -> float:
        """Whether it has a sink: the share over that of uniform attention."""
        return self.share / self.uniform

    @property
    def kept(self) -> int:
        """The largest number of sinks."""
        return max(self.by_sinks)

    @property
    def sinks_bring(self) -> Comparison:
        """Sinks against none, paired over buckets."""
        return compare_paired(self.by_sinks[0], self.by_sinks[self.kept])

    @property
    def drift(self) -> Comparison:
        """The second half of the stream against the first, with sinks; buckets are other text, and not paired."""
        half = len(self.starts) // 2
        losses = self.by_sinks[self.kept]
        return compare(losses[:half], losses[half:])

    @property
    def dense_rise(self) -> float:
        """How far the loss with everything in view ends above the lowest of its curve, nats."""
        losses = [loss for _, loss in self.dense]
        return losses[-1] - min(losses)


@dataclass(frozen=True)
class Exact:
    """Figures that would be 0 in exact arithmetic, and bytes."""

    small_rotation: float  # small model: keys moved by 1,000 positions against its own, relative
    small_roomy: float  # small model: a cache that holds everything against one pass, nats
    small_one_layer: float  # one layer: streaming against reading the kept tokens from scratch, nats
    small_bytes: tuple[int, ...]  # of the cache, after any number of tokens
    small_expected_bytes: int
    share_difference: float  # share of the first four tokens by another function
    full_cache: float  # the first token after a full cache: loss against one pass, nats
    rotation: float | None  # the pretrained model's keys; None where they cannot be moved
    chunks: float | None  # many tokens at a time against one at a time, nats; None where the cache was not used


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    model: Model
    kinds: dict[str, Attention]
    planted: Planting
    maps: Maps
    stream: Stream
    long: LongStream | None  # None where no model of this project can be streamed
    sink_heads: float  # share of heads with a mean of more than SINK_THRESHOLD on the first of a few random tokens
    listing: str  # source of the cache
    exact: Exact

    @property
    def real(self) -> Attention:
        """Of real text."""
        return self.kinds[REAL]

    @property
    def metrics(self) -> dict[str, float | int]:
        """Every number that the exercise asks for."""
        s, heads = self.stream, self.real.by_head
        (layer, head), most = max(heads.items(), key=lambda item: item[1])
        numbers: dict[str, float | int] = {
            "cache_positions": s.size,
            "stream_tokens": s.length,
            f"share_first_token_layer_{layer}_head_{head}": most,
            "heads_above_half_on_first_token": self.real.heads_above_half,
            "planted_share_first_least": min(x.first for x in self.planted.tokens),
            "planted_share_middle_most": max(x.middle for x in self.planted.tokens),
        }
        for kind, x in self.kinds.items():
            key = kind.replace(" ", "_")
            for n in (1, 4):
                share = x.first(n)
                numbers |= {
                    f"share_first_{n}_{key}": share.mean,
                    f"uniform_share_first_{n}_{key}": share.uniform,
                    f"share_first_{n}_{key}_std": share.std,
                    f"times_uniform_first_{n}_{key}": share.ratio,
                }
        numbers["heads_with_a_sink_in_random_tokens"] = self.sink_heads
        return numbers | self._losses() | self._continuations() | self._long()

    def _long(self) -> dict[str, float | int]:
        if self.long is None:
            return {}
        x = self.long
        numbers: dict[str, float | int] = {
            "long_stream_tokens": x.length,
            "long_first_token_times_uniform": x.times_uniform,
        }
        for k, losses in x.by_sinks.items():
            numbers[f"long_loss_{setting(k)}_nats"] = mean_std(losses)[0]
        numbers["long_loss_window_read_again_nats"] = mean_std(x.anew)[0]
        numbers["long_loss_everything_in_view_at_the_end_nats"] = x.dense[-1][1]
        return numbers

    def _losses(self) -> dict[str, float | int]:
        s = self.stream
        numbers: dict[str, float | int] = {
            f"loss_{setting(k)}_nats": mean_std(losses)[0] for k, losses in s.after.by_sinks.items()
        }
        c, name = s.after.difference(s.kept), f"loss_{setting(s.kept)}_less_0_sinks"
        numbers[f"{name}_nats"] = c.difference
        if c.verdict != "one seed":
            numbers[f"{name}_low_nats"], numbers[f"{name}_high_nats"] = c.interval
        if s.after.full is not None:
            numbers["loss_full_context_nats"] = mean_std(s.after.full)[0]
        if s.window is not None:
            numbers["loss_window_read_again_nats"] = mean_std(s.window.anew)[0]
        return numbers

    def _continuations(self) -> dict[str, float | int]:
        numbers: dict[str, float | int] = {}
        for x in self.stream.written:
            numbers[f"written_nll_{setting(x.sinks)}_nats"] = mean_std(x.nll)[0]
            numbers[f"written_repeated_3grams_{setting(x.sinks)}"] = mean_std(x.repeated)[0]
        return numbers


def setting(sinks: int | None) -> str:
    """A setting's name among the metrics."""
    return "full_context" if sinks is None else "1_sink" if sinks == 1 else f"{sinks}_sinks"
