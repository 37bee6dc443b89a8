"""Parameters, FLOPs and cache bytes in closed form.

One multiply-add is 2 FLOPs. Matrix products are counted, the rest (norms, GELU, softmax, additions) is not: it is
linear in the width where the products are quadratic. Embedding look-ups cost nothing, the unembedding does.
"""

from torch import nn

from minigpt.checks import whole
from minigpt.config import GPTConfig


def count_parameters(model: GPTConfig | nn.Module, *, embeddings: bool = True) -> int:
    """Trained numbers, shared ones once.

    Of a configuration in closed form, of a module by its storage. Without ``embeddings``, the token and position
    tables and an untied unembedding are left out (Kaplan et al., 2020, section 2.1).
    """
    if isinstance(model, GPTConfig):
        tables = _embedding_parameters(model) if embeddings else 0
        return tables + model.n_layer * _block_parameters(model) + _head_parameters(model)
    left_out = ("token_embedding.", "position_embedding.", "unembedding.")
    weights = [w for name, w in model.named_parameters() if embeddings or not name.startswith(left_out)]
    return sum({w.data_ptr(): w.numel() for w in weights}.values())


def _embedding_parameters(config: GPTConfig) -> int:
    token = config.vocab_size * config.d_model * (1 if config.tie_weights else 2)
    return token + (config.context * config.d_model if config.position == "learned" else 0)


def _norm_parameters(config: GPTConfig) -> int:
    return config.d_model * (2 if config.bias else 1)


def _block_matrices(config: GPTConfig) -> int:
    """Weights of one block that multiply every token: query, keys, values, output, and the feed-forward layer."""
    C, F = config.d_model, config.ff_dim
    return C * (C + 2 * config.kv_heads * config.head_dim) + C * C + 2 * C * F


def _block_parameters(config: GPTConfig) -> int:
    C, F = config.d_model, config.ff_dim
    biases = (C + 2 * config.kv_heads * config.head_dim) + C + F + C if config.bias else 0
    return _block_matrices(config) + biases + 2 * _norm_parameters(config)


def _head_parameters(config: GPTConfig) -> int:
    final_norm = _norm_parameters(config) if config.norm == "pre" else 0
    future = config.d_model**2 + (config.d_model if config.bias else 0)
    return final_norm + (config.n_future - 1) * future


def attended_pairs(n_query: int, n_key: int | None = None, window: int | None = None) -> int:
    """Query-key pairs that a causal mask leaves, for the last ``n_query`` of ``n_key`` positions.

    Raises:
        ValueError: fewer than no query, more queries than keys, or a window below 1.
    """
    n_key = _keys(n_query, n_key)
    if window is not None:
        whole("window", window, 1)
    seen = range(n_key - n_query + 1, n_key + 1)
    return sum(min(keys, window) if window else keys for keys in seen)


def _keys(n_query: int, n_key: int | None) -> int:
    whole("n_query", n_query, 0)
    return n_query if n_key is None else whole("n_key", n_key, n_query)


def attention_flops(
    config: GPTConfig, batch: int, n_query: int, n_key: int | None = None, *, causal: bool = False
) -> int:
    """FLOPs of q kᵀ and of weights · v, in all layers: 4 · B · L · H · D for each pair of query and key.

    All n_query · n_key pairs count, as a dense product computes them and as torch's counter has it; with ``causal``
    only those that the mask (and the window) leaves.

    Raises:
        ValueError: see ``attended_pairs``; or a batch below 0.
    """
    whole("batch", batch, 0)
    pairs = attended_pairs(n_query, n_key, config.window) if causal else n_query * _keys(n_query, n_key)
    return 4 * batch * config.n_layer * config.d_model * pairs


def forward_flops(
    config: GPTConfig,
    batch: int,
    tokens: int,
    *,
    cached: int = 0,
    causal: bool = False,
    last_only: bool = False,
) -> int:
    """FLOPs of reading ``tokens`` new tokens after ``cached`` ones, (B, T) → logits.

    ``last_only``: only the last position is turned into logits. Heads for later tokens are not read.

    Raises:
        ValueError: a batch or a number of tokens below 0.
    """
    whole("tokens", tokens, 0)
    whole("cached", cached, 0)
    whole("batch", batch, 0)
    blocks = 2 * batch * tokens * config.n_layer * _block_matrices(config)
    logits = 2 * batch * (1 if last_only else tokens) * config.vocab_size * config.d_model
    return blocks + logits + attention_flops(config, batch, tokens, cached + tokens, causal=causal)


def training_flops(config: GPTConfig, batch: int, tokens: int, *, causal: bool = False) -> int:
    """FLOPs of one step: the backward pass has two products for each of the forward pass (Kaplan et al., 2020, 2.1).

    What fused attention computes twice to save memory is not counted.
    """
    return 3 * forward_flops(config, batch, tokens, causal=causal)


def kv_cache_bytes(config: GPTConfig, batch: int, tokens: int, bytes_per_number: int = 4) -> int:
    """Bytes of keys and values of ``tokens`` positions: 2 · L · B · T · G · D numbers.

    With a window, only the last ``min(tokens, window)`` positions are needed: pass that number.

    Raises:
        ValueError: a number below 0.
    """
    for name, value in (("batch", batch), ("tokens", tokens), ("bytes_per_number", bytes_per_number)):
        whole(name, value, 0)
    return 2 * config.n_layer * batch * tokens * config.kv_heads * config.head_dim * bytes_per_number
