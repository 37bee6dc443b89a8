"""A decoder-only Transformer that can be read from top to bottom.

What one class covers, each by a field of ``GPTConfig``:

- pre-norm (GPT-2, Radford et al., 2019) and post-norm (GPT-1, Radford et al., 2018) blocks;
- tied and untied output embeddings (Press & Wolf, 2017, https://arxiv.org/abs/1608.05859);
- learned, sinusoidal (https://arxiv.org/abs/1706.03762), rotary (https://arxiv.org/abs/2104.09864) or no positions;
- multi-head, grouped-query (https://arxiv.org/abs/2305.13245) and multi-query attention (https://arxiv.org/abs/1911.02150);
- sliding windows (https://arxiv.org/abs/2004.05150), computed in blocks so that masked blocks cost nothing;
- bidirectional prefixes (https://arxiv.org/abs/1910.10683), a key/value cache, and attention maps on request.

Shapes: see the legend in ``minigpt.config``.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from minigpt.cache import KVCache
from minigpt.checks import token_ids
from minigpt.config import GPTConfig
from minigpt.masks import CAUSAL, Visible, prefix_mask, visible_keys
from minigpt.positions import rope_tables, rotate, sinusoidal
from minigpt.precision import attend
from minigpt.window import windowed_attention

Rope = tuple[Tensor, Tensor]


class CausalSelfAttention(nn.Module):
    """Multi-head attention with G key/value heads shared by H query heads (Ainslie et al., 2023)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.n_head, config.kv_heads, config.head_dim
        self.dropout, self.qk_norm = config.dropout, config.qk_norm
        width = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv = nn.Linear(config.d_model, width, bias=config.bias)
        self.proj = nn.Linear(config.d_model, config.d_model, bias=config.bias)

    def forward(
        self,
        x: Tensor,  # (B, T, C)
        *,
        rope: Rope | None = None,
        visible: Visible = CAUSAL,
        cache: KVCache | None = None,
        layer: int = 0,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Attend to what is visible; (B, T, C) → (B, T, C). With ``maps``, also append the weights (B, H, T, S).

        The layer makes no mask: ``visible_keys`` does, which knows of caches and windows, and ``GPT.hidden`` calls it.

        Raises:
            ValueError: maps are asked for, or several tokens are read after cached ones, and no mask is given.
        """
        B, T, C = x.shape
        H, G = self.heads, self.kv_heads
        qkv = self.qkv(x).view(B, T, H + 2 * G, self.head_dim).transpose(1, 2)
        qk, v = qkv.split([H + G, G], dim=1)  # (B, H + G, T, D), (B, G, T, D)
        # Queries and keys are normalised and turned in one go: a small model's time is that of its operations' number.
        if self.qk_norm:  # before the cache, which keeps keys as they are compared
            # LayerNorm as in Dehghani et al. (2023), section 2: of PyTorch's norms it has a kernel for a CPU.
            qk = F.layer_norm(qk, (self.head_dim,), eps=1e-6)
        if rope is not None:
            qk = rotate(qk, *rope)
        q, k = qk.split([H, G], dim=1)
        if cache is not None:
            k, v = cache.update(layer, k, v)  # (B, G, S, D)
        if visible.last:
            k, v = k[:, :, -visible.last :], v[:, :, -visible.last :]
        dropout = self.dropout if self.training else 0.0
        if maps is not None:
            if visible.mask is None:
                raise ValueError("maps are computed by hand and need the mask as a tensor: visible_keys(…, maps=True)")
            weights = attention_weights(q, k, visible.mask)
            maps.append(weights)
            y = F.dropout(weights, dropout, self.training) @ v.repeat_interleave(self.heads // self.kv_heads, dim=1)
        elif visible.blocks:
            y = windowed_attention(q, k, v, visible.blocks)
        else:
            # Without a mask a whole text is causal, and a query alone (T = 1 < S) sees all keys that it is given.
            if visible.mask is None and 1 < T < k.shape[2]:
                raise ValueError(f"{T} tokens after cached ones need a mask: visible_keys({T}, {k.shape[2]})")
            causal, shared = visible.mask is None and k.shape[2] == T, self.kv_heads != self.heads
            y = attend(q, k, v, visible.mask, dropout, is_causal=causal, enable_gqa=shared)
        return self.proj(y.transpose(1, 2).reshape(B, T, C))


def attention_weights(q: Tensor, k: Tensor, mask: Tensor) -> Tensor:
    """softmax(q kᵀ / √D + mask), (B, H, T, D) and (B, G, S, D) → (B, H, T, S).

    Vaswani et al. (2017), equation 1. The mask is applied to the scores, before the softmax, so that rows sum to 1.
    """
    k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    return scores.masked_fill(~mask, float("-inf")).softmax(dim=-1)


class MLP(nn.Module):
    """Two layers with GPT-2's tanh-approximated GELU between them, or a squared ReLU (So et al., 2021)."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.up = nn.Linear(config.d_model, config.ff_dim, bias=config.bias)
        self.down = nn.Linear(config.ff_dim, config.d_model, bias=config.bias)
        self.squared_relu = config.activation == "relu2"

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) → (B, T, C)."""
        u = self.up(x)  # (B, T, F)
        return self.down(F.relu(u).square() if self.squared_relu else F.gelu(u, approximate="tanh"))


class Block(nn.Module):
    """Attention and feed-forward around a residual stream; the norm before or after each."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.pre_norm = config.norm == "pre"
        self.norm1 = nn.LayerNorm(config.d_model, bias=config.bias)
        self.attn = CausalSelfAttention(config)
        self.norm2 = nn.LayerNorm(config.d_model, bias=config.bias)
        self.mlp = MLP(config)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Tensor,
        *,
        rope: Rope | None = None,
        visible: Visible = CAUSAL,
        cache: KVCache | None = None,
        layer: int = 0,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """(B, T, C) → (B, T, C)."""
        if self.pre_norm:
            x = x + self.drop(self.attn(self.norm1(x), rope=rope, visible=visible, cache=cache, layer=layer, maps=maps))
            return x + self.drop(self.mlp(self.norm2(x)))
        x = self.norm1(x + self.drop(self.attn(x, rope=rope, visible=visible, cache=cache, layer=layer, maps=maps)))
        return self.norm2(x + self.drop(self.mlp(x)))


class GPT(nn.Module):
    """The whole model: embeddings, L blocks, final norm, unembedding.

    Raises:
        ValueError: ``config.vocab_size`` is still 0.
    """

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        if config.vocab_size < 1:
            raise ValueError("vocab_size is 0: set it from the tokenizer before building the model")
        self.config = config
        self.token_embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.position_embedding = nn.Embedding(config.context, config.d_model) if config.position == "learned" else None
        self.drop = nn.Dropout(config.dropout)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        # Post-norm blocks end in a norm of their own; without this one, pre-norm logits grow with depth.
        self.final_norm = nn.LayerNorm(config.d_model, bias=config.bias) if config.norm == "pre" else nn.Identity()
        self.unembedding = nn.Linear(config.d_model, config.vocab_size, bias=False)
        if config.tie_weights:
            self.unembedding.weight = self.token_embedding.weight
        self._init_weights()
        # One linear map per later token, before the shared unembedding: the "linear heads" of Gloeckle et al. (2024),
        # appendix B; those of their section 2 are a Transformer layer each. Built last and from zeros: the trunk of
        # every n_future draws the same numbers, and is at first trained by head 1 alone.
        # Heads that start as the identity would all agree, and pull the trunk to the average of n tokens.
        heads = (nn.Linear(config.d_model, config.d_model, bias=config.bias) for _ in range(config.n_future - 1))
        self.future = nn.ModuleList(heads)
        for weight in self.future.parameters():
            nn.init.zeros_(weight)

    @property
    def cache_dtype(self) -> torch.dtype:
        """The precision in which keys and values are to be kept."""
        return self.token_embedding.weight.dtype

    def _init_weights(self) -> None:
        """Normal weights, zero biases, less variance where a block writes into the residual stream.

        Radford et al. (2018), section 4.1, take 0.02 at width 768. Signals keep their size over C inputs when the
        standard deviation goes with 1/√C; at width 64 a fixed 0.02 costs a third of a short training.
        """
        std = 0.02 * math.sqrt(768 / self.config.d_model)
        for name, weight in self.named_parameters():
            if weight.ndim == 1:
                nn.init.constant_(weight, 1.0 if "norm" in name and name.endswith("weight") else 0.0)
            elif name.endswith(("proj.weight", "down.weight")):  # Radford et al. (2019), section 2.3
                nn.init.normal_(weight, std=std / math.sqrt(2 * self.config.n_layer))
            else:
                nn.init.normal_(weight, std=std)
        if self.config.init == "xavier":
            xavier(self)

    def hidden(
        self,
        tokens: Tensor,  # (B, T) int64
        *,
        cache: KVCache | None = None,
        prefix: int | Tensor = 0,
        mask: Tensor | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        """Final hidden states (B, T, C).

        ``prefix`` makes the first positions bidirectional (one length, or one per sequence). ``mask`` (True where a
        query attends) replaces the causal mask, the prefix and the window. ``cache`` is read and advanced: ``tokens``
        are then the next ones. ``maps`` collects the attention weights of each layer, (B, H, T, S).

        Raises:
            ValueError: unknown tokens (on a GPU, CUDA's own error), more positions than learned embeddings or than the
                cache has room for, or a prefix together with a filled cache or a window.
        """
        start = cache.length if cache is not None else 0
        T = tokens.shape[1]
        mask = self._prefix_mask(T, prefix, start, tokens.device) if mask is None else mask
        x, rope = self._embed(tokens, start)
        n_key = cache.keys_seen(T) if cache is not None else T
        visible = visible_keys(
            T,
            n_key,
            self.config.window,
            mask,
            maps=maps is not None,
            dropout=self.training and self.config.dropout > 0,
            device=tokens.device,
        )
        for layer, block in enumerate(self.blocks):
            x = block(x, rope=rope, visible=visible, cache=cache, layer=layer, maps=maps)
        if cache is not None:
            cache.advance(T)
        return self.final_norm(x)

    def forward(
        self,
        tokens: Tensor,
        *,
        cache: KVCache | None = None,
        prefix: int | Tensor = 0,
        mask: Tensor | None = None,
        maps: list[Tensor] | None = None,
        last_only: bool = False,
    ) -> Tensor:
        """Logits of the next token at each position, (B, T) → (B, T, V); (B, 1, V) with ``last_only``."""
        h = self.hidden(tokens, cache=cache, prefix=prefix, mask=mask, maps=maps)
        return self.unembedding(h[:, -1:] if last_only else h)

    def future_logits(self, h: Tensor, step: int) -> Tensor:
        """Logits for the token ``step`` places ahead (1 is the next), from hidden states (B, T, C)."""
        return self.unembedding(h if step == 1 else self.future[step - 2](h))

    def _embed(self, tokens: Tensor, start: int) -> tuple[Tensor, Rope | None]:
        T, config = tokens.shape[1], self.config
        positions = torch.arange(start, start + T, device=tokens.device)
        try:  # of no cost, where a look at each token would be
            x = self.token_embedding(tokens)  # (B, T, C)
        except IndexError as error:
            token_ids("tokens", tokens, config.vocab_size, tokens.ndim)
            raise ValueError(f"tokens must be from 0 to {config.vocab_size - 1}: {error}") from error
        rope = None
        if self.position_embedding is not None:
            if start + T > config.context:
                raise ValueError(f"{start + T} positions, but only {config.context} have a learned embedding")
            x = x + self.position_embedding(positions)
        elif config.position == "sinusoidal":
            # Vaswani et al. (2017), section 3.4: without the factor, sinusoids of amplitude 1 drown the tokens.
            x = x * math.sqrt(config.d_model) + sinusoidal(positions, config.d_model).to(x.dtype)
        elif config.position == "rope":
            rope = rope_tables(positions / config.rope_scale, config.head_dim, config.rope_base)
        return self.drop(x), rope

    def _prefix_mask(self, T: int, prefix: int | Tensor, start: int, device: torch.device) -> Tensor | None:
        if isinstance(prefix, int) and prefix == 0:
            return None
        if self.config.window is not None:
            raise ValueError("a bidirectional prefix and a sliding window exclude each other")
        if start:
            raise ValueError("the prefix must be read in one pass, into an empty cache")
        return prefix_mask(T, prefix, device=device)


def xavier(model: GPT) -> GPT:
    """Give every block the weights that the analysis of Xiong et al. (2020) starts from, in place.

    Glorot & Bengio (2010), equation 12: variance 2 / (inputs + outputs), drawn from a normal distribution. It is the
    same for layers that write into the residual stream; queries, keys and values count as three matrices.
    """
    for name, layer in model.blocks.named_modules():
        if isinstance(layer, nn.Linear):
            for part in layer.weight.split(layer.in_features) if name.endswith("qkv") else [layer.weight]:
                nn.init.xavier_normal_(part.data)
    return model
