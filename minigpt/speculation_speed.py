"""What speculative decoding gains, measured end to end and predicted from the prices of its parts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from minigpt.decoding.readers import cache_for
from minigpt.decoding.sampling import generate
from minigpt.decoding.speculative import Speculation, acceptance_probability, expected_speedup, speculate, verify
from minigpt.evaluation.timing import Timing, measure
from minigpt.model import GPT


@dataclass(frozen=True)
class Speed:
    """One draft with one γ. Costs are in plain steps of the target, as it decodes alone."""

    gamma: int
    acceptance: float  # share of the tested drafts that were accepted
    tokens_per_pass: float  # counted
    alpha: float  # mean acceptance probability on the target's own texts
    draft_cost: float  # c: a step of the draft
    verify_cost: float  # v: a pass of the target over γ + 1 tokens, and the acceptance test
    measured: float  # speed-up over plain decoding, ratio of median times
    low: float  # … with the less favourable quartiles
    high: float

    @property
    def textbook(self) -> float:
        """Leviathan et al. (2023), theorem 3.8, which takes a pass over γ + 1 tokens to cost one step."""
        return expected_speedup(self.alpha, self.gamma, self.draft_cost)

    @property
    def predicted(self) -> float:
        """The same with the measured price of verification."""
        return expected_speedup(self.alpha, self.gamma, self.draft_cost, self.verify_cost)


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
        return sum(getattr(s, above) for s in self.speculations) / sum(getattr(s, below) for s in self.speculations)


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
        Speed(
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
