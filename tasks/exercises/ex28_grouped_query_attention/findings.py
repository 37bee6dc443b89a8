"""What 21.28 measures: attention over shared heads beside other implementations, its size, and trained models."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from minigpt.config import GPTConfig
from minigpt.evaluation.statistics import Comparison, mean_std
from tasks.variants import Variant, comparisons, contrast, metrics

# Touvron et al. (2023), "Llama 2", table 1 and the released configurations: layers, width, query and key/value heads.
LLAMA_2 = {"7B": (32, 4096, 32, 32), "13B": (40, 5120, 40, 40), "70B": (80, 8192, 64, 8)}
LLAMA_CONTEXT = 4096


def attention_parameters(config: GPTConfig) -> int:
    """Of all layers: q, k, v and the output projection, biases included."""
    inputs = config.d_model + config.bias
    width = (config.n_head + 2 * config.kv_heads) * config.head_dim
    return config.n_layer * inputs * (width + config.d_model)


def cache_bytes_per_token(config: GPTConfig, bytes_per_number: int) -> int:
    """One key and one value for each layer and key/value head."""
    return 2 * config.n_layer * config.kv_heads * config.head_dim * bytes_per_number


@dataclass(frozen=True)
class Oracles:
    """Largest differences from other implementations."""

    torch_gqa: float
    llama: float
    copied_heads: float

    @property
    def largest(self) -> float:
        """Of the three."""
        return max(self.torch_gqa, self.llama, self.copied_heads)


@dataclass(frozen=True)
class Size:
    """Counted on a model and on its caches."""

    attention: int  # parameters
    cache_fp32: int  # bytes for all tokens
    cache_fp16: int


@dataclass(frozen=True)
class Llama:
    """A released model, computed from its architecture: the cache in fp16 at full context."""

    name: str
    heads: int
    kv_heads: int
    bytes_per_token: int
    with_mha: float  # GiB
    released: float
    with_mqa: float


def llama(name: str, tokens: int = LLAMA_CONTEXT) -> Llama:
    """The cache of one released model, and what it would be with other G."""
    layers, width, heads, kv_heads = LLAMA_2[name]
    config = GPTConfig(n_layer=layers, n_head=heads, n_kv_head=kv_heads, d_model=width, context=tokens)
    mha, released, mqa = (
        cache_bytes_per_token(replace(config, n_kv_head=g), 2) * tokens / 2**30 for g in (heads, kv_heads, 1)
    )
    return Llama(name, heads, kv_heads, cache_bytes_per_token(config, 2), mha, released, mqa)


@dataclass(frozen=True)
class Findings:
    """All that was measured. Configurations and sizes are by the variant's label."""

    rows: tuple[Variant, ...]  # MHA, GQA, MQA, MQA with a wider feed-forward layer
    configs: dict[str, GPTConfig]
    sizes: dict[str, Size]
    cache_tokens: int  # of the measured caches
    oracles: Oracles
    right: tuple[float, ...]  # loss of the GQA model, one per seed
    repeated: tuple[float, ...]  # … with its heads repeated in the wrong order
    source: str  # of our attention

    @property
    def cache_share(self) -> float:
        """Cache of multi-query attention over that of multi-head attention."""
        return self.configs["MQA"].kv_heads / self.configs["MHA"].kv_heads

    @property
    def attention_saved(self) -> float:
        """Share of its attention parameters that the multi-query model lacks."""
        return 1 - attention_parameters(self.configs["MQA"]) / attention_parameters(self.configs["MHA"])

    @property
    def parameters_apart(self) -> float:
        """Relative difference in parameters: the wider multi-query model against multi-head attention."""
        whole, wide = self.rows[0].parameters, self.rows[-1].parameters
        return abs(wide - whole) / whole

    @property
    def against_mha(self) -> Mapping[str, Comparison]:
        """Each variant that shares heads, by label, against multi-head attention."""
        return {row.label: found for row, found in zip(self.rows[1:], comparisons(self.rows), strict=True)}

    @property
    def widened(self) -> Comparison:
        """The two multi-query models: the wider against the narrower."""
        return contrast(self.rows[2], self.rows[3])

    @property
    def llamas(self) -> Mapping[str, Llama]:
        """The released models."""
        return {name: llama(name) for name in LLAMA_2}

    @property
    def metrics(self) -> dict[str, float | int]:
        """The numbers of the answer."""
        found = metrics(self.rows)
        found |= {"loss_nats_gqa_right": mean_std(self.right)[0], "loss_nats_gqa_repeat": mean_std(self.repeated)[0]}
        for row in self.rows:
            size = self.sizes[row.label]
            found[f"cache_fp16_bytes_per_token_{row.key}"] = size.cache_fp16 // self.cache_tokens
            found[f"attention_parameters_{row.key}"] = size.attention
        for name, model in self.llamas.items():
            key = f"llama_2_{name.lower()}_cache"
            found |= {f"{key}_mha_fp16_gib": model.with_mha, f"{key}_fp16_gib": model.released}
        return found
