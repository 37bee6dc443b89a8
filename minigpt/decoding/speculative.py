"""Speculative decoding: a small model drafts, a large one verifies several tokens in one pass.

    draft     γ tokens x̃₁ … x̃_γ, one at a time, from the draft's distribution q
    verify    all of them in one pass of the target, which gives γ + 1 distributions p
    accept    x̃_i with probability min(1, p(x̃_i) / q(x̃_i)), up to the first rejection
    emit      a correction from (p - q)₊ after a rejection, a bonus token from p when all were accepted

What is emitted is distributed exactly as the target's own samples are, whatever the draft: a bad draft costs time,
never quality. Sources: Leviathan, Kalman & Matias (2023), https://arxiv.org/abs/2211.17192, algorithm 1;
Chen et al. (2023), https://arxiv.org/abs/2302.01318, algorithm 2.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from minigpt.cache import KVCache
from minigpt.checks import number, prompt_of, share, whole
from minigpt.decoding.readers import cache_for
from minigpt.decoding.sampling import PLAIN, Sampling, distribution
from minigpt.evaluation.evaluate import evaluating
from minigpt.model import GPT


@dataclass
class Speculation:
    """The text, and what it took. Drafts are counted over the batch, passes and emitted tokens once for all rows."""

    tokens: Tensor  # (B, T + n_new), the prompt included
    passes: int = 0  # of the target over the batch, each of which verifies; the first reads the prompt, too
    emitted: int = 0  # tokens per row since the prompt
    tested: int = 0  # drafts compared with the target: those up to and including the first rejection
    accepted: int = 0

    @property
    def acceptance_rate(self) -> float:
        """Share of the tested drafts that were accepted, the α of Leviathan et al.; NaN when none was tested."""
        return self.accepted / self.tested if self.tested else float("nan")

    @property
    def tokens_per_pass(self) -> float:
        """Tokens emitted per verification; 1 is plain decoding."""
        return self.emitted / self.passes if self.passes else float("nan")


Watch = Callable[[Tensor, Tensor, Tensor, int, Tensor], None]
"""Called after each pass: p (B, γ + 1, V), q (B, γ, V), the drafts (B, γ), how many stand, the token added (B, 1)."""


@torch.inference_mode()
def speculate(
    target: GPT,
    draft: GPT,
    prompt: Tensor,  # (B, T) int64, T >= 1
    n_new: int,
    *,
    gamma: int = 4,
    sampling: Sampling = PLAIN,
    generator: torch.Generator | None = None,
    watch: Watch | None = None,
) -> Speculation:
    """Continue prompts by ``n_new`` tokens drawn from the target, with the draft's help.

    Both models are warped alike; temperature 0 gives the target's greedy tokens. The rows of a batch advance in
    lockstep, by as many tokens as the row that was rejected first: the place where *any* row is rejected is a
    stopping time, so each row is still distributed as the target's, and one cache length serves all of them.
    With one row this is the algorithm of the papers. All of the text is read, unlike in ``generate``, which keeps to
    the length of training.

    Raises:
        ValueError: γ < 1, an empty prompt or one of unknown tokens, fewer than 0 tokens to write, two vocabularies,
            more tokens than one of the models has positions for, or logits that are no distribution.
    """
    whole("gamma", gamma, 1)
    prompt_of(prompt, target.config.vocab_size)
    end = prompt.shape[1] + whole("n_new", n_new, 0)
    _check(target, draft, end)
    result = Speculation(prompt)
    caches = [cache_for(model, len(prompt), end) for model in (target, draft)]
    with evaluating(target), evaluating(draft):
        while (room := end - result.tokens.shape[1]) > 0:
            length = result.tokens.shape[1]
            tokens, q = result.tokens, []
            for _ in range(min(gamma, room - 1)):  # a pass emits one token more than it drafts
                q.append(_distribution(draft, tokens, caches[1], 1, sampling))
                tokens = torch.cat([tokens, draw(q[-1], generator)], dim=1)
            p = _distribution(target, tokens, caches[0], len(q) + 1, sampling)  # (B, γ + 1, V)
            drafted = tokens[:, length:]
            drafts_q = torch.cat(q, dim=1) if q else p[:, :0]
            kept, emitted = verify(p, drafts_q, drafted, generator)
            n = int(kept.min())  # drafts that every row accepts
            if watch:
                watch(p, drafts_q, drafted, n, emitted[:, n : n + 1])
            result.tokens = torch.cat([tokens[:, : length + n], emitted[:, n : n + 1]], dim=1)
            result.passes += 1
            result.emitted += n + 1
            result.tested += len(prompt) * min(n + 1, len(q))
            result.accepted += int(kept.clamp(max=n + 1).sum())
            # Rejected drafts leave the caches. When all were accepted the draft has not read its last one yet:
            # its cache is then one shorter than the target's and reads two tokens next time.
            for cache in caches:
                cache.rewind(min(cache.length, length + n))
    return result


def verify(p: Tensor, q: Tensor, drafted: Tensor, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
    """Which drafts stand, and the token to emit at each place where they end.

    p (B, γ + 1, V) and q (B, γ, V) are the warped distributions of target and draft, ``drafted`` (B, γ) was drawn
    from q. Returns the number of drafts that each row accepts (B,), and tokens (B, γ + 1): at the first rejection a
    draw from (p - q)₊ renormalised, before it the accepted drafts themselves, at the end a draw from p.
    """
    B, gamma = drafted.shape
    uniform = torch.rand(B, gamma, generator=generator, device=_device(generator, p)).to(p.device)
    chosen = drafted[..., None]
    # u · q < p rather than u < p / q: no division, and a draft of target probability 0 is never accepted.
    accept = uniform * q.gather(-1, chosen)[..., 0] < p[:, :gamma].gather(-1, chosen)[..., 0]  # (B, γ)
    kept = accept.cumprod(dim=1).sum(dim=1)
    excess = (p[:, :gamma] - q).clamp(min=0)
    # p = q leaves nothing over, up to rounding; it is then never rejected, but the draw below needs some mass.
    excess = torch.where(excess.sum(dim=-1, keepdim=True) > 0, excess, p[:, :gamma])
    emitted = draw(torch.cat([excess, p[:, gamma:]], dim=1), generator)
    emitted[:, :gamma] = torch.where(accept, drafted, emitted[:, :gamma])
    return kept, emitted


def draw(weights: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One index per row of non-negative weights, (B, T, V) → (B, T), drawn on the generator's device.

    Raises:
        ValueError: weights that cannot be drawn from: negative, infinite, not numbers, or all 0.
    """
    flat = weights.reshape(-1, weights.shape[-1]).to(_device(generator, weights))
    try:
        return torch.multinomial(flat, 1, generator=generator).view(weights.shape[:-1]).to(weights.device)
    except RuntimeError as error:
        raise ValueError(f"weights must be finite, none negative and one above 0: {error}") from error


def expected_tokens(alpha: float, gamma: int) -> float:
    """Tokens per verification when drafts are accepted independently with probability α.

    (1 - α^(γ+1)) / (1 - α): Leviathan et al. (2023), equation 1.

    Raises:
        ValueError: α is no probability, or γ no whole number from 0 up.
    """
    share("alpha", alpha)
    whole("gamma", gamma, 0)
    return gamma + 1.0 if alpha == 1.0 else (1.0 - alpha ** (gamma + 1)) / (1.0 - alpha)


def expected_speedup(alpha: float, gamma: int, draft_cost: float, verify_cost: float = 1.0) -> float:
    """Expected tokens over expected time, with times in units of one plain step of the target.

    With ``draft_cost`` = c, a step of the draft, and ``verify_cost`` = 1 this is Leviathan et al. (2023),
    theorem 3.8. They take a pass over γ + 1 tokens to cost no more than one over a single token, which holds where
    memory bandwidth is the limit; elsewhere ``verify_cost`` has to be measured.

    Raises:
        ValueError: see ``expected_tokens``; or a cost is negative, that of verifying also if it is 0.
    """
    number("draft_cost", draft_cost, lambda x: x >= 0, "a finite number from 0 up")
    number("verify_cost", verify_cost, lambda x: x > 0, "a positive finite number")
    return expected_tokens(alpha, gamma) / (gamma * draft_cost + verify_cost)


@torch.inference_mode()
def acceptance_probability(target: GPT, draft: GPT, tokens: Tensor, *, sampling: Sampling = PLAIN) -> Tensor:
    """Σ_x min(p(x), q(x)) after each token of texts (B, T), (B, T): the chance that a draft is accepted there.

    Its mean is α without any sampling noise. Source: Leviathan et al. (2023), corollary 3.6.
    """
    [found] = acceptance_probabilities(target, [draft], tokens, sampling=sampling)
    return found


@torch.no_grad()
def acceptance_probabilities(
    target: GPT, drafts: Sequence[GPT], tokens: Tensor, *, sampling: Sampling = PLAIN
) -> list[Tensor]:
    """``acceptance_probability`` of each draft, (B, T) → (B, T) each; the target reads the texts once."""

    def after_each(model: GPT) -> Tensor:
        with evaluating(model):
            return distribution(model(tokens).float(), sampling)

    p = after_each(target)
    return [torch.minimum(p, after_each(draft)).sum(dim=-1) for draft in drafts]


def _distribution(model: GPT, tokens: Tensor, cache: KVCache, last: int, sampling: Sampling) -> Tensor:
    """Read what the cache has not read yet; the warped distributions after the last tokens, (B, last, V)."""
    logits = model(tokens[:, cache.length :], cache=cache)[:, -last:]
    return distribution(logits.float(), sampling)


def _device(generator: torch.Generator | None, like: Tensor) -> torch.device:
    return generator.device if generator is not None else like.device


def _check(target: GPT, draft: GPT, end: int) -> None:
    if target.config.vocab_size != draft.config.vocab_size:
        raise ValueError(f"vocabularies of {target.config.vocab_size} and {draft.config.vocab_size} tokens")
    for model in (target, draft):
        if model.position_embedding is not None and end - 1 > model.config.context:
            raise ValueError(f"{end} tokens need more than the {model.config.context} learned positions")
