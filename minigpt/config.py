"""The shape of a model: one frozen, validated value.

Symbols used throughout the package:

    B  batch            T  tokens in a sequence      V  vocabulary
    C  model width      H  query heads               G  key/value heads (G divides H)
    D  head width, C/H  L  layers
"""

from dataclasses import dataclass
from typing import Literal, get_args

from minigpt.checks import flag, named, number, positive, whole

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
        ValueError: a field is of another type or out of range, or two fields contradict each other.
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
    init: Init = "gpt2"  # xavier: no less variance where a block writes into the residual stream (Xiong et al., 2020)
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
            whole(field, getattr(self, field), 1)
        for field in ("n_kv_head", "d_ff", "window"):
            if getattr(self, field) is not None:
                whole(field, getattr(self, field), 1)
        whole("vocab_size", self.vocab_size, 0)
        for field in ("tie_weights", "qk_norm", "bias"):
            flag(field, getattr(self, field))
        for field, names in (("activation", Activation), ("norm", Norm), ("init", Init), ("position", Position)):
            named(field, getattr(self, field), get_args(names))
        for field in ("rope_base", "rope_scale"):
            positive(field, getattr(self, field))
        number("dropout", self.dropout, lambda p: 0 <= p < 1, "in [0, 1)")
        if self.n_future > self.context:
            raise ValueError(f"n_future must be at most the context, {self.context}, got {self.n_future}")
        if self.d_model % self.n_head:
            raise ValueError(f"d_model {self.d_model} is not a multiple of n_head {self.n_head}")
        if self.n_kv_head is not None and self.n_head % self.n_kv_head:
            raise ValueError(f"n_kv_head {self.n_kv_head} does not divide n_head {self.n_head}")
        if self.position == "rope" and self.head_dim % 2:
            raise ValueError(f"rope needs an even head width, got {self.head_dim}")

    @property
    def head_dim(self) -> int:
        """D, the width of one head."""
        return self.d_model // self.n_head

    @property
    def kv_heads(self) -> int:
        """G, the number of key/value heads."""
        return self.n_head if self.n_kv_head is None else self.n_kv_head

    @property
    def ff_dim(self) -> int:
        """Width of the feed-forward layer."""
        return 4 * self.d_model if self.d_ff is None else self.d_ff
