"""What 21.34 measures: files, perplexities and times of int8, and perplexities at every bit width."""

from dataclasses import dataclass, field

from minigpt.evaluation.timing import Timing

BITS = (8, 7, 6, 5, 4, 3, 2)
NAIVE_RANGE = 1.0
NAIVE, TENSOR, CHANNEL = f"naive, range ±{NAIVE_RANGE:g}", "absmax per tensor", "absmax per channel"
KEYS = {NAIVE: "naive", TENSOR: "absmax_tensor", CHANNEL: "absmax_channel"}
METHODS = tuple(KEYS)
NOTICEABLE = 1.02  # a perplexity 2 % above that of fp32
COMPARED = 4  # bits at which methods are looked at closely


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

    def at(self, method: str, bits: int = COMPARED) -> float:
        """Perplexity at a width."""
        return self.methods[method][BITS.index(bits)]

    def ratio(self, method: str, bits: int = COMPARED) -> float:
        """The same over that of fp32."""
        return self.at(method, bits) / self.fp32

    def spread_at(self, method: str, bits: int = COMPARED) -> float | None:
        """Standard deviation of the ratio over seeds, where there are several."""
        return self.spread[method][BITS.index(bits)] if method in self.spread else None

    @property
    def in_order(self) -> int:
        """Widths at which per channel is no worse than per tensor, and that no worse than naive."""
        naive, tensor, channel = (self.methods[method] for method in METHODS)
        return sum(c <= t <= n for n, t, c in zip(naive, tensor, channel, strict=True))


@dataclass(frozen=True)
class Deployed:
    """One way to store and run the same model."""

    label: str
    key: str
    file_bytes: int
    perplexity: float
    read: Timing  # of a batch of contexts at once
    decode: Timing  # of one text, token by token


@dataclass(frozen=True)
class Deployment:
    """The large model in three versions."""

    versions: tuple[Deployed, ...]  # fp32, torch.ao's, this project's, torchao's where it is installed
    warning: str  # what torch.ao says of itself
    torchao: str | None  # its version; None where it is not installed
    loads_equal: bool  # the int8 file gives the same logits
    sums_equal: bool  # and so do its integers summed in fp32, as they are for scoring
    n_new: int
    batch: tuple[int, ...]
    threads: int
    slow_products: bool  # the processor is known to lack the instructions for int8 products

    @property
    def newer(self) -> Deployed | None:
        """Torchao's."""
        return next((version for version in self.versions if version.key == "torchao"), None)

    def change(self, version: Deployed) -> float:
        """Relative change of perplexity against fp32."""
        return version.perplexity / self.versions[0].perplexity - 1

    def reading(self, version: Deployed) -> float:
        """How many times as fast as fp32 a batch is read."""
        return self.versions[0].read.median / version.read.median

    def decoding(self, version: Deployed) -> float:
        """How many times as fast as fp32 a text is written."""
        return self.versions[0].decode.median / version.decode.median

    def share(self, version: Deployed) -> float:
        """Size of the file over that of fp32."""
        return version.file_bytes / self.versions[0].file_bytes


@dataclass(frozen=True)
class Oracle:
    """Against PyTorch: largest differences in units of a step, and whether the int8 values are the same."""

    channel: float
    tensor: float
    same_values: bool


@dataclass(frozen=True)
class Noise:
    """One kind of matrix at ``COMPARED`` bits."""

    matrix: str
    std: float
    largest: float
    lost: float  # share of the weights that the naive range rounds to 0
    ratios: tuple[float, ...]  # signal to noise in dB, in the order of METHODS


@dataclass(frozen=True)
class Written:
    """A text at some bit width."""

    label: str
    prompt: str
    text: str


@dataclass(frozen=True)
class Findings:
    """All that was measured."""

    deployment: Deployment
    oracle: Oracle
    matrix_weights: int  # in the matrices of the blocks, which are quantised
    matrix_channels: int
    weights: int  # in all
    layer_source: str  # of Int8Linear
    quantize_source: str
    curves: tuple[Curve, ...]  # the small model that trained longer, and the student
    noise: tuple[Noise, ...]
    texts: tuple[Written, ...]

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        d, metrics = self.deployment, dict[str, float | int]()
        for v in d.versions:
            metrics[f"perplexity_large_{v.key}"] = v.perplexity
            metrics[f"file_mib_{v.key}"] = v.file_bytes / 2**20
            metrics[f"read_ms_{v.key}"] = v.read.median * 1e3
            metrics[f"decode_ms_per_token_{v.key}"] = v.decode.median * 1e3 / d.n_new
            metrics[f"speedup_read_{v.key}"] = d.reading(v)
            metrics[f"speedup_decode_{v.key}"] = d.decoding(v)
        for curve in self.curves:
            metrics[f"perplexity_{curve.key}_fp32"] = curve.fp32
            for method, values in curve.methods.items():
                for bits, value in zip(BITS, values, strict=True):
                    metrics[f"perplexity_{curve.key}_{KEYS[method]}_{bits}_bits"] = value
                for bits, value in zip(BITS, curve.spread.get(method, ()), strict=False):
                    metrics[f"perplexity_ratio_{curve.key}_{KEYS[method]}_{bits}_bits_std"] = value
                metrics[f"first_noticeable_bits_{curve.key}_{KEYS[method]}"] = curve.first_noticed(method) or 0
        return metrics
