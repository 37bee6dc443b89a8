"""How well a model predicts a text: over the whole of it, in contiguous windows, without chance."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.checks import token_ids, whole
from minigpt.model import GPT

TOKENS_AT_ONCE = {"cpu": 2**11}  # larger batches fall out of the processor's caches
LOGITS_AT_ONCE = 2**24  # 64 MiB of fp32: a vocabulary may be 50,257


@dataclass(frozen=True)
class Evaluation:
    """The loss on a text. Perplexities under different tokenizers cannot be compared, bits per byte can."""

    nats_per_token: float
    tokens: int  # scored: all but the first
    n_bytes: int | None = None  # UTF-8 bytes of the whole text

    @property
    def perplexity(self) -> float:
        """exp of the mean negative log-likelihood per token; infinite where that is more than a float can be."""
        try:
            return math.exp(self.nats_per_token)
        except OverflowError:
            return math.inf

    @property
    def bits_per_token(self) -> float:
        """The loss in bits; per character where a token is one."""
        return self.nats_per_token / math.log(2)

    @property
    def bits_per_byte(self) -> float:
        """Bits to encode the text, its first token excepted, over its UTF-8 bytes.

        Raises:
            ValueError: the number of bytes was not given.
        """
        if not self.n_bytes:
            raise ValueError("bits per byte needs n_bytes, the UTF-8 length of the text")
        return self.bits_per_token * self.tokens / self.n_bytes


@contextmanager
def evaluating(model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode (no dropout), and back to what it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def token_losses(
    model: GPT,
    tokens: Tensor,  # (N,) int64
    context: int | None = None,
    batch_size: int | None = None,
    *,
    stride: int | None = None,
) -> Tensor:
    """Negative log-likelihood of tokens 1 … N - 1, each once, (N - 1,) float32 in nats.

    Windows of ``context`` (default: the model's own) follow each other without overlap, so that the first
    tokens of a window have little to go by. With ``stride`` < ``context`` the windows overlap, each scores only
    its last ``stride`` targets, and every token past the first window has at least context - stride before it.

    Raises:
        ValueError: fewer than two tokens or unknown ones, a stride outside 1 … context, or a batch of none.
    """
    context = model.config.context if context is None else whole("context", context, 1)
    stride = context if stride is None else whole("stride", stride)
    if batch_size is not None:
        whole("batch_size", batch_size, 1)
    token_ids("tokens", tokens, model.config.vocab_size, 1)
    if len(tokens) < 2 or not 1 <= stride <= context:
        raise ValueError(f"need two tokens and 1 <= stride <= context, got {len(tokens)}, {stride}, {context}")
    at_once = min(TOKENS_AT_ONCE.get(tokens.device.type, 2**15), LOGITS_AT_ONCE // model.config.vocab_size)
    batch_size = batch_size or max(1, at_once // context)
    targets = len(tokens) - 1
    first = min(context, targets)
    span = torch.arange(first + 1, device=tokens.device)
    starts = torch.arange(stride, max(stride, targets - first + 1), stride, device=tokens.device)
    with torch.inference_mode(), evaluating(model):
        losses = [_window_losses(model, tokens[None, : first + 1])[0]]
        for chunk in starts.split(batch_size):
            if len(chunk):  # none where the text is one window
                losses.append(_window_losses(model, tokens[chunk[:, None] + span])[:, -stride:].flatten())
        done = sum(len(piece) for piece in losses)
        if done < targets:  # what is left is shorter than a stride
            begin = targets - context if stride < context else done
            losses.append(_window_losses(model, tokens[None, begin:])[0, done - begin :])
    return torch.cat(losses)  # outside of inference mode: an ordinary tensor


def _window_losses(model: GPT, window: Tensor) -> Tensor:
    logits = model(window[:, :-1])
    return F.cross_entropy(logits.flatten(0, 1).float(), window[:, 1:].flatten(), reduction="none").view_as(
        window[:, 1:]
    )


def evaluate(
    model: GPT,
    tokens: Tensor,
    *,
    n_bytes: int | None = None,
    context: int | None = None,
    stride: int | None = None,
    batch_size: int | None = None,
) -> Evaluation:
    """The mean loss over a whole split; see ``token_losses``."""
    losses = token_losses(model, tokens, context, batch_size, stride=stride)
    return Evaluation(losses.double().mean().item(), len(losses), n_bytes)
