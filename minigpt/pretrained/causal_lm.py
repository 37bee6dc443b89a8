"""Scoring and continuing text with somebody else's model: any causal language model of Transformers' interface.

Nothing here knows an architecture. A model is called as ``model(input_ids, past_key_values=…, use_cache=…)`` and
answers with ``logits`` (B, T, V); what it can hold is read from its configuration.
"""

import itertools
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from minigpt.checks import whole
from minigpt.decoding.sampling import PLAIN, Processor, Sampling, decode
from minigpt.evaluation.evaluate import Evaluation
from minigpt.pretrained.full_context import FullReader
from minigpt.pretrained.limits import context_of, keeping


@torch.inference_mode()
def row_losses(model: Any, ids: Tensor, *, batch_size: int = 4) -> Tensor:
    """-ln p of every token but the first, given those before it in its row, (B, T) → (B, T-1), nats.

    Row b, column t is the loss of token t+1: logits at t predict the next token. The last token is not read.

    Raises:
        ValueError: rows of fewer than 2 tokens, or of more than the model's context and one.
    """
    if ids.ndim != 2 or not 2 <= ids.shape[1] <= context_of(model) + 1:
        raise ValueError(f"rows must have 2 to {context_of(model) + 1} tokens, got {tuple(ids.shape)}")
    found = []
    for rows in ids.split(batch_size):
        logits = model(rows[:, :-1], use_cache=False).logits.float()
        losses = F.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten(), reduction="none")
        found.append(losses.view(len(rows), -1))
    return torch.cat(found)


@dataclass(frozen=True)
class ScoredText:
    """A text under a model: the loss of each token but the first, which nothing precedes."""

    losses: Tensor  # (N,) nats, on the CPU
    pieces: tuple[str, ...]  # the N scored tokens, each decoded alone
    text: str  # what they cover
    ends: tuple[int, ...] = ()  # where each piece ends in the text

    @property
    def tokens(self) -> int:
        """N."""
        return len(self.losses)

    @property
    def n_bytes(self) -> int:
        """UTF-8 length of the text."""
        return len(self.text.encode())

    @property
    def nats(self) -> float:
        """Mean loss per token."""
        return self.losses.double().mean().item()

    @property
    def perplexity(self) -> float:
        """Per token; infinite where that is more than a float can be."""
        return Evaluation(self.nats, self.tokens).perplexity

    @property
    def bytes_per_token(self) -> float:
        """How much text a token stands for."""
        return self.n_bytes / self.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits to encode the text over its bytes."""
        return self.losses.double().sum().item() / math.log(2) / self.n_bytes


def score_text(model: Any, tokenizer: Any, text: str, *, tokens: int, window: int, batch_size: int = 4) -> ScoredText:
    """Loss of the first ``tokens`` tokens after the first, in windows that follow each other without overlap.

    The first tokens of a window have little to go by: compare texts and models only at the same window. ``tokenizer``
    is a fast one of Transformers, which knows what part of the text each token stands for.

    Raises:
        ValueError: a text of fewer than two tokens, nothing to score, or a window below 1.
    """
    whole("tokens", tokens, 1)
    whole("window", window, 1)
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    ids, offsets = torch.tensor(encoded["input_ids"]), encoded["offset_mapping"]
    if len(ids) < 2:
        raise ValueError(f"the text must have at least 2 tokens, got {len(ids)}")
    tokens = min(tokens, len(ids) - 1)
    device = next(model.parameters()).device
    rows = target_windows(ids[: tokens + 1].to(device), min(window, context_of(model)))
    losses = [row_losses(model, batch, batch_size=batch_size).flatten() for batch in rows]
    pieces = tuple(tokenizer.decode([token]) for token in ids[1 : tokens + 1].tolist())
    start = offsets[0][1]
    ends = tuple(itertools.accumulate((end - start for _, end in offsets[1 : tokens + 1]), max))
    return ScoredText(torch.cat(losses).cpu(), pieces, text[start : offsets[tokens][1]], ends)


def target_windows(ids: Tensor, window: int) -> list[Tensor]:
    """Rows with each token but the first as a target once, (N + 1,) → (B, window + 1), and what is left, (1, T + 1).

    Each window begins with the last token of the one before it, which it reads and does not score.
    """
    count, rest = divmod(len(ids) - 1, window)
    starts = torch.arange(count, device=ids.device) * window
    full = ids[starts[:, None] + torch.arange(window + 1, device=ids.device)]
    return [rows for rows in (full, ids[None, len(ids) - 1 - rest :]) if rows.numel() > 1]


@torch.inference_mode()
def first_choices(model: Any, ids: Tensor) -> tuple[Tensor, Tensor]:
    """The likeliest token in the place of every token but the first, and its probability, (B, T) → (B, T-1) twice."""
    probability, choice = model(ids[:, :-1], use_cache=False).logits.float().softmax(dim=-1).max(dim=-1)
    return choice, probability


def ordinary_tokens(tokenizer: Any) -> Tensor:
    """Ids of the tokens that stand for text, (N,): none that is special, was added, or is written like one, ``<…>``."""
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    names = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    marked = {i for i, name in enumerate(names) if not name or re.fullmatch("<.+>", name, re.DOTALL)}
    return torch.tensor([i for i in range(len(names)) if i not in special | marked])


@torch.inference_mode()
def continuation_losses(model: Any, prompt: Sequence[int], continuation: Sequence[int]) -> Tensor:
    """-ln p of the tokens of a continuation, (N,), nats; the prompt is read but not scored.

    What fits into the model's context is read at once. Of a longer text each token is given at least half a context
    of those before it, or all of them where there are fewer.

    Raises:
        ValueError: an empty prompt or continuation.
    """
    if not prompt or not continuation:
        raise ValueError(f"cannot score {len(continuation)} tokens after {len(prompt)}")
    ids, room = [*prompt, *continuation], context_of(model) + 1  # the last token of a row is not read
    step = len(continuation) if len(ids) <= room else room // 2
    device, losses = next(model.parameters()).device, []
    for start in range(len(prompt), len(ids), step):
        end = min(start + step, len(ids))
        row = torch.tensor([ids[max(0, end - room) : end]], device=device)
        losses.append(row_losses(model, row)[0, start - end :])
    return torch.cat(losses)


@torch.inference_mode()
def ragged_losses(model: Any, rows: Sequence[Sequence[int]], *, tokens_at_once: int = 512) -> list[Tensor]:
    """``row_losses`` of rows of different lengths, (T - 1,) of each.

    Rows of similar length are read together, the shorter ones filled up at their ends, where nothing before it sees
    it: a pass over one short row is spent on fetching the weights.
    """
    device, found = next(model.parameters()).device, dict[int, Tensor]()
    waiting = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    while waiting:
        longest = len(rows[waiting[-1]])
        batch = waiting[-max(1, tokens_at_once // longest) :]
        del waiting[-len(batch) :]
        filled = [[*rows[i], *[0] * (longest - len(rows[i]))] for i in batch]
        losses = row_losses(model, torch.tensor(filled, device=device), batch_size=len(batch))
        found |= {i: row[: len(rows[i]) - 1] for i, row in zip(batch, losses, strict=True)}
    return [found[i] for i in range(len(rows))]


@torch.inference_mode()
def losses_under(model: Any, ids: Tensor, start: int, processors: Sequence[Processor]) -> Tensor:
    """-ln p of tokens ``start`` … T - 1 of a text (T,), had each processor changed the logits, (P, T - start), nats.

    One pass over the text serves all processors.

    Raises:
        ValueError: nothing to score, nothing before it, or a text beyond the model's context.
    """
    if not 1 <= start < len(ids) <= context_of(model) + 1:
        raise ValueError(f"cannot score tokens {start} to {len(ids) - 1}: context {context_of(model)}")
    count = len(ids) - start
    logits = model(ids[None, :-1], use_cache=False, **keeping(model, count)).logits[0, -count:].float()  # (N, V)
    losses = [
        -process(ids[None, :end], logits[None, end - start]).log_softmax(dim=-1)[0, ids[end]]
        for process in processors
        for end in range(start, len(ids))
    ]
    return torch.stack(losses).view(len(processors), -1)


def score_continuation(model: Any, tokenizer: Any, prompt: str, continuation: str) -> ScoredText:
    """One of them; see ``score_continuations``."""
    return score_continuations(model, tokenizer, [(prompt, continuation)])[0]


def score_continuations(model: Any, tokenizer: Any, texts: Sequence[tuple[str, str]]) -> list[ScoredText]:
    """Continuations of prompts under a model, whatever its tokens; a prompt is read, not scored.

    The two are tokenised as the one text that they are. A token that begins in the prompt and reaches into the
    continuation belongs to neither: it is read, not scored, and the scored text begins after it. There is none where
    the prompt ends with a word and the continuation begins with a space.

    Raises:
        ValueError: no token before the continuation, or none in it.
    """
    cut: list[tuple[list[int], int, str]] = []  # tokens, how many are not scored, text of the others
    for prompt, continuation in texts:
        encoded = tokenizer(prompt + continuation, add_special_tokens=False, return_offsets_mapping=True)
        ids, offsets = encoded["input_ids"], encoded["offset_mapping"]
        first = sum(start < len(prompt) for start, _ in offsets)
        if not 0 < first < len(ids):
            raise ValueError(f"cannot score {len(ids) - first} tokens after {first}")
        cut.append((ids, first, (prompt + continuation)[max(len(prompt), offsets[first - 1][1]) :]))
    short = [ids for ids, _, _ in cut if len(ids) <= context_of(model) + 1]
    together = iter(ragged_losses(model, short))
    found = []
    for ids, first, covered in cut:
        whole = len(ids) <= context_of(model) + 1
        losses = next(together)[first - 1 :] if whole else continuation_losses(model, ids[:first], ids[first:])
        found.append(ScoredText(losses.cpu(), tuple(tokenizer.decode([token]) for token in ids[first:]), covered))
    return found


def continue_text(
    model: Any,
    prompt: Tensor,  # (B, T) int64
    n_new: int,
    *,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
    processors: Sequence[Processor] = (),
) -> Tensor:
    """Continue prompts of equal length by ``n_new`` tokens with the model's own cache, (B, T) → (B, T + n_new).

    See ``minigpt.decoding.sampling.decode``. A model that ends a text goes on all the same: samples of equal length
    can be compared.

    Raises:
        ValueError: the text would be longer than the model's context.
    """
    if prompt.shape[1] + n_new > context_of(model):
        raise ValueError(f"{prompt.shape[1]} + {n_new} tokens are beyond the context of {context_of(model)}")
    return decode(FullReader(model), prompt, n_new, sampling, generator, processors)
