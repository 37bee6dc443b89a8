"""The shape of a model: one frozen, validated value.

Symbols used throughout the package:

    B  batch            T  tokens in a sequence      V  vocabulary
    C  model width      H  query heads               G  key/value heads (G divides H)
    D  head width, C/H  L  layers
"""

from dataclasses import dataclass
from typing import Literal, get_args

Norm = Literal["pre", "post"]
Position = Literal["learned", "rope", "sinusoidal", "none"]
Activation = Literal["gelu", "relu2"]
Init = Literal["gpt2", "xavier"]


@dataclass(frozen=True, kw_only=True)
class GPTConfig:
    """Architecture of a decoder-only Transformer.

    The defaults are GPT-2's (Radford et al., 2019): pre-norm, learned positions, tied embeddings,
    biases everywhere and a tanh-approximated GELU of width 4C. ``vocab_size=0`` means "not known
    yet": a recipe leaves it open until its tokenizer is trained.

    Raises:
        ValueError: a field is out of range or two fields contradict each other.
    """

    n_layer: int
    n_head: int
    d_model: int
    context: int  # longest training sequence, in tokens
    vocab_size: int = 0
    n_kv_head: int | None = None  # G: None is multi-head (G = H), 1 is multi-query (Shazeer, 2019)
    d_ff: int | None = None  # None is 4C
    activation: Activation = "gelu"  # relu2: squared ReLU (So et al., 2021, Primer), a fifth of a step cheaper on a CPU
    norm: Norm = "pre"
    init: Init = "gpt2"  # xavier: matrices in the blocks as in Vaswani et al. (2017), whatever they write into
    tie_weights: bool = True
    position: Position = "learned"
    qk_norm: bool = False  # LayerNorm, without gains, of each head's queries and keys (Dehghani et al., 2023)
    rope_base: float = 10_000.0
    rope_scale: float = 1.0  # positions are divided by it: position interpolation (Chen et al., 2023)
    window: int | None = None  # keys each query sees, itself included (Mistral's convention)
    n_future: int = 1  # heads for the next n tokens (Gloeckle et al., 2024); 1 is the plain model
    dropout: float = 0.0
    bias: bool = True

    def __post_init__(self) -> None:
        for field in ("n_layer", "n_head", "d_model", "context", "n_future"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} must be at least 1, got {getattr(self, field)}")
        if self.vocab_size < 0:
            raise ValueError(f"vocab_size must not be negative, got {self.vocab_size}")
        if self.d_model % self.n_head:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_head {self.n_head}")
        if self.n_kv_head is not None and (self.n_kv_head < 1 or self.n_head % self.n_kv_head):
            raise ValueError(f"n_kv_head {self.n_kv_head} does not divide n_head {self.n_head}")
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(f"rope needs an even head width, got {self.head_dim}")
        if not (self.rope_base > 0 and self.rope_scale > 0):
            raise ValueError(f"rope_base and rope_scale must be positive, got {self.rope_base} and {self.rope_scale}")
        if self.window is not None and self.window < 1:
            raise ValueError(f"window must be at least 1 (the token itself), got {self.window}")
        if self.activation not in get_args(Activation):
            raise ValueError(f"no activation is called {self.activation!r}: {', '.join(get_args(Activation))}")
        if self.init not in get_args(Init):
            raise ValueError(f"no initialisation is called {self.init!r}: {', '.join(get_args(Init))}")
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def head_dim(self) -> int:
        """D, the width of one head."""
        return self.d_model // self.n_head

    @property
    def kv_heads(self) -> int:
        """G, the number of key/value heads."""
        return self.n_kv_head or self.n_head

    @property
    def ff_dim(self) -> int:
        """Width of the feed-forward layer."""
        return self.d_ff or 4 * self.d_model
