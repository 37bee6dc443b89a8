"""What a generation should cost, in FLOPs and in seconds."""

from dataclasses import dataclass

from minigpt.checks import whole
from minigpt.config import GPTConfig
from minigpt.cost.counting import forward_flops


def step_flops(config: GPTConfig, queries: int, keys: int) -> int:
    """FLOPs of a pass over the last ``queries`` of ``keys`` tokens, with the logits of the last one."""
    return forward_flops(config, 1, queries, cached=keys - queries, last_only=True)


def generation_flops(config: GPTConfig, prompt: int, n_new: int) -> tuple[int, int]:
    """FLOPs of ``n_new`` tokens after a prompt: everything read again each time, and each token read once.

    Raises:
        ValueError: a prompt or a number of tokens below 1.
    """
    whole("prompt", prompt, 1)
    whole("n_new", n_new, 1)
    lengths = range(prompt, prompt + n_new)
    uncached = sum(step_flops(config, n, n) for n in lengths)
    return uncached, step_flops(config, prompt, prompt) + sum(step_flops(config, 1, n) for n in lengths[1:])


@dataclass(frozen=True)
class CostModel:
    """Seconds of a forward pass = overhead + FLOPs / rate."""

    overhead: float  # seconds
    rate: float  # FLOPs per second

    @classmethod
    def fit(cls, config: GPTConfig, one_token: float, whole_context: float) -> "CostModel":
        """From the seconds of one token in a cache of half the context, and of the whole context at once."""
        small = step_flops(config, 1, config.context // 2)
        large = step_flops(config, config.context, config.context)
        rate = (large - small) / max(whole_context - one_token, 1e-9)
        return cls(max(0.0, one_token - small / rate), rate)

    def seconds(self, config: GPTConfig, prompt: int, n_new: int) -> tuple[float, float]:
        """Predicted time of a generation without cache, and with it."""
        uncached, cached = (n_new * self.overhead + f / self.rate for f in generation_flops(config, prompt, n_new))
        return uncached, cached
