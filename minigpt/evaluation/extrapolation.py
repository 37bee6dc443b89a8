"""Reading further than was ever trained: the loss by position, and what has been proposed to keep it low."""

from collections.abc import Mapping

from torch import Tensor

from minigpt.checks import whole
from minigpt.evaluation.evaluate import token_losses
from minigpt.files import reconfigured
from minigpt.model import GPT


def losses_by_bucket(
    model: GPT, tokens: Tensor, length: int, bucket: int, *, restart: int | None = None
) -> list[float]:
    """Mean loss of the targets in each bucket of positions, in nats per token, over windows of ``length`` tokens.

    Windows follow each other without overlap; what is left at the end of ``tokens`` (N,) is not read. With
    ``restart`` the model begins anew at every multiple of it within a window and scores the very same targets.

    Raises:
        ValueError: less than one window, or a bucket or restart that does not divide the length.
    """
    whole("length", length, 1)
    whole("bucket", bucket, 1)
    restart = length if restart is None else whole("restart", restart, 1)
    count = (len(tokens) - 1) // length
    if count < 1 or length % bucket or length % restart:
        raise ValueError(f"cannot cut {len(tokens)} tokens into windows of {length} in buckets of {bucket}")
    losses = token_losses(model, tokens[: count * length + 1], context=restart)
    means: list[float] = losses.view(count, length // bucket, bucket).double().mean(dim=(0, 2)).tolist()
    return means


def readings(model: GPT, length: int) -> Mapping[str, GPT]:
    """A rotary model read in the ways that have been proposed for texts of ``length`` tokens; no weight changes.

    - as it is;
    - positions interpolated: divided by the factor by which the text is longer (Chen et al., 2023,
      https://arxiv.org/abs/2306.15595, section 2.3);
    - NTK-aware base: b·s^(D/(D-2)) turns the slowest pair as interpolation does and leaves the fastest alone
      (Peng et al., 2023, https://arxiv.org/abs/2309.00071, section 3.1);
    - a window of the training length: no distance that training has not seen, and the rest of the text given up.

    Raises:
        ValueError: a length below 1; or the model has no rotary positions, or a single pair of them, which is the
            fastest and the slowest.
    """
    config = model.config
    whole("length", length, 1)
    if config.position != "rope" or config.head_dim <= 2:
        raise ValueError(f"no rotary positions that could be read anew: {config.position!r}, width {config.head_dim}")
    scale = length / config.context
    stretched = config.rope_base * scale ** (config.head_dim / (config.head_dim - 2))
    return {
        "RoPE": model,
        "RoPE, positions interpolated": reconfigured(model, rope_scale=scale),
        "RoPE, NTK-aware base": reconfigured(model, rope_base=stretched),
        "RoPE, window of the training length": reconfigured(model, window=config.context),
    }
