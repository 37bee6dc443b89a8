"""Proof on small random models that a ``SinkCache`` does what it says: figures that would be 0 in exact arithmetic."""

from dataclasses import dataclass
from typing import Any

import torch

from minigpt.decoding.streaming import ReencodingReader, SinkReader, rotation_error, stream_losses
from minigpt.pretrained.causal_lm import row_losses

V, LENGTH = 31, 96
SINKS = [0, 1, 4]
GROUPS, WIDTH = 2, 8  # key/value heads, and their width


@dataclass(frozen=True)
class StreamingParity:
    """Largest differences, and the memory that was measured."""

    rotation: float  # keys moved by 1,000 positions against the model's own, relative
    roomy: float  # a cache that holds everything against one pass, nats
    one_layer: float  # a cache that evicts, in a model of one layer, against reading the kept tokens from scratch, nats
    n_bytes: set[int]  # of the cache after 1, 2, … tokens
    expected_bytes: int


def streaming_parity(generator: torch.Generator, size: int = 12) -> StreamingParity:
    """Read random tokens in several ways.

    With one layer, keys and values depend on their own token alone, so that it does not matter what was dropped.
    """
    tokens = torch.randint(V, (1, LENGTH), generator=generator).expand(len(SINKS), -1)
    one, two = _llama(1, generator), _llama(2, generator)
    roomy = stream_losses(SinkReader(two, SINKS, LENGTH), tokens, 3) - row_losses(two, tokens)[:, 2:]
    cached = stream_losses(SinkReader(one, SINKS, size), tokens, size)
    anew = stream_losses(ReencodingReader(one, SINKS, size), tokens, size)
    reader, n_bytes = SinkReader(two, SINKS, size), set()
    for t in range(LENGTH):
        reader.read(tokens[:, t : t + 1])
        n_bytes.add(reader.cache.n_bytes)
    per_position = 4 * len(SINKS) * 2 * GROUPS * WIDTH  # bytes × rows × layers × numbers
    return StreamingParity(
        rotation=rotation_error(two),
        roomy=roomy.abs().max().item(),
        one_layer=(cached - anew).abs().max().item(),
        n_bytes=n_bytes,
        expected_bytes=per_position * (2 * size + max(SINKS)),  # keys, values, original keys of the sinks
    )


def _llama(layers: int, generator: torch.Generator) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes: dict[str, Any] = {"hidden_size": 4 * WIDTH, "intermediate_size": 48, "num_hidden_layers": layers}
    heads: dict[str, Any] = {"num_attention_heads": 4, "num_key_value_heads": GROUPS}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**31, (1,), generator=generator)))
        return LlamaForCausalLM(LlamaConfig(**sizes, **heads, vocab_size=V, initializer_range=0.3)).eval()
