"""What speculative decoding gains, measured end to end and predicted from the prices of its parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minigpt.decoding.readers import cache_for
from minigpt.decoding.sampling import generate
from minigpt.decoding.speculative import (
    Speculation,
    acceptance_probability,
    expected_speedup,
    expected_tokens,
    speculate,
    verify,
)
from minigpt.evaluation.timing import Timing, measure
from minigpt.model import GPT
from tasks.exercises.ex27_speculative_decoding.findings import Speed


@dataclass
class _Writer:
    """Writes one text each time it is called, from the next of the prompts, and keeps it."""

    write: Callable[[Tensor], Tensor | Speculation]
    prompts: Tensor
    texts: list[Tensor] = field(default_factory=list)
    speculations: list[Speculation] = field(default_factory=list)

    def __call__(self) -> None:
        done = len(self.texts)
        result = self.write(self.prompts[done % len(self.prompts)][None])
        if isinstance(result, Speculation):
            self.speculations.append(result)
        self.texts.append(result.tokens if isinstance(result, Speculation) else result)

    def share(self, above: str, below: str) -> float:
        """Sum of one count over the sum of another, over all texts."""
        whole = sum(int(getattr(s, below)) for s in self.speculations)
        return sum(int(getattr(s, above)) for s in self.speculations) / whole


def pass_times(model: GPT, counts: Sequence[int], *, length: int, repeats: int) -> dict[int, Timing]:
    """Time of a pass over each number of tokens, after ``length`` cached ones."""
    device = model.token_embedding.weight.device
    cache = cache_for(model, 1, length + max(counts))
    cache.advance(length)

    def reader(count: int) -> Callable[[], None]:
        tokens = torch.zeros(1, count, dtype=torch.long, device=device)

        def read() -> None:
            model(tokens, cache=cache)
            cache.rewind(length)

        return read

    timings = measure({str(n): reader(n) for n in counts}, repeats=repeats, warmup=3, device=device)
    return {int(count): timing for count, timing in timings.items()}


def verification_times(
    vocab_size: int, gammas: Sequence[int], *, repeats: int, device: torch.device
) -> dict[int, Timing]:
    """Time of the acceptance test alone, by γ."""

    def tester(gamma: int) -> Callable[[], object]:
        p = torch.full((1, gamma + 1, vocab_size), 1.0 / vocab_size, device=device)
        drafted = torch.zeros(1, gamma, dtype=torch.long, device=device)
        return lambda: int(verify(p, p[:, 1:], drafted)[0])  # the number is waited for, as in decoding

    timings = measure({str(gamma): tester(gamma) for gamma in gammas}, repeats=repeats, warmup=3, device=device)
    return {int(gamma): timing for gamma, timing in timings.items()}


def time_speculation(
    target: GPT,
    draft: GPT,
    prompts: Tensor,  # (N, T); one text is written at a time
    n_new: int,
    *,
    gammas: Sequence[int],
    passes: Mapping[int, Timing],  # of the target, over 1 and every γ + 1 tokens
    repeats: int,
    generator: torch.Generator,
) -> list[Speed]:
    """Plain decoding, the draft alone and speculation with every γ, in turn on the same prompts."""
    plain = _Writer(lambda prompt: generate(target, prompt, n_new, generator=generator), prompts)
    alone = _Writer(lambda prompt: generate(draft, prompt, n_new, generator=generator), prompts)
    writers = {
        gamma: _Writer(
            lambda prompt, gamma=gamma: speculate(  # type: ignore[misc]
                target, draft, prompt, n_new, gamma=gamma, generator=generator
            ),
            prompts,
        )
        for gamma in gammas
    }
    functions = {"plain": plain, "alone": alone} | {str(gamma): writer for gamma, writer in writers.items()}
    timings = measure(functions, repeats=repeats, device=prompts.device)
    alpha = acceptance_probability(target, draft, torch.cat(plain.texts))[:, prompts.shape[1] - 1 : -1].mean().item()
    base, step = timings["plain"], timings["plain"].median / n_new
    tests = verification_times(target.config.vocab_size, gammas, repeats=passes[1].repeats, device=prompts.device)
    return [
        predicted(
            gamma=gamma,
            acceptance=writer.share("accepted", "tested"),
            tokens_per_pass=writer.share("emitted", "passes"),
            alpha=alpha,
            draft_cost=timings["alone"].median / base.median,
            # What a longer pass costs more than a short one; drawing a token is in the plain step already.
            verify_cost=1.0 + (passes[gamma + 1].median - passes[1].median + tests[gamma].median) / step,
            measured=base.median / timings[str(gamma)].median,
            low=base.low / timings[str(gamma)].high,
            high=base.high / timings[str(gamma)].low,
        )
        for gamma, writer in writers.items()
    ]


def predicted(
    *,
    gamma: int,
    acceptance: float,
    tokens_per_pass: float,
    alpha: float,
    draft_cost: float,
    verify_cost: float,
    measured: float,
    low: float,
    high: float,
) -> Speed:
    """What was measured, and what it should be by α and the costs; see ``Speed``."""
    return Speed(
        gamma=gamma,
        acceptance=acceptance,
        tokens_per_pass=tokens_per_pass,
        expected_tokens=expected_tokens(alpha, gamma),
        alpha=alpha,
        draft_cost=draft_cost,
        verify_cost=verify_cost,
        textbook=expected_speedup(alpha, gamma, draft_cost),
        predicted=expected_speedup(alpha, gamma, draft_cost, verify_cost),
        measured=measured,
        low=low,
        high=high,
    )
